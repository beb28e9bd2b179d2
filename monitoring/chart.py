"""The console's chart: a page whose script draws what UDF answers, and the tickets with which it asks."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from marketdata.compat import udf, udf_tickets
from marketdata.compat.udf_times import RESOLUTIONS

REFRESH_MS: Final = 2000

NAMES: Final = {
    "1": gettext_lazy("1 min"),
    "5": gettext_lazy("5 min"),
    "15": gettext_lazy("15 min"),
    "30": gettext_lazy("30 min"),
    "60": gettext_lazy("1 hour"),
    "1D": gettext_lazy("day"),
    "1W": gettext_lazy("week"),
    "1M": gettext_lazy("month"),
}
"""What people call UDF's resolutions."""


def _require_permission(request: HttpRequest) -> None:
    if not request.user.has_perm("marketdata.view_instrument"):
        raise PermissionDenied


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """The page itself, without data."""
    _require_permission(request)
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": _("Chart"),
        "resolutions": [(word, NAMES[word]) for word in RESOLUTIONS],
        "refresh_ms": REFRESH_MS,
    }
    return TemplateResponse(request, "admin/chart.html", context)


@require_POST
def ticket(request: HttpRequest) -> JsonResponse:
    """A ticket for the page's script, which asks for another one when it is no longer good."""
    _require_permission(request)
    # ``admin_view`` lets nobody through who has no number.
    address = f"{udf.PREFIX}{udf_tickets.issue_to_person(int(request.user.pk))}"  # type: ignore[arg-type]
    return JsonResponse({"url": address, "expires_in": udf_tickets.PERSONS_SECONDS}, headers={"Cache-Control": "no-store"})

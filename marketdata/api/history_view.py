"""The DRF view of history: what describes it in the schema, and what answers where Django serves alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from argus import requestid
from argus.access.principal import Principal
from argus.config import config
from argus.errors import MESSAGE_TOO_BIG, ArgusError
from marketdata.api import history
from marketdata.api.history_schema import BODY, HEADERS, PARAMETERS, RESPONSES
from marketdata.api.query import Query

DESCRIPTION = _(
    "Bars are stamped at their end; the opening auction is the 1m bar of 09:30 and part of the first bar of longer periods. "
    "Also under /hist_kline and /api/hist_kline, where parameters may have xtdata's names "
    "(stock_list, start_time, end_time, dividend_type, field_list)."
)


class _AsAsked(BaseContentNegotiation):
    """Leaves the choice to the answer, which has formats of its own and says itself where none fits."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type or ""


class History(APIView):
    content_negotiation_class = _AsAsked
    terminal_names = False

    @extend_schema(
        operation_id="history",
        summary=_("Bars of some symbols"),
        description=DESCRIPTION,
        tags=["market data"],
        parameters=[*PARAMETERS, *HEADERS],
        responses=RESPONSES,
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Answer as the plain route does."""
        return self._respond(request, {name: request.query_params.getlist(name) for name in request.query_params})

    @extend_schema(
        operation_id="history_of_many",
        summary=_("Bars of many symbols"),
        description=_("The same with the parameters in a JSON object: for lists of symbols that are too long for a URL."),
        tags=["market data"],
        parameters=HEADERS,
        request=BODY,
        responses=RESPONSES,
    )
    def post(self, request: Request) -> HttpResponseBase:
        """The same, with the parameters in the body."""
        if int(request.META.get("CONTENT_LENGTH") or 0) > history.LONGEST_BODY:
            raise ArgusError(MESSAGE_TOO_BIG, limit=history.LONGEST_BODY)
        return self._respond(request, history.from_body(request._request.body, request.query_params))

    def _respond(self, request: Request, parameters: Query) -> HttpResponseBase:
        headers: dict[str, Any] = {name.lower(): value for name, value in request.headers.items()}
        if request.method == "POST":
            headers.pop("if-none-match", None)
        named = history.from_terminal_names(parameters) if self.terminal_names else parameters
        # The default permission has let a key's Principal through and nothing else.
        principal = cast(Principal, request.auth)
        asked = history.read(named, principal, headers.get("accept"), requestid.current())
        reply = history.answer(asked, headers, config.fetch_timeout)
        response = HttpResponse(status=304) if reply.status == 304 else StreamingHttpResponse(reply.chunks, status=reply.status)
        del response["Content-Type"]
        for name, value in reply.headers:
            response[name] = value
        return response

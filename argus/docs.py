"""The OpenAPI schema and its page: for signed-in administrators, and for whoever has a key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.authentication import SessionAuthentication
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from argus.access.drf import KeyAuthentication
from argus.access.principal import Principal
from argus.errors import NOT_AUTHENTICATED, ArgusError


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema says that a key is needed, and where it goes."""

    target_class = KeyAuthentication
    name = ["bearer", "apiKey"]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, str]]:
        return [{"type": "http", "scheme": "bearer"}, {"type": "apiKey", "in": "header", "name": "X-API-Key"}]

    def get_security_requirement(self, auto_schema: AutoSchema) -> list[dict[str, list[str]]]:
        """One of them is enough."""
        return [{name: []} for name in self.name]


class StaffOrKey(BasePermission):
    """An administrator's session, or a good key."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if isinstance(request.auth, Principal) or getattr(request.user, "is_staff", False):
            return True
        raise ArgusError(NOT_AUTHENTICATED, "Sign in to the admin, or send an API key.")


class _ByParameter(DefaultContentNegotiation):
    """``format=`` says how the document is written, where ``Accept`` does not."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        chosen: tuple[BaseRenderer, str] = super().select_renderer(request, renderers, request.query_params.get("format"))
        return chosen


class Schema(SpectacularAPIView):
    content_negotiation_class = _ByParameter
    authentication_classes = [KeyAuthentication, SessionAuthentication]
    permission_classes = [StaffOrKey]


class Page(SpectacularSwaggerView):
    """The page sends people who are not signed in to the admin's sign-in and back."""

    authentication_classes = [KeyAuthentication, SessionAuthentication]
    permission_classes = [StaffOrKey]
    url_name = "schema"
    title = format_lazy("{} | Argus", _("API documentation"))  # type: ignore[assignment]

    def handle_exception(self, exc: Exception) -> Any:
        if isinstance(exc, ArgusError) and exc.problem is NOT_AUTHENTICATED:
            return redirect_to_login(self.request.get_full_path(), "admin:login")
        return super().handle_exception(exc)

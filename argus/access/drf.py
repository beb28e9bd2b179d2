"""How Django REST framework's views ask the one check, count the quota and answer errors.

Every answer to a caller who showed a good key costs one request of the quota and carries the RateLimit headers, whatever
the answer is. Errors, ours and the framework's, are RFC 9457 problem documents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from django.core.exceptions import PermissionDenied
from django.core.signals import got_request_exception
from django.http import Http404, HttpResponse
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.parsers import JSONParser
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from argus import requestid
from argus.access import check
from argus.access.limits import quota
from argus.access.principal import SCOPE_OPERATE, SCOPE_READ, Principal
from argus.errors import (
    BAD_JSON,
    FORBIDDEN,
    INTERNAL,
    INVALID_ARGUMENT,
    METHOD_NOT_ALLOWED,
    NOT_ACCEPTABLE,
    NOT_AUTHENTICATED,
    NOT_FOUND,
    UNSUPPORTED_MEDIA_TYPE,
    ArgusError,
    Problem,
)
from argus.http import PROBLEM, problem_headers, quota_headers

if TYPE_CHECKING:
    # The framework's views import this module: it is in their settings.
    from rest_framework.views import APIView

# The first row that fits counts.
_PROBLEMS: tuple[tuple[type[Exception], Problem], ...] = (
    (exceptions.NotAuthenticated, NOT_AUTHENTICATED),
    (exceptions.AuthenticationFailed, NOT_AUTHENTICATED),
    (exceptions.PermissionDenied, FORBIDDEN),
    (PermissionDenied, FORBIDDEN),
    (exceptions.NotFound, NOT_FOUND),
    (Http404, NOT_FOUND),
    (exceptions.MethodNotAllowed, METHOD_NOT_ALLOWED),
    (exceptions.NotAcceptable, NOT_ACCEPTABLE),
    (exceptions.UnsupportedMediaType, UNSUPPORTED_MEDIA_TYPE),
    (exceptions.ParseError, BAD_JSON),
    (exceptions.ValidationError, INVALID_ARGUMENT),
)


class JsonBody(JSONParser):
    """The framework's own, of which a body that is nested too deep is a bad one and not our failure."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        """The value. Raises ``ParseError``."""
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError as error:
            raise exceptions.ParseError(str(error)) from None


class KeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer`` or ``X-API-Key``. The view finds the Principal in ``request.user`` and ``request.auth``."""

    def authenticate(self, request: Request) -> tuple[Principal, Principal] | None:
        meta = request.META
        key = check.key_of({"authorization": meta.get("HTTP_AUTHORIZATION", ""), "x-api-key": meta.get("HTTP_X_API_KEY", "")})
        if key is None:
            return None
        address = check.request_address(meta.get("REMOTE_ADDR"), meta.get("HTTP_X_FORWARDED_FOR", ""))
        principal = check.authenticate_sync(key, address)
        return principal, principal

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="argus"'


class ReadScope(BasePermission):
    """Refuses whoever has no key with the scope. The default of every view."""

    scope = SCOPE_READ

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not isinstance(request.auth, Principal):
            raise ArgusError(NOT_AUTHENTICATED)
        check.require(request.auth, self.scope)
        return True


class OperateScope(ReadScope):
    """For what operators do."""

    scope = SCOPE_OPERATE


class PlanQuota(BaseThrottle):
    """Counts the request against the plan."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        _charge(request, view)
        return True


def _charge(request: Request, view: APIView) -> None:
    """Take one request from the caller's quota, once for each request, and tell what is left."""
    # What a view's headers hold, the framework puts on its answer, errors included.
    if isinstance(request.auth, Principal) and "ratelimit-limit" not in view.headers:
        fields = quota_headers(*quota().spend_sync(request.auth))
        view.headers.update({name.decode(): value.decode() for name, value in fields})


def problem_response(exception: Exception, context: dict[str, Any]) -> HttpResponse:
    """The framework's exception handler: every error as a problem document."""
    request: Request = context["request"]
    error = _as_argus_error(exception)
    if error.problem is INTERNAL:
        # As Django's own handler does; django-structlog logs it with its traceback, once.
        got_request_exception.send(sender=type(context["view"]), request=request._request)
    try:
        # What failed before the quota was counted (a missing scope, an Accept that nothing fits) counts as well.
        _charge(request, context["view"])
    except ArgusError as refusal:
        error = refusal
    document = error.document(requestid.current())
    answer = HttpResponse(msgspec.json.encode(document, enc_hook=str), status=error.problem.status, content_type=PROBLEM)
    for name, value in problem_headers(error):
        answer[name.decode()] = value.decode()
    return answer


def _as_argus_error(exception: Exception) -> ArgusError:
    if isinstance(exception, ArgusError):
        return exception
    for kind, problem in _PROBLEMS:
        if isinstance(exception, kind):
            return ArgusError(problem, **_params(exception))
    return ArgusError(INTERNAL)


def _params(exception: Exception) -> dict[str, Any]:
    if isinstance(exception, exceptions.ValidationError):
        return {"errors": exception.get_full_details()}
    return {}

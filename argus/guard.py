"""The guard of the plain ASGI routes: the access check, the quota and the edge that turns errors into problem documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from argus.access.check import authenticate, client_address, key_of, require
from argus.access.limits import quota
from argus.access.principal import Principal
from argus.errors import INTERNAL, NOT_AUTHENTICATED, ArgusError
from argus.http import answer, answer_problem, headers_of, quota_headers, require_method
from argus.requestid import Application, Receive, Scope, Send

log = structlog.get_logger(__name__)

Respond = Callable[[Scope, Principal], bytes]
"""The body for a caller who has been let in. Synchronous and quick; raises ``ArgusError``."""
Identify = Callable[[Scope], Awaitable[Principal]]
"""Who makes a request, by what they show. Raises ``ArgusError``."""


async def by_key(scope: Scope) -> Principal:
    """Whose key stands in the headers. Raises ``ArgusError``."""
    key = key_of(headers_of(scope))
    if key is None:
        raise ArgusError(NOT_AUTHENTICATED)
    return await authenticate(key, client_address(scope))


async def let_in(
    scope: Scope, needs: str, methods: Sequence[str], headers: list[tuple[bytes, bytes]], identify: Identify = by_key
) -> Principal:
    """The caller, at one request of their quota; what is left of it is added to ``headers``. Raises ``ArgusError``."""
    require_method(scope, methods)
    principal = await identify(scope)
    headers += quota_headers(*await quota().spend(principal))
    require(principal, needs)
    return principal


def guarded(needs: str, content_type: str, respond: Respond) -> Application:
    """An ASGI application that answers GET and HEAD for keys with the scope ``needs``, at one request of their quota."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[tuple[bytes, bytes]] = []
        try:
            principal = await let_in(scope, needs, ("GET", "HEAD"), headers)
            body = respond(scope, principal)
        except ArgusError as error:
            await answer_problem(scope, send, error, headers)
        except Exception:
            # The edge of the process for these paths, as Django's handler is for the others.
            log.exception("request_failed", path=scope["path"])
            await answer_problem(scope, send, ArgusError(INTERNAL), headers)
        else:
            await answer(scope, send, 200, body, content_type, headers)

    return application

"""TradingView's UDF (Universal Data Feed) over plain HTTP, ahead of Django: /udf/NAME with a key, /udf/TICKET/NAME with a ticket.

Any page may ask from any origin, without cookies. Errors are told as UDF has them, ``{"s":"error","errmsg":...}``. As with
TradingView's own server, one about the question itself has status 200; one about who asks, or whether we can answer, keeps ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from django.utils.translation import override

from argus import requestid
from argus.access.check import client_address
from argus.access.principal import SCOPE_READ, Principal
from argus.config import config as settings
from argus.errors import NOT_FOUND, ArgusError
from argus.guard import by_key
from argus.http import JSON, TEXT, Headers, answer, headers_of, language_of, problem_headers, query_of
from argus.requestid import Application, Receive, Scope, Send
from argus.streamed import Reply, beside, streamed
from marketdata import market_time
from marketdata.compat import udf_tickets as tickets
from marketdata.compat.reply import json_reply
from marketdata.compat.udf_history import history
from marketdata.compat.udf_quotes import quotes
from marketdata.compat.udf_symbols import config, find, info

PREFIX: Final = "/udf/"
ASKED_WRONGLY: Final = frozenset({400, 404, 413, 501})
"""Statuses of errors about the question itself."""
CORS: Final = [
    (b"access-control-allow-origin", b"*"),
    (
        b"access-control-expose-headers",
        b"RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, X-Request-ID",
    ),
]
PREFLIGHT: Final = [
    (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
    (b"access-control-allow-headers", b"Authorization, X-API-Key, Content-Type"),
    (b"access-control-max-age", b"86400"),
]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer whatever lies under ``PREFIX``."""

    async def with_cors(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *CORS]
        await send(message)

    if scope["method"] == "OPTIONS":
        await answer(scope, with_cors, 200, b"", TEXT, PREFLIGHT)
    else:
        await _served(scope, receive, with_cors)


def _path(scope: Scope) -> tuple[str | None, str]:
    """The ticket in the address, if there is one, and UDF's name behind it."""
    path: str = scope["path"].removeprefix(PREFIX)
    first, slash, rest = path.partition("/")
    return (first, rest) if slash and first.startswith(tickets.PREFIX) else (None, path)


async def _caller(scope: Scope) -> Principal:
    ticket, _ = _path(scope)
    return await by_key(scope) if ticket is None else await tickets.redeem(ticket, client_address(scope))


async def _respond(scope: Scope, principal: Principal, body: bytes) -> Reply:
    _, name = _path(scope)
    query, headers, request_id = query_of(scope), headers_of(scope), requestid.request_id(scope)
    if name == "config":
        with override(language_of(headers.get("accept-language", ""))):
            return json_reply(config(), headers)
    if name == "time":
        seconds = b"%d" % (market_time.now() // 1000)
        about = [("content-type", TEXT), ("content-length", str(len(seconds))), ("cache-control", "no-store")]
        return Reply(status=200, headers=about, chunks=iter((seconds,)), quick=True)
    if name == "quotes":
        return json_reply(quotes(query, principal), headers)
    slow: dict[str, Callable[[float], Any]] = {
        "symbols": lambda _: info(query),
        "search": lambda _: find(query),
        "history": lambda seconds: history(query, request_id, seconds),
    }
    if name not in slow:
        raise ArgusError(NOT_FOUND)
    return await beside(lambda seconds: json_reply(slow[name](seconds), headers), settings.fetch_timeout)


async def _refuse(scope: Scope, send: Send, error: ArgusError, headers: Headers) -> None:
    """Tell an error as UDF has it, with our name and code for programs."""
    problem = error.problem
    with override(language_of(headers_of(scope).get("accept-language", ""))):
        document = {"s": "error", "errmsg": error.message, "name": problem.name, "code": problem.code}
        body = msgspec.json.encode(document | {"request_id": requestid.current()})
    status = 200 if problem.status in ASKED_WRONGLY else problem.status
    await answer(scope, send, status, body, JSON, [*headers, *problem_headers(error)])


_served = streamed(SCOPE_READ, ("GET", "HEAD"), _respond, longest=0, problems=_refuse, identify=_caller)

ROUTES: dict[str, Application] = {PREFIX: application}
"""Beginning of a path -> who answers what is under it."""

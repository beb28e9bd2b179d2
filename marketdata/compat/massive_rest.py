"""Massive's REST addresses for stocks, as far as Argus can answer them, under ``/compat/massive``.

Access, quota, limits and data are those of the native addresses; parameters, answers and errors are Massive's.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from django.utils.translation import override

from argus import requestid
from argus.access.principal import SCOPE_READ, Principal
from argus.errors import KEY_IN_URL, NOT_FOUND, UNSUPPORTED, ArgusError
from argus.http import JSON, Headers, answer, headers_of, problem_headers, query_of
from argus.requestid import Application, Receive, Scope, Send
from argus.streamed import Reply, streamed
from marketdata.compat.massive_asked import PREFIX, Asked
from marketdata.compat.massive_bars import aggregates, grouped, open_close, previous
from marketdata.compat.massive_newest import last_quote, last_trade, snapshot, snapshots
from marketdata.compat.massive_tickers import ticker_details, tickers

KEY_PARAMETERS: Final = frozenset({"apikey", "api_key", "key", "token"})

Handler = Callable[[Asked], Awaitable[Reply]]


async def _not_offered(asked: Asked) -> Reply:
    raise ArgusError(UNSUPPORTED, "Argus keeps no history of single trades and quotes; ask for aggregates, or use the stream.")


ADDRESSES: Final[tuple[tuple[str, Handler], ...]] = (
    ("/v2/aggs/ticker/{ticker}/range/{multiplier}/{timespan}/{from}/{to}", aggregates),
    ("/v2/aggs/ticker/{ticker}/prev", previous),
    ("/v2/aggs/grouped/locale/{locale}/market/{market}/{date}", grouped),
    ("/v1/open-close/{ticker}/{date}", open_close),
    ("/v2/last/trade/{ticker}", last_trade),
    ("/v2/last/nbbo/{ticker}", last_quote),
    ("/v2/snapshot/locale/{locale}/markets/{market}/tickers", snapshots),
    ("/v2/snapshot/locale/{locale}/markets/{market}/tickers/{ticker}", snapshot),
    ("/v3/reference/tickers", tickers),
    ("/v3/reference/tickers/{ticker}", ticker_details),
    ("/v3/trades/{ticker}", _not_offered),
    ("/v3/quotes/{ticker}", _not_offered),
)


def _pattern(address: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", address))


_ROUTES: Final = tuple((_pattern(address), handler) for address, handler in ADDRESSES)


async def _respond(scope: Scope, principal: Principal, body: bytes) -> Reply:
    address = _address(scope)
    for pattern, handler in _ROUTES:
        if found := pattern.fullmatch(address):
            asked = Asked(
                principal=principal,
                address=address,
                path=found.groupdict(),
                query=query_of(scope),
                headers=headers_of(scope),
                origin=_origin(scope),
                request_id=requestid.request_id(scope),
            )
            return await handler(asked)
    raise ArgusError(NOT_FOUND, f"There is nothing at {address[:80]}; docs/dialects.md names what is answered.")


def _address(scope: Scope) -> str:
    """The path as Massive has it.

    Massive's Python client puts its base address before the path of a ``next_url``, so that the prefix comes twice; others take
    the ``next_url`` as it is.
    """
    path: str = scope["path"]
    return path.removeprefix(PREFIX).removeprefix(PREFIX)


def _origin(scope: Scope) -> str:
    host = headers_of(scope).get("host", "")
    return f"{scope.get('scheme', 'http')}://{host}"


async def problems(scope: Scope, send: Send, error: ArgusError, headers: Headers = ()) -> None:
    """An error as Massive tells it: in English, with the HTTP status of the native addresses."""
    with override("en"):
        document = {"status": "ERROR", "request_id": requestid.request_id(scope), "error": error.message}
    fields = [*headers, *problem_headers(error)]
    await answer(scope, send, error.problem.status, msgspec.json.encode(document), JSON, fields)


_streamed = streamed(SCOPE_READ, ("GET", "HEAD"), _respond, longest=0, problems=problems)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Who answers what is under ``PREFIX``."""
    if _has_key_in_query(scope):
        detail = "A key must not stand in an address (apiKey=...), where logs keep it: send Authorization: Bearer KEY."
        await problems(scope, send, ArgusError(KEY_IN_URL, detail))
        return
    await _streamed(scope, receive, send)


def _has_key_in_query(scope: Scope) -> bool:
    try:
        return any(name.lower() in KEY_PARAMETERS for name in query_of(scope))
    except ArgusError:
        return False


ROUTES: Final[dict[str, Application]] = {f"{PREFIX}/": application}
"""Beginning of a path -> who answers it."""

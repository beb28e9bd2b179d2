"""The plain ASGI routes of history, ahead of Django: what is small and in memory at once, the rest beside the event loop."""

from __future__ import annotations

from collections.abc import Callable

from argus import requestid
from argus.access.principal import SCOPE_READ, Principal
from argus.config import config
from argus.http import headers_of, query_of
from argus.requestid import Application, Scope
from argus.streamed import Reply, beside, streamed
from marketdata.api import history
from marketdata.api.query import Query


def _route(named: Callable[[Query], Query]) -> Application:
    async def respond(scope: Scope, principal: Principal, body: bytes) -> Reply:
        headers = headers_of(scope)
        is_post = scope["method"] == "POST"
        if is_post:
            headers.pop("if-none-match", None)
        query = query_of(scope)
        parameters = named(history.from_body(body, query) if is_post else query)
        request = (parameters, principal, headers.get("accept"), requestid.request_id(scope))
        asked = history.read_now(*request)
        if asked is not None and (reply := history.answer_now(asked, headers)) is not None:
            return reply

        def work(seconds: float) -> Reply:
            return history.answer(asked or history.read(*request), headers, seconds)

        return await beside(work, config.fetch_timeout)

    return streamed(SCOPE_READ, ("GET", "HEAD", "POST"), respond, longest=history.LONGEST_BODY)


_history = _route(dict)
_from_terminal_names = _route(history.from_terminal_names)

ROUTES: dict[str, Application] = {
    "/api/v1/market_data/history": _history,
    "/hist_kline": _from_terminal_names,
    "/api/hist_kline": _from_terminal_names,
}
"""Path -> who answers it. Under the names without a version the parameters may be called as xtdata calls them."""

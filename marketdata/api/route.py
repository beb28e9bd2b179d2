"""The plain ASGI routes of the latest quotes, ahead of Django: the same check, quota and answers as the DRF views."""

from __future__ import annotations

from argus import requestid
from argus.access.principal import SCOPE_READ, Principal
from argus.guard import guarded
from argus.http import JSON, query_of
from argus.requestid import Application, Scope
from marketdata.api.query import Answer, full_market, latest_quotes


def _route(answer: Answer) -> Application:
    def respond(scope: Scope, principal: Principal) -> bytes:
        return answer(query_of(scope), principal, requestid.request_id(scope))

    return guarded(SCOPE_READ, JSON, respond)


_latest = _route(latest_quotes)
_full = _route(full_market)

ROUTES: dict[str, Application] = {
    "/api/v1/market_data/latest": _latest,
    "/api/v1/market_data/full": _full,
    "/latest_market": _latest,
    "/full_market": _full,
    "/api/latest_market": _latest,
    "/api/full_market": _full,
}
"""Path -> who answers it. The names without a version are those that earlier users know."""

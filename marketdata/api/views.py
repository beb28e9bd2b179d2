"""The DRF views of the latest quotes: what describes them in the schema, and what answers where Django serves alone."""

from __future__ import annotations

from typing import cast

from django.http import HttpResponse
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from argus import requestid
from argus.access.principal import Principal
from argus.http import JSON
from marketdata.api.query import Answer, full_market, latest_quotes
from marketdata.api.schema import MARKET, RESPONSES, SYMBOLS


def _respond(request: Request, answer: Answer) -> HttpResponse:
    # The default permission has let a key's Principal through and nothing else.
    principal = cast(Principal, request.auth)
    query = {name: request.query_params.getlist(name) for name in request.query_params}
    body = answer(query, principal, requestid.current())
    return HttpResponse(body, content_type=JSON, headers={"Cache-Control": "no-store"})


class LatestQuotes(APIView):
    @extend_schema(
        operation_id="latest",
        summary=_("The latest quotes of some symbols"),
        description=_("Also under /latest_market and /api/latest_market."),
        tags=["market data"],
        parameters=[SYMBOLS],
        responses=RESPONSES,
    )
    def get(self, request: Request) -> HttpResponse:
        """Answer as the plain route does."""
        return _respond(request, latest_quotes)


class FullMarket(APIView):
    @extend_schema(
        operation_id="full",
        summary=_("The latest quotes of whole markets"),
        description=_("Also under /full_market and /api/full_market."),
        tags=["market data"],
        parameters=[MARKET],
        responses=RESPONSES,
    )
    def get(self, request: Request) -> HttpResponse:
        """Answer as the plain route does."""
        return _respond(request, full_market)

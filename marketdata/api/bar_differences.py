"""Over REST: where bars that were built from quotes differed from the terminal's own."""

from __future__ import annotations

from typing import Any, Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from argus import requestid
from argus.errors import INVALID_ARGUMENT, INVALID_SYMBOL, ArgusError
from marketdata.api.query import refuse_others
from marketdata.models import BarDifference
from marketdata.symbols import SymbolError, parse

USUAL: Final = 100
MOST: Final = 1000

SYMBOL = OpenApiParameter(
    "symbol",
    OpenApiTypes.STR,
    description=_("One symbol alone, in any usual form."),
    examples=[OpenApiExample("one symbol", value="000001.SZ")],
)
LIMIT = OpenApiParameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL}, description=_("How many, the newest first.")
)
EXAMPLE: Final[dict[str, Any]] = {
    "differences": [
        {
            "symbol": "000001.SZ",
            "period": "1m",
            "time": 1785895260000,
            "field": "volume",
            "built": 71900.0,
            "terminal": 72300.0,
            "found_at": 1785895338214,
        }
    ],
    "request_id": "5b2f7c0e9a6d4a0f8c1e3b7d2f4a6c8e",
}


class BarDifferences(APIView):
    """Read-only: ``marketdata.reconcile`` writes them."""

    @extend_schema(
        operation_id="bar_differences",
        summary=_("Where live bars differed from the terminal's own"),
        tags=["market data"],
        parameters=[SYMBOL, LIMIT],
        responses={
            200: OpenApiResponse(
                OpenApiTypes.OBJECT,
                description=_("One entry per number that differed; the terminal's has taken its place. Times in ms."),
                examples=[OpenApiExample("an answer", value=EXAMPLE)],
            )
        },
    )
    def get(self, request: Request) -> Response:
        """The newest ones."""
        query = {name: request.query_params.getlist(name) for name in request.query_params}
        refuse_others(query, ("symbol", "limit"))
        limit, symbol = _limit(query.get("limit", [str(USUAL)])), _symbol(query.get("symbol", []))
        rows = BarDifference.objects.all() if symbol is None else BarDifference.objects.filter(symbol=symbol)
        body = {"differences": [_row(row) for row in rows[:limit]], "request_id": requestid.current()}
        return Response(body, headers={"Cache-Control": "no-store"})


def _row(row: BarDifference) -> dict[str, Any]:
    return {
        "symbol": row.symbol,
        "period": row.period,
        "time": int(row.time.timestamp() * 1000),
        "field": row.field,
        "built": row.built,
        "terminal": row.terminal,
        "found_at": int(row.found_at.timestamp() * 1000),
    }


def _limit(given: list[str]) -> int:
    text = given[-1]
    if len(given) > 1 or not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MOST):
        raise ArgusError(INVALID_ARGUMENT, f"{text[:40]!r} is not one number from 1 to {MOST}.", parameter="limit")
    return int(text)


def _symbol(given: list[str]) -> str | None:
    if not given:
        return None
    if len(given) > 1:
        raise ArgusError(INVALID_ARGUMENT, "symbol is given more than once.", parameter="symbol")
    try:
        return parse(given[0])
    except SymbolError as error:
        raise ArgusError(INVALID_SYMBOL, f"{given[0][:80]!r}: {error.reason}.", parameter="symbol") from None

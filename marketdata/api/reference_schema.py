"""The OpenAPI description of reference data: parameters and answers, made from the types that the answers are made of."""

from __future__ import annotations

from typing import Any

import msgspec
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from argus.errors import (
    INVALID_ARGUMENT,
    NOT_AUTHENTICATED,
    RATE_LIMITED,
    UNKNOWN_SYMBOL,
    ArgusError,
)
from marketdata.api import reference_rows as rows
from marketdata.api.reference import DEFAULT_SECTOR, LIMIT, MAX_COUNT, MAX_LIMIT
from marketdata.api.schema import REF, problem
from marketdata.exchanges import Kind
from marketdata.types import TradingStatus

REFRESHED = "2026-11-20T08:31:07+08:00"
REQUEST_ID = "5b2f7c0e9a6d4a0f8c1e3b7d2f4a6c8e"
_ABOUT: dict[str, Any] = {"source": "qmt", "refreshed_at": REFRESHED, "as_of": REFRESHED, "request_id": REQUEST_ID}
_BUILT_IN: dict[str, Any] = {"source": "built-in", "refreshed_at": None, "as_of": None, "request_id": REQUEST_ID}
_CALENDAR = rows.CalendarRow("1990-12-19", "2026-12-31", "built-in", None, [])
_BANK = rows.InstrumentRow(
    symbol="000001.SZ",
    name="平安银行",
    kind="stock",
    market="SZ",
    price_tick=0.01,
    lot=100,
    listed="1991-04-03",
    delisted=None,
    multiplier=None,
    underlying=None,
    option_type=None,
    strike=None,
    pinyin="pinganyinhang",
    initials="payh",
    quoted=True,
    source="qmt",
    refreshed_at=REFRESHED,
)
_CALL = msgspec.structs.replace(
    _BANK,
    symbol="10008800.SHO",
    name="300ETF购12月4000",
    kind="option",
    market="SHO",
    price_tick=0.0001,
    lot=None,
    listed="2026-04-23",
    delisted="2026-12-23",
    multiplier=10000.0,
    underlying="510300.SH",
    option_type="call",
    strike=4.0,
    pinyin="300etfgou12yue4000",
    initials="300etfg12y4000",
    quoted=False,
)
_PHASE = rows.PhaseRow(
    TradingStatus.OPENING_AUCTION,
    "2026-11-20T09:15:00.000+08:00",
    "2026-11-20T09:25:00.000+08:00",
    1795137300000,
    1795137900000,
)

EXAMPLES: dict[type[rows.Answer], rows.Answer] = {
    rows.Dates: rows.Dates(
        **_BUILT_IN, data=["2026-11-19", "2026-11-20"], market="SH", complete=True, detail=None, calendar=_CALENDAR
    ),
    rows.DayAnswer: rows.DayAnswer(
        **_BUILT_IN,
        data=rows.Day(
            date="2026-11-20",
            market="SH",
            is_trading_day=True,
            previous_trading_day="2026-11-19",
            next_trading_day="2026-11-23",
            phases=[_PHASE],
            after_hours=[],
        ),
        calendar=_CALENDAR,
    ),
    rows.Instruments: rows.Instruments(**_ABOUT, data=[_BANK], cursor=None),
    rows.InstrumentDetails: rows.InstrumentDetails(**_ABOUT, data=[_BANK], rejected=[]),
    rows.Sectors: rows.Sectors(**_ABOUT, data=[rows.SectorRow("沪深A股", 5199, False, "qmt", REFRESHED)]),
    rows.Constituents: rows.Constituents(**_ABOUT, data=[rows.Constituent("600519.SH", "贵州茅台", 3.92)], sector="000300.SH"),
    rows.Futures: rows.Futures(
        **_ABOUT,
        data=[
            rows.Product(
                "IF.IF",
                "IF",
                "IF2612.IF",
                [rows.Contract("IF2612.IF", "沪深300股指2612", True, "2026-04-20", "2026-12-18", 0.2, 300.0, False)],
            )
        ],
    ),
    rows.MainAnswer: rows.MainAnswer(**_ABOUT, data=rows.Main("IF.IF", "IF2612.IF", "qmt", REFRESHED)),
    rows.Options: rows.Options(**_ABOUT, data=[_CALL], underlying="510300.SH"),
}


def add_components(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A postprocessing hook of drf-spectacular: the schemas that the responses below refer to."""
    _refs, found = msgspec.json.schema_components(list(EXAMPLES), ref_template=REF)
    result.setdefault("components", {}).setdefault("schemas", {}).update(found)
    return result


def responses(answer: type[rows.Answer]) -> dict[Any, Any]:
    """The answer, that it has not changed, and what may be wrong."""
    example = OpenApiExample(answer.__name__, value=msgspec.to_builtins(EXAMPLES[answer]))
    return {
        200: OpenApiResponse({"$ref": REF.format(name=answer.__name__)}, description=answer.__doc__ or "", examples=[example]),
        304: OpenApiResponse(description=_("The same as the caller has, going by If-None-Match.")),
        (400, "application/problem+json"): problem(
            _("A parameter is missing or cannot be read, or a day lies outside the calendar."),
            ArgusError(INVALID_ARGUMENT, "'yesterday' is not a day: write 2026-01-05 or 20260105.", parameter="start"),
        ),
        (401, "application/problem+json"): problem(_("No key, or none that is good."), ArgusError(NOT_AUTHENTICATED)),
        (404, "application/problem+json"): problem(
            _("What was named is not known."),
            ArgusError(UNKNOWN_SYMBOL, "'999999.SH': 999999.SH is not quoted by the source.", parameter="symbol"),
        ),
        (429, "application/problem+json"): problem(_("The quota is used up."), ArgusError(RATE_LIMITED, retry_after=12)),
    }


def _parameter(name: str, schema: Any, text: Any, example: Any = None, *, place: str = "query") -> OpenApiParameter:
    examples = [] if example is None else [OpenApiExample(str(example), value=example)]
    return OpenApiParameter(name, schema, place, required=place == "path", description=text, examples=examples)  # type: ignore[arg-type]


_DAY = {"type": "string", "pattern": r"^(\d{8}|\d{4}-\d{2}-\d{2})$"}
_TRUE = {"type": "string", "enum": ["true", "false"]}
_MARKET = {"type": "string", "default": "SH"}
_KINDS = format_lazy(_("Kinds, separated by commas: {kinds}."), kinds=", ".join(Kind))

MARKET = _parameter("market", _MARKET, _("The market, under any of its usual names: SH, SSE, XSHG."), "SH")
EXPIRED = _parameter("expired", _TRUE, _("Also contracts past their last trading day."))
TRADING_DATES = [
    MARKET,
    _parameter("start", _DAY, _("The first day, 2026-01-05 or 20260105. Left out: the calendar's first."), "2026-11-01"),
    _parameter("end", _DAY, _("The last day. Left out: the calendar's last; with count alone today."), "2026-11-20"),
    _parameter(
        "count",
        {"type": "integer", "minimum": 1, "maximum": MAX_COUNT},
        _("So many days: the first after a start alone, else the last."),
        5,
    ),
]
CALENDAR_DAY = [MARKET, _parameter("date", _DAY, _("The day; today if left out."), "2026-11-20")]
Q = _parameter("q", OpenApiTypes.STR, _("A code, a name, pinyin or its initials, or the beginning of one."), "payh")
KIND = _parameter("kind", {"type": "string"}, _KINDS, "stock")
PAGES = [
    _parameter("market", {"type": "string"}, _("Markets, separated by commas; all if left out.")),
    _parameter("quoted", _TRUE, _("Only those that the source quotes at present (true) or does not (false).")),
    _parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": LIMIT}, _("Rows of a page.")),
    _parameter("cursor", {"type": "string", "minLength": 1}, _("Where the page before ended, taken from its cursor.")),
]
SYMBOL = _parameter(
    "symbol",
    OpenApiTypes.STR,
    _("Symbols in any usual form, separated by commas, or names."),
    "000001.SZ",
    place="path",
)
SECTOR = _parameter("sector", OpenApiTypes.STR, _("A sector's name, or an index."), DEFAULT_SECTOR, place="path")
FUTURES = [
    _parameter("product", {"type": "string"}, _("Products, separated by commas: IF, rb.SF. All if left out."), "IF"),
    PAGES[0],
    EXPIRED,
]
PRODUCT = _parameter("product", OpenApiTypes.STR, _("A product: IF, IF.IF, rb.SF, rb.SHFE."), "IF", place="path")
OPTIONS = [
    OpenApiParameter(
        "underlying",
        OpenApiTypes.STR,
        required=True,
        description=_("The fund, index, stock or futures contract, in any usual form."),
        examples=[OpenApiExample("CSI 300 ETF", value="510300.SH")],
    ),
    _parameter("type", {"type": "string", "enum": ["call", "put"]}, _("Only calls or only puts.")),
    EXPIRED,
]

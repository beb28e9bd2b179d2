"""Instruments in UDF's words: what a chart may be of, what it must know of one, and how people find them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from argus.errors import INVALID_ARGUMENT, INVALID_SYMBOL, ArgusError
from marketdata import periods, universe
from marketdata.api.query import Query, refuse_if_nothing
from marketdata.calendar import AROUND_THE_CLOCK
from marketdata.compat.udf_times import RESOLUTIONS
from marketdata.exchanges import MARKET_OF_NAME, MARKETS, Kind
from marketdata.history import words
from marketdata.models import KINDS, Instrument
from marketdata.reference import search
from marketdata.symbols import grid, kind, market_of, price_tick

TIMEZONE: Final = "Asia/Shanghai"
"""Days and times of day are Beijing's, those of markets around the clock included."""
FINEST: Final = 10_000
"""Steps that a price of 1 is shown in where the price tick is not known."""
DAY_SESSION: Final = "0900-1500"
"""The session of markets of which only the close is known: what is shown of them are days, weeks and months."""
FOUND: Final = 30
MOST_FOUND: Final = 100
"""Instruments that a search finds."""

EXCHANGES: Final[Mapping[str, Any]] = {
    "SH": gettext_lazy("Shanghai Stock Exchange"),
    "SZ": gettext_lazy("Shenzhen Stock Exchange"),
    "BJ": gettext_lazy("Beijing Stock Exchange"),
    "HK": gettext_lazy("Hong Kong Exchanges"),
    "HGT": gettext_lazy("Hong Kong through Shanghai"),
    "SGT": gettext_lazy("Hong Kong through Shenzhen"),
    "IF": gettext_lazy("China Financial Futures Exchange"),
    "SF": gettext_lazy("Shanghai Futures Exchange"),
    "DF": gettext_lazy("Dalian Commodity Exchange"),
    "ZF": gettext_lazy("Zhengzhou Commodity Exchange"),
    "GF": gettext_lazy("Guangzhou Futures Exchange"),
    "INE": gettext_lazy("Shanghai International Energy Exchange"),
    "SHO": gettext_lazy("Options in Shanghai"),
    "SZO": gettext_lazy("Options in Shenzhen"),
    "BKZS": gettext_lazy("Board indices"),
    "BINANCE": gettext_lazy("Binance spot"),
    "BINANCEUM": gettext_lazy("Binance USD-M futures"),
}
"""Market -> its name where people choose one."""

TYPES: Final[Mapping[str, str]] = {kind.value: "futures" if kind is Kind.FUTURE else kind.value for kind in Kind}
"""What TradingView calls our kinds; for most it takes any word."""
_KIND_OF: Final = {name: kind for kind, name in TYPES.items()}


def one(query: Query, parameter: str) -> str:
    """The value of a parameter that must be there. Raises INVALID_ARGUMENT."""
    values = query.get(parameter, ())
    if not values or not values[-1].strip():
        raise ArgusError(INVALID_ARGUMENT, f"The parameter {parameter} is missing.", parameter=parameter)
    return values[-1].strip()


def resolve(word: str) -> str:
    """The one symbol that a word stands for; blocking. Raises ``ArgusError``."""
    resolution = words.resolve((word,))
    refuse_if_nothing(resolution, "symbol")
    if len(resolution.symbols) != 1:
        raise ArgusError(INVALID_SYMBOL, f"{word[:40]!r} is not one instrument.", parameter="symbol")
    return resolution.symbols[0]


def exchange_of(symbol: str) -> str:
    """What TradingView calls a symbol's exchange: its usual abbreviation."""
    market = market_of(symbol)
    return (MARKETS.get(market) or (market,))[0]


def config() -> dict[str, Any]:
    """The answer to /config, in the active language. Markets are those of which an instrument is known."""
    known = universe.current()
    markets = {market_of(symbol) for symbol in (*known.symbols, *known.others)}
    return {
        "supported_resolutions": [*RESOLUTIONS],
        "supports_search": True,
        "supports_group_request": False,
        "supports_marks": False,
        "supports_timescale_marks": False,
        "supports_time": True,
        "exchanges": [
            {"value": "", "name": _("All exchanges"), "desc": ""},
            *(
                {"value": market, "name": exchange_of(f".{market}"), "desc": str(name)}
                for market, name in EXCHANGES.items()
                if market in markets
            ),
        ],
        "symbols_types": [
            {"name": _("All kinds"), "value": ""},
            *({"name": str(name), "value": TYPES[kind.value]} for kind, name in KINDS.items()),
        ],
    }


def info(query: Query) -> dict[str, Any]:
    """The answer to /symbols, TradingView's LibrarySymbolInfo; blocking. Raises ``ArgusError``."""
    symbol = resolve(one(query, "symbol"))
    row = Instrument.objects.filter(symbol=symbol).first()
    minmov, pricescale = _price_format((row.price_tick if row else None) or price_tick(symbol))
    session, resolutions = _hours(symbol)
    exchange = exchange_of(symbol)
    return {
        "name": symbol,
        "full_name": symbol,
        "ticker": symbol,
        "description": (row.name if row else "") or symbol,
        "type": _type(row.kind if row else "", symbol),
        "exchange": exchange,
        "listed_exchange": exchange,
        "timezone": TIMEZONE,
        "session": session,
        "minmov": minmov,
        "pricescale": pricescale,
        "minmove2": 0,
        "fractional": False,
        "has_intraday": "1" in resolutions,
        "intraday_multipliers": [word for word in resolutions if word.isdigit()],
        "has_daily": "1D" in resolutions,
        "has_weekly_and_monthly": "1W" in resolutions,
        "supported_resolutions": resolutions,
        "volume_precision": 0,
        "format": "price",
        "visible_plots_set": "ohlcv",
        "data_status": "streaming" if row is None or row.quoted else "endofday",
    }


def find(query: Query) -> list[dict[str, Any]]:
    """The answer to /search: by code, name, pinyin or its initials, the best first; blocking. Raises ``ArgusError``."""
    text = next(iter(query.get("query", ())), "")
    wanted = next(iter(query.get("type", ())), "").strip()
    exchange = next(iter(query.get("exchange", ())), "").strip()
    market = MARKET_OF_NAME.get(exchange.upper(), exchange)
    found = search.find(
        text,
        kinds=[_KIND_OF.get(wanted, wanted)] if wanted else (),
        markets=[market] if market else (),
        limit=_limit(next(iter(query.get("limit", ())), "")),
    )
    return [
        {
            "symbol": row.symbol,
            "full_name": row.symbol,
            "ticker": row.symbol,
            "description": row.name or row.symbol,
            "exchange": exchange_of(row.symbol),
            "type": _type(row.kind, row.symbol),
        }
        for row in found.rows
    ]


def _limit(text: str) -> int:
    if not text.strip():
        return FOUND
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ArgusError(INVALID_ARGUMENT, f"{text[:40]!r} is not a number of instruments.", parameter="limit")
    return max(1, min(int(text), MOST_FOUND))


def _type(stored: str, symbol: str) -> str:
    return TYPES.get(stored or str(kind(symbol) or ""), "")


def _price_format(tick: float | None) -> tuple[int, int]:
    """The price tick as TradingView wants it: so many (minmov) of so many parts of 1 (pricescale)."""
    return (1, FINEST) if tick is None else grid(tick)


def _hours(symbol: str) -> tuple[str, list[str]]:
    """A day's session, with its pauses, and the resolutions in which there may be bars."""
    hours = periods.hours_of(symbol)
    days = [word for word, period in RESOLUTIONS.items() if period not in periods.MINUTES]
    if periods.HOURS.get(hours) is AROUND_THE_CLOCK:
        return "24x7", [*RESOLUTIONS]
    try:
        stretches = periods.stretches(hours)
    except periods.UnknownHours:
        return DAY_SESSION, days if hours in periods.CLOSES else []
    return ",".join(f"{_clock(start)}-{_clock(end)}" for start, end in stretches), [*RESOLUTIONS]


def _clock(ms: int) -> str:
    hours, minutes = divmod(ms // 60_000, 60)
    return f"{hours:02}{minutes:02}"

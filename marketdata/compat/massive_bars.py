"""Massive's aggregates over REST: bars of one ticker, of one day, of all tickers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from argus.errors import NOT_FOUND, UNSUPPORTED, ArgusError
from argus.streamed import Reply
from marketdata import market_time
from marketdata.api.query import Query, refuse_others
from marketdata.calendar import DAY, day_of, midnight
from marketdata.compat import bars, massive
from marketdata.compat.begins import begins_of
from marketdata.compat.massive_asked import Asked, one, stocks_only
from marketdata.compat.parameters import choice, limit
from marketdata.compat.reply import json_reply
from marketdata.compat.told import is_adjusted, refuse_if_missing, said
from marketdata.history.query import HistoryQuery, read_day, read_time
from marketdata.history.service import Prepared
from marketdata.periods import hours_of
from marketdata.series import EMPTY
from marketdata.types import Adjust, Period
from marketdata.universe import EVERYTHING

LIMIT: Final = 5_000
MAX_LIMIT: Final = 50_000
"""Bars of a page."""


async def aggregates(asked: Asked) -> Reply:
    """Bars of one ticker, a page at a time."""
    refuse_others(asked.query, {"adjusted", "sort", "limit"})
    period = _period(asked.path["multiplier"], asked.path["timespan"])
    first = read_time(asked.path["from"], "from", is_end=False)
    last = read_time(asked.path["to"], "to", is_end=True)
    adjust = _adjust(asked.query)
    newest_first = choice(asked.query, "sort", ("asc", "desc"), "asc") == "desc"
    most = limit(asked.query, LIMIT, MAX_LIMIT)

    def build(symbols: tuple[str, ...]) -> HistoryQuery:
        return bars.between(one(symbols), period, first, last, parameters=("from", "to"), adjust=adjust)

    def finish(prepared: Prepared) -> Reply:
        symbol, series = next(prepared.parts(), (prepared.query.symbols[0], EMPTY))
        if not len(series):
            refuse_if_missing(prepared, symbol)
        begins = begins_of(series.time, period, hours_of(symbol))
        held = int(begins.searchsorted(last, "right"))
        page = slice(max(0, held - most), held) if newest_first else slice(0, min(most, held))
        results = massive.bars(symbol, series.pick(page), period, adjusted=is_adjusted(prepared, symbol))
        if newest_first:
            results.reverse()
        body = {"ticker": symbol, **_about(asked, prepared, results)}
        if len(results) < held:
            edge = str(begins[page.start - 1] if newest_first else begins[page.stop])
            ends = (asked.path["from"], edge) if newest_first else (edge, asked.path["to"])
            body["next_url"] = asked.next_url("/".join((asked.address.rsplit("/", 2)[0], *ends)))
        return json_reply(body, asked.headers, said(prepared))

    return await _bars(asked, build, finish)


async def previous(asked: Asked) -> Reply:
    """The bar of the last trading day before today."""
    refuse_others(asked.query, {"adjusted"})
    adjust = _adjust(asked.query)

    def build(symbols: tuple[str, ...]) -> HistoryQuery:
        yesterday = midnight(day_of(market_time.now())) - 1
        return HistoryQuery(symbols=one(symbols), period=Period.D1, end=yesterday, count=1, adjust=adjust)

    def finish(prepared: Prepared) -> Reply:
        (symbol,) = prepared.query.symbols
        results = _days(prepared)
        if not results:
            refuse_if_missing(prepared, symbol)
        return json_reply({"ticker": symbol, **_about(asked, prepared, results)}, asked.headers, said(prepared))

    return await _bars(asked, build, finish)


async def open_close(asked: Asked) -> Reply:
    """One day of one ticker. There is no trading before and after hours to tell of."""
    refuse_others(asked.query, {"adjusted"})
    day, adjust = read_day(asked.path["date"], "date"), _adjust(asked.query)

    def finish(prepared: Prepared) -> Reply:
        for symbol, series in prepared.parts():
            (row,) = massive.bars(symbol, series, Period.D1, adjusted=True)
            names = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
            told = {name: row[short] for name, short in names.items()}
            about = {"status": "OK", "from": day.isoformat(), "symbol": symbol, "request_id": asked.request_id}
            return json_reply(about | told, asked.headers, said(prepared))
        refuse_if_missing(prepared, prepared.query.symbols[0])
        raise ArgusError(NOT_FOUND, f"There is no bar of {asked.path['ticker'][:40]} on {day}.")

    return await _bars(asked, lambda symbols: _day_query(one(symbols), day, adjust), finish)


async def grouped(asked: Asked) -> Reply:
    """One day of all tickers."""
    # Massive's Python client says the address's parts again.
    refuse_others(asked.query, {"adjusted", "include_otc", "locale", "market_type"})
    stocks_only(asked)
    day, adjust = read_day(asked.path["date"], "date"), _adjust(asked.query)

    def finish(prepared: Prepared) -> Reply:
        return json_reply(_about(asked, prepared, _days(prepared)), asked.headers, said(prepared))

    return await _bars(asked, lambda symbols: _day_query(symbols, day, adjust), finish, words=(EVERYTHING,))


async def _bars(asked: Asked, build: bars.Build, finish: bars.Finish, words: Sequence[str] | None = None) -> Reply:
    names = (asked.path["ticker"],) if words is None else words
    try:
        return await bars.answer(
            names, asked.principal, parameter="ticker", build=build, finish=finish, request_id=asked.request_id
        )
    except ArgusError as error:
        if error.problem is UNSUPPORTED and error.params.get("parameter") == "adjust":
            raise ArgusError(UNSUPPORTED, f"{error.message} Ask with adjusted=false.") from None
        raise


def _day_query(symbols: tuple[str, ...], day: date, adjust: Adjust) -> HistoryQuery:
    first = midnight(day)
    return bars.between(symbols, Period.D1, first, first + DAY - 1, parameters=("date", "date"), adjust=adjust)


def _days(prepared: Prepared) -> list[dict[str, Any]]:
    """Daily bars with their tickers."""
    return [
        {"T": symbol, **row}
        for symbol, series in prepared.parts()
        for row in massive.bars(symbol, series, Period.D1, adjusted=is_adjusted(prepared, symbol))
    ]


def _about(asked: Asked, prepared: Prepared, results: list[dict[str, Any]]) -> dict[str, Any]:
    """What stands around bars. Where the newest bars could not be had the status is DELAYED."""
    return {
        "adjusted": prepared.query.adjust is not Adjust.NONE,
        "queryCount": len(results),
        "resultsCount": len(results),
        "count": len(results),
        "status": "DELAYED" if prepared.stale else "OK",
        "request_id": asked.request_id,
        "results": results,
    }


def _period(multiplier: str, timespan: str) -> Period:
    number = int(multiplier) if multiplier.isascii() and multiplier.isdigit() and len(multiplier) <= 6 else 0
    period = massive.PERIODS.get((number, timespan))
    if period is None:
        known = ", ".join(f"{number} {word}" for number, word in massive.PERIODS)
        detail = f"There are no bars of {multiplier[:20]} {timespan[:20]}; there are those of {known}."
        raise ArgusError(UNSUPPORTED, detail, parameter="timespan")
    return period


def _adjust(query: Query) -> Adjust:
    return Adjust.FRONT_RATIO if choice(query, "adjusted", ("true", "false"), "true") == "true" else Adjust.NONE

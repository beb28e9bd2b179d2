"""Our quotes, trades and bars in the words of Massive (formerly Polygon.io), as its stocks clients read them.

Pure. Sizes are in shares, as Massive's are since 2025-11-03; stream times are in ms, those of single quotes and trades over REST
in ns. What Argus does not know (exchange ids, tapes, conditions, a snapshot's trade size) is left out, never made up.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from marketdata import periods
from marketdata.compat.averages import average
from marketdata.compat.begins import begins_of
from marketdata.compat.fragments import FORMING, Quote, read_bar, read_book, read_trade
from marketdata.series import Series
from marketdata.types import Number, Period

NANOSECONDS: Final = 1_000_000
"""In a millisecond."""
DIGITS: Final = 4
"""Decimal digits of a change and of its percentage."""

PERIODS: Final[dict[tuple[int, str], Period]] = {
    (1, "minute"): Period.M1,
    (5, "minute"): Period.M5,
    (15, "minute"): Period.M15,
    (30, "minute"): Period.M30,
    (60, "minute"): Period.H1,
    (1, "hour"): Period.H1,
    (1, "day"): Period.D1,
    (1, "week"): Period.W1,
    (1, "month"): Period.MON1,
}
"""Multiplier and timespan -> the period."""


class _QuoteEvent(msgspec.Struct, gc=False, tag_field="ev", tag="Q"):
    sym: str
    t: int
    q: int
    bp: float | UnsetType = UNSET
    bs: Number | UnsetType = UNSET
    ap: float | UnsetType = UNSET
    as_: Number | UnsetType = msgspec.field(default=UNSET, name="as")


class _TradeEvent(msgspec.Struct, gc=False, tag_field="ev", tag="T"):
    sym: str
    i: str
    p: float
    s: Number
    t: int
    q: int


class _MinuteEvent(msgspec.Struct, gc=False, tag_field="ev", tag="AM"):
    sym: str
    v: Number | UnsetType
    vw: float | UnsetType
    o: float
    c: float
    h: float
    l: float  # noqa: E741 - Massive's name
    s: int
    e: int


_encode = msgspec.json.Encoder().encode


def quote_event(fragment: bytes) -> bytes | None:
    """The ``Q`` event of a quote's JSON object; None where it has no book."""
    book = read_book(fragment)
    if not book.bid_price and not book.ask_price:
        return None
    event = _QuoteEvent(book.symbol, book.time, book.seq)
    if book.bid_price:
        event.bp, event.bs = book.bid_price[0], book.bid_volume[0]
    if book.ask_price:
        event.ap, event.as_ = book.ask_price[0], book.ask_volume[0]
    return _encode(event)


def trade_event(fragment: bytes) -> bytes:
    """The ``T`` event of a trade's JSON object."""
    trade = read_trade(fragment)
    return _encode(_TradeEvent(trade.symbol, str(trade.index), trade.price, trade.volume, trade.time, trade.index))


def minute_event(fragment: bytes) -> bytes | None:
    """The ``AM`` event of a 1m bar's JSON object; None while the bar forms."""
    if FORMING in fragment:
        return None
    bar = read_bar(fragment)
    volume = UNSET if bar.volume is None else bar.volume
    price = average(bar.symbol, bar.amount, bar.volume)
    average_price = UNSET if price is None else price
    begin = bar.time - periods.MINUTE
    return _encode(_MinuteEvent(bar.symbol, volume, average_price, bar.open, bar.close, bar.high, bar.low, begin, bar.time))


def bars(symbol: str, series: Series, period: Period, *, adjusted: bool) -> list[dict[str, Any]]:
    """Bars as REST gives them, stamped at their beginnings. ``adjusted``: their prices are others than were traded at, so that
    there is no average to tell. Raises ``periods.UnknownHours``."""
    begins = begins_of(series.time, period, periods.hours_of(symbol)).tolist()
    volumes = series.volume.tolist()
    prices = (series.open.tolist(), series.high.tolist(), series.low.tolist(), series.close.tolist())
    rows = [
        {"v": volume, "o": open, "c": close, "h": high, "l": low, "t": begin}
        for begin, volume, open, high, low, close in zip(begins, volumes, *prices, strict=True)
    ]
    if not adjusted:
        for row, amount, volume in zip(rows, series.amount.tolist(), volumes, strict=True):
            price = average(symbol, amount if amount == amount else None, volume)
            if price is not None:
                row["vw"] = price
    return rows


def last_quote(quote: Quote) -> dict[str, Any]:
    """The best bid and ask, as REST gives them."""
    return {"T": quote.symbol, **_best(quote, "p", "s", "P", "S"), **_moment(quote)}


def last_trade(quote: Quote) -> dict[str, Any]:
    """The last price, as REST gives it. How much was traded at it a snapshot does not say."""
    return {"T": quote.symbol, "p": quote.price, **_moment(quote)}


def snapshot(quote: Quote) -> dict[str, Any]:
    """A ticker's snapshot: the day so far, the last price and book, the close of the day before."""
    snapshot: dict[str, Any] = {"ticker": quote.symbol, "updated": quote.time * NANOSECONDS}
    day = {"o": quote.open, "h": quote.high, "l": quote.low, "c": quote.price, "v": quote.volume}
    day["vw"] = average(quote.symbol, quote.amount, quote.volume)
    snapshot["day"] = {name: value for name, value in day.items() if value is not None}
    snapshot["lastQuote"] = _without_ticker(last_quote(quote))
    if quote.price is not None:
        snapshot["lastTrade"] = _without_ticker(last_trade(quote))
    if quote.prev_close is not None:
        snapshot["prevDay"] = {"c": quote.prev_close}
        if quote.price is not None:
            change = quote.price - quote.prev_close
            snapshot["todaysChange"] = round(change, DIGITS)
            if quote.prev_close:
                snapshot["todaysChangePerc"] = round(change / quote.prev_close * 100, DIGITS)
    return snapshot


def _moment(quote: Quote) -> dict[str, int]:
    return {"t": quote.time * NANOSECONDS, "q": quote.seq}


def _without_ticker(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "T"}


def _best(quote: Quote, *names: str) -> dict[str, Any]:
    """The best level of each side that has one, under these names."""
    levels = (quote.bid_price, quote.bid_volume, quote.ask_price, quote.ask_volume)
    return {name: values[0] for name, values in zip(names, levels, strict=True) if values}

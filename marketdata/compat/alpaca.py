"""Our quotes, trades, bars and statuses in the words of Alpaca's market data API v2.

Pure. Over REST an object is a dict without ``T`` and ``S``; on the stream it has both. Its time ``t`` is an aware datetime,
which JSON writes as RFC 3339 and MessagePack as a timestamp. Sizes are in shares. Exchanges and tapes are our markets (``SH``):
China has neither Alpaca's exchange codes nor its tapes. A bar's count of trades is not known here: ``n`` is null.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from marketdata.calendar import day_of, midnight
from marketdata.compat.averages import average
from marketdata.compat.begins import begin_of, begins_of
from marketdata.compat.fragments import Book, read_bar, read_book, read_status, read_trade
from marketdata.periods import hours_of
from marketdata.series import Series
from marketdata.symbols import market_of
from marketdata.types import Adjust, LimitState, Period, Quote, Side, Trade, TradingStatus

FEEDS: Final = ("sip", "iex")
"""Feeds that a client may name; both mean all that Argus has. Alpaca's others are of other markets or late on purpose."""

TIMEFRAMES: Final[dict[str, Period]] = {
    **dict.fromkeys(("1Min", "1T"), Period.M1),
    **dict.fromkeys(("5Min", "5T"), Period.M5),
    **dict.fromkeys(("15Min", "15T"), Period.M15),
    **dict.fromkeys(("30Min", "30T"), Period.M30),
    **dict.fromkeys(("1Hour", "1H"), Period.H1),
    **dict.fromkeys(("1Day", "1D"), Period.D1),
    **dict.fromkeys(("1Week", "1W"), Period.W1),
    **dict.fromkeys(("1Month", "1M"), Period.MON1),
}
ADJUSTMENTS: Final[dict[str, Adjust]] = {"raw": Adjust.NONE, "all": Adjust.FRONT_RATIO}
"""Splits alone and dividends alone are not told apart here: one ex-date of an A share is often both."""

STATUSES: Final[dict[TradingStatus, tuple[str, str, str, str]]] = {
    TradingStatus.CONTINUOUS: ("T", "Trading Resumption", "", ""),
    TradingStatus.HALTED: ("H", "Trading Halt", "", ""),
    TradingStatus.VOLATILITY_HALT: ("P", "Volatility Trading Pause", "LUDP", "Volatility Trading Pause"),
    TradingStatus.OPENING_AUCTION: ("Q", "Quotation Resumption", "", "Opening Auction"),
    TradingStatus.CLOSING_AUCTION: ("Q", "Quotation Resumption", "", "Closing Auction"),
}
"""Our phases -> ``sc``, ``sm``, ``rc``, ``rm``, by the codes of tape C; a phase that has none there is named by our word."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NOBODY: Final = ("", 0, 0)
"""Exchange, price and size of a side on which nobody offers."""


def moment(time: int) -> datetime:
    """A time in ms."""
    return EPOCH + timedelta(milliseconds=time)


_shared_moment = lru_cache(maxsize=4096)(moment)
"""The quotes of a sweep share a few."""


def last_quote(quote: Quote | Book) -> dict[str, Any] | None:
    """The best bid and ask; None where there is no book. A side without a level has price and size 0, as Alpaca says it."""
    if not quote.bid_price and not quote.ask_price:
        return None
    market = market_of(quote.symbol)
    told: dict[str, Any] = {"t": _shared_moment(quote.time), "c": [], "z": market}
    if quote.bid_price:
        told["bx"], told["bp"], told["bs"] = market, quote.bid_price[0], quote.bid_volume[0]
    else:
        told["bx"], told["bp"], told["bs"] = NOBODY
    if quote.ask_price:
        told["ax"], told["ap"], told["as"] = market, quote.ask_price[0], quote.ask_volume[0]
    else:
        told["ax"], told["ap"], told["as"] = NOBODY
    return told


def last_trade(quote: Quote) -> dict[str, Any] | None:
    """The last price at the time of its snapshot. How much was traded at it a snapshot does not say: the size is 0."""
    if quote.price is None:
        return None
    market = market_of(quote.symbol)
    return {"t": moment(quote.time), "x": market, "p": quote.price, "s": 0, "c": [], "z": market}


def day_bar(quote: Quote) -> dict[str, Any] | None:
    """The bar of the quote's day so far; None where it has not been traded, or not all of it is known."""
    told = {"o": quote.open, "h": quote.high, "l": quote.low, "c": quote.price, "v": quote.volume}
    if None in told.values():
        return None
    return {"t": moment(day_begin(quote)), **told, "n": quote.trades, "vw": average(quote.symbol, quote.amount, quote.volume)}


def day_begin(quote: Quote) -> int:
    """Where the quote's day begins, in ms."""
    return midnight(day_of(quote.time))


def bars(symbol: str, series: Series, period: Period, *, adjusted: bool) -> list[dict[str, Any]]:
    """Bars, stamped at their beginnings. ``adjusted``: their prices may be others than were traded at, so that there is no
    average to tell. Raises ``periods.UnknownHours``."""
    begins = begins_of(series.time, period, hours_of(symbol)).tolist()
    columns = [getattr(series, name).tolist() for name in ("open", "high", "low", "close", "volume", "amount")]
    rows = []
    for begin, opened, high, low, close, volume, amount in zip(begins, *columns, strict=True):
        known = not adjusted and amount == amount
        average_price = average(symbol, amount, volume) if known else None
        rows.append(
            {"t": moment(begin), "o": opened, "h": high, "l": low, "c": close, "v": volume, "n": None, "vw": average_price}
        )
    return rows


def quote_message(fragment: bytes) -> dict[str, Any] | None:
    """The ``q`` message of a quote's JSON object; None where it has no book."""
    book = read_book(fragment)
    told = last_quote(book)
    if told is not None:
        told["T"], told["S"] = "q", book.symbol
    return told


def trade(one: Trade) -> dict[str, Any]:
    """A trade. ``tks``, who took the liquidity (B, S), is of Alpaca's crypto stream."""
    market = market_of(one.symbol)
    taker = {} if one.side is None else {"tks": "B" if one.side is Side.BUY else "S"}
    told = {"i": one.index, "x": market, "p": one.price, "s": one.volume, "c": []}
    return {**told, "t": moment(one.time), "z": market, **taker}


def trade_message(fragment: bytes) -> dict[str, Any]:
    """The ``t`` message of a trade's JSON object."""
    one = read_trade(fragment)
    return {"T": "t", "S": one.symbol, **trade(one)}


def bar_message(fragment: bytes) -> dict[str, Any] | None:
    """The message of a bar's JSON object: ``d`` of a day's, ``b`` of a minute's that has ended, ``u`` where it is settled by the
    source's own; None while a minute forms, and where its volume is not known, without which Alpaca has no bar."""
    bar = read_bar(fragment)
    daily = bar.period is Period.D1
    if bar.volume is None or not (daily or bar.closed):
        return None
    kind = "d" if daily else "b" if bar.provisional else "u"
    prices = {"o": bar.open, "h": bar.high, "l": bar.low, "c": bar.close}
    begin = moment(begin_of(bar.time, bar.period, hours_of(bar.symbol)))
    average_price = average(bar.symbol, bar.amount, bar.volume)
    return {"T": kind, "S": bar.symbol, **prices, "v": bar.volume, "t": begin, "n": None, "vw": average_price}


def status_message(fragment: bytes) -> dict[str, Any]:
    """The ``s`` message of a status's JSON object. A price at the day's limit is the reason ``LU`` or ``LD``."""
    status = read_status(fragment)
    code, message, reason, why = STATUSES.get(status.status) or (status.status.value, _title(status.status), "", "")
    if status.limit is not None:
        reason, why = ("LU", "Limit Up") if status.limit is LimitState.UP else ("LD", "Limit Down")
    told = {"T": "s", "S": status.symbol, "sc": code, "sm": message, "rc": reason, "rm": why}
    return {**told, "t": moment(status.time), "z": market_of(status.symbol)}


def _title(status: TradingStatus) -> str:
    return status.value.replace("_", " ").title()

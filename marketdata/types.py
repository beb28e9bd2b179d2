"""The values that Argus deals in: one frozen type per concept, born in a parser and changed nowhere after.

Units, everywhere: prices in the instrument's currency, rounded to its price tick by the parser; ``volume`` in shares
(stocks, funds), contracts (futures, options) or base units (crypto); ``amount`` in the instrument's currency; times in
integer milliseconds since the epoch (UTC). A value that is not known is ``None``, never 0.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class DataType(StrEnum):
    """What a subscriber can ask for on the stream."""

    QUOTE = "quote"
    PRICE = "price"
    VOLUME = "volume"
    ORDERBOOK = "orderbook"
    STATUS = "status"
    TRADE = "trade"
    KLINE_1M = "kline:1m"
    KLINE_5M = "kline:5m"
    KLINE_15M = "kline:15m"
    KLINE_30M = "kline:30m"
    KLINE_1H = "kline:1h"
    KLINE_1D = "kline:1d"


class TradingStatus(StrEnum):
    """The phase that an instrument is in (SSE trading rules 2023, 2.4 and 4.3; SZSE trading rules 2023, 2.4 and 4.3)."""

    UNKNOWN = "unknown"
    PRE_OPEN = "pre_open"
    OPENING_AUCTION = "opening_auction"
    CONTINUOUS = "continuous"
    BREAK = "break"
    CLOSING_AUCTION = "closing_auction"
    AFTER_HOURS = "after_hours"
    CLOSED = "closed"
    HALTED = "halted"
    VOLATILITY_HALT = "volatility_halt"


class LimitState(StrEnum):
    """Whether the last price stands at the day's upper or lower limit."""

    UP = "up"
    DOWN = "down"


def limit_state(price: float | None, limit_up: float | None, limit_down: float | None) -> LimitState | None:
    """Up or down where the price stands at the day's limit, else None."""
    if price is None:
        return None
    if limit_up is not None and price >= limit_up:
        return LimitState.UP
    if limit_down is not None and price <= limit_down:
        return LimitState.DOWN
    return None


class Period(StrEnum):
    """The length of a bar."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    D1 = "1d"
    W1 = "1w"
    MON1 = "1mon"


KLINES = {DataType(f"kline:{period}"): period for period in (Period.M1, Period.M5, Period.M15, Period.M30, Period.H1, Period.D1)}
"""The data types that are bars, and the periods of them."""

EVENTS = frozenset({DataType.STATUS, DataType.TRADE, *KLINES})
"""The data types of which each one is delivered, in order, and none is merged (of the bars: the closed ones)."""


Number = int | float


class Quote(msgspec.Struct, frozen=True, tag_field="type", tag="quote", kw_only=True):
    """One snapshot of one instrument, as its exchange published it.

    ``time`` is the exchange's own time. ``volume`` and ``amount`` accumulate over the trading day. The book's lists run
    from the best level outwards, have the same length on a side, at most ten levels, and no entry for an absent level.
    """

    symbol: str
    time: int
    price: float | None = None
    open: float | None = None
    high: float | None = None
    low: float | None = None
    prev_close: float | None = None
    volume: Number | None = None
    amount: float | None = None
    trades: int | None = None
    bid_price: tuple[float, ...] = ()
    bid_volume: tuple[Number, ...] = ()
    ask_price: tuple[float, ...] = ()
    ask_volume: tuple[Number, ...] = ()
    status: TradingStatus = TradingStatus.UNKNOWN
    limit_up: float | None = None
    limit_down: float | None = None
    open_interest: Number | None = None
    prev_settlement: float | None = None
    source: str

    @property
    def limit(self) -> LimitState | None:
        """Up or down where the last price stands at the day's limit, else None."""
        return limit_state(self.price, self.limit_up, self.limit_down)


class Adjust(StrEnum):
    """How prices are made comparable across dividends and splits (the terminal's own names)."""

    NONE = "none"
    FRONT = "front"
    BACK = "back"
    FRONT_RATIO = "front_ratio"
    BACK_RATIO = "back_ratio"


class Bar(msgspec.Struct, frozen=True, tag_field="type", tag="bar", kw_only=True):
    """One K-line; ``volume`` and ``amount`` are those of the period alone.

    ``time`` is its end: the minute's last moment, the close of the day, the close of the week's or month's last trading day.
    """

    symbol: str
    period: Period
    time: int
    open: float
    high: float
    low: float
    close: float
    volume: Number
    amount: float | None = None
    prev_close: float | None = None
    open_interest: Number | None = None
    suspended: bool = False
    source: str


class Side(StrEnum):
    """The side that took the liquidity."""

    BUY = "buy"
    SELL = "sell"


class Trade(msgspec.Struct, frozen=True, tag_field="type", tag="trade", kw_only=True):
    """One execution. ``index`` is the exchange's own number of it, unique within a day and a channel."""

    symbol: str
    time: int
    index: int
    price: float
    volume: Number
    amount: float | None = None
    side: Side | None = None
    source: str


class Dividend(msgspec.Struct, frozen=True, kw_only=True):
    """What one share gives on its ex-date, all per share and before tax.

    ``cash`` in yuan; ``bonus`` shares given out of profit (送股) and ``gift`` out of reserves (转增); ``rights`` shares offered
    (配股) at ``rights_price``. ``ratio`` is the source's own factor of the day, last close over reference price.
    """

    symbol: str
    ex_date: str
    """ISO date."""
    cash: float = 0.0
    bonus: float = 0.0
    gift: float = 0.0
    rights: float = 0.0
    rights_price: float = 0.0
    ratio: float | None = None
    source: str


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an instrument, as of the source's last word. ``None`` is not known."""

    symbol: str
    name: str | None = None
    kind: str | None = None
    price_tick: float | None = None
    lot: int | None = None
    listed: str | None = None
    """ISO date."""
    delisted: str | None = None
    """ISO date; of a contract its last trading day."""
    multiplier: float | None = None
    """What a contract's price is multiplied with."""
    underlying: str | None = None
    """Of a future or an option: the symbol or the product code."""
    option_type: str | None = None
    """``call`` or ``put``."""
    strike: float | None = None
    source: str


class ParseError(msgspec.Struct, frozen=True, kw_only=True):
    """A raw record that did not become a value, and why.

    ``reason`` is one of a small fixed set (it labels a metric): see the table in the parser that made it.
    """

    symbol: str
    reason: str
    detail: str = ""


class Parsed(msgspec.Struct, frozen=True):
    """What one raw batch became: quotes in the source's order, and the records that were refused."""

    quotes: tuple[Quote, ...] = ()
    errors: tuple[ParseError, ...] = ()


class ParsedTrades(msgspec.Struct, frozen=True):
    """The same of trades: each one, in the order of its symbol's ``time`` and ``index``, and the records that were refused."""

    trades: tuple[Trade, ...] = ()
    errors: tuple[ParseError, ...] = ()

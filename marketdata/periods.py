"""Where the bars of each period end, by the hours of each market.

Policy of auctions: on 1m the opening auction is a bar of its own, stamped where continuous trading begins (09:30); on longer
periods it is in the first bar; the closing auction is in the bar that ends at the close. Bars begin anew after the lunch
break, so those of an hour end at 10:30, 11:30, 14:00 and 15:00. The fixed-price session after the close is in the day's bar
alone. Days and times of day are Beijing's, those of markets around the clock included.

A market is named by its code; ``hours_of`` names that of a symbol, which differs where a product has hours of its own.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import cache
from typing import Final

from marketdata import symbols
from marketdata.calendar import (
    AFTER_HOURS,
    AROUND_THE_CLOCK,
    INDEX_FUTURES,
    PHASES,
    Phase,
    TradingCalendar,
    midnight,
)
from marketdata.types import Period, TradingStatus

MINUTE: Final = 60_000
"""Milliseconds."""

MINUTES: Final = {Period.M1: 1, Period.M5: 5, Period.M15: 15, Period.M30: 30, Period.H1: 60}
"""Intraday period -> its length in minutes of trading."""

TREASURY: Final = "IF/T"
"""The hours of treasury bond futures, which trade until 15:15 (CFFEX contract specifications of TS, TF, T and TL)."""

_TREASURY_CODE: Final = re.compile(r"T[FLS]?\d")

HOURS: Final[dict[str, tuple[Phase, ...]]] = {
    **PHASES,
    TREASURY: (*INDEX_FUTURES[:-1], Phase(INDEX_FUTURES[-1].start, (15 * 60 + 15) * MINUTE, TradingStatus.CONTINUOUS)),
}
"""Market -> the phases of its trading day."""

CLOSES: Final = dict.fromkeys(("SF", "DF", "ZF", "GF", "INE", "SHO", "SZO", "BKZS"), 15 * 60 * MINUTE)
"""Where a day's trading ends on markets of which no more than that is known here: their products differ in their night and
morning hours, and all end at 15:00 (trading rules of SHFE, DCE, CZCE, GFEX and INE; option trading rules of SSE and SZSE)."""


class UnknownHours(LookupError):
    """The trading hours of a market are not known, so nobody can say where its bars end."""

    def __init__(self, market: str) -> None:
        super().__init__(f"the trading hours of market {market} are not known")
        self.market = market


def base_of(period: Period) -> Period:
    """The period that is stored and from which this one is made: 1m, or 1d for days, weeks and months."""
    return Period.M1 if period in MINUTES else Period.D1


def hours_of(symbol: str) -> str:
    """The market whose hours a symbol keeps: its own market, but ``TREASURY`` for treasury bond futures."""
    market = symbols.market_of(symbol)
    return TREASURY if market == "IF" and _TREASURY_CODE.match(symbol) else market


def phases_of(market: str) -> tuple[Phase, ...]:
    """The phases of a market's trading day. Raises ``UnknownHours``."""
    phases = HOURS.get(market)
    if phases is None:
        raise UnknownHours(market)
    return phases


def trades_on(market: str, day: date, calendar: TradingCalendar) -> bool:
    """Whether a market trades on a day. Raises ``OutsideCalendar``."""
    return HOURS.get(market) is AROUND_THE_CLOCK or calendar.is_trading_day(day)


@cache
def stretches(market: str) -> tuple[tuple[int, int], ...]:
    """(start, end) of a day's unbroken stretches of trading after the opening auction, in ms since midnight.

    Raises ``UnknownHours``.
    """
    found: list[tuple[int, int]] = []
    for start, end, status in phases_of(market):
        if status not in (TradingStatus.CONTINUOUS, TradingStatus.CLOSING_AUCTION):
            continue
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return tuple(found)


@cache
def bar_ends(market: str, period: Period) -> tuple[int, ...]:
    """The end stamps of an ordinary day's bars in ms since midnight, ascending; of days, weeks and months the close alone.

    1m begins with the bar of the opening auction where the market has one. Raises ``UnknownHours``.
    """
    if period not in MINUTES:
        return (close_at(market),)
    length = MINUTES[period] * MINUTE
    ends = [min(at + length, end) for start, end in stretches(market) for at in range(start, end, length)]
    if period is Period.M1 and phases_of(market)[0].status is TradingStatus.OPENING_AUCTION:
        ends.insert(0, stretches(market)[0][0])
    return tuple(ends)


def close_at(market: str) -> int:
    """Where a market's trading day ends, in ms since midnight. Raises ``UnknownHours``."""
    known = CLOSES.get(market)
    return phases_of(market)[-1].end if known is None else known


def close_of(market: str, day: date) -> int:
    """The stamp of a day's bar: the close, in ms. Raises ``UnknownHours``."""
    return midnight(day) + close_at(market)


def closed_after(market: str, day: date, after_hours: bool = False) -> int:
    """The time in ms from which on nothing more is traded on a day.

    ``after_hours``: the instrument has the fixed-price session after the close (STAR Market, ChiNext). Raises ``UnknownHours``.
    """
    close = close_at(market)
    return midnight(day) + (max(close, AFTER_HOURS[-1].end) if after_hours else close)


def natural_span(period: Period, day: date) -> tuple[date, date]:
    """The first and the last day of the calendar week or month in which a day lies, whether they are traded on or not."""
    if period is Period.W1:
        first = day - timedelta(days=day.weekday())
        return first, first + timedelta(days=6)
    if period is Period.MON1:
        first = day.replace(day=1)
        return first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    raise ValueError(f"{period} bars do not span days")


def span_of(period: Period, day: date, calendar: TradingCalendar) -> tuple[date, date]:
    """The first and the last trading day of the calendar week or month in which a day lies, as far as the calendar goes.

    Of one without a trading day its first and last day. Raises ``OutsideCalendar`` where the day itself is not covered.
    """
    calendar.is_trading_day(day)
    first, last = natural_span(period, day)
    first, last = max(first, calendar.first), min(last, calendar.last)
    days = calendar.between(first, last)
    return (days[0], days[-1]) if days else (first, last)

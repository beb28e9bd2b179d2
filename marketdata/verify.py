"""Which of a source's bars are trading, and of which days all is known; what a terminal filled up is refused and counted.

What is refused, and how it is counted (``Reason``):

=============  ======================================================================================================
``missing``    a price is NaN: times were aligned and there was no bar
``zero``       a price is 0: a row was filled with zeros
``price``      a price is negative or infinite, or low, open, close and high contradict each other (an index: by more than
               ``INDEX_SLACK``)
``volume``     a volume or an amount is negative, or an amount is more than ``LARGEST``
``calendar``   the market does not trade on that day
``session``    no bar ends at that time
``after_hours``  an intraday bar of the fixed-price session after the close, which is in the day's bar alone
``padded``     the last close repeated without volume for a whole day, by the day or by the minute, of a share of Shanghai or
               Shenzhen that is not said to be suspended (where the last close is not known: any one price)
``unasked``    a day that was not asked for; nothing is wrong with it
=============  ======================================================================================================

What is kept, because it is real: minutes without a trade that repeat the last price, while the day has trades at all;
suspended days at one price and without volume, where the source says suspended; days at one price with volume (locked at the
limit); days with few minutes. Bonds, funds, options and shares in Beijing do have days without a trade, so for them a
flat day without volume is no evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import date
from enum import StrEnum
from typing import Any, Final

import numpy as np

from marketdata import periods, symbols
from marketdata.aggregate import split_days
from marketdata.calendar import A_SHARES, AFTER_HOURS, OutsideCalendar, TradingCalendar
from marketdata.exchanges import Kind
from marketdata.series import Ints, Series
from marketdata.types import Period

INDEX_SLACK: Final = 1e-5
"""By how much, relatively, the open and close of an index may lie outside of its range: exchanges publish them so. The Shenzhen
component index opened 0.01 below its low on 2015-12-15, the CSI 500 closed 0.05 below it on 2016-08-11."""
LARGEST: Final = 1e14
"""Of the currency; all of China's shares together trade some 3e12 on a busy day."""

EPOCH: Final = date(1970, 1, 1).toordinal()


class Reason(StrEnum):
    """Why a bar was refused; see the table above."""

    MISSING = "missing"
    ZERO = "zero"
    PRICE = "price"
    VOLUME = "volume"
    CALENDAR = "calendar"
    SESSION = "session"
    AFTER_HOURS = "after_hours"
    PADDED = "padded"
    UNASKED = "unasked"


ORDER: Final = tuple(Reason)
SOUND: Final = -1
DOUBTFUL: Final = frozenset({Reason.MISSING, Reason.ZERO, Reason.PRICE, Reason.VOLUME, Reason.PADDED})
"""Reasons that leave a hole in their day; the others are of rows that should not be there at all."""


def verify(
    series: Series,
    *,
    symbol: str,
    period: Period,
    days: Collection[date],
    calendar: TradingCalendar,
) -> tuple[Series, Counter[Reason], set[date]]:
    """The bars that are trading, how many were refused by reason, and those of ``days`` of which all is known.

    ``series`` must have been asked for by dates, not by count: nobody can see that a day lacks its first minutes. A day is
    complete

    * where it is no trading day;
    * where its bars reach the close and none was refused as missing, zero, price, volume or padded; minutes of shares and
      indices must also be of each stretch of trading, the morning and the afternoon;
    * of daily bars also where no row came, and the ``prev_close`` of the next bar is the close of the one before: then
      nothing was traded between;
    * where the source says of all of the day's rows that the instrument was suspended.

    Raises ``OutsideCalendar`` for a day that the calendar does not cover, ``periods.UnknownHours``, and ``ValueError`` for
    weeks and months, which are not stored.
    """
    if period in (Period.W1, Period.MON1):
        raise ValueError(f"{period} bars are made, not verified")
    market, kind = periods.hours_of(symbol), symbols.kind(symbol)
    trading = {_number(day) for day in days if periods.trades_on(market, day, calendar)}
    numbers, since = split_days(series.time)
    verdict = np.full(len(series), SOUND, dtype=np.int8)
    for reason, which in (
        *_off_calendar(market, numbers, {_number(day) for day in days}, calendar),
        *_off_grid(market, period, since),
        *_implausible(series, kind is Kind.INDEX),
    ):
        verdict[(verdict == SOUND) & which] = ORDER.index(reason)
    if kind is Kind.STOCK and market in ("SH", "SZ"):
        sound = np.flatnonzero(verdict == SOUND)
        padded = sound[_repeats_for_whole_days(series.pick(sound), numbers[sound])]
        verdict[padded] = ORDER.index(Reason.PADDED)
    kept = verdict == SOUND
    counts = np.bincount(verdict[~kept], minlength=len(ORDER)).tolist()
    doubtful = set(numbers[np.isin(verdict, [ORDER.index(reason) for reason in DOUBTFUL])].tolist())
    asleep = set(numbers.tolist()) - set(numbers[~series.suspended].tolist())
    reached = set(numbers[kept & (since == periods.close_at(market))].tolist())
    if period is not Period.D1 and kind in (Kind.STOCK, Kind.INDEX):
        for start, end in periods.stretches(market):
            reached &= set(numbers[kept & (start < since) & (since <= end)].tolist())
    complete = (reached - doubtful) | asleep
    trades = series if kept.all() else series.pick(kept)
    if period is Period.D1:
        complete |= _without_trade(trades, numbers[kept], trading - doubtful)
    refused = Counter({reason: count for reason, count in zip(ORDER, counts, strict=True) if count})
    return trades, refused, {day for day in days if _number(day) not in trading or _number(day) in complete}


def _number(day: date) -> int:
    """Days since 1970-01-01."""
    return day.toordinal() - EPOCH


def _off_calendar(market: str, numbers: Ints, asked: set[int], calendar: TradingCalendar) -> Iterator[tuple[Reason, Any]]:
    closed: list[int] = []
    unasked: list[int] = []
    for number in np.unique(numbers).tolist():
        try:
            if not periods.trades_on(market, date.fromordinal(number + EPOCH), calendar):
                closed.append(number)
            elif number not in asked:
                unasked.append(number)
        except OutsideCalendar:
            unasked.append(number)
    yield Reason.CALENDAR, np.isin(numbers, closed)
    yield Reason.UNASKED, np.isin(numbers, unasked)


def _off_grid(market: str, period: Period, since: Ints) -> Iterator[tuple[Reason, Any]]:
    off = ~np.isin(since, periods.bar_ends(market, period))
    after_hours = (since > periods.close_at(market)) & (since <= AFTER_HOURS[-1].end)
    if period is not Period.D1 and periods.phases_of(market) is A_SHARES:
        yield Reason.AFTER_HOURS, off & after_hours
    yield Reason.SESSION, off


def _implausible(series: Series, index: bool) -> Iterator[tuple[Reason, Any]]:
    prices = np.stack((series.open, series.high, series.low, series.close))
    yield Reason.MISSING, np.isnan(prices).any(axis=0)
    yield Reason.ZERO, (prices == 0).any(axis=0)
    slack = INDEX_SLACK if index else 0.0
    bottom, top = np.minimum(series.open, series.close), np.maximum(series.open, series.close)
    inside = (series.low <= series.high) & (series.low * (1 - slack) <= bottom) & (top <= series.high * (1 + slack))
    yield Reason.PRICE, ~(inside & (series.low > 0) & np.isfinite(series.high))
    yield Reason.VOLUME, (series.volume < 0) | (series.amount < 0) | (series.amount > LARGEST)


def _repeats_for_whole_days(series: Series, numbers: Ints) -> Any:
    """Which bars are of days that say nothing but the last close, as far as that is known: without volume and suspension."""
    if not len(series):
        return np.empty(0, np.bool_)
    first = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
    price = series.close[first]
    before = np.concatenate(([np.nan], series.close[:-1]))[first]
    told = series.prev_close[first]
    repeated = (price == before) | (price == told) | (np.isnan(before) & np.isnan(told))
    flat = np.maximum.reduceat(series.high, first) == np.minimum.reduceat(series.low, first)
    alive = np.logical_or.reduceat((series.volume > 0) | series.suspended, first)
    return np.repeat(flat & repeated & ~alive, np.diff(np.append(first, len(series))))


def _without_trade(series: Series, numbers: Ints, trading: set[int]) -> set[int]:
    """The days that have no bar and lie before one whose ``prev_close`` is the close of the bar before them."""
    before = np.concatenate(([np.nan], series.close[:-1]))[: len(series)]
    proven = np.append(before == series.prev_close, False)
    days = np.array(sorted(trading), np.int64)
    return set(days[proven[np.searchsorted(numbers, days)] & ~np.isin(days, numbers)].tolist())

"""Longer bars of shorter ones: 1m become 5m to 1h, days become weeks and months.

A longer bar covers the base bars whose end stamps lie in it (``periods``). Its rules:

* open and close are those of the first and the last bar that traded, high and low those of all that did. A bar with no volume
  did not trade if it is at one price, as rows that were filled up are, or of a suspended instrument. Where no bar has volume
  (some indices) those count that are not of a suspended instrument, and where all are, all. What came before the longer bar
  does not enter, so it is the same whatever range was asked;
* ``volume`` and ``amount`` are sums, exact to the share and to 0.0001 of the currency, whatever their order; an amount that
  is not known makes the sum not known;
* ``prev_close`` is that of the first bar, ``open_interest`` the last that is known; suspended is what was so throughout.

Weeks are calendar weeks, Monday to Sunday; months are calendar months. Both are stamped at the close of the last day that has
a bar. Adjust prices first and aggregate then: an ex-date may lie within a week.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from marketdata import periods
from marketdata.series import EMPTY, Floats, Ints, Series
from marketdata.types import Period

BEIJING: Final = 8 * 3_600_000
DAY: Final = 86_400_000
MONDAY: Final = 3
"""1970-01-01 was a Thursday: day number 0 is 3 days after a Monday."""
MONEY: Final = 10_000
"""Units of an amount in one of the currency: sources round amounts to 4 digits."""


def split_days(time: Ints) -> tuple[Ints, Ints]:
    """End stamps as days since 1970-01-01 in Beijing and ms since that day's midnight, in (0, 24 h]."""
    days = (time + (BEIJING - 1)) // DAY
    return days, time + BEIJING - days * DAY


def aggregate(series: Series, period: Period, market: str) -> Series:
    """The bars of ``period`` that the bars of its base period make, the forming one included.

    ``market``: as ``periods.hours_of`` names it. Intraday, bars after the close are left out. Raises ``periods.UnknownHours``.
    """
    if period is Period.M1 or not len(series):
        return series
    days, since = split_days(series.time)
    if period in periods.MINUTES:
        ends = np.array(periods.bar_ends(market, period), dtype=np.int64)
        inside = since <= ends[-1]
        if not inside.all():
            series, days, since = series.pick(inside), days[inside], since[inside]
            if not len(series):
                return EMPTY
        stamps = ends[np.searchsorted(ends, since)]
        group = days * DAY + stamps
    else:
        stamps = np.full(len(days), periods.close_at(market), dtype=np.int64)
        group = _spans(days, period)
    return combine(series, group, days * DAY - BEIJING + stamps)


def _spans(days: Ints, period: Period) -> Ints:
    if period is Period.W1:
        return (days + MONDAY) // 7
    if period is Period.MON1:
        return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    return days


def combine(series: Series, group: Ints, stamps: Ints) -> Series:
    """One bar of all neighbours that are in the same group, at the stamp of the last of them; there is at least one bar."""
    first = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
    last = np.concatenate((first[1:], [len(group)])) - 1
    counts = _counting(series, first, last)
    positions = np.arange(len(series))
    opening = np.minimum.reduceat(np.where(counts, positions, len(series)), first)
    closing = np.maximum.reduceat(np.where(counts, positions, -1), first)
    return Series(
        time=stamps[last],
        open=series.open[opening],
        high=np.maximum.reduceat(np.where(counts, series.high, -np.inf), first),
        low=np.minimum.reduceat(np.where(counts, series.low, np.inf), first),
        close=series.close[closing],
        volume=np.add.reduceat(series.volume, first),
        amount=_sums(series.amount, first),
        prev_close=series.prev_close[first],
        open_interest=_last_known(series.open_interest, first),
        suspended=np.logical_and.reduceat(series.suspended, first),
    )


def _counting(series: Series, first: Any, last: Any) -> Any:
    """Which bars make the prices of the longer bars that lie from ``first`` to ``last``; of each at least one."""

    def whole(flags: Any) -> Any:
        """Whether it is so of any bar of the same longer bar."""
        return np.repeat(np.logical_or.reduceat(flags, first), last - first + 1)

    dealt = series.volume > 0
    flat = (series.open == series.close) & (series.high == series.low) & (series.high == series.close)
    counts = dealt | ~(series.suspended | (flat & whole(dealt)))
    return counts | ~whole(counts)


def _sums(amount: Floats, first: Any) -> Floats:
    """Sums without the error of float addition: whole units and fractions are added as integers."""
    known = np.nan_to_num(amount)
    whole = np.floor(known)
    units = whole.astype(np.int64) * MONEY + np.rint((known - whole) * MONEY).astype(np.int64)
    sums = np.add.reduceat(units, first) / MONEY
    return np.where(np.logical_or.reduceat(np.isnan(amount), first), np.nan, sums)


def _last_known(values: Floats, first: Any) -> Floats:
    found = np.maximum.reduceat(np.where(np.isnan(values), -1, np.arange(len(values))), first)
    return np.where(found < 0, np.nan, values[np.maximum(found, 0)])

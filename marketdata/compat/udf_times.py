"""When bars are, as TradingView's UDF has it. Pure.

In seconds since the epoch: intraday where a bar begins, of days 00:00 UTC of the trading day, of weeks and months 00:00 UTC of
their first trading day. The opening auction is in the day's first bar, on 1m as well: TradingView knows no bar before the
session. Rows of a suspended instrument, which only say that there was no trade, are no bars: a chart jumps over such days.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Final

import numpy as np

from marketdata import periods
from marketdata.aggregate import BEIJING, combine, split_days
from marketdata.calendar import DAY, TradingCalendar, day_of, midnight
from marketdata.compat.begins import begins_of
from marketdata.history.plan import span_of
from marketdata.periods import MINUTES
from marketdata.series import EMPTY, Ints, Series
from marketdata.types import Period

RESOLUTIONS: Final[Mapping[str, Period]] = {
    "1": Period.M1,
    "5": Period.M5,
    "15": Period.M15,
    "30": Period.M30,
    "60": Period.H1,
    "1D": Period.D1,
    "1W": Period.W1,
    "1M": Period.MON1,
}
"""What UDF calls the periods."""
SECONDS: Final = 86_400
"""In a day."""
EPOCH: Final = date(1970, 1, 1)


def as_udf(series: Series, period: Period, hours: str, calendar: TradingCalendar) -> Series:
    """The bars with UDF's times for their stamps, in seconds.

    ``hours`` is the market as ``periods.hours_of`` names it. Raises ``periods.UnknownHours``.
    """
    traded = series.pick(~(series.suspended & (series.volume == 0)))
    if not len(traded):
        return EMPTY
    times = _times(traded.time, period, hours, calendar)
    return combine(traded, times, times)


def _times(time: Ints, period: Period, hours: str, calendar: TradingCalendar) -> Ints:
    if period in MINUTES:
        days, since = split_days(begins_of(time, period, hours) + 1)
        return (days * DAY - BEIJING + np.maximum(since - 1, periods.stretches(hours)[0][0])) // 1000
    days, _ = split_days(time)
    if period is Period.D1:
        return days * SECONDS
    firsts = (span_of(period, EPOCH + timedelta(days=number), calendar)[0] for number in days.tolist())
    return np.array([seconds_of(first) for first in firsts], np.int64)


def last_end(before: int, period: Period, hours: str, calendar: TradingCalendar) -> int:
    """The last end stamp (ms) that a bar can have whose UDF time is before ``before`` (s). Raises ``periods.UnknownHours``."""
    if period in MINUTES:
        ends, begins = _grid(hours, period)
        ms = before * 1000
        day = midnight(day_of(ms - 1))
        begun = int(np.searchsorted(begins, ms - day, "left"))
        return day + (int(ends[begun - 1]) if begun else 0)
    day_before = day_at(before - 1)
    if period is Period.D1:
        return midnight(day_before) + DAY
    first, last = periods.natural_span(period, day_before)
    has_begun = seconds_of(span_of(period, day_before, calendar)[0]) < before
    return midnight(last) + DAY if has_begun else midnight(first)


def first_end(since: int, period: Period) -> int:
    """An end stamp (ms) before which no bar ends whose UDF time is ``since`` (s) or later."""
    if period in MINUTES:
        return since * 1000
    day = day_at(since + SECONDS - 1)
    return midnight(day if period is Period.D1 else periods.natural_span(period, day)[0])


def seconds_of(day: date) -> int:
    """00:00 UTC of a day."""
    return (day - EPOCH).days * SECONDS


def day_at(seconds: int) -> date:
    """The day in UTC."""
    return datetime.fromtimestamp(seconds, UTC).date()


@cache
def _grid(hours: str, period: Period) -> tuple[Ints, Ints]:
    """The ends of a day's bars and where UDF has them begin, in ms since midnight."""
    ends = np.array(periods.bar_ends(hours, period), np.int64)
    begins = begins_of(ends - BEIJING, period, hours) + BEIJING
    return ends, np.maximum(begins, periods.stretches(hours)[0][0])

"""Bars by their beginnings: Argus stamps a bar at its end, other vendors stamp it where it begins."""

from __future__ import annotations

from datetime import date
from functools import cache, lru_cache

import numpy as np

from marketdata import periods
from marketdata.aggregate import BEIJING, DAY, MONDAY, split_days
from marketdata.calendar import day_of, midnight
from marketdata.periods import MINUTE, MINUTES
from marketdata.series import Ints
from marketdata.types import Period


def begins_of(time: Ints, period: Period, hours: str) -> Ints:
    """Where bars begin that end at ``time``; both in ms.

    ``hours`` is the market as ``periods.hours_of`` names it. Intraday a bar begins where its trading does; the opening
    auction's bar of 1m begins a minute before its stamp. Of days, weeks (from Monday) and months it is their first midnight in
    Beijing. Raises ``periods.UnknownHours``.
    """
    days, since = split_days(time)
    if period in MINUTES:
        ends, begins = _grid(hours, period)
        place = np.searchsorted(ends, since)
        inside = place < len(ends)
        # What an extraordinary session adds lies beyond the grid.
        first = np.where(inside, begins[np.minimum(place, len(ends) - 1)], since - MINUTES[period] * MINUTE)
        return days * DAY - BEIJING + first
    if period is Period.W1:
        days = days - (days + MONDAY) % 7
    elif period is Period.MON1:
        days = days.astype("datetime64[D]").astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return days * DAY - BEIJING


@lru_cache(maxsize=1024)
def begin_of(time: int, period: Period, hours: str) -> int:
    """The same of one bar. Remembered: all that close at a time begin at one."""
    return int(begins_of(np.array([time], np.int64), period, hours)[0])


def ends_within(period: Period, first: int, last: int) -> tuple[int, int]:
    """The end stamps, from and to, among which are those of all bars that reach into [first, last]; all in ms."""
    if period in MINUTES:
        return first + 1, last + MINUTES[period] * MINUTE
    return _span(period, day_of(first))[0] + 1, _span(period, day_of(last))[1]


def _span(period: Period, day: date) -> tuple[int, int]:
    first, last = (day, day) if period is Period.D1 else periods.natural_span(period, day)
    return midnight(first), midnight(last) + DAY


@cache
def _grid(hours: str, period: Period) -> tuple[Ints, Ints]:
    """The ends of a day's bars and where they begin, side by side, in ms since midnight."""
    ends = periods.bar_ends(hours, period)
    length = MINUTES[period] * MINUTE
    starts = [start for start, _ in periods.stretches(hours)]
    # The bar of the opening auction ends where the first stretch starts; a day's last bar may be shorter than the others, as
    # that of treasury bond futures from 15:00 to 15:15.
    begins = [max((before, end - length, *(s for s in starts if s < end))) for before, end in zip((0, *ends), ends, strict=False)]
    return np.array(ends, np.int64), np.array(begins, np.int64)

"""Where bars begin, on every market whose hours are known."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata import periods
from marketdata.calendar import DAY, midnight
from marketdata.compat.begins import begin_of, begins_of, ends_within
from marketdata.periods import HOURS, MINUTE, MINUTES
from marketdata.types import Period

FRIDAY = date(2026, 6, 26)
DAYS = [FRIDAY + timedelta(days=offset) for offset in range(-10, 11)]


def ends(hours: str, period: Period, days: list[date]) -> np.ndarray:
    """The stamps of all bars of the days."""
    return np.array([midnight(day) + end for day in days for end in periods.bar_ends(hours, period)], np.int64)


@pytest.mark.parametrize("hours", HOURS)
@pytest.mark.parametrize("period", MINUTES)
def test_within_a_day_each_bar_begins_where_the_one_before_ends_or_trading_does(hours: str, period: Period) -> None:
    stamps = ends(hours, period, [FRIDAY])
    begins = begins_of(stamps, period, hours)
    starts = {midnight(FRIDAY) + start for start, _ in periods.stretches(hours)}
    assert (begins < stamps).all()
    assert (stamps - begins <= MINUTES[period] * MINUTE).all()
    for before, begin in zip(stamps, begins[1:], strict=False):
        assert begin == before or begin in starts
    assert len(set(begins)) == len(stamps)
    assert begins[0] in starts or begins[0] == min(starts) - MINUTE, "the opening auction's minute alone comes before"


@pytest.mark.parametrize(("period", "begin"), [(Period.D1, "2026-06-26"), (Period.W1, "2026-06-22"), (Period.MON1, "2026-06-01")])
@pytest.mark.parametrize("hours", ["SH", "BINANCE"])
def test_days_weeks_and_months_begin_at_their_first_midnight(hours: str, period: Period, begin: str) -> None:
    close = periods.close_of(hours, FRIDAY)
    assert begin_of(close, period, hours) == midnight(date.fromisoformat(begin))


def test_what_an_extraordinary_session_adds_is_as_long_as_others() -> None:
    late = midnight(FRIDAY) + 16 * 60 * MINUTE
    assert begin_of(late, Period.M5, "SH") == late - 5 * MINUTE


@given(
    period=st.sampled_from([*MINUTES, Period.D1]),
    first=st.integers(midnight(DAYS[8]), midnight(DAYS[11])),
    length=st.integers(0, 2 * DAY),
)
def test_all_bars_that_reach_into_a_range_end_within_what_is_asked_for(period: Period, first: int, length: int) -> None:
    last = first + length
    stamps = ends("SH", period, DAYS)
    begins = begins_of(stamps, period, "SH")
    start, end = ends_within(period, first, last)
    reaching = stamps[(stamps > first) & (begins <= last)]
    assert all(start <= stamp <= end for stamp in reaching)

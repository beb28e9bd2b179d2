"""A bar's time in UDF: where it begins intraday, the trading day at 00:00 UTC else; and which end stamps a moment stands for."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata import periods
from marketdata.calendar import CHINA, SHANGHAI, midnight
from marketdata.compat.udf_times import RESOLUTIONS, as_udf, first_end, last_end
from marketdata.series import EMPTY, Series, from_bars
from marketdata.types import Bar, Period

DAY = date(2026, 3, 5)  # a Thursday
HOURS = ("SH", "IF", periods.TREASURY, "BINANCE")


def bar(day: date, since: int, *, price: float = 10.0, volume: int = 100, suspended: bool = False) -> Bar:
    """A bar that ends so many ms after a day's midnight in Beijing."""
    return Bar(
        symbol="600000.SH",
        period=Period.M1,
        time=midnight(day) + since,
        open=price,
        high=price + 0.5,
        low=price - 0.5,
        close=price + 0.1,
        volume=volume,
        suspended=suspended,
        source="t",
    )


def day_of_bars(hours: str, period: Period, day: date = DAY) -> Series:
    return from_bars([bar(day, end) for end in periods.bar_ends(hours, period)])


def clock(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, SHANGHAI):%H:%M}"


def utc(*day: int) -> int:
    return int(datetime(*day, tzinfo=UTC).timestamp())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hours", "period", "begins"),
    [
        ("SH", Period.H1, ["09:30", "10:30", "13:00", "14:00"]),
        ("SH", Period.M30, ["09:30", "10:00", "10:30", "11:00", "13:00", "13:30", "14:00", "14:30"]),
        (periods.TREASURY, Period.H1, ["09:30", "10:30", "13:00", "14:00", "15:00"]),
    ],
)
def test_an_intraday_bar_stands_where_it_begins(hours: str, period: Period, begins: list[str]) -> None:
    found = as_udf(day_of_bars(hours, period), period, hours, CHINA)
    assert [clock(time) for time in found.time.tolist()] == begins


def test_the_opening_auction_is_part_of_the_first_minute() -> None:
    auction, first, second = ((9 * 60 + minute) * 60_000 for minute in (30, 31, 32))
    bars = [bar(DAY, auction, price=10.0, volume=7), bar(DAY, first, price=11.0, volume=5), bar(DAY, second, price=12.0)]
    found = as_udf(from_bars(bars), Period.M1, "SH", CHINA)
    assert [clock(time) for time in found.time.tolist()] == ["09:30", "09:31"]
    assert (found.open[0], found.high[0], found.low[0], found.close[0], found.volume[0]) == (10.0, 11.5, 9.5, 11.1, 12)
    alone = as_udf(from_bars(bars[:1]), Period.M1, "SH", CHINA)
    assert [clock(time) for time in alone.time.tolist()] == ["09:30"]


def test_a_day_is_its_date_at_midnight_utc() -> None:
    found = as_udf(day_of_bars("SH", Period.D1), Period.D1, "SH", CHINA)
    assert found.time.tolist() == [utc(2026, 3, 5)]


@pytest.mark.parametrize(
    ("period", "day", "first"),
    [
        (Period.W1, date(2026, 3, 5), utc(2026, 3, 2)),
        # The National Day holiday takes the week's first days, and the month's.
        (Period.W1, date(2025, 10, 10), utc(2025, 10, 9)),
        (Period.MON1, date(2025, 10, 31), utc(2025, 10, 9)),
        (Period.MON1, date(2026, 3, 5), utc(2026, 3, 2)),
    ],
)
def test_a_week_and_a_month_stand_at_their_first_trading_day(period: Period, day: date, first: int) -> None:
    found = as_udf(day_of_bars("SH", period, day), period, "SH", CHINA)
    assert found.time.tolist() == [first]


def test_days_of_a_suspended_instrument_are_no_bars() -> None:
    close = 15 * 3_600_000
    bars = [bar(date(2026, 3, 4), close), bar(DAY, close, volume=0, suspended=True)]
    assert as_udf(from_bars(bars), Period.D1, "SH", CHINA).time.tolist() == [utc(2026, 3, 4)]
    assert as_udf(from_bars(bars[1:]), Period.D1, "SH", CHINA) is EMPTY


@settings(deadline=None)
@given(
    hours=st.sampled_from(HOURS),
    period=st.sampled_from([*RESOLUTIONS.values()]),
    moment=st.integers(utc(2026, 3, 1), utc(2026, 3, 10)),
)
def test_a_moment_divides_end_stamps_as_it_divides_bars(hours: str, period: Period, moment: int) -> None:
    days = [day for day in CHINA.days if date(2026, 2, 20) <= day <= date(2026, 3, 20)]
    native = from_bars([bar(day, end) for day in days for end in periods.bar_ends(hours, period)])
    if period in (Period.W1, Period.MON1):
        lasts = sorted({periods.span_of(period, day, CHINA)[1] for day in days})
        native = from_bars([bar(day, periods.close_at(hours)) for day in lasts])
    end = last_end(moment, period, hours, CHINA)
    before = as_udf(native.between(None, end), period, hours, CHINA)
    whole = as_udf(native, period, hours, CHINA)
    assert before.time.tolist() == [time for time in whole.time.tolist() if time < moment]
    since = as_udf(native.between(first_end(moment, period), None), period, hours, CHINA)
    assert since.time[since.time >= moment].tolist() == [time for time in whole.time.tolist() if time >= moment]

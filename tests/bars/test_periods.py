"""Where bars end: the grids of the markets, the days of weeks and months."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata import periods
from marketdata.calendar import CHINA, DAY, OutsideCalendar, TradingCalendar, midnight
from marketdata.types import Period
from tests.bars.material import at

MARKETS = sorted(periods.HOURS)


def clock(ends: tuple[int, ...]) -> list[str]:
    return [f"{end // 3_600_000:02d}:{end // 60_000 % 60:02d}" for end in ends]


@pytest.mark.parametrize("market", ["SH", "SZ", "BJ", "IF"])
def test_half_hours_and_hours_begin_anew_after_lunch(market: str) -> None:
    halves = ["10:00", "10:30", "11:00", "11:30", "13:30", "14:00", "14:30", "15:00"]
    assert clock(periods.bar_ends(market, Period.M30)) == halves
    assert clock(periods.bar_ends(market, Period.H1)) == ["10:30", "11:30", "14:00", "15:00"]


def test_a_day_of_shares_has_241_minutes_of_which_the_opening_auction_is_the_first() -> None:
    ends = clock(periods.bar_ends("SH", Period.M1))
    assert len(ends) == 241
    assert ends[:2] == ["09:30", "09:31"]
    assert ends[120:122] == ["11:30", "13:01"]
    assert ends[-1] == "15:00"


def test_a_day_around_the_clock_has_1440_minutes_and_no_auction() -> None:
    ends = periods.bar_ends("BINANCE", Period.M1)
    assert (len(ends), ends[0], ends[-1]) == (1440, 60_000, DAY)
    assert periods.close_of("BINANCE", date(2024, 8, 8)) == midnight(date(2024, 8, 9))


def test_treasury_futures_trade_a_quarter_longer_than_those_of_indices() -> None:
    assert periods.hours_of("T2503.IF") == periods.hours_of("TL2503.IF") == periods.TREASURY
    assert periods.hours_of("IF2503.IF") == "IF"
    assert clock(periods.bar_ends(periods.TREASURY, Period.H1)) == ["10:30", "11:30", "14:00", "15:00", "15:15"]
    assert len(periods.bar_ends(periods.TREASURY, Period.M1)) == len(periods.bar_ends("IF", Period.M1)) + 15


@pytest.mark.parametrize("market", ["HK", "XX"])
def test_hours_that_are_not_known_are_not_guessed(market: str) -> None:
    for ask in (lambda: periods.bar_ends(market, Period.M1), lambda: periods.close_of(market, date(2024, 5, 6))):
        with pytest.raises(periods.UnknownHours, match=market):
            ask()


@pytest.mark.parametrize("market", ["SF", "DF", "ZF", "GF", "INE", "SHO", "SZO"])
def test_where_only_the_close_is_known_there_are_bars_of_days_and_none_of_minutes(market: str) -> None:
    assert periods.close_of(market, date(2024, 5, 6)) == at("2024-05-06 15:00")
    with pytest.raises(periods.UnknownHours):
        periods.bar_ends(market, Period.M5)


def test_what_is_traded_after_hours_is_waited_for_and_no_less_than_the_close_is() -> None:
    assert periods.closed_after("SH", date(2024, 5, 6)) == at("2024-05-06 15:00")
    assert periods.closed_after("SH", date(2024, 5, 6), True) == at("2024-05-06 15:30")
    assert periods.closed_after("BINANCE", date(2024, 5, 6), True) == at("2024-05-07 00:00")


@settings(deadline=None)
@given(market=st.sampled_from(MARKETS))
def test_the_ends_of_longer_bars_are_ends_of_shorter_ones(market: str) -> None:
    for shorter, longer in ((Period.M1, Period.M5), (Period.M5, Period.M15), (Period.M15, Period.M30), (Period.M30, Period.H1)):
        assert set(periods.bar_ends(market, longer)) <= set(periods.bar_ends(market, shorter))


def test_periods_are_made_of_minutes_or_of_days() -> None:
    assert {period for period in Period if periods.base_of(period) is Period.D1} == {Period.D1, Period.W1, Period.MON1}


def test_the_span_of_a_week_or_month_is_its_first_and_last_trading_day() -> None:
    assert periods.span_of(Period.W1, date(2024, 5, 4), CHINA) == (date(2024, 4, 29), date(2024, 4, 30))
    assert periods.span_of(Period.W1, date(2024, 5, 8), CHINA) == (date(2024, 5, 6), date(2024, 5, 10))
    assert periods.span_of(Period.MON1, date(2024, 2, 29), CHINA) == (date(2024, 2, 1), date(2024, 2, 29))
    assert periods.span_of(Period.MON1, date(2023, 12, 1), CHINA) == (date(2023, 12, 1), date(2023, 12, 29))


def test_a_week_without_trading_spans_no_trading_day() -> None:
    first, last = periods.span_of(Period.W1, date(2024, 2, 14), CHINA)
    assert (first, last) == (date(2024, 2, 12), date(2024, 2, 18))
    assert CHINA.between(first, last) == ()


def test_a_span_ends_where_the_calendar_does_and_outside_of_it_is_no_answer() -> None:
    short = TradingCalendar.from_dates(["2024-05-06", "2024-05-07", "2024-05-08"])
    assert periods.span_of(Period.W1, date(2024, 5, 7), short) == (date(2024, 5, 6), date(2024, 5, 8))
    with pytest.raises(OutsideCalendar):
        periods.span_of(Period.W1, date(2024, 5, 9), short)
    with pytest.raises(ValueError, match="5m"):
        periods.span_of(Period.M5, date(2024, 5, 7), short)


@settings(deadline=None)
@given(day=st.dates(CHINA.first, CHINA.last), period=st.sampled_from([Period.W1, Period.MON1]))
def test_all_days_of_a_span_have_the_same_span(day: date, period: Period) -> None:
    first, last = periods.span_of(period, day, CHINA)
    assert first <= last
    for other in (first, last, first + timedelta(days=(last - first).days // 2)):
        assert periods.span_of(period, other, CHINA) == (first, last)

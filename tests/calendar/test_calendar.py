"""The exchanges' hours and days, held against their rules and against recorded calendars."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import date, datetime
from pathlib import Path

import pytest

from marketdata import holidays
from marketdata.calendar import (
    CHINA,
    SHANGHAI,
    OutsideCalendar,
    TradingCalendar,
    day_of,
    midnight,
    next_session,
    phase,
    phases_of,
    sessions,
)
from marketdata.types import TradingStatus


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).timestamp() * 1000)


@pytest.mark.parametrize(
    ("time", "status"),
    [
        ("00:00:00", "pre_open"),
        ("09:14:59.999", "pre_open"),
        ("09:15:00", "opening_auction"),
        ("09:24:59.999", "opening_auction"),
        ("09:25:00", "break"),
        ("09:30:00", "continuous"),
        ("11:29:59.999", "continuous"),
        ("11:30:00", "break"),
        ("12:59:59.999", "break"),
        ("13:00:00", "continuous"),
        ("14:56:59.999", "continuous"),
        ("14:57:00", "closing_auction"),
        ("15:00:00", "closed"),
        ("23:59:59.999", "closed"),
    ],
)
@pytest.mark.parametrize("market", ["SH", "SZ", "BJ"])
def test_a_shares_go_through_the_phases_of_the_rules(market: str, time: str, status: str) -> None:
    assert phase(market, ms(f"2026-03-04T{time}")) == status


@pytest.mark.parametrize(
    ("time", "status"),
    [("15:00:00", "break"), ("15:05:00", "after_hours"), ("15:29:59.999", "after_hours"), ("15:30:00", "closed")],
)
def test_star_and_chinext_trade_at_the_close_after_hours(time: str, status: str) -> None:
    assert phase("SH", ms(f"2026-03-04T{time}"), after_hours=True) == status


@pytest.mark.parametrize(
    ("time", "status"),
    [
        ("09:24:59", "pre_open"),
        ("09:25:00", "opening_auction"),
        ("09:30:00", "continuous"),
        ("11:30:00", "break"),
        ("14:59:59", "continuous"),
        ("15:00:00", "closed"),
    ],
)
def test_index_futures_go_through_the_phases_of_cffex(time: str, status: str) -> None:
    assert phase("IF", ms(f"2026-03-04T{time}"), after_hours=True) == status


def test_crypto_trades_around_the_clock() -> None:
    assert phase("BINANCE", ms("2030-01-05T03:00:00")) == TradingStatus.CONTINUOUS


def test_the_phase_of_a_market_without_known_hours_is_unknown() -> None:
    assert phase("SF", ms("2026-03-04T10:00:00")) == TradingStatus.UNKNOWN
    assert phases_of("SF") == ()
    assert next_session("SF", ms("2026-03-04T10:00:00")) is None


@pytest.mark.parametrize("day", ["2026-03-07", "2026-02-17", "2026-10-07", "2026-02-14"])
def test_weekends_and_holidays_are_closed(day: str) -> None:
    assert phase("SH", ms(f"{day}T10:00:00")) == TradingStatus.CLOSED
    assert sessions("SH", date.fromisoformat(day)) == ()


def test_outside_the_calendar_nothing_is_guessed() -> None:
    beyond = date(2027, 1, 4)
    assert phase("SH", ms("2027-01-04T10:00:00")) == TradingStatus.UNKNOWN
    for question in (CHINA.is_trading_day, CHINA.next_day, CHINA.previous_day):
        with pytest.raises(OutsideCalendar, match="covers 1990-12-19 to 2026-12-31"):
            question(beyond)
    with pytest.raises(OutsideCalendar):
        CHINA.between(date(2026, 12, 1), beyond)
    with pytest.raises(OutsideCalendar):
        next_session("SH", ms("2026-12-31T15:00:00"))


def test_the_days_before_and_after_lie_beyond_the_holidays() -> None:
    assert CHINA.next_day(date(2026, 2, 13)) == date(2026, 2, 24)
    assert CHINA.previous_day(date(2026, 2, 24)) == date(2026, 2, 13)
    assert CHINA.between(date(2026, 2, 12), date(2026, 2, 25)) == tuple(date(2026, 2, day) for day in (12, 13, 24, 25))


def test_no_day_is_known_after_the_last_or_before_the_first() -> None:
    with pytest.raises(OutsideCalendar):
        CHINA.next_day(CHINA.last)
    with pytest.raises(OutsideCalendar):
        CHINA.previous_day(CHINA.days[0])


@pytest.mark.parametrize(
    ("now", "start", "status"),
    [
        ("2026-03-04T00:00:00", "2026-03-04T09:15:00", "opening_auction"),
        ("2026-03-04T09:15:00", "2026-03-04T09:30:00", "continuous"),
        ("2026-03-04T12:00:00", "2026-03-04T13:00:00", "continuous"),
        ("2026-03-04T14:00:00", "2026-03-04T14:57:00", "closing_auction"),
        ("2026-03-04T15:10:00", "2026-03-05T09:15:00", "opening_auction"),
        ("2026-03-06T20:00:00", "2026-03-09T09:15:00", "opening_auction"),
        ("2026-02-13T20:00:00", "2026-02-24T09:15:00", "opening_auction"),
    ],
)
def test_the_next_session_is_found_over_lunch_nights_and_holidays(now: str, start: str, status: str) -> None:
    session = next_session("SZ", ms(now))
    assert session is not None
    assert (session.start, session.status) == (ms(start), status)


def test_a_day_has_its_sessions_without_the_pauses() -> None:
    hours = [(session.end - session.start) // 60_000 for session in sessions("SZ", date(2026, 3, 4), after_hours=True)]
    assert hours == [10, 120, 117, 3, 25]


def test_a_source_may_bring_its_own_dates() -> None:
    calendar = TradingCalendar.from_dates(["2030-01-07", "2030-01-04", "2030-01-04"])
    assert calendar.days == (date(2030, 1, 4), date(2030, 1, 7))
    assert phase("SH", ms("2030-01-04T10:00:00"), calendar=calendar) == TradingStatus.CONTINUOUS
    assert phase("SH", ms("2030-01-05T10:00:00"), calendar=calendar) == TradingStatus.CLOSED
    assert phase("SH", ms("2030-01-08T10:00:00"), calendar=calendar) == TradingStatus.UNKNOWN
    with pytest.raises(ValueError, match="at least one"):
        TradingCalendar.from_dates([])


def test_days_are_beijing_days() -> None:
    assert day_of(ms("2026-03-04T00:00:00")) == date(2026, 3, 4)
    assert day_of(ms("2026-03-04T00:00:00") - 1) == date(2026, 3, 3)
    assert midnight(date(2026, 3, 4)) == ms("2026-03-04T00:00:00")


def test_the_trading_days_are_those_of_the_recorded_calendar(data_dir: Path) -> None:
    with gzip.open(data_dir / "calendars" / "calendar.json.gz") as file:
        recorded = [f"{text[:4]}-{text[4:6]}-{text[6:]}" for text in json.load(file)]
    assert [day.isoformat() for day in CHINA.days] == recorded
    assert len(recorded) == 8797
    assert (CHINA.first.isoformat(), CHINA.last.isoformat()) == ("1990-12-19", "2026-12-31")


def test_the_exchanges_have_never_traded_at_a_weekend_nor_on_a_day_of_the_table() -> None:
    assert all(day.weekday() < 5 for day in CHINA.days)
    assert not set(CHINA.days) & set(holidays.closed_weekdays())


@pytest.mark.parametrize("day", ["1997-07-01", "1999-12-20", "2015-09-03", "2020-01-31", "1999-12-31", "2000-01-03"])
def test_closures_for_one_occasion_and_over_the_turn_of_a_year_are_known(day: str) -> None:
    assert not CHINA.is_trading_day(date.fromisoformat(day))


@pytest.mark.parametrize("year", range(2020, 2027))
def test_the_trading_days_are_those_of_the_yearly_lists(data_dir: Path, year: int) -> None:
    with (data_dir / "calendars" / "adata_calendar" / f"{year}.csv").open() as file:
        for row in csv.DictReader(file):
            assert CHINA.is_trading_day(date.fromisoformat(row["trade_date"])) == (row["trade_status"] == "1"), row

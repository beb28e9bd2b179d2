"""The built-in calendar joined with what a source told: extended, never overruled, never guessed."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from marketdata import metrics, universe
from marketdata.calendar import CHINA, OutsideCalendar
from marketdata.reference import days, store

pytestmark = pytest.mark.django_db


def tell(market: str, *dates: str, source: str = "qmt") -> None:
    store.save_trading_dates(source=source, market=market, dates=dates)
    days.load()


def test_the_mainland_has_the_built_in_calendar_before_anybody_told_anything() -> None:
    for market in ("SH", "SZ", "BJ", "IF", "SF"):
        assert days.calendar_of(market) is CHINA
    assert days.known_of("SH").source == "built-in"


def test_after_the_built_in_end_the_source_s_word_counts_as_far_as_it_goes() -> None:
    tell("SH", "2026-12-30", "2026-12-31", "2027-01-04", "2027-01-06")
    known = days.known_of("SH")
    assert known.source == "built-in,qmt"
    assert known.refreshed_at is not None
    assert not known.conflicts
    assert (known.calendar.first, known.calendar.last) == (CHINA.first, date(2027, 1, 6))
    assert known.calendar.next_day(date(2026, 12, 31)) == date(2027, 1, 4)
    assert not known.calendar.is_trading_day(date(2027, 1, 5))
    with pytest.raises(OutsideCalendar):
        known.calendar.is_trading_day(date(2027, 1, 7))
    assert days.calendar_of("SZ") is CHINA


def test_within_the_built_in_days_the_table_rules_and_the_conflict_is_counted_and_named() -> None:
    tell("SH", "2026-09-30", "2026-10-01", "2026-10-08", "2026-10-12")
    known = days.known_of("SH")
    assert known.calendar.days == CHINA.days
    assert known.conflicts == (date(2026, 10, 1), date(2026, 10, 9))
    assert metrics.CALENDAR_CONFLICTS.labels("SH")._value.get() == 2


def test_a_source_whose_days_begin_after_a_gap_does_not_extend_the_calendar() -> None:
    tell("SH", "2027-02-01", "2027-02-02")
    assert days.calendar_of("SH").last == CHINA.last


def test_a_market_without_a_table_has_the_source_s_word_alone() -> None:
    with pytest.raises(days.NoCalendar, match="HK"):
        days.calendar_of("HK")
    tell("HK", "2026-11-19", "2026-11-20")
    assert days.calendar_of("HK").days == (date(2026, 11, 19), date(2026, 11, 20))
    assert days.known_of("HK").source == "qmt"


def test_crypto_trades_every_day() -> None:
    calendar = days.calendar_of("BINANCE")
    saturday = date(2026, 11, 21)
    assert calendar.next_day(saturday) == saturday + timedelta(days=1)


@pytest.mark.django_db(transaction=True)
def test_a_new_revision_reaches_a_process_with_the_universe() -> None:
    store.save_trading_dates(source="qmt", market="SH", dates=["2026-12-31", "2027-01-04"])
    assert days.calendar_of("SH") is CHINA
    assert universe._load_if_changed()
    assert days.calendar_of("SH").last == date(2027, 1, 4)
    store.save_trading_dates(source="qmt", market="SH", dates=["2026-12-31", "2027-01-04"])
    assert not universe._load_if_changed()


def test_a_worker_looks_at_the_revision_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(days, "LOOK_EVERY", 0.0)
    days.reload()
    store.save_trading_dates(source="qmt", market="SH", dates=["2026-12-31", "2027-01-04"])
    days.reload()
    assert days.calendar_of("SH").last == date(2027, 1, 4)


def test_another_source_s_dates_go_when_a_new_one_tells_its_own() -> None:
    tell("HK", "2026-11-20", source="qmt")
    tell("SH", "2026-11-20", source="replay")
    with pytest.raises(days.NoCalendar):
        days.calendar_of("HK")

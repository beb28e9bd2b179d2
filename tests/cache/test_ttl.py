"""How long what is held stays good, by use and by the calendar."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from marketdata.cache import ttl
from marketdata.calendar import CHINA, SHANGHAI
from marketdata.types import Period


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).timestamp() * 1000)


@pytest.mark.parametrize(
    ("uses", "seconds"), [(0, 600), (1, 600), (2, 2400), (3, 9600), (5, 153_600), (6, 604_800), (10_000_000, 604_800)]
)
def test_closed_days_stay_longer_the_more_they_are_used(uses: int, seconds: int) -> None:
    assert ttl.closed_days(uses) == seconds


@pytest.mark.parametrize(
    ("period", "when", "seconds"),
    [
        (Period.M1, "2026-01-05T10:00:20.500", 39.5),
        (Period.M1, "2026-01-05T10:00:59.900", 1.0),
        (Period.M5, "2026-01-05T10:02:00", 180.0),
        (Period.H1, "2026-01-05T10:10:00", 1200.0),
        (Period.D1, "2026-01-05T10:10:00", 1.0),
        (Period.M1, "2026-01-05T12:00:00", 60.0),
        (Period.M1, "2026-01-05T12:59:30", 30.0),
        (Period.M1, "2026-01-05T15:00:03", 60.0),
        (Period.M1, "2026-01-03T11:00:00", 60.0),
    ],
)
def test_the_open_day_s_closed_bars_stay_until_the_next_one_ends(period: Period, when: str, seconds: float) -> None:
    assert ttl.open_day("SH", period, at(when)) == seconds


@pytest.mark.parametrize(
    ("when", "times", "seconds"),
    [
        ("2026-01-05T10:00:00", 1, 30),
        ("2026-01-05T10:00:00", 9, 30),
        ("2026-01-05T18:00:00", 1, 30),
        ("2026-01-05T18:00:00", 2, 120),
        ("2026-01-05T18:00:00", 4, 1920),
        ("2026-01-05T18:00:00", 9, 15.25 * 3600),  # tomorrow, 09:15
        ("2026-01-05T09:14:50", 1, 10),
        ("2026-09-30T16:00:00", 9, 7 * 86400),  # eight days without trading
        ("2026-12-31T16:00:00", 9, 30),  # the calendar ends here
    ],
)
def test_a_negative_answer_is_believed_longer_between_sessions(when: str, times: int, seconds: float) -> None:
    assert ttl.nothing("SH", at(when), times=times) == seconds


@pytest.mark.parametrize("market", ["BINANCE", "SF"])
def test_where_hours_are_not_known_or_have_no_end_nothing_is_believed_for_long(market: str) -> None:
    assert ttl.nothing(market, at("2026-01-04T03:00:00"), times=9) == 30


def test_no_rule_gives_less_than_a_second_or_more_than_its_bound() -> None:
    for day in CHINA.between(date(2026, 9, 28), date(2026, 10, 9)):
        for minute in range(0, 1440, 7):
            now = at(f"{day}T00:00:00") + minute * 60_000 + 999
            for period in (Period.M1, Period.M5, Period.M15, Period.M30, Period.H1):
                assert 1 <= ttl.open_day("SZ", period, now) <= 3600
            assert 1 <= ttl.nothing("SZ", now, times=6) <= 7 * 86400

"""A terminal is judged by its worker's report, the roster's wishes and the exchanges' hours; silence is no fault by itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.utils import timezone

from marketdata.calendar import CHINA, SHANGHAI, TradingCalendar
from marketdata.reference.days import NoCalendar, calendar_of
from marketdata.sources.base import Capability
from marketdata.terminals import health, roster, states, windows
from marketdata.terminals.health import REASONS, Level, judge
from marketdata.terminals.models import Pool, Report, Terminal
from marketdata.terminals.roster import TerminalSpec
from marketdata.terminals.states import TerminalReport

SECOND = 1000
FRIDAY, SATURDAY, HOLIDAY = "2026-11-20", "2026-11-21", "2026-10-01"
SPEC = TerminalSpec("a", "main", "10.0.0.1:58610", maintenance=windows.parse("daily 05:00-05:40; sat 00:00-24:00"))


def at(text: str, day: str = FRIDAY) -> int:
    """A time of day in Beijing in ms."""
    return int(datetime.fromisoformat(f"{day}T{text}").replace(tzinfo=SHANGHAI).timestamp() * 1000)


def report(now: int, **other: Any) -> TerminalReport:
    """One with which nothing is wrong, made now."""
    told: dict[str, Any] = {
        "pool": "main",
        "process": "host:1",
        "source": "qmt",
        "state": "up",
        "address": "10.0.0.1:58610",
        "capabilities": tuple(Capability),
        "publishing": True,
        "canary": now - SECOND,
        "quoted": now - 3 * SECOND,
        "p50": 0.05,
        "p99": 0.4,
    }
    return TerminalReport(**(told | other))


def china(_market: str) -> TradingCalendar:
    return CHINA


def test_one_with_which_nothing_is_wrong_is_up_and_says_what_is_known_of_it() -> None:
    now = at("10:00:00")
    found = judge(SPEC, report(now, in_step=True), now, china, last_seen=now)
    assert (found.level, found.reasons, found.fresh, found.answers) == (Level.UP, (), True, True)
    assert (found.publishing, found.in_step, found.p50, found.p99, found.last_seen) == (True, True, 0.05, 0.4, now)


OLD = {"quoted": at("11:29:58", "2026-11-19")}
WRONG: dict[str, tuple[dict[str, Any], Level, tuple[str, ...]]] = {
    "starting": ({"state": "starting"}, Level.DOWN, ("starting",)),
    "disconnected": ({"state": "down"}, Level.DOWN, ("disconnected",)),
    "a recording at its end": ({"state": "finished", "canary": None}, Level.UP, ("finished",)),
    "without a usable answer ever": ({"canary": None}, Level.DOWN, ("no_quotes",)),
    "without a usable answer for long": ({"canary": at("09:59:45")}, Level.DOWN, ("no_quotes",)),
    "without the function for quotes": ({"capabilities": ("bars",)}, Level.DEGRADED, ("incapable",)),
    "slow": ({"p50": 2.5}, Level.DEGRADED, ("slow",)),
    "still elsewhere": ({"address": "10.0.0.9:58610"}, Level.DEGRADED, ("other_address",)),
    "with the same old quotes for ever": (OLD, Level.DEGRADED, ("not_fresh",)),
    "slow and with old quotes": ({"p50": 9.0, **OLD}, Level.DEGRADED, ("not_fresh", "slow")),
    "without a quote while it answers": ({"quoted": None}, Level.DEGRADED, ("not_fresh",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_it_decides_the_level_and_is_named(case: str) -> None:
    other, level, reasons = WRONG[case]
    now = at("10:00:00")
    found = judge(SPEC, report(now, **other), now, china, last_seen=now)
    assert (found.level, found.reasons) == (level, reasons)
    assert set(found.reasons) <= REASONS.keys()


HOURS: dict[str, tuple[str, str, bool | None]] = {
    "before the day": (FRIDAY, "08:59:00", None),
    "in the opening auction": (FRIDAY, "09:20:00", None),
    "between the auction and the opening": (FRIDAY, "09:29:59", None),
    "just after the opening": (FRIDAY, "09:30:29", None),
    "half a minute after the opening": (FRIDAY, "09:30:30", False),
    "in the morning": (FRIDAY, "11:29:59", False),
    "at the lunch break's first moment": (FRIDAY, "11:30:00", None),
    "in the lunch break": (FRIDAY, "12:15:00", None),
    "just after lunch": (FRIDAY, "13:00:29", None),
    "in the afternoon": (FRIDAY, "13:00:30", False),
    "before the closing auction": (FRIDAY, "14:56:59", False),
    "in the closing auction": (FRIDAY, "14:57:00", None),
    "after the close": (FRIDAY, "15:00:01", None),
    "at night": (FRIDAY, "23:30:00", None),
    "on a Saturday": (SATURDAY, "10:00:00", None),
    "on a holiday": (HOLIDAY, "10:00:00", None),
    "after the calendar's end": ("2027-06-01", "10:00:00", None),
}


@pytest.mark.parametrize("case", HOURS)
def test_old_quotes_are_a_fault_while_the_market_trades_continuously_and_at_no_other_time(case: str) -> None:
    day, text, fresh = HOURS[case]
    now = at(text, day)
    found = judge(SPEC, report(now, quoted=now - 31 * SECOND), now, china, last_seen=now)
    assert found.fresh is fresh
    assert found.level is (Level.DEGRADED if fresh is False else Level.UP)
    assert judge(SPEC, report(now), now, china, last_seen=now).fresh is True


def test_only_the_hours_of_the_pools_own_markets_count() -> None:
    now = at("13:10:00", SATURDAY)
    old = report(now, quoted=now - 3_600_000)
    assert judge(SPEC, old, now, china, markets=("SH",), last_seen=now).fresh is None
    assert judge(SPEC, old, now, china, markets=("SH", "BINANCE"), last_seen=now).fresh is False


def test_a_market_without_a_calendar_asks_nothing() -> None:
    def none(market: str) -> TradingCalendar:
        raise NoCalendar(market)

    now = at("10:00:00")
    assert judge(SPEC, report(now, **OLD), now, none, last_seen=now).fresh is None


def test_a_market_with_a_clock_of_its_own_is_judged_by_that() -> None:
    now = at("22:00:00", SATURDAY)
    clock = at("10:00:00")
    simulated = report(now, source="simulated", clock=clock, quoted=clock - SECOND, address="")
    assert judge(SPEC, simulated, now, china, last_seen=now).fresh is True
    stuck = msgspec.structs.replace(simulated, quoted=clock - 60 * SECOND)
    assert judge(SPEC, stuck, now, china, last_seen=now).fresh is False
    # A terminal's newest tick is no clock: while it stands still, the time goes on.
    terminal = report(at("10:00:00"), clock=OLD["quoted"], **OLD)
    assert judge(SPEC, terminal, at("10:00:00"), china).fresh is False


def test_a_report_is_judged_by_the_time_at_which_it_was_made() -> None:
    made = at("11:29:58")
    found = judge(SPEC, report(made), made + 9 * SECOND, china, last_seen=made)
    assert (found.level, found.fresh) == (Level.UP, True)


WINDOWS: dict[str, tuple[str, str, dict[str, Any] | None, Level, tuple[str, ...], str | None]] = {
    "away in the window": (FRIDAY, "05:10:00", {"state": "down"}, Level.MAINTENANCE, ("maintenance", "disconnected"), "05:40"),
    "its worker away in the window": (FRIDAY, "05:39:59", None, Level.MAINTENANCE, ("maintenance", "no_worker"), "05:40"),
    "logged out in the window": (FRIDAY, "05:00:00", {"canary": None}, Level.MAINTENANCE, ("maintenance", "no_quotes"), "05:40"),
    "well in the window": (FRIDAY, "05:10:00", {}, Level.UP, (), "05:40"),
    "away before the window": (FRIDAY, "04:59:59", {"state": "down"}, Level.DOWN, ("disconnected",), None),
    "not back at the window's end": (FRIDAY, "05:40:00", {"state": "down"}, Level.DOWN, ("disconnected",), None),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_away_in_a_maintenance_window_is_no_fault(case: str) -> None:
    day, text, other, level, reasons, until = WINDOWS[case]
    now = at(text, day)
    found = judge(SPEC, None if other is None else report(now, **other), now, china, last_seen=now)
    assert (found.level, found.reasons) == (level, reasons)
    assert found.until == (None if until is None else at(f"{until}:00", day))


def test_what_people_decided_stands_before_what_is() -> None:
    now = at("10:00:00")
    down = report(now, state="down")
    drained = spec(drained=True)
    assert judge(drained, down, now, china).level is Level.DRAINED
    assert judge(spec(drained=True, enabled=False), None, now, china).level is Level.DISABLED
    assert not judge(drained, report(now), now, china).answers


def spec(**fields: Any) -> TerminalSpec:
    return TerminalSpec("a", "main", **fields)


def test_one_of_which_nobody_reports_is_unknown_and_one_that_fell_silent_is_down() -> None:
    now = at("10:00:00")
    assert judge(SPEC, None, now, china).level is Level.UNKNOWN
    found = judge(SPEC, None, now, china, last_seen=now - 60 * SECOND)
    assert (found.level, found.reasons) == (Level.DOWN, ("no_worker",))


@pytest.fixture
def two(db: None) -> None:
    pool = Pool.objects.create(name="main")
    Terminal.objects.create(pool=pool, name="a", address="10.0.0.1:58610")
    Terminal.objects.create(pool=pool, name="b", address="10.0.0.2:58610", drained=True)
    roster.look()


@pytest.fixture(autouse=True)
def _nothing_known() -> Any:
    yield
    roster.forget()
    health.forget()


@pytest.mark.usefixtures("two")
def test_all_terminals_are_judged_from_one_read(django_assert_num_queries: Any) -> None:
    now = int(timezone.now().timestamp() * 1000)
    states.tell("a", report(now))
    with django_assert_num_queries(1):
        found = health.current()
    assert {name: one.level for name, one in found.items()} == {"a": Level.UP, "b": Level.DRAINED}
    Report.objects.update(seen_at=timezone.now() - timedelta(seconds=states.FRESH + 1))
    assert health.current()["a"].reasons == ("no_worker",)


@pytest.mark.usefixtures("two")
def test_what_was_found_is_known_without_the_database_for_as_long_as_a_report_counts(
    django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert health.known() is None
    health.refresh()
    with django_assert_num_queries(0):
        assert set(health.known() or ()) == {"a", "b"}
    monkeypatch.setattr(health, "_known_at", health._known_at - states.FRESH)
    assert health.known() is None


def test_the_built_in_calendars_serve() -> None:
    now = at("10:00:00")
    assert judge(SPEC, report(now, **OLD), now, calendar_of, last_seen=now).fresh is False

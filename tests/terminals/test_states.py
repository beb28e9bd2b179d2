"""What processes say of terminals and pools: believed while it is fresh, told again, taken back, forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from marketdata.terminals import states
from marketdata.terminals.models import Report
from marketdata.terminals.states import PROCESS, PoolReport, Reports, SlotsReport, TerminalReport

pytestmark = pytest.mark.django_db

UP = TerminalReport(pool="main", process=PROCESS, source="simulated", state="up", capabilities=("quotes",), clock=1)
SLOTS = SlotsReport(size=2, in_flight=0, waiting=0, breaker="closed")
USED = PoolReport(process=PROCESS, strategy="random", terminals={"one": SLOTS})


def age(seconds: float, **of: Any) -> None:
    """Make reports older than they are."""
    Report.objects.filter(**of).update(seen_at=datetime.now(UTC) - timedelta(seconds=seconds))


def other(process: str, **changes: Any) -> TerminalReport:
    return TerminalReport(**{"pool": "main", "source": "simulated", "state": "up", **changes, "process": process})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The monotonic clock of those who report; ``now`` is set by the test."""
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(states, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


def test_what_is_told_is_heard_as_it_was_said() -> None:
    states.tell("one", UP)
    states.tell("main", USED)
    assert states.terminals() == {"one": UP}
    assert states.pools() == {"main": [USED]}
    assert states.heard()["one"][1] == UP


def test_an_old_report_counts_for_nothing_but_says_when_it_was() -> None:
    states.tell("one", UP)
    states.tell("two", UP)
    states.tell("main", USED)
    age(states.FRESH + 1, name__in=["one", "main"])
    assert (set(states.terminals()), states.pools()) == ({"two"}, {})
    seen = {name: at for name, (at, _) in states.heard().items()}
    assert seen.keys() == {"one", "two"}
    assert (seen["two"] - seen["one"]).total_seconds() > states.FRESH
    assert {name: report for name, (_, report) in states.heard().items()} == {"one": None, "two": UP}


def test_of_two_processes_the_one_that_spoke_last_is_believed_of_a_terminal_and_both_of_a_pool() -> None:
    for process, state in (("old:1", "down"), ("new:2", "up")):
        states.tell("one", other(process, state=state))
        states.tell("main", PoolReport(process=process, strategy="random", terminals={}))
    age(5, process="old:1")
    assert states.terminals()["one"].state == "up"
    assert [report.process for report in states.pools()["main"]] == ["old:1", "new:2"]
    age(6, process="new:2")
    assert states.terminals()["one"].state == "down"


@pytest.mark.parametrize("body", [{}, {"pool": "main", "state": 3}, [], "words"])
def test_what_another_version_says_is_passed_over(body: object) -> None:
    states.tell("one", UP)
    states.tell("two", UP)
    states.tell("main", USED)
    Report.objects.exclude(name="two").update(body=body)
    assert (states.terminals(), states.pools()) == ({"two": UP}, {})
    assert states.heard()["one"][1] is None


def test_fields_that_a_newer_version_adds_do_no_harm() -> None:
    states.tell("one", UP)
    row = Report.objects.get()
    row.body["of_tomorrow"] = 1
    row.save()
    assert states.terminals() == {"one": UP}


def test_a_report_is_told_again_where_it_differs_or_after_a_while(clock: SimpleNamespace) -> None:
    mine = Reports()

    def told(**changes: Any) -> int | None:
        """The clock in the report that can be read after these changes were reported."""
        mine.tell([("one", other(PROCESS, **changes))])
        return states.terminals()["one"].clock

    assert told(clock=1) == 1
    assert told(clock=2) == 1, "nobody needs to know at once"
    assert told(clock=3, state="down") == 3
    clock.now += states.REPEAT - 0.1
    assert told(clock=4, state="down") == 3
    clock.now += 0.1
    assert told(clock=5, state="down") == 5


def test_a_pool_is_told_again_after_a_while_only(clock: SimpleNamespace) -> None:
    mine = Reports()
    later = PoolReport(process=PROCESS, strategy="round_robin", terminals={})
    mine.tell([("main", USED)])
    mine.tell([("main", later)])
    assert states.pools() == {"main": [USED]}
    clock.now += states.REPEAT
    mine.tell([("main", later)])
    assert states.pools() == {"main": [later]}


def test_what_is_no_more_is_taken_away_and_of_others_nothing() -> None:
    mine = Reports()
    states.tell("one", other("another:1"))
    # A terminal and a pool of one name are two things.
    mine.tell([("one", UP), ("two", UP), ("one", USED)])
    mine.tell([("two", UP)])
    assert set(Report.objects.values_list("subject", "name", "process")) == {
        ("terminal", "one", "another:1"),
        ("terminal", "two", PROCESS),
    }
    mine.withdraw()
    assert list(Report.objects.values_list("process", flat=True)) == ["another:1"]
    mine.tell([("two", UP)])
    assert "two" in states.terminals(), "after a withdrawal all is news"


def test_those_of_long_ago_are_purged_now_and_then(clock: SimpleNamespace) -> None:
    states.tell("gone", other("dead:1"))
    states.tell("late", other("dead:2"))
    age(states.KEPT.total_seconds() + 60, name="gone")
    mine = Reports()
    mine.tell([("one", UP)])
    assert set(states.heard()) == {"late", "one"}
    age(states.KEPT.total_seconds() + 60, name="late")
    mine.tell([("one", UP)])
    assert "late" in states.heard(), "not in every round"
    clock.now += states.PURGE
    mine.tell([("one", UP)])
    assert set(states.heard()) == {"one"}


def test_a_round_in_which_nothing_changes_writes_nothing(clock: SimpleNamespace, django_assert_num_queries: Any) -> None:
    mine = Reports()
    mine.tell([("one", UP)])
    with django_assert_num_queries(0):
        mine.tell([("one", UP)])

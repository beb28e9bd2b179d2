"""Beat's schedule follows the roster while beat runs."""

from __future__ import annotations

import pytest
from celery import Celery

from argus.celery import schedule_of
from marketdata.terminals import beat, roster
from marketdata.terminals.beat import RosterScheduler
from marketdata.terminals.roster import PoolSpec, Roster, TerminalSpec

OWN = {"own": {"task": "own", "schedule": 3600.0}}


class Scheduler(RosterScheduler):
    """Sends nothing."""

    def apply_async(self, entry: object, **_: object) -> None: ...


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    want(monkeypatch, TerminalSpec("a", "main"))
    app = Celery("test", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = OWN
    return Scheduler(app)


def want(monkeypatch: pytest.MonkeyPatch, *terminals: TerminalSpec) -> None:
    monkeypatch.setattr(roster, "_current", Roster({"main": PoolSpec("main", terminals=terminals)}))


def test_terminals_that_come_and_go_are_polled_and_are_not(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scheduler.schedule.keys() == {"own", *schedule_of(["a"])}
    want(monkeypatch, TerminalSpec("a", "main"), TerminalSpec("b", "main"), TerminalSpec("c", "main", enabled=False))
    scheduler.tick()
    assert scheduler.schedule.keys() == {"own", *schedule_of(["a", "b"])}
    assert scheduler.schedule["poll-b"].options["queue"] == "terminal.b"
    want(monkeypatch, TerminalSpec("b", "main", drained=True))
    scheduler.tick()
    assert scheduler.schedule.keys() == {"own", *schedule_of(["b"])}


def test_what_runs_on_keeps_its_rhythm(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scheduler.schedule["reconcile-a"].last_run_at
    want(monkeypatch, TerminalSpec("a", "main", weight=5), TerminalSpec("b", "main"))
    scheduler.tick()
    assert scheduler.schedule["reconcile-a"].last_run_at == before < scheduler.schedule["reconcile-b"].last_run_at


def test_it_looks_again_within_a_second_although_nothing_is_due(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    want(monkeypatch)
    while (pause := scheduler.tick()) == 0:
        pass
    assert pause == beat.LOOK

"""Polls under real Celery: its worker and its beat in threads, as the embedded service runs them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.beat import PersistentScheduler, Scheduler
from django.conf import settings

from argus.celery import poll_entry, queue_of, resume_entry
from argus.config import Config
from argus.embedded import EmbeddedCelery
from marketdata import feeds, metrics
from marketdata.feed import Feed
from marketdata.lease import MemoryLease
from marketdata.publisher import Publisher
from marketdata.terminals import roster
from marketdata.terminals.beat import RosterScheduler
from marketdata.terminals.roster import PoolSpec, Roster, TerminalSpec
from marketdata.types import Parsed
from tests.feeds.scripted import ScriptedSource, quote

INTERVAL = 0.1


def until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


@pytest.fixture
def source() -> ScriptedSource:
    source = ScriptedSource()
    source.answer = Parsed((quote("A.SH"),))
    return source


@pytest.fixture
def terminal(source: ScriptedSource, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A terminal whose feed runs already; its tasks find it by its name."""
    name = "slow"
    publisher = Publisher(
        feed="main", source=source.name, owner="t", lease=MemoryLease(), send=lambda *_: None, save_snapshot=lambda *_: None
    )
    feed = Feed(terminal=name, source=source, publisher=publisher, config=Config(source_timeout=60, stale_after=60))
    feed.reference_at = time.monotonic()
    monkeypatch.setitem(feeds._feeds, name, feed)
    monkeypatch.setattr(roster, "_current", Roster())
    feed.start()
    yield name
    feed.stop()


def outcomes(terminal: str, outcome: str) -> float:
    return metrics.POLLS.labels(terminal, outcome)._value.get()


def test_a_poll_that_outlasts_its_interval_is_not_overlapped_and_nothing_queues_up(source: ScriptedSource, terminal: str) -> None:
    app = Celery("polls", broker="memory://localhost", set_as_current=False)
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.conf.beat_schedule = {"poll": poll_entry(terminal, INTERVAL)}
    celery = EmbeddedCelery(app, queues=[queue_of(terminal)], concurrency=3)
    source.hold.clear()
    celery.start()
    try:
        assert source.fetching.wait(30)
        until(lambda: outcomes(terminal, "overlap") >= 5, "polls that come while the first is under way")
        assert len(source.asked) == 1
        assert outcomes(terminal, "ok") == 0
        source.hold.set()
        until(lambda: outcomes(terminal, "ok") >= 3, "the polls to go on")
        assert threading.active_count() < 50
    finally:
        source.hold.set()
        celery.stop(10)
    assert not celery.abandoned


@pytest.mark.parametrize("jump", [timedelta(hours=-1), timedelta(hours=1)], ids=["back", "forward"])
def test_polls_stay_due_when_the_time_of_day_jumps(monkeypatch: pytest.MonkeyPatch, jump: timedelta) -> None:
    app = Celery("jumps", broker="memory://localhost", set_as_current=False)
    monkeypatch.setattr("argus.celery.config", Config(poll_interval=INTERVAL))
    monkeypatch.setattr(roster, "_current", pool("one", "two"))
    sent: list[str] = []

    class Beat(RosterScheduler):
        def apply_entry(self, entry: Any, producer: Any = None) -> None:
            sent.append(entry.args[0])

    beat = Beat(app)
    run(beat, lambda: {"one", "two"} <= set(sent))
    now: Any = Celery.now
    monkeypatch.setattr(Celery, "now", lambda self: now(self) + jump)
    del sent[:]
    run(beat, lambda: sent.count("one") >= 2 and sent.count("two") >= 2)
    assert max(sent.count("one"), sent.count("two")) <= 4, "nor are polls made up for"


def test_the_schedule_follows_the_roster_while_beat_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("follows", broker="memory://localhost", set_as_current=False)
    app.conf.beat_schedule = {"resume": resume_entry()}
    monkeypatch.setattr(roster, "_current", pool("one"))
    beat = RosterScheduler(app)
    assert set(beat.schedule) == {"resume", "poll-one", "reconcile-one"}
    kept = beat.schedule["poll-one"]
    monkeypatch.setattr(roster, "_current", pool("one", "two", off="three"))
    beat.tick()
    assert set(beat.schedule) == {"resume", "poll-one", "reconcile-one", "poll-two", "reconcile-two"}
    assert beat.schedule["poll-one"] is kept, "what runs on keeps its rhythm"
    monkeypatch.setattr(roster, "_current", pool("two"))
    beat.tick()
    assert set(beat.schedule) == {"resume", "poll-two", "reconcile-two"}


def pool(*names: str, off: str = "") -> Roster:
    """A roster of these terminals, and of one that is not enabled."""
    terminals = [TerminalSpec(name, "main") for name in names]
    if off:
        terminals.append(TerminalSpec(off, "main", enabled=False))
    return Roster({"main": PoolSpec("main", terminals=tuple(terminals))})


def run(beat: Scheduler, enough: Any) -> None:
    """What beat's loop does, without its sleep."""
    until(lambda: (beat.tick(), enough())[1], "the next polls")


def test_a_poll_does_not_expire_on_a_host_whose_clock_is_a_little_ahead() -> None:
    options = poll_entry("main", 1.0)["options"]
    assert options["expires"] > 15, "seconds by which the worker's clock may be ahead of beat's"
    assert isinstance(poll_entry("main", 1.0)["schedule"].now(), datetime)
    assert not issubclass(RosterScheduler, PersistentScheduler), "no file of last runs, whose times a jump would falsify"
    assert f"{RosterScheduler.__module__}:{RosterScheduler.__name__}" == settings.CELERY_BEAT_SCHEDULER

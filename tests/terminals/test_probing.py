"""A probe is a real call, made by the process that has the terminal; what a terminal can do is written down when it changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from argus.celery import app, queue_of
from argus.config import config
from argus.embedded import EmbeddedCelery
from marketdata import feeds
from marketdata.sources.base import Capability, State
from marketdata.terminals import probing, roster
from marketdata.terminals.models import Pool, Report, Terminal
from marketdata.types import Parsed
from tests.feeds.scripted import ScriptedSource, quote

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Running:
    """As much of a feed as a probe needs."""

    source: ScriptedSource
    universe: tuple[str, ...] = ()


Start = Callable[..., ScriptedSource]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Makes terminals of the pool, whose feeds run in this process unless told otherwise."""
    here: dict[str, Running] = {}
    sources: list[ScriptedSource] = []
    pool = Pool.objects.create(name="main")

    def make(name: str, *, runs: bool = True) -> ScriptedSource:
        Terminal.objects.create(pool=pool, name=name)
        source = ScriptedSource()
        sources.append(source)
        source.answer = Parsed((quote("600000.SH"), quote("000001.SZ")))
        if runs:
            here[name] = Running(source)
        return source

    monkeypatch.setattr(feeds, "running", here.get)
    yield make
    for source in sources:
        source.close()
    roster.forget()


def test_a_terminal_that_answers_is_probed_by_a_call_and_what_it_can_is_written_down(start: Start) -> None:
    source = start("a")
    found = probing.probe(["a"], 5)["a"]
    assert (found.ok, found.outcome, found.state) == (True, "ok", "up")
    assert found.seconds is not None
    assert source.asked == [["600000.SH", "000001.SZ"]]
    row = Terminal.objects.get(name="a")
    assert set(row.capabilities) == set(found.capabilities) == {"quotes", "instruments", "sectors"}
    assert row.probed_at is not None


@pytest.mark.parametrize("state", [State.DOWN, State.STARTING])
def test_one_that_is_not_up_is_not_called(start: Start, state: State) -> None:
    source = start("a")
    source.state = state
    found = probing.probe(["a"], 5)["a"]
    assert (found.ok, found.outcome, source.asked) == (False, state, [])


def test_one_that_answers_without_a_quote_is_not_well(start: Start) -> None:
    source = start("a")
    universe = source.universe(timeout=1)
    source.universe = lambda *, timeout: universe  # type: ignore[method-assign]
    source.answer = Parsed()
    found = probing.probe(["a"], 5)["a"]
    assert (found.ok, found.outcome) == (False, "empty")
    assert "logged in" in found.detail


def test_terminals_are_asked_side_by_side_and_one_that_hangs_keeps_none(start: Start) -> None:
    one, other = start("a"), start("b")
    for source in (one, other):
        source.hold.clear()
    found: dict[str, probing.Probe] = {}
    asking = threading.Thread(target=lambda: found.update(probing.probe(["a", "b"], 2)))
    asking.start()
    assert one.fetching.wait(10)
    assert other.fetching.wait(10)
    other.hold.set()
    asking.join(20)
    assert (found["a"].outcome, found["b"].outcome) == ("no_answer", "ok")
    one.hold.set()


def test_from_another_process_without_a_broker_the_service_finds_the_question_on_its_rounds(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("a", runs=False)
    assert probing.probe(["a"], 0.5)["a"].outcome == "no_answer"
    assert not Report.objects.exists()
    found: dict[str, probing.Probe] = {}
    asking = threading.Thread(target=lambda: found.update(probing.probe(["a"], 20)))
    asking.start()
    while not Report.objects.exists() and asking.is_alive():
        time.sleep(0.01)
    source = ScriptedSource()
    source.answer = Parsed((quote("600000.SH"),))
    monkeypatch.setattr(feeds, "running", {"a": Running(source)}.get)
    probing.answer_rows()
    asking.join(20)
    assert found["a"].ok
    assert not Report.objects.exists()


def test_a_terminals_own_worker_is_asked_over_the_broker(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start("a")
    start("b", runs=False)
    monkeypatch.setattr(probing, "config", config.model_copy(update={"redis_url": "memory://"}))
    celery = EmbeddedCelery(app, queues=[queue_of("a"), queue_of("b")], concurrency=2)
    celery.start()
    try:
        found = probing.probe(["a", "b"], 10)
    finally:
        celery.stop(5)
    assert (found["a"].ok, found["a"].outcome) == (True, "ok")
    assert (found["b"].ok, found["b"].outcome) == (False, "no_feed")


def test_only_what_differs_counts_as_news_and_a_terminal_that_is_not_up_loses_nothing(start: Start) -> None:
    start("a")
    able = [Capability.QUOTES, Capability.BARS]
    assert probing.note_probe("a", "250807", able)
    assert not probing.note_probe("a", "250807", reversed(able))
    assert not probing.note_probe("a", "", ())
    assert (Terminal.objects.get().version, Terminal.objects.get().capabilities) == ("250807", ["bars", "quotes"])
    assert probing.note_probe("a", "250808", able)
    roster.look()
    assert roster.current().terminals["a"].capabilities == set(able)
    assert not probing.note_probe("nobody", "1", able)

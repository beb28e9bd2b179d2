"""The rounds of a process: they go on whatever happens in one of them, and end with the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from argus.config import Config
from marketdata import feeds, metrics, publish
from marketdata.sources import registry
from marketdata.terminals import crew, declare, keeper, roster, states
from marketdata.terminals import metrics as asking
from marketdata.terminals.crew import Crew
from marketdata.terminals.declare import DeclarationError
from marketdata.terminals.keeper import Keeper
from marketdata.terminals.models import Pool, Report, Terminal
from marketdata.terminals.roster import PoolSpec, Roster, TerminalSpec
from tests.feeds.scripted import ScriptedSource

BROKEN = '[[pools]]\nname = "main"\nstrateggy = "random"'
GOOD = '[[pools]]\nname = "stocks"\n[[pools.terminals]]\nname = "a"'


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(keeper, "INTERVAL", 0.02)
    monkeypatch.setattr(keeper, "_reports", states.Reports())
    monkeypatch.setattr(keeper, "_owed", False)
    monkeypatch.setattr(keeper, "_seen", Roster())
    monkeypatch.setattr(registry, "build", lambda *_: ScriptedSource())
    yield
    feeds.stop_all()
    publish.unbind()
    roster.forget()


@pytest.fixture
def rounds(transactional_db: None) -> Iterator[Keeper]:
    """The rounds of a process whose terminal is ``one``, under way."""
    Terminal.objects.create(pool=Pool.objects.create(name="main"), name="one")
    keeper.begin()
    found = Keeper(Crew())
    found.start()
    yield found
    found.stop()


def wait_for(condition: Callable[[], Any]) -> None:
    met = threading.Event()
    for _ in range(1000):
        if condition():
            return
        met.wait(0.02)
    pytest.fail("waited in vain")


def in_thread(work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        connection.close()


def away(*_: object, **__: object) -> None:
    raise OperationalError("no answer")


def declare_file(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(declare, "config", Config(pools=path))


def test_it_starts_what_there_is_reports_it_notes_what_it_can_and_takes_its_word_back(rounds: Keeper) -> None:
    assert feeds.running("one") is not None, "at once"
    wait_for(lambda: "one" in states.terminals())
    wait_for(lambda: Terminal.objects.get(name="one").capabilities)
    rounds.stop()
    assert not Report.objects.exists()
    Terminal.objects.create(pool=Pool.objects.get(), name="two")
    assert [feed.terminal for feed in feeds.all_running()] == ["one"], "nobody follows any more"
    rounds.stop()


def test_what_is_added_and_removed_is_followed(rounds: Keeper) -> None:
    Terminal.objects.create(pool=Pool.objects.get(), name="two")
    wait_for(lambda: states.terminals().keys() == {"one", "two"})
    assert feeds.running("two") is not None
    Terminal.objects.filter(name="one").delete()
    wait_for(lambda: states.terminals().keys() == {"two"})
    assert feeds.running("one") is None


def test_the_database_goes_and_comes_and_the_feeds_go_on(rounds: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = feeds.running("one")
    tried = threading.Semaphore(0)

    def look() -> None:
        tried.release()
        away()

    with capture_logs() as logs, monkeypatch.context() as patched:
        patched.setattr(roster, "look", look)
        for _ in range(3):
            assert tried.acquire(timeout=20)
    assert [line["event"] for line in logs].count("round_failed") == 1, "it is said once"
    assert feeds.running("one") is feed
    Terminal.objects.create(pool=Pool.objects.get(), name="two")
    wait_for(lambda: "two" in states.terminals())


def test_what_nobody_expected_costs_one_round(rounds: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    thrown = threading.Event()

    def fail() -> None:
        thrown.set()
        raise RuntimeError("unexpected")

    with monkeypatch.context() as patched:
        patched.setattr(crew, "note_probes", fail)
        assert thrown.wait(20)
    Terminal.objects.create(pool=Pool.objects.get(), name="two")
    wait_for(lambda: "two" in states.terminals())


def test_who_has_no_feeds_does_not_wait_for_a_round_that_waits_for_a_source(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, over = threading.Event(), threading.Event()

    def follow(_: Crew) -> None:
        inside.set()
        assert over.wait(20)

    monkeypatch.setattr(Crew, "follow", follow)
    other = threading.Thread(target=in_thread, args=(lambda: keeper.go_round(Crew()),))
    other.start()
    try:
        assert inside.wait(20)
        keeper.go_round()
        assert other.is_alive()
    finally:
        over.set()
        other.join(20)


def test_a_stop_ends_although_the_database_is_away(rounds: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for(lambda: "one" in states.terminals())
    monkeypatch.setattr(keeper, "leave", away)
    with capture_logs() as logs:
        rounds.stop()
        wait_for(lambda: "argus-keeper" not in [thread.name for thread in threading.enumerate()])
    assert "reports_not_withdrawn" in [line["event"] for line in logs]


@pytest.mark.django_db(transaction=True)
def test_a_declaration_that_is_wrong_refuses_the_start_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    declare_file(monkeypatch, tmp_path / "pools.toml", BROKEN)
    with pytest.raises(DeclarationError, match="strateggy is not known"):
        keeper.begin()
    with pytest.raises(SystemExit) as ended:
        keeper.begin_or_end()
    line = str(ended.value.code)
    assert line.startswith("argus: the pools cannot be declared: ")
    assert "strateggy is not known" in line
    assert "\n" not in line
    assert not Pool.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_what_is_declared_while_the_database_is_away_is_applied_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declare_file(monkeypatch, tmp_path / "pools.toml", GOOD)
    with monkeypatch.context() as patched:
        patched.setattr(declare, "apply", away)
        keeper.begin()
        with pytest.raises(OperationalError):
            keeper.go_round()
    assert list(roster.current().pools) == ["main"], "what the settings name holds meanwhile"
    keeper.go_round()
    assert list(roster.current().pools) == ["stocks"]
    Pool.objects.update(strategy="random")
    keeper.go_round()
    assert roster.current().pools["stocks"].strategy == "random", "it is applied once"


@pytest.mark.django_db(transaction=True)
def test_one_that_turns_out_wrong_only_then_is_said_once_and_the_rounds_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declare_file(monkeypatch, tmp_path / "pools.toml", BROKEN)
    with monkeypatch.context() as patched:
        patched.setattr(declare, "apply", away)
        keeper.begin()
    Terminal.objects.create(pool=Pool.objects.create(name="main"), name="one")
    with capture_logs() as logs:
        keeper.go_round()
        keeper.go_round()
    assert [line["event"] for line in logs].count("pools_not_declared") == 1
    assert list(roster.current().terminals) == ["one"]


@pytest.mark.django_db(transaction=True)
def test_the_figures_of_what_is_no_more_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def figures(name: str) -> list[Any]:
        samples = [sample for family in REGISTRY.collect() for sample in family.samples]
        return [sample for sample in samples if name in (sample.labels.get("terminal"), sample.labels.get("feed"))]

    def know(*terminals: str, pool: str = "main") -> None:
        specs = tuple(TerminalSpec(name, pool) for name in terminals)
        monkeypatch.setattr(
            roster, "look", lambda: monkeypatch.setattr(roster, "_current", Roster({pool: PoolSpec(pool, terminals=specs)}))
        )
        keeper.go_round()

    know("going", "staying", pool="old")
    for name in ("going", "staying"):
        metrics.POLLS.labels(name, "ok").inc()
        metrics.QUEUE_DEPTH.labels(name).set(1)
        asking.FETCHES.labels(name, "ok").inc()
    metrics.QUOTES.labels("old", "accepted").inc()
    know("staying", pool="new")
    assert (figures("going"), figures("old")) == ([], [])
    assert {sample.name for sample in figures("staying")} >= {"argus_polls_total", "argus_feed_queue_depth", "argus_fetch_total"}

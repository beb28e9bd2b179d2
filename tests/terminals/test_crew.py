"""The feeds of a process follow the roster: whatever is changed, those run that should, where they should, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from channels.layers import get_channel_layer
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from marketdata import feeds, metrics, publish
from marketdata.sources import registry
from marketdata.terminals import crew, roster, windows
from marketdata.terminals.crew import Crew
from marketdata.terminals.models import Pool, Role, Terminal
from marketdata.terminals.roster import PoolSpec, Roster, TerminalSpec
from tests.feeds.scripted import ScriptedSource

A, B = TerminalSpec("a", "main", "here:1"), TerminalSpec("b", "main", "here:2")


class Sources:
    """Makes every feed's source; ``wrong`` are addresses with which none can be made, ``broken`` those whose does not start."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, Scripted]] = []
        self.wrong: set[str] = set()
        self.broken: set[str] = set()
        self.on_build: Callable[[], None] = lambda: None
        self.on_close: Callable[[], None] = lambda: None

    def build(self, _config: object, terminal: str, address: str) -> Scripted:
        self.on_build()
        if address in self.wrong:
            raise ValueError(f"{address} is no address")
        source = Scripted(self, broken=address in self.broken)
        self.made.append((terminal, address, source))
        return source

    @property
    def open(self) -> list[tuple[str, str]]:
        """Terminal and address of each source that has not been closed."""
        return [(terminal, address) for terminal, address, source in self.made if not source.closed]


class Scripted(ScriptedSource):
    def __init__(self, sources: Sources, *, broken: bool) -> None:
        super().__init__()
        self._sources = sources
        self._broken = broken

    def start(self) -> None:
        if self._broken:
            raise OSError("no thread is left")

    def close(self) -> None:
        self._sources.on_close()
        super().close()


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sources]:
    found = Sources()
    monkeypatch.setattr(registry, "build", found.build)
    yield found
    feeds.stop_all()
    publish.unbind()
    roster.forget()


@pytest.fixture
def want(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the roster: terminals, in the pools that they name; a pool may be given with its markets."""

    def want(*terminals: TerminalSpec, **markets: tuple[str, ...]) -> None:
        pools: dict[str, list[TerminalSpec]] = {name: [] for name in ("main", *markets)}
        for terminal in terminals:
            pools.setdefault(terminal.pool, []).append(terminal)
        found = {name: PoolSpec(name, markets=markets.get(name, ()), terminals=tuple(mine)) for name, mine in pools.items()}
        monkeypatch.setattr(roster, "_current", Roster(found))

    return want


class Told:
    """Who came and who left."""

    def __init__(self) -> None:
        self.joined: list[str] = []
        self.left: list[str] = []

    def crew(self, names: list[str] | None = None) -> Crew:
        return Crew(names, on_joined=self.joined.append, on_left=self.left.append)


def running() -> dict[str, str]:
    """Terminal -> the feed that it publishes."""
    return {feed.terminal: feed.publisher.feed for feed in feeds.all_running()}


def threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("feed-"))


def listeners(feed: str) -> int:
    """Channels in a feed's group."""
    layer = get_channel_layer()
    assert layer is not None
    return len(layer.groups.get(publish.group_name(feed), ()))


def wait_for(condition: Callable[[], bool]) -> None:
    """The listeners come and go on a loop of their own."""
    met = threading.Event()
    for _ in range(500):
        if condition():
            return
        met.wait(0.02)
    pytest.fail("waited in vain")


def test_those_run_that_are_enabled_and_of_these_names(sources: Sources, want: Callable[..., None]) -> None:
    told = Told()
    want(A, B, replace(A, name="c", enabled=False))
    told.crew(["a", "c"]).follow()
    assert (running(), told.joined, sources.open) == ({"a": "main"}, ["a"], [("a", "here:1")])
    told.crew().follow()
    assert running() == {"a": "main", "b": "main"}


@pytest.mark.parametrize("how", ["removed", "disabled"])
def test_one_that_leaves_is_stopped_and_leaves_nothing_behind(sources: Sources, want: Callable[..., None], how: str) -> None:
    told = Told()
    mine = told.crew()
    want(A, B)
    mine.follow()
    wait_for(lambda: listeners("main") == 2)
    metrics.ACTIVE.labels("main", "b").set(1)
    want(*([A] if how == "removed" else [A, replace(B, enabled=False)]))
    mine.follow()
    assert (running(), told.left, sources.open) == ({"a": "main"}, ["b"], [("a", "here:1")])
    assert threads() == ["feed-a"]
    wait_for(lambda: listeners("main") == 1)
    assert REGISTRY.get_sample_value("argus_feed_active", {"feed": "main", "terminal": "b"}) is None
    want(A, B)
    mine.follow()
    assert (told.joined, running().keys()) == (["a", "b", "b"], {"a", "b"})


@pytest.mark.parametrize(("change", "feed"), [({"address": "there:1"}, "main"), ({"pool": "other"}, "other")])
def test_another_address_or_pool_starts_it_anew(
    sources: Sources, want: Callable[..., None], change: dict[str, str], feed: str
) -> None:
    told = Told()
    mine = told.crew()
    want(A, B)
    mine.follow()
    moved = replace(A, **change)
    want(moved, B, other=("HK",))
    mine.follow()
    assert running() == {"a": feed, "b": "main"}
    assert sources.open == [("b", "here:2"), ("a", moved.address)]
    assert (threads(), told.left) == (["feed-a", "feed-b"], [])
    wait_for(lambda: listeners("main") + listeners("other") == 2)


def test_what_else_changes_acts_on_the_feed_that_runs(sources: Sources, want: Callable[..., None]) -> None:
    mine = Crew()
    want(A)
    mine.follow()
    feed = feeds.running("a")
    assert feed is not None

    def knobs() -> tuple[bool, bool, object]:
        return feed.drained, feed.reserve, feed.accepts

    assert knobs() == (False, False, None)
    want(replace(A, weight=7, drained=True, role=Role.STANDBY), futures=("IF",))
    mine.follow()
    assert feeds.running("a") is feed
    assert (feed.drained, feed.reserve) == (True, True)
    assert feed.accepts is not None
    assert [feed.accepts(symbol) for symbol in ("600000.SH", "IF2412.IF")] == [True, False]
    want(A)
    mine.follow()
    assert knobs() == (False, False, None)


def test_in_its_maintenance_window_a_terminal_is_excused(sources: Sources, want: Callable[..., None]) -> None:
    mine = Crew()
    for text, excused in (("daily 00:00-24:00", True), ("", False)):
        want(replace(A, maintenance=windows.parse(text)))
        mine.follow()
        feed = feeds.running("a")
        assert feed is not None
        assert feed.excused is excused


def test_one_that_cannot_be_started_does_not_stop_the_others_and_is_tried_again(
    sources: Sources, want: Callable[..., None]
) -> None:
    told = Told()
    mine = told.crew()
    sources.wrong, sources.broken = {"here:1"}, {"here:3"}
    want(A, replace(A, name="c", address="here:3"), B)
    with capture_logs() as logs:
        mine.follow()
        mine.follow()
    assert (running(), told.joined, sources.open) == ({"b": "main"}, ["b"], [("b", "here:2")])
    assert [(line["terminal"], line["detail"]) for line in logs if line["event"] == "feed_not_started"] == [
        ("a", "here:1 is no address"),
        ("c", "no thread is left"),
    ], "each is said once"
    assert threads() == ["feed-b"]
    sources.wrong = sources.broken = set()
    mine.follow()
    assert (running(), told.joined) == ({"b": "main", "a": "main", "c": "main"}, ["b", "a", "c"])


def test_those_that_leave_are_stopped_side_by_side(sources: Sources, want: Callable[..., None]) -> None:
    mine = Crew()
    want(A, B)
    mine.follow()
    both = threading.Barrier(2)

    def meet() -> None:
        both.wait(20)

    sources.on_close = meet
    want()
    mine.follow()
    assert (running(), sources.open, both.broken) == ({}, [], False)


def test_after_the_end_none_is_started(sources: Sources, want: Callable[..., None]) -> None:
    mine = Crew()
    want(A)
    mine.follow()
    mine.end()
    want(A, B)
    mine.follow()
    assert running() == {"a": "main"}


def test_an_end_while_one_is_starting_leaves_none_behind(sources: Sources, want: Callable[..., None]) -> None:
    told = Told()
    mine = told.crew()

    def ended() -> None:
        mine.end()
        feeds.stop_all()

    want(A, B)
    sources.on_build = ended
    mine.follow()
    assert (running(), sources.open, told.joined, threads()) == ({}, [], [], [])
    assert [terminal for terminal, _, _ in sources.made] == ["a"], "no more of them"


@pytest.mark.django_db
def test_what_a_terminal_can_do_is_noted_where_another_thing_stands_there(sources: Sources) -> None:
    pool = Pool.objects.create(name="main")
    mine = Crew()

    def noted() -> tuple[list[str], bool]:
        row = Terminal.objects.get(name="a")
        return row.capabilities, row.probed_at is not None

    for _ in ("at first", "made again under the same name"):
        Terminal.objects.create(pool=pool, name="a")
        roster.look()
        mine.follow()
        crew.note_probes()
        assert noted() == (["instruments", "quotes", "sectors"], True)
        roster.look()
        before = Terminal.objects.get(name="a").probed_at
        crew.note_probes()
        assert Terminal.objects.get(name="a").probed_at == before, "nothing is written where all is known"
        Terminal.objects.all().delete()
        roster.look()
        mine.follow()
        assert running() == {}

"""A feed between a scripted source and a recording wire: pushes and polls are one path."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from argus.config import Config
from marketdata.batch import Batch, Term, decode
from marketdata.feed import LOOK, MERGE_QUOTES, QUEUE_SIZE, RESERVE_AFTER, Feed
from marketdata.lease import MemoryLease
from marketdata.listen import Heard
from marketdata.publish import PublishError
from marketdata.publisher import OVERLAP, Publisher
from marketdata.sources.base import State
from marketdata.types import Parsed, ParseError, Quote
from tests.feeds.scripted import ScriptedSource, quote
from tests.feeds.wire import Wire, publisher


class Layer:
    """The channel layer's edge, on which a test can wait for a message."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.broken = False
        self.block = threading.Event()
        self.block.set()
        self._arrived = threading.Condition()
        self.heard = Heard()
        self.heard.join(True)

    def send(self, feed: str, blob: bytes) -> None:
        self.block.wait(10)
        if self.broken:
            raise PublishError("cut")
        with self._arrived:
            self.batches.append(decode(blob))
            self.heard.put(blob)
            self._arrived.notify_all()

    def wait(self, symbols: set[str]) -> None:
        self.wait_for(lambda batches: symbols <= {s for b in batches for s in b.symbols})

    def wait_for(self, there: Callable[[list[Batch]], bool]) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: there(self.batches), 10)

    def symbols(self) -> list[str]:
        return [symbol for batch in self.batches for symbol in batch.symbols]


@pytest.fixture
def layer() -> Layer:
    return Layer()


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource()


@pytest.fixture
def lease() -> MemoryLease:
    return MemoryLease()


def feed_of(source: ScriptedSource, layer: Layer, lease: MemoryLease) -> Feed:
    publisher = Publisher(
        feed="main",
        source=source.name,
        owner="t",
        lease=lease,
        send=layer.send,
        save_snapshot=lambda feed, blob: None,
        heard=layer.heard,
    )
    return Feed(terminal="t", source=source, publisher=publisher, config=Config(source_timeout=5, stale_after=60))


@pytest.fixture
def feed(source: ScriptedSource, layer: Layer, lease: MemoryLease) -> Iterator[Feed]:
    feed = feed_of(source, layer, lease)
    feed.start()
    yield feed
    layer.block.set()
    feed.stop()


def wait_for(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def push(source: ScriptedSource, *quotes: Quote) -> None:
    assert source.on_parsed is not None
    source.on_parsed(Parsed(tuple(quotes)))


def test_a_poll_publishes_what_is_new_with_a_canary_and_passes_its_request_id_on(feed, source, layer) -> None:
    source.answer = Parsed((quote("A.SH"), quote("B.SH")), (ParseError(symbol="C.SH", reason="empty"),))
    assert feed.poll(request_id="r-1") == "ok"
    assert feed.poll() == "ok"
    assert layer.symbols() == ["A.SH", "B.SH"]
    assert [batch.canary is not None for batch in layer.batches[-2:]] == [True, True]
    assert source.request_ids == ["r-1", ""]


def test_no_canary_where_nothing_could_be_parsed(feed, source, layer) -> None:
    source.answer = Parsed((), (ParseError(symbol="A.SH", reason="empty"),))
    assert feed.poll() == "ok"
    assert layer.batches == []


def test_a_poll_that_outlasts_its_interval_is_not_overlapped(feed, source, layer) -> None:
    source.answer = Parsed((quote("A.SH"),))
    source.hold.clear()
    outcomes: list[str] = []
    slow = threading.Thread(target=lambda: outcomes.append(feed.poll()))
    slow.start()
    assert source.fetching.wait(5)
    assert [feed.poll() for _ in range(3)] == ["overlap"] * 3
    source.hold.set()
    slow.join(5)
    assert outcomes == ["ok"]
    assert len(source.asked) == 1


def test_that_a_source_is_away_is_a_warning_except_where_it_is_expected(feed, source) -> None:
    source.state = State.DOWN
    with capture_logs() as lines:
        for feed.excused in (False, True):
            assert feed.poll() == "down"
    assert [line["log_level"] for line in lines if line["event"] == "poll_failed"] == ["warning", "info"]


def test_a_source_that_dies_gives_the_feed_up_and_returns_under_a_new_epoch(feed, source, layer) -> None:
    source.answer = Parsed((quote("A.SH", time=1),))
    feed.poll()
    source.state = State.DOWN
    assert feed.poll() == "down"
    wait_for(lambda: feed.epoch is None)
    source.state = State.UP
    source.answer = Parsed((quote("A.SH", time=2, price=11.0),))
    assert feed.poll() == "ok"
    layer.wait_for(lambda batches: sum(batch.symbols == ["A.SH"] for batch in batches) == 2)
    first, second = (batch for batch in layer.batches if batch.symbols)
    assert second.epoch > first.epoch
    (_, begun) = (batch.term for batch in layer.batches if batch.term)
    assert begun == Term(first.epoch, first.seq, False, "feed_broken")


def test_pushes_are_published_in_order_and_a_poll_beside_them_reconciles_a_slice(feed, source, layer) -> None:
    source.push = True
    source.answer = Parsed(tuple(quote(f"{i}.SH") for i in range(20)))
    feed.poll()
    assert source.asked == [None]
    push(source, quote("X.SH", time=1), quote("X.SH", time=2, price=10.5))
    layer.wait({"X.SH"})
    feed.poll()
    feed.poll()
    assert [len(symbols) for symbols in source.asked[1:]] == [2, 2]
    assert set(source.asked[1]).isdisjoint(source.asked[2])
    assert [symbol for symbol in layer.symbols() if symbol == "X.SH"] == ["X.SH", "X.SH"]


def test_a_poll_beside_fresh_pushes_brings_what_they_do_not_and_overtakes_none(feed, source, layer) -> None:
    source.push = True
    source.answer = Parsed((quote("A.SH", time=1),))
    feed.poll()
    push(source, quote("B.SH", time=1))
    source.answer = Parsed((quote("A.SH", time=3),))
    feed.poll()
    push(source, quote("A.SH", time=2))
    push(source, quote("A.SH", time=3))
    push(source, quote("A.SH", time=3, price=11.0))
    source.answer = Parsed((quote("A.SH", time=3), quote("C.SH", time=1)))
    feed.poll()
    layer.wait({"C.SH"})
    shown = [json.loads(body) for batch in layer.batches for body in batch.fragments if batch.term is None]
    of_a = [(one["time"], one["price"]) for one in shown if one["symbol"] == "A.SH"]
    assert of_a == [(1, 10.0), (2, 10.0), (3, 10.0), (3, 11.0)]


def test_a_push_waits_while_the_queue_is_full_and_nothing_is_lost(feed, source, layer) -> None:
    source.push = True
    source.answer = Parsed((quote("A.SH"),))
    feed.poll()
    layer.block.clear()
    count = MERGE_QUOTES + 2 * QUEUE_SIZE
    pushed = threading.Thread(target=lambda: [push(source, quote("B.SH", time=i)) for i in range(1, count + 1)])
    pushed.start()
    pushed.join(0.5)
    assert pushed.is_alive(), "the pusher waits: the queue is bounded"
    layer.block.set()
    pushed.join(20)
    source.answer = Parsed((quote("A.SH", time=9),))
    assert feed.poll() == "ok"
    assert layer.symbols().count("B.SH") == count


def test_what_the_layer_refused_is_published_when_it_is_back(feed, source, layer) -> None:
    layer.broken = True
    source.answer = Parsed((quote("A.SH"),))
    assert feed.poll() == "ok"
    assert layer.batches == []
    layer.broken = False
    feed.poll()
    assert layer.symbols() == ["A.SH"]


def test_stopping_ends_the_source_and_refuses_polls(feed, source) -> None:
    feed.stop()
    assert source.closed
    assert feed.poll() == "stopping"


def test_a_drained_feed_gives_the_lease_up_and_takes_none_until_it_is_resumed(feed, source, layer, lease) -> None:
    source.answer = Parsed((quote("A.SH", time=1),))
    feed.poll()
    first = feed.epoch
    assert first is not None
    feed.drained = True
    wait_for(lease.free)
    assert feed.epoch is None
    source.answer = Parsed((quote("A.SH", time=2),))
    assert feed.poll() == "ok"
    assert lease.free()
    assert layer.symbols() == ["A.SH"]
    feed.drained = False
    layer.wait_for(lambda batches: sum(batch.symbols == ["A.SH"] for batch in batches) == 2)
    assert feed.epoch > first


def test_a_reserve_leaves_a_free_lease_to_the_others_first(source, layer, lease) -> None:
    feed = feed_of(source, layer, lease)
    feed.reserve = True
    source.answer = Parsed((quote("A.SH"),))
    lease.hold("another")
    feed.start()
    try:
        assert feed.poll() == "ok"
        released = time.monotonic()
        lease.release("another")
        wait_for(lambda: feed.epoch is not None)
        assert time.monotonic() - released >= RESERVE_AFTER
        layer.wait({"A.SH"})
    finally:
        feed.stop()


@pytest.mark.parametrize("reserve", [False, True])
def test_a_standby_that_would_lose_something_lets_one_go_first_that_would_not(reserve: bool) -> None:
    wire, lease = Wire(), MemoryLease()
    sources = {name: ScriptedSource(push=True) for name in ("active", "unsound", "sound")}
    config = Config(source_timeout=5, stale_after=60)
    feeds = {
        name: Feed(terminal=name, source=source, publisher=publisher(wire, lease, name), config=config)
        for name, source in sources.items()
    }
    active, unsound, sound = feeds.values()
    sound.reserve = reserve
    try:
        for feed in feeds.values():
            sources[feed.terminal].answer = Parsed((quote("A.SH"),))
            feed.start()
            assert feed.poll() == "ok"
            wait_for(lambda: active.epoch is not None)
        wait_for(lambda: None not in (sound.unbroken_since, unsound.unbroken_since))
        time.sleep(OVERLAP)
        sources["unsound"].interruptions += 1
        push(sources["active"], quote("A.SH", time=2))
        wait_for(lambda: sound.in_step and not unsound.in_step)
        active.drained = True
        wait_for(lambda: [batch.term.recovered for batch in wire.sent if batch.term] == [False, True])
        assert (unsound.epoch, sound.epoch is not None) == (None, True)
    finally:
        for feed in feeds.values():
            feed.stop()


def test_a_terminal_that_answers_without_one_usable_quote_makes_way(feed, source, layer, lease, monkeypatch) -> None:
    monkeypatch.setattr("marketdata.feed.PATIENCE", 0.3)
    monkeypatch.setattr("marketdata.feed.MISSED_POLLS", 0)
    source.answer = Parsed((quote("A.SH"),))
    feed.poll()
    assert not lease.free()
    source.answer = Parsed((), (ParseError(symbol="A.SH", reason="empty"),))
    while not lease.free():
        assert feed.poll() == "ok"
        time.sleep(0.05)
    source.answer = Parsed((quote("A.SH", time=2),))
    wait_for(lambda: feed.poll() == "ok" and feed.epoch is not None)


@pytest.mark.parametrize("event", ["down", "dropped", "interrupted"])
def test_a_feed_is_unbroken_since_its_source_last_lost_something(feed, source, event: str) -> None:
    source.push = True
    source.answer = Parsed((quote("A.SH"),))
    assert feed.unbroken_since is None
    feed.poll()
    wait_for(lambda: feed.unbroken_since is not None)
    since = feed.unbroken_since
    feed.poll()
    time.sleep(2 * LOOK)
    assert feed.unbroken_since == since
    if event == "down":
        source.state = State.DOWN
        wait_for(lambda: feed.unbroken_since is None)
        source.state = State.UP
    elif event == "dropped":
        source.dropped += 1
    else:
        source.interruptions += 1
    wait_for(lambda: (feed.unbroken_since or 0) > since)

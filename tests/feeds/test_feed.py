"""A feed between a scripted source and a recording wire: pushes and polls are one path."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from argus.config import Config
from marketdata import feeds
from marketdata.batch import Batch, decode
from marketdata.feeds import Feed
from marketdata.lease import MemoryLease
from marketdata.publish import PublishError
from marketdata.publisher import Publisher
from marketdata.sources.base import State
from marketdata.types import Parsed, ParseError, Quote
from tests.feeds.scripted import ScriptedSource, quote


class Layer:
    """The channel layer's edge, on which a test can wait for a message."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.broken = False
        self.block = threading.Event()
        self.block.set()
        self._arrived = threading.Condition()

    def send(self, feed: str, blob: bytes) -> None:
        self.block.wait(10)
        if self.broken:
            raise PublishError("cut")
        with self._arrived:
            self.batches.append(decode(blob))
            self._arrived.notify_all()

    def wait(self, symbols: set[str]) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: symbols <= {s for b in self.batches for s in b.symbols}, 10)

    def symbols(self) -> list[str]:
        return [symbol for batch in self.batches for symbol in batch.symbols]


@pytest.fixture
def layer() -> Layer:
    return Layer()


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource()


@pytest.fixture
def feed(source: ScriptedSource, layer: Layer) -> Iterator[Feed]:
    publisher = Publisher(
        feed="main", source=source.name, owner="t", lease=MemoryLease(), send=layer.send, save_snapshot=lambda feed, blob: None
    )
    feed = Feed(terminal="t", source=source, publisher=publisher, config=Config(source_timeout=5, stale_after=60))
    feed.start()
    yield feed
    layer.block.set()
    feed.stop()


def push(source: ScriptedSource, *quotes: Quote) -> None:
    assert source.on_parsed is not None
    source.on_parsed(Parsed(tuple(quotes)))


def test_a_poll_publishes_what_is_new_with_a_canary_and_passes_its_request_id_on(feed, source, layer) -> None:
    source.answer = Parsed((quote("A.SH"), quote("B.SH")), (ParseError(symbol="C.SH", reason="empty"),))
    assert feed.poll(request_id="r-1") == "ok"
    assert feed.poll() == "ok"
    assert layer.symbols() == ["A.SH", "B.SH"]
    assert [batch.canary is not None for batch in layer.batches] == [True, True]
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


def test_a_source_that_dies_and_returns_goes_on_where_it_was(feed, source, layer) -> None:
    source.answer = Parsed((quote("A.SH", time=1),))
    feed.poll()
    source.state = State.DOWN
    assert feed.poll() == "down"
    source.state = State.UP
    source.answer = Parsed((quote("A.SH", time=2, price=11.0),))
    assert feed.poll() == "ok"
    assert [(batch.seq, batch.symbols) for batch in layer.batches] == [(1, ["A.SH"]), (2, ["A.SH"])]
    assert layer.batches[0].epoch == layer.batches[1].epoch


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


def test_a_push_waits_while_the_queue_is_full_and_nothing_is_lost(feed, source, layer) -> None:
    source.push = True
    source.answer = Parsed((quote("A.SH"),))
    feed.poll()
    layer.block.clear()
    count = feeds.MERGE_QUOTES + 2 * feeds.QUEUE_SIZE
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

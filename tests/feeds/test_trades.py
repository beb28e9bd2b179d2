"""Trades from a source into messages: of whom somebody wants them, each once, in order with the quotes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import msgspec
import pytest
from structlog.testing import capture_logs

from argus.config import Config
from marketdata import demand
from marketdata.calendar import DAY
from marketdata.demand import Announcer
from marketdata.feed import QUEUE_SIZE, Feed
from marketdata.lease import MemoryLease
from marketdata.publisher import Publisher
from marketdata.sources.base import Capability, OnTrades, SourceUnavailable
from marketdata.trades import Trades
from marketdata.types import DataType, Parsed, ParsedTrades, ParseError, Trade
from tests.feeds.scripted import ScriptedSource, quote
from tests.feeds.test_feed import Layer, push, wait_for
from tests.feeds.wire import Wire, publisher

MIDNIGHT = 20_000 * DAY - 8 * 3_600_000
"""In Beijing, in ms since the epoch."""


def trade(index: int, symbol: str = "A.SH", at: int = 1_000) -> Trade:
    return Trade(symbol=symbol, time=at, index=index, price=10.0, volume=100, source="scripted")


class TradingSource(ScriptedSource):
    """A scripted source that has trades, and says of whom they were wanted last."""

    def __init__(self) -> None:
        super().__init__(push=True)
        self.on_trades: OnTrades | None = None
        self.watched: list[frozenset[str] | None] = []
        self.failures = 0

    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities() | {Capability.TRADES}

    def subscribe_trades(self, on_trades: OnTrades) -> TradingSource:
        if self.failures:
            self.failures -= 1
            raise SourceUnavailable("not yet")
        self.on_trades = on_trades
        return self

    def watch(self, symbols: frozenset[str] | None) -> None:
        self.watched.append(symbols)

    def bring(self, *trades: Trade, errors: tuple[ParseError, ...] = ()) -> None:
        assert self.on_trades is not None
        self.on_trades(ParsedTrades(trades, errors))


@pytest.fixture
def source() -> TradingSource:
    return TradingSource()


@pytest.fixture
def layer() -> Layer:
    return Layer()


@pytest.fixture
def announcer(monkeypatch: pytest.MonkeyPatch) -> Announcer:
    monkeypatch.setattr(demand, "LOOK", 0.0)
    return Announcer()


@pytest.fixture
def feed(source: ScriptedSource, layer: Layer) -> Iterator[Feed]:
    made = Publisher(
        feed="main",
        source=source.name,
        owner="t",
        lease=MemoryLease(),
        send=layer.send,
        save_snapshot=lambda feed, blob: None,
        heard=layer.heard,
    )
    source.answer = Parsed((quote("A.SH"),))
    it = Feed(terminal="t", source=source, publisher=made, config=Config(source_timeout=5, stale_after=60))
    it.start()
    yield it
    layer.block.set()
    it.stop()


def told(layer: Layer) -> list[tuple[str, int]]:
    """Symbol and index of each trade that was published."""
    found = []
    for batch in layer.batches:
        symbols, fragments = batch.events.get(DataType.TRADE, ([], []))
        for symbol, fragment in zip(symbols, fragments, strict=True):
            text = msgspec.json.decode(fragment)
            assert (text["type"], text["seq"]) == ("trade", batch.seq)
            found.append((symbol, text["index"]))
    return found


def wanted(feed: Feed, announcer: Announcer, *symbols: str) -> None:
    announcer.announce({DataType.TRADE: frozenset(symbols)} if symbols else {})
    wait_for(lambda: feed._wanted.get(DataType.TRADE, frozenset()) == frozenset(symbols))


@pytest.mark.django_db
def test_a_source_is_asked_for_the_trades_that_somebody_wants_and_told_when_that_changes(feed, source, announcer) -> None:
    assert feed.poll() == "ok"
    assert source.on_trades is None
    wanted(feed, announcer, "A.SH")
    assert feed.poll() == "ok"
    assert source.watched == [frozenset({"A.SH"})]
    wanted(feed, announcer, "A.SH", "B.SH")
    wanted(feed, announcer)
    wait_for(lambda: source.watched[1:] == [frozenset({"A.SH", "B.SH"}), frozenset()])


@pytest.mark.django_db
def test_trades_go_out_once_each_and_in_order_however_often_the_source_brings_them(feed, source, layer, announcer) -> None:
    wanted(feed, announcer, "A.SH", "B.SH")
    assert feed.poll() == "ok"
    source.bring(trade(1), trade(2), trade(1, "B.SH"))
    source.bring(trade(1), trade(2), trade(3), errors=(ParseError(symbol="C.SH", reason="empty"),))
    source.bring(trade(3), trade(4, at=1_000 + DAY), trade(1, at=1_000 + DAY))
    wait_for(lambda: len(told(layer)) == 6)
    assert told(layer) == [("A.SH", 1), ("A.SH", 2), ("B.SH", 1), ("A.SH", 3), ("A.SH", 4), ("A.SH", 1)]
    entries = feed.publisher._journal.read("main", (feed.epoch, 0), (feed.epoch, feed.publisher.seq)).entries
    assert sum(len(entry.events[DataType.TRADE][0]) for entry in entries if DataType.TRADE in entry.events) == 6


@pytest.mark.django_db
def test_trades_wait_in_the_same_queue_as_quotes_and_none_is_merged(feed, source, layer, announcer) -> None:
    wanted(feed, announcer, "A.SH")
    assert feed.poll() == "ok"
    push(source, quote("A.SH", time=2))
    wait_for(lambda: len(layer.symbols()) == 2)
    layer.block.clear()
    push(source, quote("A.SH", time=3))
    done = threading.Event()

    def all_of_them() -> None:
        for n in range(2 * QUEUE_SIZE):
            source.bring(trade(n))
        push(source, quote("A.SH", time=4))
        done.set()

    threading.Thread(target=all_of_them, daemon=True).start()
    wait_for(lambda: feed._queue.full())
    assert not done.is_set(), "the source waits"
    layer.block.set()
    assert done.wait(10)
    wait_for(lambda: len(told(layer)) == 2 * QUEUE_SIZE and len(layer.symbols()) == 4)
    assert told(layer) == [("A.SH", n) for n in range(2 * QUEUE_SIZE)]
    last = next(batch for batch in layer.batches if b'"time":4,' in b"".join(batch.fragments))
    assert all(batch.seq <= last.seq for batch in layer.batches if batch.events.get(DataType.TRADE))


@pytest.mark.django_db
def test_symbols_that_are_not_published_here_have_no_trades(feed, source, layer, announcer) -> None:
    feed.accepts = lambda symbol: symbol == "A.SH"
    wanted(feed, announcer, "A.SH", "B.SH")
    assert feed.poll() == "ok"
    source.bring(trade(1, "B.SH"), trade(1), trade(2, "B.SH"))
    wait_for(lambda: told(layer) == [("A.SH", 1)])


@pytest.mark.django_db
def test_a_source_that_cannot_yet_is_asked_again_and_quotes_do_not_wait(feed, source, layer, announcer) -> None:
    source.failures = 2
    wanted(feed, announcer, "A.SH")
    with capture_logs() as lines:
        assert [feed.poll() for _ in range(4)] == ["ok"] * 4
    assert [line["event"] for line in lines if "trades" in line["event"]] == ["without_trades", "trades_subscribed"]
    assert layer.symbols() == ["A.SH"]


@pytest.mark.django_db
@pytest.mark.parametrize("source", [ScriptedSource()])
def test_a_source_without_trades_says_so_once_and_nothing_happens(feed, source, announcer) -> None:
    wanted(feed, announcer, "A.SH")
    with capture_logs() as lines:
        assert [feed.poll() for _ in range(3)] == ["ok"] * 3
    assert [line["log_level"] for line in lines if line["event"] == "without_trades"] == ["warning"]


def test_a_standby_publishes_the_trades_that_its_predecessor_has_not() -> None:
    wire, lease = Wire(), MemoryLease()
    active, standby = (publisher(wire, lease, name) for name in "ab")
    seen = [Trades().take([trade(n) for n in range(end)]) for end in (3, 5)]
    active.hold(time.monotonic() - 3600)
    active.publish([], 1, trades=seen[0])
    standby.publish([], 1, trades=seen[1])
    standby.listen()
    assert standby.events.pending == 2
    count = len(wire.sent)
    active.resign()
    standby.hold(time.monotonic() - 3600)
    _, fragments = wire.sent[count + 1].events[DataType.TRADE]
    assert [msgspec.json.decode(text)["index"] for text in fragments] == [3, 4]
    assert wire.sent[-1].term is not None
    assert wire.sent[-1].events == {}


def test_what_is_remembered_of_trades_is_bounded() -> None:
    trades = Trades(remembered=100)
    assert len(trades.take(trade(n) for n in range(1000))) == 1000
    assert trades.take(trade(n) for n in range(900, 1000)) == []
    assert sum(len(seen) for half in (trades._new, trades._old) for seen in half.values()) <= 200


def test_the_day_of_an_index_is_beijings() -> None:
    trades = Trades()
    assert [len(trades.take([trade(1, at=at)])) for at in (MIDNIGHT, MIDNIGHT + DAY - 1, MIDNIGHT + DAY)] == [1, 0, 1]

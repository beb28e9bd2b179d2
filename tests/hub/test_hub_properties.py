"""Whatever happens in whatever order: each client holds the newest of what it covers, and never went back in time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata.batch import Term
from marketdata.builder import LiveBar
from marketdata.statuses import Statuses
from marketdata.types import KLINES, DataType, Quote, TradingStatus
from streaming.frame import Frame
from streaming.merging import MERGE_AFTER, MERGED_INTERVAL
from streaming.selection import Frequency, Selection
from tests.hub.market import Client, bar, blob, changes, make_hub, principal, quote

SYMBOLS = [f"{n:06d}.SZ" for n in range(6)]
STATUSES = [TradingStatus.CONTINUOUS, TradingStatus.BREAK]
CLIENTS = 3

some_symbols = st.sets(st.sampled_from(SYMBOLS), min_size=1)
selection = st.builds(
    Selection,
    symbols=st.none() | st.frozensets(st.sampled_from(SYMBOLS), min_size=1),
    data_types=st.frozensets(st.sampled_from(DataType), min_size=1, max_size=3),
    frequency=st.sampled_from(Frequency),
)
who = st.integers(0, CLIENTS - 1)
batch = st.tuples(
    st.just("batch"), some_symbols, st.sampled_from(STATUSES), st.sampled_from(["sent", "sent", "sent", "late", "lost"])
)
step = st.one_of(
    batch,
    batch,
    batch,
    st.tuples(st.just("cover"), who, st.lists(selection, max_size=3)),
    st.tuples(st.just("stop"), who),
    st.tuples(st.just("allow"), who, st.integers(1, 3)),
    st.tuples(st.just("flow"), who),
    st.tuples(st.just("say"), who),
    st.tuples(st.just("tick"), st.sampled_from([0.1, 1.0, 5.0])),
    st.tuples(st.just("take_over"), some_symbols, st.tuples(*[st.sampled_from(["sent", "sent", "late", "lost"])] * 3)),
    st.tuples(st.just("restore")),
    st.tuples(st.just("hold_back"), st.integers(0, 2)),
    st.tuples(st.just("edit_plan"), who, st.integers(0, 2)),
    st.tuples(st.just("answer")),
)


@dataclass
class Watcher:
    """What one client has understood, checking every message as it is written."""

    client: Client
    selections: list[Selection] = field(default_factory=list)
    held: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    closed: dict[tuple[str, str], int] = field(default_factory=dict)
    said: int = 0
    heard: int = 0
    epoch: int = 0
    told: int = 0

    def covers(self, data_type: str, symbol: str) -> bool:
        return any(
            data_type in chosen.data_types and (chosen.symbols is None or symbol in chosen.symbols) for chosen in self.selections
        )

    def read(self, frame: Frame) -> None:
        message = msgspec.json.decode(frame.payload())
        if message["type"] == "pong":
            assert message["id"] == self.heard + 1, "control messages out of order"
            self.heard += 1
            return
        assert message["epoch"] >= self.epoch, "an older epoch after a newer one"
        self.epoch = message["epoch"]
        if message["type"] == "epoch":
            assert message["epoch"] > self.told, "told twice"
            self.told = message["epoch"]
            return
        keys = [(f"kline:{p['period']}" if p["type"] == "kline" else p["type"], p["symbol"]) for p in message["data"]]
        ends = [(*key, piece.get("closed") and piece["time"]) for key, piece in zip(keys, message["data"], strict=True)]
        assert len(ends) == len(set(ends)), "a key twice in one message"
        for key, piece in zip(keys, message["data"], strict=True):
            if not self.covers(*key):
                assert piece.get("closed") or piece["type"] == "status", "not covered"
                # It happened while it was covered.
                continue
            if piece.get("closed"):
                # It may be said again beside the one that forms.
                assert self.closed.get(key, 0) <= piece["time"], "older after newer"
                self.closed[key] = piece["time"]
                continue
            before = self.held.get(key)
            assert before is None or before["time"] <= piece["time"], "older after newer"
            self.held[key] = piece


class World:
    """A publisher, a hub, and clients."""

    def __init__(self) -> None:
        self.hub = make_hub()
        self.hub.on_gap = lambda feed, epoch, seq: None
        self.now = time.monotonic()
        self.published = time.time()
        self.epoch, self.seq, self.n = 1, 0, 0
        self.newest: dict[str, tuple[Quote, int]] = {}
        self.seqs: dict[str, set[int]] = {}
        """The numbers under which the newest quote of a symbol went out: more than one after a takeover."""
        self.bars: dict[str, tuple[LiveBar | None, LiveBar]] = {}
        self.statuses = Statuses()
        self.watchers = [self._watch(number) for number in range(CLIENTS)]

    def _watch(self, number: int) -> Watcher:
        client = Client(self.hub, str(number), principal=principal(priority=number))
        watcher = Watcher(client)
        write = client.wire.write

        def read(frame: Frame) -> None:
            write(frame)
            if not client.wire.aborted:
                watcher.read(frame)

        client.wire.write = read  # type: ignore[method-assign]
        return watcher

    def batch(self, symbols: set[str], status: TradingStatus, fate: str) -> None:
        self.n += 1
        self.seq += 1
        quotes = [quote(symbol, self.n, status=status) for symbol in sorted(symbols)]
        self.newest.update({value.symbol: (value, self.seq) for value in quotes})
        self.seqs.update({value.symbol: {self.seq} for value in quotes})
        bars = [self._bar(symbol) for symbol in sorted(symbols)]
        changed = changes(quotes, self.seq, self.statuses)
        if fate != "lost":
            late = 2 * MERGE_AFTER if fate == "late" else 0
            said = [bar for pair in bars for bar in pair if bar is not None]
            published = self.published - late
            self.hub.receive(blob(quotes, self.seq, epoch=self.epoch, published=published, bars=said, happened=changed))

    def _bar(self, symbol: str) -> tuple[LiveBar | None, LiveBar]:
        """A minute has four batches; the first closes the minute before."""
        closed, forming = self.bars.get(symbol, (None, None))
        minute, over = self.n // 4, None
        if forming is not None and forming.time < bar(symbol, minute).time:
            closed = over = msgspec.structs.replace(forming, closed=True)
        self.bars[symbol] = closed, bar(symbol, minute, volume=self.n)
        return over, self.bars[symbol][1]

    def answer(self) -> None:
        """The publisher hears what bars are wanted, and says how they stand."""
        wanted = self.hub.wanted().get(DataType.KLINE_1M, frozenset())
        self.seq += 1
        pairs = [pair for symbol, pair in self.bars.items() if wanted is None or symbol in wanted]
        bars = [bar for pair in pairs for bar in pair if bar is not None]
        self.hub.receive(blob([], self.seq, epoch=self.epoch, published=self.published, bars=bars))

    def take_over(self, pending: set[str], fates: tuple[str, str, str]) -> None:
        """Another publisher goes on: it makes sure of the end, sends what is missing, and then all that it knows."""
        end = (self.epoch, self.seq)
        self.epoch, self.seq = self.epoch + 1, 1
        if fates[0] != "lost":
            self.hub.receive(blob([], self.seq, epoch=self.epoch, published=self.published))
        self.batch(pending, TradingStatus.CONTINUOUS, fates[1])
        self.seq += 1
        self.newest = {symbol: (value, self.seq) for symbol, (value, _) in self.newest.items()}
        for seqs in self.seqs.values():
            seqs.add(self.seq)
        if fates[2] != "lost":
            values = [value for value, _ in self.newest.values()]
            published = self.published - (2 * MERGE_AFTER if fates[2] == "late" else 0)
            term = Term(*end, recovered=True)
            self.hub.receive(blob(values, self.seq, epoch=self.epoch, published=published, term=term))

    def restore(self) -> None:
        if self.seq:
            seqs = {symbol: seq for symbol, (_, seq) in self.newest.items()}
            values = [value for value, _ in self.newest.values()]
            self.hub.restore(blob(values, self.seq, epoch=self.epoch, snapshot=True, seqs=seqs))

    def cover(self, number: int, selections: list[Selection]) -> None:
        watcher = self.watchers[number]
        watcher.selections = selections
        watcher.held = {key: piece for key, piece in watcher.held.items() if watcher.covers(*key)}
        watcher.closed = {key: ends for key, ends in watcher.closed.items() if watcher.covers(*key)}
        self.hub.cover(watcher.client.connection, {str(n): chosen for n, chosen in enumerate(selections)})

    def hold_back(self, below: int) -> None:
        self.hub.hold_back(below, MERGED_INTERVAL)

    def edit_plan(self, number: int, priority: int) -> None:
        watcher = self.watchers[number]
        watcher.client.connection.principal = principal(priority=priority)
        self.cover(number, watcher.selections)

    def stop(self, number: int) -> None:
        self.watchers[number].client.wire.stop()

    def allow(self, number: int, frames: int) -> None:
        self.watchers[number].client.wire.allow(frames)

    def flow(self, number: int) -> None:
        self.watchers[number].client.wire.allow(None)

    def say(self, number: int) -> None:
        watcher = self.watchers[number]
        watcher.said += 1
        watcher.client.connection.send(Frame(b'{"type":"pong","id":%d}' % watcher.said))

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.hub.tick(self.now)

    def settle(self) -> None:
        self.restore()
        self.answer()
        for number in range(CLIENTS):
            self.flow(number)
        self.tick(MERGED_INTERVAL)
        self.tick(61)


@settings(max_examples=300, deadline=None)
@given(st.lists(step, max_size=50))
def test_every_client_ends_with_the_newest_of_all_it_covers(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
    world.settle()
    for watcher in world.watchers:
        if watcher.client.wire.aborted:
            continue
        assert watcher.heard == watcher.said
        sent = [t for t in DataType if t is DataType.KLINE_1M or (t not in KLINES and t is not DataType.TRADE)]
        expected = {(data_type, symbol) for data_type in sent for symbol in world.newest if watcher.covers(data_type, symbol)}
        assert set(watcher.held) == expected
        for (data_type, symbol), piece in watcher.held.items():
            newest, _ = world.newest[symbol]
            if data_type == DataType.KLINE_1M:
                closed, forming = world.bars[symbol]
                assert (piece["time"], piece["volume"], piece["closed"]) == (forming.time, forming.volume, False)
                assert watcher.closed.get((data_type, symbol)) == (closed and closed.time)
            elif data_type == DataType.STATUS:
                assert piece["status"] == newest.status
            else:
                assert piece["time"] == newest.time
                assert piece["seq"] in world.seqs[symbol]

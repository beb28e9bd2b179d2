"""A world for resuming, without a network: feeds with a journal, hubs that hear them, and clients that are cut off and come back.

``World`` does what a test says, one step at a time. Each client checks every message as it reads it, against what was published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

import msgspec

from marketdata import events, klines
from marketdata.batch import Events, Term
from marketdata.builder import LiveBar
from marketdata.events import Event
from marketdata.journal import UNAVAILABLE, Entry, MemoryJournal, Reading
from marketdata.latest import LatestStore
from marketdata.ledger import NOWHERE, Position
from marketdata.statuses import Statuses
from marketdata.types import EVENTS, KLINES, DataType, Quote, TradingStatus
from streaming import protocol
from streaming.connection import Connection
from streaming.heartbeat import Heartbeats
from streaming.hub import Hub
from streaming.merging import MERGE_AFTER, MERGED_INTERVAL
from streaming.past import Past
from streaming.resume import Return, fresh
from streaming.saved import Saved
from streaming.selection import Selection
from streaming.subscriptions import Subscription
from tests.hub.market import StoppableWire, bar, blob, changes, principal, quote

SYMBOLS = {"main": ["000000.SZ", "000001.SZ", "000002.SZ"], "second": ["000003.SZ", "000004.SZ"]}
FEED_OF = {symbol: feed for feed, symbols in SYMBOLS.items() for symbol in symbols}
SENT, LATE, LOST = "sent", "late", "lost"
T = TypeVar("T")
Key = tuple[str, str]
"""Data type and symbol."""


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


class Journal(MemoryJournal):
    """A journal that can be away, and tells when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.reads = 0
        self.on_read: Callable[[], None] | None = None

    def read(self, feed: str, after: Position, until: Position) -> Reading:
        self.reads += 1
        found = Reading([], False, UNAVAILABLE) if self.away else super().read(feed, after, until)
        if self.on_read is not None:
            on_read, self.on_read = self.on_read, None
            on_read()
        return found


class DirectPast(Past):
    """Asks the journal without a thread."""

    async def _look(self, feed: str, after: Position, until: Position) -> Reading:
        return self._journal.read(feed, after, until)


@dataclass
class Message:
    """A message as it was published. ``end``: the last one of the epoch before, where this is the first."""

    position: Position
    happened: Events
    kept: bool
    term: Term | None
    end: Position | None


@dataclass
class Feed:
    """A publisher."""

    name: str
    epoch: int = 1
    seq: int = 0
    n: int = 0
    newest: dict[str, tuple[Quote, int]] = field(default_factory=dict)
    bars: dict[str, tuple[LiveBar | None, LiveBar]] = field(default_factory=dict)
    statuses: Statuses = field(default_factory=Statuses)
    messages: list[Message] = field(default_factory=list)
    ends: Position | None = None
    """While a takeover is under way: where the epoch before ended."""

    @property
    def position(self) -> Position:
        return (self.epoch, self.seq)

    def kept(self, after: Position, until: Position) -> bool:
        """Whether the journal alone, if it answers, has all between two positions; nobody knows of an epoch that ended untold."""
        told = True
        for message in self.messages:
            if after < message.position <= until:
                if not message.kept or (message.end is not None and not told):
                    return False
                told = told and message.end is None
                if message.term is not None:
                    if not message.term.recovered:
                        return False
                    told = True
        return told

    def close_and_form(self, symbol: str) -> list[LiveBar]:
        """A minute has three messages; the first closes the minute before."""
        _, forming = self.bars.get(symbol, (None, None))
        minute, over = self.n // 3, None
        if forming is not None and forming.time < bar(symbol, minute).time:
            over = msgspec.structs.replace(forming, closed=True)
        closed = over or self.bars.get(symbol, (None, None))[0]
        self.bars[symbol] = closed, bar(symbol, minute, volume=self.n)
        return [item for item in (over, self.bars[symbol][1]) if item is not None]


class Process:
    """A web process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.start()

    def start(self) -> None:
        self.wanted: dict[str, Position] = {}
        self.missed: list[tuple[str, Position, Position]] = []
        self.past = DirectPast(self.world.journal)
        self.hub = Hub(LatestStore(), self._on_gap, lambda *missed: self.missed.append(missed), self.past)
        self.beats = Heartbeats(self.hub)

    def _on_gap(self, feed: str, epoch: int, seq: int) -> None:
        self.wanted[feed] = (epoch, seq)

    @property
    def ready(self) -> bool:
        """Whether it knows where the feeds stand: clients wait for that."""
        return self.hub.store.feeds.keys() >= self.world.feeds.keys()

    def heal(self) -> None:
        while self.missed:
            feed, after, until = self.missed.pop(0)
            self.hub.heal(feed, after, until, at_once(self.past.read(feed, after, until)))

    def restore(self) -> None:
        """Load the feeds' snapshots, as after a start or a gap."""
        for feed in self.world.feeds.values():
            if feed.seq and feed.ends is None:
                values = [value for value, _ in feed.newest.values()]
                seqs = {symbol: seq for symbol, (_, seq) in feed.newest.items()}
                self.hub.restore(blob(values, feed.seq, feed=feed.name, epoch=feed.epoch, snapshot=True, seqs=seqs))


class Client:
    """One client, over all its connections."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.selections: dict[str, Selection] = {}
        self.since: dict[str, dict[str, Position]] = {}
        self.acked: dict[str, dict[str, Position]] = {}
        self.streams: dict[str, Position] = {}
        self.held: dict[Key, dict[str, Any]] = {}
        self.seen: dict[tuple[str, Key], list[tuple[Position, int]]] = {}
        self.bars_seen: dict[Key, list[int]] = {}
        self.starts: dict[tuple[str, Key], Position] = {}
        self.excused: list[tuple[str, str, Position, Position]] = []
        self.had: dict[str, Position] = {}
        """Up to where it may not be sent anything again."""
        self.connections = 0
        self.process: Process | None = None
        self.connect(world.processes[number % len(world.processes)])

    def connect(self, process: Process) -> None:
        self.connections += 1
        self.wire = StoppableWire()
        name = f"{self.number}.{self.connections}"
        self.connection = Connection(name, principal(priority=self.number % 3), self.wire, None)
        self.process = process
        process.hub.attach(self.connection)
        self.had = {}

    def cover(self, selections: dict[str, Selection]) -> None:
        assert self.process is not None
        hub = self.process.hub
        at = {feed: hub.position(feed) for feed in hub.store.feeds}
        for name, chosen in selections.items():
            if self.selections.get(name) != chosen:
                self.since[name] = at
        before, self.selections = self.selections, selections
        hub.cover(self.connection, selections)
        for name in selections.keys() | before.keys():
            if selections.get(name) != before.get(name) or name not in selections:
                self.acked.pop(name, None)
        self._keep()
        starts = {}
        for lane, key in self._keys():
            start = self.starts.get((lane, key))
            anew = start is None or (lane and selections.get(lane) != before.get(lane))
            starts[lane, key] = hub.position(FEED_OF[key[1]]) if start is None or anew else start
        self.starts = starts
        covered = {key for _, key in self._keys()}
        self.held = {key: piece for key, piece in self.held.items() if key in covered}
        self.seen = {key: seen for key, seen in self.seen.items() if key in starts}
        self.bars_seen = {key: seen for key, seen in self.bars_seen.items() if key in covered}

    def _keep(self) -> None:
        for name, item in self.connection.acknowledged.items():
            self.acked[name] = dict(item.acked)

    def _keys(self) -> Iterator[tuple[str, Key]]:
        """What it covers: the name of the subscription where it is acknowledged, and data type and symbol."""
        for name, chosen in self.selections.items():
            for data_type in chosen.data_types:
                for symbol in FEED_OF if chosen.symbols is None else chosen.symbols:
                    yield name if chosen.ack else "", (data_type.value, symbol)

    def read(self, count: int | None = None) -> None:
        """Read so many messages, or all that were written."""
        count = len(self.wire.messages) if count is None else count
        messages, self.wire.messages = self.wire.messages[:count], self.wire.messages[count:]
        for message in messages:
            getattr(self, f"_read_{message['type']}")(message)

    def _read_pong(self, message: dict[str, Any]) -> None:
        pass

    def _read_epoch(self, message: dict[str, Any]) -> None:
        pass

    def _read_error(self, message: dict[str, Any]) -> None:
        pass

    def _read_heartbeat(self, message: dict[str, Any]) -> None:
        self.streams |= {feed: (at["epoch"], at["seq"]) for feed, at in message["streams"].items()}

    def _read_gap(self, message: dict[str, Any]) -> None:
        for lane in {"", *(name for name, chosen in self.selections.items() if chosen.ack)}:
            self._excuse(message["gap"] | {"subscription": lane})

    def _read_resumed(self, message: dict[str, Any]) -> None:
        assert message["recovered"] == all(gap["filled"] for gap in message["gaps"])
        for gap in message["gaps"]:
            if not gap["filled"]:
                self._excuse(gap)

    def _excuse(self, gap: dict[str, Any]) -> None:
        begin = gap["from"]
        after = NOWHERE if begin is None else (begin["epoch"], begin["seq"] - 1)
        self.excused.append((gap.get("subscription", ""), gap["feed"], after, (gap["to"]["epoch"], gap["to"]["seq"])))

    def _read_data(self, message: dict[str, Any]) -> None:
        position, lane = (message["epoch"], message["seq"]), message.get("subscription", "")
        for piece in message["data"]:
            data_type = f"kline:{piece['period']}" if piece["type"] == "kline" else piece["type"]
            key = (data_type, piece["symbol"])
            assert FEED_OF[piece["symbol"]] == message["feed"]
            if piece["type"] == "kline" and piece["closed"]:
                if not lane:
                    self.bars_seen.setdefault(key, []).append(piece["time"])
                else:
                    self._happened(lane, key, position, piece["time"])
            elif data_type in EVENTS and data_type not in KLINES and not message.get("snapshot"):
                identity = piece["index"] if data_type == DataType.TRADE else piece["time"]
                self._happened(lane, key, position, identity)
            if data_type != DataType.TRADE and not piece.get("closed") and not lane:
                self.held[key] = piece
        if lane:
            self.last_own = (lane, message["feed"], position)
        elif "more" not in message:
            self.streams[message["feed"]] = position

    def _happened(self, lane: str, key: Key, position: Position, identity: int) -> None:
        if position <= self.starts.get((lane, key), position):
            # From before it subscribed to it.
            return
        seen = self.seen.setdefault((lane, key), [])
        this = (position, identity)
        if this in seen:
            # What is acknowledged comes at least once.
            assert lane or position > self.had.get(FEED_OF[key[1]], NOWHERE), ("twice", this, self.had)
            return
        # What was told to be missing may be found when it is asked for again.
        late = self._is_excused(lane, FEED_OF[key[1]], position)
        assert late or not seen or seen[-1] <= this, ("out of order", seen[-1], this)
        seen.append(this)

    def ack(self) -> None:
        """Acknowledge the last that was read."""
        found = getattr(self, "last_own", None)
        if found is not None and (item := self.connection.acknowledged.get(found[0])) is not None:
            item.ack(found[1], found[2])
            self._keep()

    def cut(self, read: int) -> None:
        """The connection ends when so many messages have been read."""
        if self.process is not None:
            self.read(read)
            self._keep()
            self.process.hub.detach(self.connection)
            self.process = None

    def resume(self, process: Process, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Come back, as the protocol says; something happens while the past is looked at. The consumer does the same."""
        hub = process.hub
        if self.process is not None or not process.ready or any(hub.whole(feed) < at for feed, at in self.streams.items()):
            return
        self.connect(process)
        self.connection.hold()
        hub.cover(self.connection, self.selections, snapshot=False)
        views = len(self.connection.views)
        for name, item in self.connection.acknowledged.items():
            item.acked = self.since[name] | self.acked.get(name, {})
        saved = {name: self._saved(name) for name in self.selections}
        book = {
            name: Subscription(
                names=chosen.symbols or frozenset(),
                groups=("*",) if chosen.symbols is None else (),
                data_types=chosen.data_types,
                frequency=chosen.frequency,
            )
            for name, chosen in self.selections.items()
        }
        since = dict(self.streams)
        away = self.world.journal.away
        way = Return(hub, self.connection, since)
        self.world.journal.on_read = meanwhile
        at_once(way.look())
        self.world.journal.on_read = None
        for gap in way.gaps:
            self._check_gap(gap, since, away=away)
        frame = self.connection.codec.encode(
            protocol.Resumed(id=None, recovered=all(gap.filled for gap in way.gaps), gaps=way.gaps, rejected=[], subscriptions={})
        )
        assert frame is not None
        assert self.connection.outbox.put_first([frame, *way.finish(fresh(saved, saved, book, since))])
        self.connection.release()
        self.had = {feed: at if views == 1 else (at[0], at[1] - 1) for feed, at in since.items()}

    def _saved(self, name: str) -> Saved:
        chosen = self.selections[name]
        since = {feed: protocol.Position(*at) for feed, at in self.since[name].items()}
        return Saved(symbols=[], data_types=[], update_frequency=chosen.frequency, since=since)

    def _check_gap(self, gap: protocol.Gap, since: dict[str, Position], *, away: bool) -> None:
        """A gap is left open only where it has to be."""
        if gap.filled or away:
            return
        feed = self.world.feeds[gap.feed]
        if gap.from_ is None:
            assert gap.feed not in since or gap.subscription
            return
        after = (gap.from_.epoch, gap.from_.seq - 1)
        assert not feed.kept(after, (gap.to.epoch, gap.to.seq)), ("could have been filled", gap)

    def check(self) -> None:
        """What it must have had by now."""
        for (lane, key), start in self.starts.items():
            data_type, symbol = key
            feed = self.world.feeds[FEED_OF[symbol]]
            said = [(message.position, identity) for message in feed.messages for identity in happened(message, key)]
            if data_type in KLINES:
                # The publisher says the last one again where somebody asks for it.
                said = list({identity: (position, identity) for position, identity in reversed(said)}.values())
            expected = [this for this in said if this[0] > start and not self._is_excused(lane, feed.name, this[0])]
            seen = self.seen.get((lane, key), [])
            if data_type in KLINES:
                ends = [identity for _, identity in seen] if lane else self.bars_seen.get(key, [])
                missing = [this for this in expected if this[1] not in ends]
            else:
                missing = [this for this in expected if this not in seen]
            assert not missing, ("missing", lane, key, missing)
            if not lane and symbol in feed.newest and data_type != DataType.TRADE:
                self._check_state(feed, data_type, symbol)

    def _is_excused(self, lane: str, feed: str, position: Position) -> bool:
        return any((lane, feed) == excused[:2] and excused[2] < position <= excused[3] for excused in self.excused)

    def _check_state(self, feed: Feed, data_type: str, symbol: str) -> None:
        value, _ = feed.newest[symbol]
        held = self.held.get((data_type, symbol))
        assert held is not None, ("nothing of", data_type, symbol)
        if data_type in KLINES:
            _, forming = feed.bars[symbol]
            assert (held["time"], held["volume"]) == (forming.time, forming.volume), ("old", data_type, symbol)
        elif data_type == DataType.STATUS:
            assert held["status"] == value.status, ("old", data_type, symbol)
        else:
            assert held["time"] == value.time, ("old", data_type, symbol)


def happened(message: Message, key: Key) -> list[int]:
    """What identifies a message's events of a data type and symbol."""
    data_type, symbol = key
    symbols, fragments = message.happened.get(DataType(data_type), ([], []))
    pieces = [msgspec.json.decode(fragment) for name, fragment in zip(symbols, fragments, strict=True) if name == symbol]
    return [piece["index"] if data_type == DataType.TRADE else piece["time"] for piece in pieces]


class World:
    """Feeds, processes and clients."""

    def __init__(self, clients: int = 2) -> None:
        self.now = time.monotonic()
        self.journal = Journal()
        self.feeds = {name: Feed(name) for name in SYMBOLS}
        self.published = time.time()
        self.processes = [Process(self), Process(self)]
        self.trades = 0
        self.clients: list[Client] = []
        self.publish(set(FEED_OF), (SENT, SENT))
        self.clients += [Client(self, number) for number in range(clients)]

    def publish(
        self,
        symbols: set[str],
        fates: tuple[str, str],
        trades: int = 0,
        status: TradingStatus = TradingStatus.CONTINUOUS,
        kept: bool = True,
    ) -> None:
        """One message of each feed that these belong to."""
        for name in sorted({FEED_OF[symbol] for symbol in symbols}):
            feed = self.feeds[name]
            feed.n += 1
            mine = sorted(symbol for symbol in symbols if FEED_OF[symbol] == name)
            quotes = [quote(symbol, feed.n, status=status) for symbol in mine]
            bars = [item for symbol in mine for item in feed.close_and_form(symbol)]
            self._say(feed, fates, quotes, bars, self._trades(mine, trades), kept=kept)

    def _trades(self, symbols: list[str], count: int) -> list[Event]:
        found = []
        for _ in range(count):
            for symbol in symbols:
                self.trades += 1
                body = {"type": "trade", "symbol": symbol, "time": self.trades, "index": self.trades}
                found.append(Event(DataType.TRADE, symbol, msgspec.json.encode(body)))
        return found

    def _say(
        self,
        feed: Feed,
        fates: tuple[str, str],
        quotes: list[Quote],
        bars: list[LiveBar] = [],  # noqa: B006 - never changed
        trades: list[Event] = [],  # noqa: B006
        *,
        kept: bool = True,
        term: Term | None = None,
        end: Position | None = None,
    ) -> None:
        feed.seq += 1
        tail = b',"seq":%d}' % feed.seq
        feed.newest.update({value.symbol: (value, feed.seq) for value in quotes})
        _, closed = klines.numbered(klines.group(bars), tail)
        found = closed | changes(quotes, feed.seq, feed.statuses) | events.numbered(trades, tail)
        kept = kept and self.journal.append(feed.name, Entry(feed.epoch, feed.seq, found, term))
        feed.messages.append(Message(feed.position, found, kept, term, end))
        for process, fate in zip(self.processes, fates, strict=True):
            if fate != LOST:
                published = self.published - (2 * MERGE_AFTER if fate == LATE else 0)
                process.hub.receive(
                    blob(
                        quotes,
                        feed.seq,
                        feed=feed.name,
                        epoch=feed.epoch,
                        published=published,
                        bars=bars,
                        term=term,
                        happened=found,
                    )
                )

    def take_over(self, fates: tuple[str, str]) -> None:
        """Another publisher begins."""
        feed = self.feeds["main"]
        feed.ends = feed.position
        feed.epoch, feed.seq = feed.epoch + 1, 0
        self._say(feed, fates, [], end=feed.ends)

    def tell(self, fates: tuple[str, str], recovered: bool = True) -> None:
        """It says after whom, and how everything stands."""
        feed = self.feeds["main"]
        if feed.ends is not None:
            term, feed.ends = Term(*feed.ends, recovered=recovered, reason="" if recovered else "feed_broken"), None
            self._say(feed, fates, [value for value, _ in feed.newest.values()], term=term)

    def heal(self, process: int) -> None:
        self.processes[process].heal()

    def restore(self, process: int) -> None:
        self.processes[process].restore()

    def restart(self, process: int, read: int) -> None:
        for client in self.clients:
            if client.process is self.processes[process]:
                client.cut(read)
        self.processes[process].start()
        self.processes[process].restore()

    def tick(self, process: int, seconds: float) -> None:
        self.now += seconds
        self.processes[process].hub.tick(self.now)
        self._notice()

    def beat(self, process: int) -> None:
        self.processes[process].beats.beat(None)

    def hold_back(self, process: int, below: int) -> None:
        self.processes[process].hub.hold_back(below, MERGED_INTERVAL)

    def cover(self, client: int, selections: dict[str, Selection]) -> None:
        chosen = self.clients[client]
        if chosen.process is not None and chosen.process.ready:
            chosen.read()
            chosen.cover(selections)

    def stop(self, client: int) -> None:
        self.clients[client].wire.stop()

    def allow(self, client: int, frames: int | None) -> None:
        self.clients[client].wire.allow(frames)

    def read(self, client: int, count: int | None) -> None:
        self.clients[client].read(count)

    def ack(self, client: int) -> None:
        self.clients[client].ack()

    def cut(self, client: int, read: int) -> None:
        self.clients[client].cut(read)

    def resume(self, client: int, process: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.clients[client].resume(self.processes[process], meanwhile)

    def away(self, *, away: bool) -> None:
        """That it did not answer is remembered for a moment."""
        self.journal.away = away
        self.now += 1.5

    def _notice(self) -> None:
        for client in self.clients:
            if client.process is not None and (client.wire.aborted or client.connection.closed):
                client.cut(len(client.wire.messages))

    def settle(self) -> None:
        """Everything gets through, everybody is there again, and has what there is to have."""
        self.journal.away = False
        self.now += 2
        self.tell((SENT, SENT))
        for feed in self.feeds.values():
            self._say(feed, (SENT, SENT), [])
        for _ in range(2):
            for process in self.processes:
                process.heal()
                process.restore()
        for client in self.clients:
            for process in self.processes:
                client.resume(process)
            assert client.process is not None
            client.wire.allow(None)
        for feed in self.feeds.values():
            bars = [item for pair in feed.bars.values() for item in pair if item is not None]
            self._say(feed, (SENT, SENT), [], bars)
        for number in range(len(self.processes)):
            self.tick(number, 1)
            self.tick(number, 61)
        for client in self.clients:
            if client.process is not None:
                client.read()
                client.check()


@contextmanager
def world(clients: int = 2) -> Iterator[World]:
    """A world with a clock of its own."""
    clock = SimpleNamespace(time=time.time, perf_counter=time.perf_counter, monotonic=time.monotonic)
    with patch("streaming.past.time", clock), patch("streaming.hub.time", clock), patch("streaming.connection.time", clock):
        found = World(clients)
        clock.monotonic = lambda: found.now
        yield found

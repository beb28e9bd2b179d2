"""The fan-out: batches in, one frame per view out, never waiting for anybody."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set

import msgspec
import structlog

from argus.config import config
from argus.errors import EVENT_OVERFLOW, SLOW_CLIENT
from marketdata.batch import Batch, decode
from marketdata.journal import TOO_MUCH, Reading
from marketdata.klines import Wanted
from marketdata.latest import LatestStore
from marketdata.types import EVENTS, KLINES, DataType
from streaming.acknowledged import Acknowledged
from streaming.audience import Audience
from streaming.codecs import Announcement, Codec, Head
from streaming.connection import Connection
from streaming.coverage import Changes, Coverage, Pace, Symbols, cover, merged
from streaming.facets import DERIVED
from streaming.filtered import Passing, admitted, decide
from streaming.filters import Filter
from streaming.frame import Events as Happened
from streaming.frame import Frame
from streaming.healing import Healing
from streaming.lanes import EventTables, Lane, Outgoing
from streaming.merging import Merging
from streaming.metrics import Counters, collector
from streaming.newest import Newest
from streaming.past import Past
from streaming.protocol import Epoch, Gap, GapMessage
from streaming.resume import missed
from streaming.rows import Table
from streaming.selection import Frequency, Selection
from streaming.taken import First, take
from streaming.terms import NOWHERE, Position, Terms
from streaming.views import Receiver, View

log = structlog.get_logger(__name__)

EVERYBODY = sys.maxsize
"""Above every priority."""


class Hub:
    """One per event loop; every method is synchronous and is called on that loop, ``tick`` some 20 times a second.

    ``on_gap(feed, epoch, seq)`` is called when everything up to ``seq`` is needed and some of it has not come;
    ``on_missed(feed, after, until)`` when events between two messages may be missing, which ``heal`` is to bring.
    """

    def __init__(
        self,
        store: LatestStore,
        on_gap: Callable[[str, int, int], None] | None = None,
        on_missed: Callable[[str, Position, Position], None] | None = None,
        past: Past | None = None,
    ) -> None:
        self.store = store
        self.past = past
        self.newest = Newest(store, self._partial)
        self.connections: dict[str, Connection] = {}
        self.behind: dict[Connection, None] = {}
        self.counters = Counters()
        self.on_gap = on_gap
        self._audience = Audience(self.newest)
        self._terms = Terms()
        self._healing = Healing(on_missed)
        self._merging = Merging()
        self._acknowledging: dict[Acknowledged, None] = {}
        collector.watch(self.counters)

    def attach(self, connection: Connection) -> None:
        """Take a client in; it receives heartbeats from now on, and data once it covers something."""
        self.connections[connection.id] = connection
        connection.home = self
        if connection.behind_since is not None:
            self.behind[connection] = None
        self.counters.connections = len(self.connections)
        connection.drain()

    def detach(self, connection: Connection) -> None:
        """Forget a client. Idempotent."""
        if self.connections.get(connection.id) is not connection:
            return
        self._leave_views(connection)
        del self.connections[connection.id]
        self.behind.pop(connection, None)
        self.counters.connections = len(self.connections)

    def slow(self, connection: Connection) -> None:
        """A client was cut off because it does not read."""
        self.counters.slow += 1
        log.warning(SLOW_CLIENT.name, connection=connection.id, frames=connection.frames, bytes=connection.bytes)

    def overflowed(self, connection: Connection) -> None:
        """A client was told to come back because it was owed more events than are kept."""
        self.counters.overflowed += 1
        log.warning(EVENT_OVERFLOW.name, connection=connection.id, frames=connection.frames, bytes=connection.bytes)

    def cover(self, connection: Connection, selections: Mapping[str, Selection], *, snapshot: bool = True) -> None:
        """Replace what a client receives; what is newly covered is sent as a snapshot, after all that was sent before."""
        if connection.closed or connection.id not in self.connections:
            return
        parts = cover(selection for selection in selections.values() if not selection.ack)
        before = [(view.filter, view.coverage) for view in connection.views]
        paces = [((view.frequency, view.filter), view.coverage) for view in connection.views]
        after = _covered(parts.values())
        if any(view.priority != connection.priority for view in connection.views):
            # What is merged for the lane that it leaves is not sent to the one that it joins.
            for feed in self._merging.waiting():
                self._send_merged(feed)
        waiting = [view.changed for view in connection.views if view.changed]
        for pace, coverage in parts.items() if connection.views else ():
            # Nor has a filter been asked of it of what comes through that only now.
            if pace[1] is not None:
                waiting.append(self._pooled(connection.priority, coverage, [part for other, part in paces if other == pace]))
        self._leave_views(connection)
        connection.views = [self._join(connection, connection, pace, coverage) for pace, coverage in parts.items()]
        self._acknowledge(connection, {name: item for name, item in selections.items() if item.ack})
        outbox = connection.outbox
        outbox.restrict(after)
        # What waited for the tick of a view that the client has left is owed now: another view's tick may be far away.
        for changed in waiting:
            for data_type, symbols in changed.items():
                if covered := after[data_type]:
                    outbox.owe(data_type, covered.among(symbols))
        for (_, filter), coverage in parts.items() if snapshot else ():
            known = [part for other, part in before if other is None or other == filter]
            for data_type, covered in coverage.items():
                if new := self._newly(data_type, covered, merged(known, data_type), filter):
                    outbox.owe(data_type, new, snapshot=True)
        connection.drain()

    def _pooled(self, priority: int, coverage: Coverage, had: Sequence[Coverage]) -> dict[DataType, set[str]]:
        """What of a coverage has changed and has not been told to a priority, but for what it had before."""
        quotes = self._merging.quotes_for(priority)
        found: dict[DataType, set[str]] = {}
        for data_type, covered in coverage.items():
            known = merged(had, data_type)
            found[data_type] = covered.among(quotes)
            if known is not None:
                found[data_type] -= known.among(found[data_type])
        return found

    def _acknowledge(self, connection: Connection, selections: Mapping[str, Selection]) -> None:
        """Have a client sent these subscriptions, and no others, until it acknowledges what it got."""
        before, connection.acknowledged = connection.acknowledged, {}
        for name, selection in selections.items():
            item = before.get(name)
            if item is None:
                item = Acknowledged(connection, name, connection.codec)
                item.acked = {feed: (state.epoch, state.seq) for feed, state in self.store.feeds.items()}
            coverage = dict.fromkeys(selection.data_types, Symbols(selection.symbols))
            item.view = self._join(connection, item, (Frequency.REALTIME, None), coverage)
            connection.acknowledged[name] = item
            self._acknowledging[item] = None

    def receive(self, blob: bytes) -> None:
        """Take one batch from the channel layer and send everybody what they cover of it."""
        started = time.perf_counter()
        counters = self.counters
        message = self._read(blob)
        if message is None:
            return
        before = self.position(message.feed)
        batch = self.store.apply(message)
        if batch is None:
            counters.refused += 1
            return
        counters.batches += 1
        if batch.epoch != before[0]:
            self._merging.begin(batch.feed)
        if self.past is not None:
            self.past.note(batch)
        gap = self._look_for_gap(batch, before)
        if self._healing.hear(batch, before, gap=gap):
            self._let_go(batch.feed, self._healing.waiting(batch.feed))
        if batch.symbols or batch.bars or batch.events:
            withheld = self._healing.withholds(batch.feed)
            taken = take(self.newest.bars, self._audience.wanting, batch.events, batch.bars, withheld=withheld)
            if withheld:
                if happened := taken.happened():
                    self._withhold(batch.feed, happened)
                taken = taken.later()
            below = self._merge(batch, taken.bars)
            everything = len(batch.symbols) == len(self.store.fragments)
            table = self.store.fragments if everything else dict(zip(batch.symbols, batch.fragments, strict=True))
            if taken.first:
                self._tell_acknowledging(batch.feed, taken.happened())
            self._fan_out(batch.feed, table, taken.bars, taken.events, below, more=bool(taken.first))
            if taken.first:
                self._restate(taken.first, taken.first)
            counters.fan_out.add(time.perf_counter() - started)
            counters.age.add(max(0.0, time.time() - batch.published / 1000))
        if gap or batch.epoch != before[0] or batch.term is not None:
            self._tell(self._terms.heard(batch, before, gap=gap))

    def restore(self, blob: bytes) -> tuple[int, int]:
        """Take in a feed's snapshot; what is newer in it is sent to whoever covers it. Its epoch and seq."""
        batch = self._read(blob)
        if batch is None:
            return (0, 0)
        feed, before, position = batch.feed, self.position(batch.feed), (batch.epoch, batch.seq)
        changed = self.store.restore(batch)
        if position > before:
            self._healing.skip(feed, before, position)
        # What comes by it belongs to any message up to it: it takes several messages to say, and of these none is the last.
        self._healing.lack(feed, position)
        if changed:
            quotes = self.store.fragments
            self._fan_out(feed, {symbol: quotes[symbol] for symbol in changed}, {}, {})
        # A change of status that was missed may be older than the newest quote.
        self._restate({DataType.STATUS: self.store.feeds[feed].symbols})
        self._healing.filled(feed, position)
        if position > before:
            self._tell(self._terms.heard(batch, before, gap=True))
        return position

    def forget(self, feed: str) -> None:
        """A feed is no more: its symbols are unknown, and nothing of them is owed any longer."""
        self._merging.forget(feed)
        self._healing.forget(feed)
        self._terms.forget(feed)
        if self.past is not None:
            self.past.forget(feed)
        self.newest.forget(self.store.forget(feed))

    def position(self, feed: str) -> Position:
        """Epoch and seq of the feed's newest message here."""
        known = self.store.feeds.get(feed)
        return (known.epoch, known.seq) if known else NOWHERE

    def whole(self, feed: str) -> Position:
        """Up to where all events of a feed have been sent, or are owed; those beyond are still to be sent."""
        return self._healing.whole(feed, self.position(feed))

    def partial_for(self, priority: int) -> frozenset[str]:
        """The feeds of which clients of a priority are to be sent more before they can resume from how they stand here."""
        return frozenset(feed for feed in self.store.feeds if priority < self._partial(feed))

    def _partial(self, feed: str) -> int:
        return EVERYBODY if self._healing.is_open(feed) else self._merging.below(feed)

    def hold_back(self, below: int, interval: float) -> None:
        """From now on merge what goes to plans of a priority below this (0: none), and send it each so many seconds."""
        self._merging.hold_back(below, interval)

    def tick(self, now: float) -> None:
        """What time brings about: the ticks of slower views, merged messages, clients that do not read. ``now``: monotonic."""
        for feed in self._merging.due(now):
            self._send_merged(feed)
        for item in list(self._acknowledging):
            item.tick(now)
        self._audience.forget_lingering(now)
        for view in self._audience.due(now):
            self._send_tick(view)
        for connection in list(self.behind):
            if connection.stalled(now) >= config.send_timeout:
                connection.cut_off()
        self.counters.behind = len(self.behind)

    @property
    def demand(self) -> int:
        """Counts up whenever what ``wanted`` says may have changed."""
        return self._audience.demand

    def wanted(self) -> Wanted:
        """The bars and the trades that the clients cover together. Bars that nobody covers any more are forgotten: they will get
        old."""
        wanted = self._audience.wanted()
        for data_type in KLINES:
            if (names := wanted.get(data_type, frozenset())) is not None:
                self.newest.bars.keep(data_type, names)
        return wanted

    def of_key(self, key_id: int) -> list[Connection]:
        """The connections of one API key."""
        return [c for c in self.connections.values() if c.principal is not None and c.principal.key_id == key_id]

    def _read(self, blob: bytes) -> Batch | None:
        try:
            return decode(blob)
        except msgspec.MsgspecError as error:
            self.counters.refused += 1
            log.error("batch_unreadable", size=len(blob), error=str(error))
            return None

    def _look_for_gap(self, batch: Batch, before: Position) -> bool:
        """Whether something is missing before a message. Nothing is in a hub without ``on_gap``: not every message is for it."""
        expected = before[1] + 1 if batch.epoch == before[0] else 1
        if batch.seq <= expected:
            return False
        self.counters.gaps += 1
        if self.on_gap is None:
            return False
        self._healing.lack(batch.feed, (batch.epoch, batch.seq - 1))
        self.on_gap(batch.feed, batch.epoch, batch.seq - 1)
        return True

    def _tell(self, epoch: Epoch | None) -> None:
        """Tell every client of a new epoch, after the data that came before it. One that has not been greeted yet will see it in
        its greeting; one that plays a replay has epochs of its own."""
        if epoch is None:
            return
        log.info(
            "epoch", feed=epoch.feed, epoch=epoch.epoch, previous=epoch.previous, recovered=epoch.recovered, reason=epoch.reason
        )
        self._send_merged(epoch.feed)
        message = Announcement(epoch)
        for connection in list(self.connections.values()):
            if connection.home is self and (connection.frames or connection.outbox):
                # What it is owed comes later, and then as it is now, so that its epochs do not go back.
                connection.outbox.merge()
                connection.say(message)

    def _ends(self, codec: Codec, covered: Mapping[DataType, Set[str]], first: First) -> Happened | None:
        ends = [(t, symbol, first[t][symbol]) for t, symbols in covered.items() for symbol in symbols]
        found = [(symbol, codec.fragment(t, end)) for t, symbol, end in ends if end is not None]
        pieces = [piece for _, piece in found if piece is not None]
        return Happened(codec, self._head(self.store.feed_of[found[0][0]], more=True), pieces) if pieces else None

    def _tell_acknowledging(self, feed: str, events: EventTables) -> None:
        """Give all events of a message to those who acknowledge them, with the bars that others have in a snapshot."""
        message = Outgoing(self._head(feed, more=True), {}, Changes({}), events)
        for lane in self._audience.everybody():
            for view, frame in lane.frames(message):
                for receiver in view.receivers:
                    if isinstance(receiver, Acknowledged):
                        receiver.deliver(frame)

    def _restate(self, keys: Mapping[DataType, Collection[str]], first: First | None = None) -> None:
        """Send how these stand as a snapshot to all who cover them, at whatever frequency. The bars among these that have just
        closed are events to those who get it later, when others may have closed."""
        for (priority, codec), lane in self._audience.lanes.items():
            for view in lane.touched(keys):
                covered = {t: symbols.among(keys[t]) for t, symbols in view.coverage.items() if t in keys}
                for frame in self.newest.frames(covered, codec, priority, snapshot=True, coverage=view.coverage):
                    frame.events = None if first is None else self._ends(codec, covered, first)
                    self._send(view, frame)

    def _head(self, feed: str, *, more: bool = False) -> Head:
        state = self.store.feeds[feed]
        return Head(feed, state.epoch, state.seq, more=more or self._healing.is_open(feed))

    def _fan_out(
        self,
        feed: str,
        quotes: Table,
        bars: Mapping[DataType, Table],
        events: EventTables,
        merge_below: int = 0,
        *,
        more: bool = False,
    ) -> None:
        """Send it to everybody; below a priority the events alone, as the states come merged. ``more``: others of it follow."""
        passing = decide(self.newest.filters, [lane.filtered for lane in self._audience.everybody()], quotes)
        lanes = self._audience.not_below(merge_below)
        self._send_states(feed, quotes, bars, events, lanes, passing, more=more)
        if merge_below:
            self._merging.keep_passing(feed, passing)
        if events and merge_below:
            happened = Outgoing(self._head(feed, more=True), {}, Changes({}), events)
            self._send_out(happened, self._audience.below(merge_below))

    def _send_states(
        self,
        feed: str,
        quotes: Table,
        bars: Mapping[DataType, Table],
        events: EventTables,
        lanes: Collection[Lane],
        passing: Passing,
        *,
        more: bool = False,
    ) -> None:
        if not lanes:
            return
        tables = {DataType.QUOTE: quotes, **bars}
        chosen = {lane: lane.filtered.choose(passing) for lane in lanes} if passing else {}
        for data_type in DERIVED:
            wanted = self._audience.wanting(data_type, quotes.keys(), lanes)
            wanted.update(*(keys.get(data_type, ()) for views in chosen.values() for keys in views.values()))
            if wanted:
                tables[data_type] = self.newest.facets.table(data_type, wanted)
        changes = Changes({data_type: list(table) for data_type, table in tables.items()})
        self._send_out(Outgoing(self._head(feed, more=more), tables, changes, events, chosen), lanes)

    def _send_out(self, message: Outgoing, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            for view, frame in lane.frames(message):
                self._send(view, frame)

    def _send(self, view: View, frame: Frame) -> None:
        sent = 0
        for receiver in view.receivers:
            if receiver.deliver(frame):
                sent += 1
        counters = self.counters
        counters.missed += len(view.receivers) - sent
        counters.frames += sent
        counters.quotes += sent * frame.count
        counters.bytes += sent * frame.size

    def _send_tick(self, view: View) -> None:
        if view.changed:
            changed, view.changed = view.changed, {}
            keys = admitted(self.newest.filters, view.filter, changed)
            for frame in self.newest.frames(keys, view.codec, view.priority, coverage=view.coverage):
                self._send(view, frame)

    def _withhold(self, feed: str, events: EventTables) -> None:
        position = self.position(feed)
        if not self._healing.withhold(feed, position, events):
            self.heal(feed, self._healing.give_up(feed), position, Reading([], False, TOO_MUCH))

    def heal(self, feed: str, after: Position, until: Position, found: Reading) -> None:
        """Send the events of a feed's messages between two positions, with those that have waited for them."""
        if not self._healing.found(feed, after, until, found, self.position(feed)):
            return
        self.counters.healed += found.complete
        if not found.complete:
            log.warning("events_missed", feed=feed, after=after, until=until, reason=found.reason)
            self._tell_gap(missed(feed, after, until, found.reason))
        happened = self._healing.waiting(feed)
        for entry in found.entries:
            if (position := (entry.epoch, entry.seq)) not in happened:
                taken = take(self.newest.bars, self._audience.wanting, entry.events, {})
                happened[position] = taken.happened()
                if taken.first:
                    self._restate(taken.first)
        self._let_go(feed, {position: happened[position] for position in sorted(happened)})

    def _let_go(self, feed: str, happened: Mapping[Position, EventTables]) -> None:
        for (epoch, seq), events in happened.items():
            if events:
                head = Head(feed, epoch, seq, more=True)
                self._send_out(Outgoing(head, {}, Changes({}), events), self._audience.everybody())
        self._healing.close(feed)

    def _tell_gap(self, gap: Gap) -> None:
        message = Announcement(GapMessage(gap=gap))
        for connection in list(self.connections.values()):
            if connection.home is self and any(not EVENTS.isdisjoint(covered) for covered in connection.coverages()):
                connection.say(message)

    def linger(self, connection: Connection, until: float) -> None:
        """A client may come back until a moment (monotonic): what it covers on demand stays wanted though nobody gets it."""
        self._audience.linger(list(connection.coverages()), until)

    def _merge(self, batch: Batch, bars: Mapping[DataType, Table]) -> int:
        """Keep what a message changes for those who get it merged: the plans of a priority below what is returned."""
        feed, merging = batch.feed, self._merging
        below = merging.judge(batch)
        self.counters.lag = merging.lag
        if not self._audience.below(below):
            below = 0
        if merging.below(feed) not in (0, below):
            # The message at hand is still to come.
            self._send_merged(feed, more=True)
        if below:
            self.counters.lagged += 1
            merging.keep(feed, below, ((DataType.QUOTE, batch.symbols), *bars.items()))
        return below

    def _send_merged(self, feed: str, *, more: bool = False) -> None:
        pool = self._merging.take(feed)
        if pool is None:
            return
        quotes, forming, filters = self.store.fragments, self.newest.bars.forming, self.newest.filters
        # Another feed's end may have taken a symbol with it, and bars that nobody has wanted since are forgotten.
        tables = {
            data_type: {symbol: table[symbol] for symbol in symbols if symbol in table}
            for data_type, symbols in pool.symbols.items()
            for table in [quotes if data_type is DataType.QUOTE else forming[data_type]]
        }
        passing = {filter: filters.admitted(filter, symbols) for filter, symbols in pool.passing.items()}
        lanes = self._audience.below(pool.below)
        self._send_states(feed, tables.pop(DataType.QUOTE), tables, {}, lanes, passing, more=more)

    def _newly(self, data_type: DataType, covered: Symbols, before: Symbols | None, filter: Filter | None) -> set[str]:
        symbols = self.newest.symbols(data_type)
        new = covered.among(symbols)
        if before is not None:
            new -= before.among(symbols)
        return new if filter is None else self.newest.filters.admitted(filter, new)

    def _join(self, connection: Connection, receiver: Receiver, pace: Pace, coverage: Coverage) -> View:
        view = self._audience.join(receiver, connection.priority, connection.codec, pace, coverage)
        self.counters.views = len(self._audience)
        return view

    def _leave_views(self, connection: Connection) -> None:
        left: list[tuple[View, Receiver]] = [(view, connection) for view in connection.views]
        for item in connection.acknowledged.values():
            del self._acknowledging[item]
            if item.view is not None:
                left.append((item.view, item))
        for view, receiver in left:
            self._audience.leave(view, receiver)
        connection.views = []
        self.counters.views = len(self._audience)


def _covered(coverages: Iterable[Coverage]) -> dict[DataType, Symbols | None]:
    parts = list(coverages)
    return {data_type: merged(parts, data_type) for data_type in DataType}

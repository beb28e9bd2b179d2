"""From what is new to numbered messages: the epoch, the sequence, the snapshot, and the beginning of a term.

What a terminal shows and nobody has published stands in its ledger, whatever the reason: another publisher holds the lease and
has not come to it, the channel layer refused it, or nobody holds the lease. It goes out, in order, with the next message that
this publisher may send and of which it knows what came before.

Events (closed bars, trades) are owed in order, too, whoever publishes (``marketdata.events``); changes of status are told with
the quote that shows them. Each message stands in the journal before the channel layer gets it: an event whose entry the journal
took is published even where the layer refused the message, as who missed it looks there.

Forming bars that the layer refused stay owed, the newest of each symbol and period; those that came while another publisher held
the lease are not, as whoever begins a term says anew how they stand.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Iterable
from typing import Protocol

import msgspec
import structlog

from marketdata import events, klines, metrics
from marketdata.batch import Bars, Batch, Events, Term, decode, encode, position_of
from marketdata.events import Event
from marketdata.ingest import Group
from marketdata.journal import Entry, Journal, MemoryJournal
from marketdata.lease import Lease
from marketdata.ledger import NOWHERE, Ledger, Position
from marketdata.listen import Heard, Item
from marketdata.recordings.columns import Message
from marketdata.statuses import Statuses
from marketdata.types import KLINES, DataType, Quote

log = structlog.get_logger(__name__)

SNAPSHOT_INTERVAL = 1.0
"""Seconds between two snapshots of a feed, at the least."""
BARRIER = 1.0
"""Seconds that a barrier may take through the channel layer and back."""
OVERLAP = 3.0
"""Seconds before its predecessor's last message since which nothing of a terminal's own feed may have got lost."""
CATCH_UP = 10.0
"""Seconds of a term within which a terminal that was behind its predecessor shows nothing that was published already."""

UNREAD = 2 * events.AGE
"""Seconds after which the journal need not be read for messages that were not heard: whatever they told has fallen out here."""
EVENTS_AT_ONCE = 5000
"""Owed events that one message carries."""


class Send(Protocol):
    """Hands one encoded batch to a feed's group; raises ``PublishError``."""

    def __call__(self, feed: str, blob: bytes) -> None: ...


class Publisher:
    """The publishing end of one terminal's feed. Not thread-safe: one owner, who calls ``hold`` often while its terminal is well
    and ``resign`` where it is not.

    ``heard`` is where all messages of the feed arrive, one's own included.
    """

    def __init__(
        self,
        *,
        feed: str,
        source: str,
        owner: str,
        lease: Lease,
        send: Send,
        save_snapshot: Callable[[str, bytes], None],
        load_snapshot: Callable[[str], bytes | None] = lambda feed: None,
        clock: Callable[[], int | None] = lambda: None,
        record: Callable[[Message], None] | None = None,
        heard: Heard | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.feed = feed
        self.epoch: int | None = None
        self.seq = 0
        self.terms = 0
        """How many terms of office have begun."""
        self.since = 0.0
        """When (monotonic clock) the last one began."""
        self.clock = clock
        self.ledger = Ledger()
        self.events = events.Owed()
        self._source = source
        self._owner = owner
        self._lease = lease
        self._send = send
        self._save_snapshot = save_snapshot
        self._load_snapshot = load_snapshot
        self._record = record
        self._heard = heard or Heard()
        self._journal = journal or MemoryJournal()
        self._statuses = Statuses()
        self._unread: tuple[Position, float] | None = None
        """Beyond which message the journal may have what was not heard, and since when (monotonic clock)."""
        self._heard_at = 0.0
        self._token = 0
        self._held_until = 0.0
        self._certain = False
        """Whether it is known of every message of this term that it went out."""
        self._beginning = False
        self._term: Term | None = None
        self._before = NOWHERE
        """The last message of whoever published before this term."""
        self._unbroken_since: float | None = None
        self._began_at = 0.0
        self._owed_bars: klines.Forming = {}
        self._snapshot_seq = 0
        self._snapshot_at = 0.0
        self._looked_at = 0.0

    @property
    def active(self) -> bool:
        """Whether this publisher holds the lease."""
        return self.epoch is not None and time.monotonic() < self._held_until

    @property
    def first(self) -> bool:
        """Whether nobody has published yet, as far as is known."""
        return self.ledger.position == NOWHERE

    def could_recover(self, unbroken_since: float | None) -> bool:
        """Whether nothing would be missing if this publisher took over now, as far as can be told before. See ``hold``."""
        complete = self.ledger.complete and self.events.complete(time.monotonic())
        return self.ledger.in_step and complete and self._was_unbroken(unbroken_since)

    def _was_unbroken(self, since: float | None) -> bool:
        return since is not None and since <= self._heard_at - OVERLAP

    def free(self) -> bool:
        """Whether nobody holds the lease, as far as can be told."""
        return self._lease.free()

    def listen(self) -> None:
        """Take in what was heard, and the snapshot where something was missed."""
        while item := self._heard.take():
            self._hear(item)
        self._give_way()
        if self.ledger.wants_snapshot and time.monotonic() - self._looked_at >= SNAPSHOT_INTERVAL / 2:
            self._look()

    def hold(self, unbroken_since: float | None = None) -> None:
        """Take the lease or keep it, and publish what is owed. Raises ``PublishError``.

        ``unbroken_since``: since when (of the monotonic clock) nothing of the terminal's own feed can have got lost.
        """
        self.listen()
        self._unbroken_since = unbroken_since
        now = time.monotonic()
        heard = self.ledger.position[0]
        token = self._lease.hold(self._owner, above=heard if heard != self._token else 0)
        if token is None or token < heard:
            if token is not None:
                self._lease.release(self._owner)
            self._stand_by()
            return
        self._held_until = now + self._lease.ttl
        self.epoch = token
        if token != self._token:
            self._token, self.seq, self._snapshot_seq = token, 0, 0
            self._beginning, self._term, self._certain = True, None, False
            self._owed_bars = {}
            self._note_before()
        if not self._certain:
            self._make_certain()
        elif self._began_at and now - self._began_at > CATCH_UP:
            self.ledger.catch_up()
            self.events.catch_up()
            self._began_at = 0.0
        self._keep_snapshot()

    def publish(
        self,
        groups: Iterable[Group],
        canary: int | None,
        bars: klines.Group | None = None,
        trades: Iterable[Event] = (),
        *,
        quotes: Iterable[Quote] | None = None,
    ) -> None:
        """Send each group as one message; a canary goes out even with no quote. Raises ``PublishError``.

        ``bars`` and ``trades`` go out with the last message, or alone; the forming ones of whoever has never held the lease, or
        has lost it, are not owed. ``quotes`` are those of the groups, where they are at hand.
        """
        fresh = [group for one in groups if (group := self.ledger.fresh(one))]
        bars = bars or klines.Group()
        if self.epoch is not None:
            self._owed_bars = klines.then(self._owed_bars, bars) if self._owed_bars else bars.forming
        self._owe_events((*trades, *bars.closed))
        if self.active and not self._certain:
            self._owe(fresh)
            fresh = []
            self._make_certain()
        if not self.active:
            self._certain = self._certain and not fresh
            self._owe(fresh)
            return
        if not fresh and (canary is not None or self._owed_bars or self.events.pending):
            fresh.append({})
        turned = None if quotes is None else self._statuses.turned(quotes)
        done = False
        try:
            while fresh and self.active:
                last = len(fresh) == 1
                self._send_one(fresh[0], canary if last else None, self._owed_bars if last else {}, last=last, turned=turned)
                fresh.pop(0)
            self._send_events()
            done = not fresh
        finally:
            if not done:
                self._certain = False
                self._owe(fresh)
        self._keep_snapshot()

    def forget_bars(self, wanted: klines.Wanted) -> None:
        """Owe no forming bars but those that are wanted."""
        self._owed_bars = klines.among(self._owed_bars, wanted)

    def resign(self) -> None:
        """Give the feed up, after a last snapshot."""
        if self.epoch is not None:
            self._snapshot_at = 0.0
            self._keep_snapshot()
            self._lease.release(self._owner)
            self._stand_by()

    def _stand_by(self) -> None:
        self.epoch, self._certain, self._owed_bars = None, False, {}

    def _give_way(self) -> bool:
        """Whether somebody publishes under a larger epoch: then, whatever the lease says, nobody takes from here any more."""
        if self.epoch is None or self.ledger.position[0] <= self.epoch:
            return False
        self._lease.release(self._owner)
        self._stand_by()
        return True

    def _owe(self, groups: Iterable[Group]) -> None:
        now = time.monotonic()
        for group in groups:
            self.ledger.owe(group, now)

    def _owe_events(self, new: Iterable[Event]) -> None:
        now = time.monotonic()
        dropped = self.events.owe(new, now)
        if self.epoch is None:
            dropped += self.events.expire(now)
        if dropped:
            metrics.EVENTS_DROPPED.labels(self.feed).inc(dropped)

    def _hear(self, item: Item) -> None:
        before = self.ledger.position
        if item.blob is None:
            self.ledger.lose()
            self._note_unread(before)
            return
        try:
            # One's own messages come back, too, and are most of them.
            if position_of(item.blob) <= before or not self.ledger.hear(batch := self._of_this_source(decode(item.blob))):
                return
            self._heard_at = item.at
            self._note_before()
            if (batch.epoch, batch.seq) != (before[0], before[1] + 1):
                self._note_unread(before)
            if batch.events:
                self._hear_events(batch.events, own=batch.epoch == self._token)
        except msgspec.MsgspecError as error:
            log.error("batch_unreadable", feed=self.feed, size=len(item.blob), error=str(error))

    def _hear_events(self, heard: Events, *, own: bool) -> None:
        told = list(events.of(heard))
        self._statuses.note((event.symbol, event.body) for event in told if event.data_type is DataType.STATUS)
        others = (event for event in told if event.data_type is not DataType.STATUS)
        self.events.hear(others, None if own else time.monotonic())

    def _note_before(self) -> None:
        if self.ledger.position[0] != self._token:
            self._before = self.ledger.position

    def _note_unread(self, position: Position) -> None:
        now = time.monotonic()
        if position != NOWHERE and (self._unread is None or now - self._unread[1] > UNREAD):
            self._unread = (position, now)

    def _read_journal(self) -> None:
        """Take in what was written and not heard: of a predecessor that ended between the two, or of one's own that nobody is
        sure of."""
        after = self.ledger.position
        if self._unread is not None and time.monotonic() - self._unread[1] <= UNREAD:
            after = min(after, self._unread[0])
        self._unread = None
        if after == NOWHERE:
            return
        for entry in self._journal.read(self.feed, after, (self._token, self.seq)).entries:
            self._hear_events(entry.events, own=entry.epoch == self._token)
            if entry.epoch != self._token:
                self.ledger.reach((entry.epoch, entry.seq))
                self._before = max(self._before, (entry.epoch, entry.seq))

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        before = self.ledger.position
        blob = self._load_snapshot(self.feed)
        if blob is None:
            self.ledger.nothing_to_restore()
            return
        try:
            self.ledger.restore(self._of_this_source(decode(blob)))
            if self.ledger.position != before:
                self._note_before()
                self._note_unread(before)
        except msgspec.MsgspecError as error:
            self.ledger.nothing_to_restore()
            log.error("snapshot_unreadable", feed=self.feed, size=len(blob), error=str(error))

    def _of_this_source(self, batch: Batch) -> Batch:
        """What another source has left behind is not to be said again as one's own."""
        return batch if batch.source == self._source else msgspec.structs.replace(batch, symbols=[], fragments=[], events={})

    def _make_certain(self) -> None:
        """Find out what went out before, of the predecessor's or of one's own messages, and send what did not."""
        heard = self._pass_barrier()
        if self._beginning and self._term is None:
            if self.ledger.position != NOWHERE:
                # A snapshot that goes further than what was heard says that something was missed unnoticed.
                self._look()
            self._statuses.know(self.ledger.newest)
            end = self._before
            self._read_journal()
            self._term = self._judge(heard, end)
        else:
            self._read_journal()
        if self._give_way():
            return
        if self.seq:
            self.ledger.sent((self._token, self.seq), {})
        pending = self.ledger.pending + self.events.pending
        for group in self.ledger.owed():
            self._send_one(group, None, {})
        self._send_events()
        if self._beginning and self._term is not None:
            self._send_one(self.ledger.inherited(), None, {}, self._term)
            self._told(self._term, pending)
        self._certain = True

    def _pass_barrier(self) -> bool:
        """Send an empty message and wait until it is heard: by then all is heard that went out before it, and what another
        publisher sends after it is refused by every receiver, and by the journal."""
        if not self._heard.joined:
            return False
        self.seq += 1
        batch = self._batch({})
        self._write(batch)
        self._send(self.feed, encode(batch))
        deadline = time.monotonic() + BARRIER
        while item := self._heard.take(deadline - time.monotonic()):
            if item.blob is not None and position_of(item.blob) == (self._token, self.seq):
                return True
            self._hear(item)
        return False

    def _judge(self, heard: bool, end: Position) -> Term:
        """Whether all that the predecessor has not published is published now. ``end``: its last message that was heard."""
        ledger = self.ledger
        epoch, seq = self._before
        if self._before == NOWHERE:
            reason = "first_term"
        elif not ledger.in_step:
            reason = "not_in_step"
        elif not heard:
            reason = "barrier_lost"
        elif not (ledger.complete and self.events.complete(time.monotonic())):
            reason = "overflow"
        elif not self._was_unbroken(self._unbroken_since):
            reason = "feed_broken"
        else:
            reason = ""
        return Term(epoch, seq, not reason, reason, end if end < self._before else None)

    def _told(self, term: Term, pending: int) -> None:
        """A takeover is over."""
        self._beginning, self._term = False, None
        self._began_at = self.since = time.monotonic()
        self.terms += 1
        outcome = term.reason or "recovered"
        metrics.TERMS.labels(self.feed, outcome).inc()
        log.info("term_begun", feed=self.feed, epoch=self._token, previous=term.epoch, outcome=outcome, pending=pending)

    def _send_events(self) -> None:
        """Send what is owed of events in messages of their own."""
        while self.events.pending and self.active:
            self._send_one({}, None, {}, last=True)

    def _send_one(
        self,
        group: Group,
        canary: int | None,
        bars: klines.Forming,
        term: Term | None = None,
        *,
        last: bool = False,
        turned: Container[str] | None = None,
    ) -> None:
        """Send a message, with the first of the events that are owed where it is the ``last``. ``turned``: the symbols whose
        status may have changed; None: any."""
        # A message that may or may not have gone out uses its number up: receivers see the gap, and look for what they missed.
        self.seq += 1
        tail = b',"seq":%d}' % self.seq
        fragments = {symbol: body[:-1] + tail for symbol, body in group.items()}
        # A term's last message says nothing new.
        shown = {} if term else group if turned is None else {s: body for s, body in group.items() if s in turned}
        statuses = self._statuses.find(shown)
        owed = self.events.first(EVENTS_AT_ONCE) if last else []
        told = [*(Event(DataType.STATUS, symbol, body) for symbol, body in statuses), *owed]
        numbered = klines.numbered_forming(bars, tail)
        batch = self._batch(fragments, canary=canary, bars=numbered, term=term, told=events.numbered(told, tail))
        # What the journal has is published: it is there for whoever misses the message.
        if kept := self._write(batch):
            self._note_told(batch, told, len(owed))
        self._send(self.feed, encode(batch))
        if not kept:
            self._note_told(batch, told, len(owed))
        self.ledger.sent((self._token, self.seq), fragments)
        self._heard_at = time.monotonic()
        if bars:
            for period, (names, _) in numbered.items():
                metrics.BARS_PUBLISHED.labels(self.feed, period, "forming").inc(len(names))
            self._owed_bars = {}
        if fragments:
            self._keep(batch, DataType.QUOTE, batch.symbols, batch.fragments)

    def _write(self, batch: Batch) -> bool:
        """Put a message into the journal. Whether it is kept."""
        return self._journal.append(self.feed, Entry(batch.epoch, batch.seq, batch.events, batch.term))

    def _note_told(self, batch: Batch, told: list[Event], owed: int) -> None:
        """Events are published, the last ``owed`` of them such as were pending."""
        if not told:
            return
        self._statuses.note((event.symbol, event.body) for event in told[: len(told) - owed])
        self.events.sent(owed)
        for data_type, count in Counter(event.data_type for event in told).items():
            metrics.EVENTS_PUBLISHED.labels(self.feed, data_type).inc(count)
            if data_type in KLINES:
                metrics.BARS_PUBLISHED.labels(self.feed, KLINES[data_type], "closed").inc(count)
        if trades := batch.events.get(DataType.TRADE):
            self._keep(batch, DataType.TRADE, *trades)

    def _keep(self, batch: Batch, data_type: DataType, symbols: list[str], fragments: list[bytes]) -> None:
        """Hand what a message said of a data type, and is published, to the recorder."""
        if self._record is not None:
            at = batch.clock or batch.published
            self._record(Message(at, batch.epoch, batch.seq, symbols, fragments, data_type))

    def _batch(
        self,
        fragments: dict[str, bytes],
        *,
        canary: int | None = None,
        snapshot: bool = False,
        bars: Bars | None = None,
        term: Term | None = None,
        told: Events | None = None,
    ) -> Batch:
        return Batch(
            feed=self.feed,
            epoch=self._token,
            seq=self.seq,
            published=int(time.time() * 1000),
            source=self._source,
            canary=canary,
            clock=self.clock(),
            snapshot=snapshot,
            symbols=list(fragments),
            fragments=list(fragments.values()),
            bars=bars or {},
            term=term,
            events=told or {},
        )

    def _keep_snapshot(self) -> None:
        now = time.monotonic()
        if self.seq == self._snapshot_seq or not (self._certain and self.active) or now - self._snapshot_at < SNAPSHOT_INTERVAL:
            return
        self._snapshot_at = now
        self._save_snapshot(self.feed, encode(self._batch(self.ledger.newest, snapshot=True)))
        self._snapshot_seq = self.seq

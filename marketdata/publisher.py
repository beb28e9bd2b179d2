"""From what is new to numbered messages: the epoch, the sequence, the snapshot and what is still owed.

Nothing newer than the last message gets lost: quotes that the channel layer refused, and quotes that came while another
publisher held the lease, stay owed (newest per symbol, so at most one per symbol) and go out with the next message. Bars
that the layer refused stay owed likewise, the newest of each symbol and period; those that came while another publisher
held the lease are not, as whoever begins a term says anew how its bars stand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from marketdata import klines, metrics
from marketdata.batch import Bars, Batch, encode, without_seq
from marketdata.ingest import Group
from marketdata.lease import Lease
from marketdata.recordings.columns import Message

SNAPSHOT_INTERVAL = 1.0
"""Seconds between two snapshots of a feed, at the least."""


class Send(Protocol):
    """Hands one encoded batch to a feed's group; raises ``PublishError``."""

    def __call__(self, feed: str, blob: bytes) -> None: ...


class Publisher:
    """The publishing end of one terminal's feed. Not thread-safe: one owner."""

    def __init__(
        self,
        *,
        feed: str,
        source: str,
        owner: str,
        lease: Lease,
        send: Send,
        save_snapshot: Callable[[str, bytes], None],
        clock: Callable[[], int | None] = lambda: None,
        record: Callable[[Message], None] | None = None,
    ) -> None:
        self.feed = feed
        self.epoch: int | None = None
        self.seq = 0
        self.terms = 0
        """How many terms of office have begun."""
        self.clock = clock
        self._source = source
        self._owner = owner
        self._lease = lease
        self._send = send
        self._save_snapshot = save_snapshot
        self._record = record
        self._owed: Group = {}
        self._owed_bars: klines.Group = {}
        self._latest: dict[str, bytes] = {}
        self._snapshot_seq = 0
        self._snapshot_at = 0.0
        self._held_at = 0.0

    @property
    def active(self) -> bool:
        """Whether this publisher held the lease at its last message, and cannot have lost it since."""
        return self.epoch is not None and time.monotonic() - self._held_at < self._lease.ttl

    @property
    def owed(self) -> int:
        """How many symbols' newest quotes are not with the channel layer yet."""
        return len(self._owed)

    def publish(self, groups: Iterable[Group], canary: int | None, bars: klines.Group | None = None) -> None:
        """Send each group as one message; a canary goes out even with no quote. Raises ``PublishError``.

        With neither there is nothing to say, and who says nothing does not keep the lease: a terminal that answers without
        one usable quote makes way for its standby. ``bars`` go out with the last message; alone, as the market's clock closes
        them, they neither take the lease nor keep it: where it has run out they wait for the next quotes or canary.
        """
        todo = list(groups)
        if not todo and canary is None:
            if bars and self.active:
                self._send_one({}, None, bars)
            elif bars and self.epoch is not None:
                self._owed_bars = klines.then(self._owed_bars, bars)
            return
        token = self._lease.hold(self._owner)
        if token is None:
            self.epoch = None
            for group in todo:
                self._owed |= group
            self._owed_bars = {}
            return
        self._held_at = time.monotonic()
        if token != self.epoch:
            self._begin(token)
        if canary is not None and not todo:
            todo.append({})
        try:
            while todo:
                last = len(todo) == 1
                self._send_one(todo[0], canary if last else None, bars if last else None)
                todo.pop(0)
        finally:
            for group in todo:
                self._owed |= group
            if len(todo) > 1 and bars:
                self._owed_bars = klines.then(self._owed_bars, bars)
        self._keep_snapshot()

    def resign(self) -> None:
        """Give the feed up, after a last snapshot."""
        if self.epoch is not None:
            self._snapshot_at = 0.0
            self._keep_snapshot()
            self._lease.release(self._owner)
            self.epoch = None

    def _begin(self, token: int) -> None:
        """A new term of office. All that is known goes out with its first message, so that no ``seq`` of an earlier term, which
        would look newer than it is, stays in a snapshot or with a receiver."""
        self.epoch, self.seq, self._snapshot_seq = token, 0, 0
        self.terms += 1
        self._owed = {symbol: without_seq(fragment) for symbol, fragment in self._latest.items()} | self._owed

    def forget_bars(self, wanted: klines.Wanted) -> None:
        """Owe no bars but those that are wanted."""
        self._owed_bars = klines.among(self._owed_bars, wanted)

    def _send_one(self, group: Group, canary: int | None, bars: klines.Group | None = None) -> None:
        merged = {**self._owed, **group} if self._owed else group
        if bars:
            self._owed_bars = klines.then(self._owed_bars, bars) if self._owed_bars else bars
        # A message that may or may not have gone out uses its number up: receivers see the gap and reload the snapshot.
        self.seq += 1
        tail = b',"seq":%d}' % self.seq
        fragments = {symbol: body[:-1] + tail for symbol, body in merged.items()}
        numbered = klines.numbered(self._owed_bars, tail) if self._owed_bars else {}
        self._send(self.feed, self._batch(fragments, canary=canary, snapshot=False, bars=numbered))
        for period, state, number in klines.count(self._owed_bars):
            metrics.BARS_PUBLISHED.labels(self.feed, period, state).inc(number)
        self._owed = {}
        self._owed_bars = {}
        self._latest |= fragments
        if self._record is not None and fragments:
            at = self.clock() or time.time_ns() // 1_000_000
            self._record(Message(at, self.epoch or 0, self.seq, list(fragments), list(fragments.values())))

    def _batch(self, fragments: dict[str, bytes], *, canary: int | None, snapshot: bool, bars: Bars | None = None) -> bytes:
        return encode(
            Batch(
                feed=self.feed,
                epoch=self.epoch or 0,
                seq=self.seq,
                published=int(time.time() * 1000),
                source=self._source,
                canary=canary,
                clock=self.clock(),
                snapshot=snapshot,
                symbols=list(fragments),
                fragments=list(fragments.values()),
                bars=bars or {},
            ),
        )

    def _keep_snapshot(self) -> None:
        now = time.monotonic()
        if self.seq == self._snapshot_seq or now - self._snapshot_at < SNAPSHOT_INTERVAL:
            return
        self._snapshot_at = now
        self._save_snapshot(self.feed, self._batch(self._latest, canary=None, snapshot=True))
        self._snapshot_seq = self.seq

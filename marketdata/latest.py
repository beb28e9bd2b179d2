"""The newest encoded quote of every symbol in this process: what REST joins and what the hub owes to its clients.

Written by the hub alone, as batches arrive; read from any thread (single dict operations only).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from marketdata.batch import Batch, seq_of
from marketdata.throughput import Throughput


@dataclass(slots=True)
class FeedState:
    """How far one feed has come here. ``arrived`` is this process's monotonic clock, ``quotes`` how many came in all,
    ``clock`` the market's time (ms) where it is not the wall clock's."""

    epoch: int = 0
    seq: int = 0
    published: int = 0
    source: str = ""
    canary: int | None = None
    clock: int | None = None
    arrived: float = 0.0
    canary_arrived: float | None = None
    quotes: int = 0
    symbols: set[str] = field(default_factory=set)
    inherited: set[str] = field(default_factory=set)


class LatestStore:
    """Symbol -> (seq, JSON fragment), and the state of each feed."""

    def __init__(self) -> None:
        self.fragments: dict[str, bytes] = {}
        self.feeds: dict[str, FeedState] = {}
        self.feed_of: dict[str, str] = {}
        self.throughput = Throughput()
        self.changes = 0
        """Counts what was taken in: what was made of the store holds while this stays the same."""

    def clear(self) -> None:
        """Forget everything."""
        self.fragments.clear()
        self.feeds.clear()
        self.feed_of.clear()
        self.throughput = Throughput()
        self.changes += 1

    def streams(self) -> dict[str, dict[str, int]]:
        """Feed -> {epoch, seq}, as clients are told."""
        return {name: {"epoch": feed.epoch, "seq": feed.seq} for name, feed in self.feeds.items()}

    def age(self, now: float | None = None) -> float | None:
        """Seconds since the canary of the feed that has been silent longest; None before the first one."""
        first = None
        for feed in self.feeds.values():
            if feed.canary_arrived is None:
                return None
            if first is None or feed.canary_arrived < first:
                first = feed.canary_arrived
        return None if first is None else (time.monotonic() if now is None else now) - first

    def stale(self, after: float, now: float | None = None) -> bool:
        """Whether a feed has been silent for longer than ``after`` seconds, or none has spoken yet."""
        age = self.age(now)
        return age is None or age > after

    def apply(self, batch: Batch) -> bool:
        """Take a batch in. False, and nothing taken, where it is of a fenced-off publisher or has been seen before."""
        feed = self.feeds.setdefault(batch.feed, FeedState())
        if (batch.epoch, batch.seq) <= (feed.epoch, feed.seq):
            return False
        self._advance(feed, batch)
        if batch.canary is not None:
            feed.canary, feed.canary_arrived = batch.canary, feed.arrived
        self.throughput.add(len(batch.symbols))
        if batch.symbols:
            feed.quotes += len(batch.symbols)
            self.fragments.update(zip(batch.symbols, batch.fragments, strict=True))
            self._own(feed, batch.feed, batch.symbols)
        for symbols, _ in batch.bars.values():
            # A web process that has just started may know a symbol's bars before its quote.
            self.feed_of.update(dict.fromkeys((symbol for symbol in symbols if symbol not in self.feed_of), batch.feed))
        self.changes += 1
        return True

    def restore(self, batch: Batch) -> list[str]:
        """Take a feed's snapshot in: of each symbol only what is newer than what is here. The symbols that changed."""
        feed = self.feeds.setdefault(batch.feed, FeedState())
        if batch.epoch < feed.epoch:
            return []
        if (batch.epoch, batch.seq) > (feed.epoch, feed.seq):
            self._advance(feed, batch)
        changed = []
        for symbol, fragment in zip(batch.symbols, batch.fragments, strict=True):
            here = self.fragments.get(symbol)
            if here is None or symbol in feed.inherited or seq_of(fragment) > seq_of(here):
                self.fragments[symbol] = fragment
                changed.append(symbol)
        self._own(feed, batch.feed, batch.symbols)
        self.changes += 1
        return changed

    @staticmethod
    def _advance(feed: FeedState, batch: Batch) -> None:
        if batch.epoch != feed.epoch:
            feed.inherited = set(feed.symbols)
        feed.epoch, feed.seq, feed.published, feed.source = batch.epoch, batch.seq, batch.published, batch.source
        feed.arrived = time.monotonic()
        feed.clock = batch.clock

    def _own(self, feed: FeedState, name: str, symbols: list[str]) -> None:
        if feed.inherited:
            feed.inherited.difference_update(symbols)
        if not feed.symbols.issuperset(symbols):
            feed.symbols.update(symbols)
            self.feed_of.update(dict.fromkeys(symbols, name))


store = LatestStore()
"""This process's store."""

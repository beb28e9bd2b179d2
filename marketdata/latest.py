"""The newest encoded quote of every symbol in this process: what REST joins and what the hub owes to its clients.

Written by the hub alone, as batches arrive; read from any thread (single dict operations only, and ``feeds`` is replaced
rather than changed). A symbol belongs to one feed, the first that brought it, until that feed falls silent, brings its market no
more or is no more: what another feed says of it meanwhile is dropped, as neither the times nor the seqs of two feeds compare.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from argus.config import config
from marketdata.batch import Batch, seq_of, without_seq
from marketdata.throughput import Throughput


@dataclass(slots=True)
class FeedState:
    """How far one feed has come here. ``arrived`` is this process's monotonic clock, ``quotes`` how many came in all,
    ``clock`` the market's time (ms) where it is not the wall clock's. ``symbols`` are the feed's own; what is here of those
    that are ``inherited`` is of an earlier epoch or another feed, so that its seq says nothing. ``carried``: of the symbols that
    a term's last message (``carried_by``) said again as they were, the message that had changed them. ``since`` (monotonic
    clock): when the feed was first heard of here."""

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
    carried: dict[str, tuple[int, int]] = field(default_factory=dict)
    carried_by: tuple[int, int] = (0, 0)
    epoch_before: int = 0
    since: float = field(default_factory=time.monotonic)


class LatestStore:
    """Symbol -> (seq, JSON fragment), and the state of each feed."""

    def __init__(self) -> None:
        self.fragments: dict[str, bytes] = {}
        self.feeds: dict[str, FeedState] = {}
        self.feed_of: dict[str, str] = {}
        self.accepts: Mapping[str, Callable[[str], bool] | None] = {}
        """Feed -> whether it is to bring a symbol; None: whatever it has."""
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
        """Seconds since the canary of the feed that has been silent longest; None before the first one. A feed that joins others
        is silent from when it was first heard of."""
        feeds = self.feeds.values()
        if all(feed.canary_arrived is None for feed in feeds):
            return None
        first = min(feed.since if feed.canary_arrived is None else feed.canary_arrived for feed in feeds)
        return (time.monotonic() if now is None else now) - first

    def stale(self, after: float, now: float | None = None) -> bool:
        """Whether a feed has been silent for longer than ``after`` seconds, or none has spoken yet."""
        age = self.age(now)
        return age is None or age > after

    def apply(self, batch: Batch) -> Batch | None:
        """Take a batch in. What of it is to be sent on, or None, and nothing taken, where it is of a fenced-off publisher or has
        been seen before. Not sent on: another feed's symbols, and in a term's last message what is as it was but for its seq."""
        feed = self._feed(batch.feed)
        if (batch.epoch, batch.seq) <= (feed.epoch, feed.seq):
            return None
        self._advance(feed, batch)
        if batch.canary is not None:
            feed.canary, feed.canary_arrived = batch.canary, feed.arrived
        # A web process that has just started may know a symbol's bars and trades before its quote.
        lists = [batch.symbols, *(symbols for symbols, _ in (*batch.bars.values(), *batch.events.values()))]
        if not all([self._claim(feed, batch.feed, symbols) for symbols in lists]):
            batch = _among(batch, feed.symbols)
        news = batch if batch.term is None else self._news(feed, batch)
        if feed.inherited:
            feed.inherited.difference_update(batch.symbols)
        self.throughput.add(len(news.symbols))
        feed.quotes += len(news.symbols)
        self.fragments.update(zip(batch.symbols, batch.fragments, strict=True))
        self.changes += 1
        return news

    def restore(self, batch: Batch) -> list[str]:
        """Take a feed's snapshot in: of each symbol only what is newer than what is here. The symbols that changed by it."""
        feed = self._feed(batch.feed)
        if batch.epoch < feed.epoch:
            return []
        if (batch.epoch, batch.seq) > (feed.epoch, feed.seq):
            self._advance(feed, batch)
        self._claim(feed, batch.feed, batch.symbols)
        changed = []
        for symbol, fragment in zip(batch.symbols, batch.fragments, strict=True):
            here = self.fragments.get(symbol)
            if symbol not in feed.symbols or not (here is None or symbol in feed.inherited or seq_of(fragment) > seq_of(here)):
                continue
            self.fragments[symbol] = fragment
            if here is None or without_seq(fragment) != without_seq(here):
                changed.append(symbol)
        feed.inherited.difference_update(batch.symbols)
        self.changes += 1
        return changed

    def forget(self, name: str) -> set[str]:
        """A feed is no more, and nobody says any longer how its symbols stand: they are unknown from now on. Which they are."""
        feed = self.feeds.get(name)
        if feed is None:
            return set()
        self.feeds = {other: state for other, state in self.feeds.items() if other != name}
        for symbol in feed.symbols:
            self.fragments.pop(symbol, None)
            del self.feed_of[symbol]
        self.changes += 1
        return feed.symbols

    def _feed(self, name: str) -> FeedState:
        if name not in self.feeds:
            self.feeds = {**self.feeds, name: FeedState()}
        return self.feeds[name]

    @staticmethod
    def _advance(feed: FeedState, batch: Batch) -> None:
        if batch.epoch != feed.epoch:
            # Their fragments stay until this epoch has brought others, at the latest with its term's last message.
            feed.inherited, feed.epoch_before = set(feed.symbols), feed.epoch
        feed.epoch, feed.seq, feed.published, feed.source = batch.epoch, batch.seq, batch.published, batch.source
        feed.arrived = time.monotonic()
        feed.clock = batch.clock

    def _claim(self, feed: FeedState, name: str, symbols: Sequence[str]) -> bool:
        """Make those symbols the feed's that are nobody's, or whose feed does not bring them now. Whether all are its own."""
        if feed.symbols.issuperset(symbols):
            return True
        heard_since = time.monotonic() - config.stale_after
        all_own = True
        for symbol in symbols:
            owner = self.feed_of.get(symbol, name)
            if owner != name:
                other, accepts = self.feeds[owner], self.accepts.get(owner)
                if other.arrived >= heard_since and (accepts is None or accepts(symbol)):
                    all_own = False
                    continue
                other.symbols.discard(symbol)
                other.inherited.discard(symbol)
                feed.inherited.add(symbol)
            feed.symbols.add(symbol)
            self.feed_of[symbol] = name
        return all_own

    def changed_at(self, symbol: str) -> tuple[int, int]:
        """Epoch and seq of the message that last changed a symbol's quote, as far as is known here: no earlier one."""
        feed = self.feeds[self.feed_of[symbol]]
        position = (feed.epoch_before if symbol in feed.inherited else feed.epoch, seq_of(self.fragments[symbol]))
        return feed.carried.get(symbol, position) if position == feed.carried_by else position

    def _news(self, feed: FeedState, batch: Batch) -> Batch:
        """What a term's last message changes; of the rest it is noted what changed it."""
        here, news = self.fragments, {}
        carried = {}
        for symbol, body in zip(batch.symbols, batch.fragments, strict=True):
            if symbol in here and without_seq(body) == without_seq(here[symbol]):
                carried[symbol] = self.changed_at(symbol)
            else:
                news[symbol] = body
        feed.carried, feed.carried_by = carried, (batch.epoch, batch.seq)
        return msgspec.structs.replace(batch, symbols=list(news), fragments=list(news.values()))


def _among(batch: Batch, symbols: Container[str]) -> Batch:
    """What a message says of some symbols."""

    def chosen(names: list[str], fragments: list[bytes]) -> tuple[list[str], list[bytes]]:
        kept = [pair for pair in zip(names, fragments, strict=True) if pair[0] in symbols]
        return [symbol for symbol, _ in kept], [fragment for _, fragment in kept]

    quotes, fragments = chosen(batch.symbols, batch.fragments)
    bars = {period: chosen(*part) for period, part in batch.bars.items()}
    events = {data_type: chosen(*part) for data_type, part in batch.events.items()}
    return msgspec.structs.replace(batch, symbols=quotes, fragments=fragments, bars=bars, events=events)


store = LatestStore()
"""This process's store."""

"""What this process has heard lately of each feed, and behind that the journal: which events a client or the hub has missed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import structlog

from argus.config import config
from marketdata.batch import Batch
from marketdata.journal import TOO_MUCH, UNAVAILABLE, Entry, Journal, Reading, reading, size
from marketdata.ledger import NOWHERE, Position

log = structlog.get_logger(__name__)

DEADLINE = 3.0
"""Seconds for one look into the journal."""
MOST = 20_000
"""Messages of a feed that are remembered here; beyond them the journal is asked."""
BYTES = 16 * 1024 * 1024
"""What their events may take."""
AGAIN = 1.0
"""Seconds for which the journal is not asked again what it was found not to have."""


class Past:
    """The feeds' messages without their quotes. One per event loop; ``note`` is called for each message in its order."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._feeds: dict[str, _Feed] = {}

    def note(self, batch: Batch) -> None:
        """Remember a message."""
        feed = self._feeds.get(batch.feed)
        if feed is None:
            feed = self._feeds[batch.feed] = _Feed()
        feed.add(Entry(batch.epoch, batch.seq, batch.events, batch.term))

    def forget(self, feed: str) -> None:
        """A feed is no more."""
        self._feeds.pop(feed, None)

    def back(self, feed: str, position: Position, seconds: float) -> Position | None:
        """Where a feed stood so long before a message; None where that is not remembered."""
        known = self._feeds.get(feed)
        return None if known is None else known.back(position, seconds)

    async def read(self, feed: str, after: Position, until: Position) -> Reading:
        """All messages beyond ``after`` up to and including ``until``: from here where this process has heard them all."""
        if after >= until:
            return Reading([], True, "")
        known = self._feeds.setdefault(feed, _Feed())
        found = known.read(after, until)
        if found.complete:
            return found
        async with known.looking:
            # Many come back at once, and wait here for the first one's answer.
            answer = known.answer(after, until)
            if answer is None:
                answer = known.learn(after, until, await self._look(feed, after, until))
        return answer

    async def _look(self, feed: str, after: Position, until: Position) -> Reading:
        try:
            async with asyncio.timeout(DEADLINE):
                return await asyncio.to_thread(self._journal.read, feed, after, until)
        except TimeoutError:
            log.warning("journal_not_read", feed=feed, error="deadline")
            return Reading([], False, UNAVAILABLE)


class _Looked(NamedTuple):
    """What was found between two positions, and when (monotonic)."""

    after: Position
    until: Position
    found: Reading
    at: float


class _Feed:
    """A feed's messages in order, with no hole but where a new epoch begins. ``looking``: the journal is being asked."""

    def __init__(self) -> None:
        self.looking = asyncio.Lock()
        self._entries: deque[Entry] = deque()
        self._arrived: deque[float] = deque()
        self._bytes = 0
        self._begin: Position = NOWHERE
        """Everything beyond it is here."""
        self._looked: _Looked | None = None

    def add(self, entry: Entry) -> None:
        position = (entry.epoch, entry.seq)
        last = self._last()
        if last is None or not (position == (last[0], last[1] + 1) or (entry.epoch != last[0] and entry.seq == 1)):
            self._entries.clear()
            self._arrived.clear()
            self._bytes = 0
            self._begin = (entry.epoch, entry.seq - 1)
        now = time.monotonic()
        if self._looked is not None and self._looked.at < now - AGAIN:
            self._looked = None
        self._entries.append(entry)
        self._arrived.append(now)
        self._bytes += size(entry)
        while self._arrived[0] < now - config.journal_seconds or len(self._entries) > MOST or self._bytes > BYTES:
            if len(self._entries) == 1:
                break
            oldest = self._entries.popleft()
            self._arrived.popleft()
            self._bytes -= size(oldest)
            self._begin = (oldest.epoch, oldest.seq)

    def answer(self, after: Position, until: Position) -> Reading | None:
        """All messages between two positions, as far as that can be told without the journal; None where it is to be asked."""
        found, looked = self.read(after, until), self._looked
        if found.complete:
            return found
        if looked is None or looked.at < time.monotonic() - AGAIN:
            return None
        if looked.found.reason == TOO_MUCH:
            return looked.found if after <= looked.after else None
        if after < looked.after or not self.read(looked.until, until).complete:
            return None
        return self._joined(after, until, looked.found)

    def learn(self, after: Position, until: Position, looked: Reading) -> Reading:
        """What the journal has of the messages between two positions, with what it has not and this process has heard; the next
        one who asks is told the same."""
        found = self._joined(after, until, looked)
        self._looked = _Looked(after, until, found, time.monotonic())
        if found.complete:
            self._remember(after, found.entries)
        return found

    def _joined(self, after: Position, until: Position, looked: Reading) -> Reading:
        entries = {(entry.epoch, entry.seq): entry for entry in (*self._between(after, until), *looked.entries)}
        found = reading([entries[at] for at in sorted(entries) if after < at <= until], after, until, lambda: None)
        return found if found.complete else found._replace(reason=looked.reason or found.reason)

    def _remember(self, after: Position, entries: Sequence[Entry]) -> None:
        last = self._last()
        older = [entry for entry in entries if last is None or (entry.epoch, entry.seq) <= self._begin]
        newer = [entry for entry in entries if last is not None and (entry.epoch, entry.seq) > last]
        more = sum(map(size, older)) + sum(map(size, newer))
        if self._bytes + more > BYTES or len(self._entries) + len(older) + len(newer) > MOST:
            return
        if older and (last is None or (older[-1].epoch, older[-1].seq) == self._begin):
            self._entries.extendleft(reversed(older))
            self._arrived.extendleft([self._arrived[0] if self._arrived else time.monotonic()] * len(older))
            self._bytes += sum(map(size, older))
            self._begin = after
        if newer and last is not None and after <= last:
            # A snapshot has moved this process on.
            self._entries.extend(newer)
            self._arrived.extend([time.monotonic()] * len(newer))
            self._bytes += sum(map(size, newer))

    def read(self, after: Position, until: Position) -> Reading:
        return reading(list(self._between(after, until)), after, until, lambda: self._begin if self._entries else None)

    def back(self, position: Position, seconds: float) -> Position | None:
        at: float | None = None
        for entry, arrived in zip(reversed(self._entries), reversed(self._arrived), strict=True):
            if at is None and (entry.epoch, entry.seq) <= position:
                at = arrived
            if at is not None and arrived <= at - seconds:
                return (entry.epoch, entry.seq)
        return None

    def _between(self, after: Position, until: Position) -> Iterator[Entry]:
        found = []
        for entry in reversed(self._entries):
            position = (entry.epoch, entry.seq)
            if position <= after:
                break
            if position <= until:
                found.append(entry)
        return reversed(found)

    def _last(self) -> Position | None:
        return (self._entries[-1].epoch, self._entries[-1].seq) if self._entries else None

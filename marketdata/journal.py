"""The bounded log of a feed's messages: their order and the events that each of them carried, for whoever missed some.

Quotes are not in it: of a symbol that changed the newest is known anyway, and says which message changed it. A message's entry is
written before the channel layer gets the message, so an event of which nobody knows whether it went out is found here. An entry's
place is its (epoch, seq): nothing can be written below what is there, so that a publisher that has been fenced off leaves nothing
behind.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import msgspec
import redis
import structlog
import zstandard
from redis.backoff import NoBackoff
from redis.retry import Retry

from argus.config import config
from marketdata import metrics
from marketdata.batch import Events, Term
from marketdata.ledger import Position

log = structlog.get_logger(__name__)

MOST_BYTES = 64 * 1024 * 1024
"""What is kept of a feed."""
READ_BYTES = 32 * 1024 * 1024
"""What is read at a time: one more entry, and the reading is not complete."""
READ_CHUNK = 256
"""Entries that Redis is asked for at a time."""
PACK_ABOVE = 4096
"""Bytes from which on an entry is compressed: the trades of a busy second."""
TIMEOUT = 0.5
"""Seconds that Redis may take for an answer."""
REST = 1.0
"""Seconds for which Redis is not asked after it did not answer."""
PUT_OFF = 10.0
"""Seconds after which a stream's end of life is put off again."""

OUT_OF_REACH, HOLE, UNAVAILABLE, UNKNOWN_EPOCH, TOO_MUCH = "out_of_reach", "hole", "unavailable", "unknown_epoch", "too_much"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One message."""

    epoch: int
    seq: int
    events: Events = {}
    term: Term | None = None


class Reading(NamedTuple):
    """Entries in order, and whether nothing is missing among them. ``reason`` says why something may be: ``out_of_reach`` (the
    beginning is not kept any more), ``hole`` (some message was not kept), ``unavailable`` (the journal did not answer),
    ``unknown_epoch`` (nobody has said after whom an epoch goes on), ``too_much``, or the reason of a term."""

    entries: list[Entry]
    complete: bool
    reason: str


class Journal(Protocol):
    """A journal of all feeds. Thread-safe."""

    def append(self, feed: str, entry: Entry) -> bool:
        """Write a message's entry; never raises, and waits half a second at the most. False: it is not kept."""

    def read(self, feed: str, after: Position, until: Position) -> Reading:
        """The entries beyond ``after`` up to and including ``until``. Blocking: call it on a thread."""


def reading(entries: list[Entry], after: Position, until: Position, oldest: Callable[[], Position | None]) -> Reading:
    """What was found between two positions, judged. ``oldest``: where what is kept begins, None where nothing is."""
    reason = _missing(entries, after, until, oldest)
    return Reading(entries, not reason, reason)


def _missing(entries: Iterable[Entry], after: Position, until: Position, oldest: Callable[[], Position | None]) -> str:
    """Why something may be missing among what was found beyond ``after``; empty where nothing is. ``oldest``: where the journal
    begins."""
    at, untold = after, None

    def gap(beyond: Position) -> str:
        if beyond != after:
            return HOLE
        begin = oldest()
        return HOLE if begin is not None and begin <= after else OUT_OF_REACH

    for entry in entries:
        if entry.epoch == at[0] and entry.seq == at[1] + 1:
            pass
        elif entry.epoch != at[0] and entry.seq == 1 and untold is None:
            untold = at
        else:
            return UNKNOWN_EPOCH if entry.epoch != at[0] and untold is not None else gap(at)
        if (term := entry.term) is not None:
            if not term.recovered:
                return term.reason
            if untold is not None and (term.epoch, term.seq) != untold:
                return gap(untold)
            untold = None
        at = (entry.epoch, entry.seq)
    if untold is not None:
        return UNKNOWN_EPOCH
    if at >= until:
        return ""
    found = gap(at)
    return UNKNOWN_EPOCH if found == HOLE and at[0] != until[0] else found


class _Place(NamedTuple):
    """An entry that was written: when (monotonic clock), where, and how large it is."""

    at: float
    position: Position
    size: int


class _Kept:
    """What is kept of a feed: what was written here, and before it what was found."""

    def __init__(self) -> None:
        self.bytes = 0
        """Of both."""
        self._places: deque[_Place] = deque()
        self._found = 0

    def find(self, size: int) -> None:
        """So much is there already, of others or of one's own."""
        self._places.clear()
        self.bytes = self._found = size

    def add(self, position: Position, size: int) -> None:
        """One more entry is written."""
        self._places.append(_Place(time.monotonic(), position, size))
        self.bytes += size

    def expire(self, seconds: float, most: int) -> Position | None:
        """Let go of what is too old or too much, though never of the newest: the position below which all is to go."""
        places, since, below = self._places, time.monotonic() - seconds, None
        if self.bytes > most and self._found:
            self.bytes, self._found, below = self.bytes - self._found, 0, places[0].position
        while len(places) > 1 and (places[0].at < since or self.bytes > most):
            _, (epoch, seq), size = places.popleft()
            self.bytes, self._found, below = self.bytes - size - self._found, 0, (epoch, seq + 1)
        return below


class MemoryJournal:
    """The journal of one process."""

    def __init__(self, seconds: float | None = None, most: int = MOST_BYTES) -> None:
        self._seconds = config.journal_seconds if seconds is None else seconds
        self._most = most
        self._lock = threading.Lock()
        self._entries: dict[str, deque[Entry]] = {}
        self._kept: dict[str, _Kept] = {}

    def append(self, feed: str, entry: Entry) -> bool:
        """See ``Journal``."""
        position = (entry.epoch, entry.seq)
        with self._lock:
            entries, kept = self._entries.setdefault(feed, deque()), self._kept.setdefault(feed, _Kept())
            if entries and position <= (entries[-1].epoch, entries[-1].seq):
                _refused(feed, position)
                return False
            entries.append(entry)
            kept.add(position, size(entry))
            if (below := kept.expire(self._seconds, self._most)) is not None:
                while (entries[0].epoch, entries[0].seq) < below:
                    entries.popleft()
        metrics.JOURNAL_BYTES.labels(feed).set(kept.bytes)
        return True

    def read(self, feed: str, after: Position, until: Position) -> Reading:
        """See ``Journal``."""
        with self._lock:
            entries = self._entries.get(feed, deque())
            found: list[Entry] = []
            for entry in reversed(entries):
                if (entry.epoch, entry.seq) <= after:
                    break
                if (entry.epoch, entry.seq) <= until:
                    found.append(entry)
            oldest = (entries[0].epoch, entries[0].seq) if entries else None
        found.reverse()
        return reading(found, after, until, lambda: oldest)


def size(entry: Entry) -> int:
    """About what an entry takes in memory."""
    return 200 + sum(sum(map(len, fragments)) + 60 * len(fragments) for _, fragments in entry.events.values())


def _refused(feed: str, position: Position) -> None:
    metrics.JOURNAL_FAILURES.labels(feed, "refused").inc()
    log.error("journal_refused", feed=feed, epoch=position[0], seq=position[1])


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_ZSTD = zstandard.FRAME_HEADER[:1]


def _pack(entry: Entry, compressor: zstandard.ZstdCompressor) -> bytes:
    data = _encode(entry)
    return compressor.compress(data) if len(data) > PACK_ABOVE else data


def _unpacked(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data) if data[:1] == _ZSTD else data


class RedisJournal:
    """The journal of all processes: a stream for each feed, whose ids are EPOCH-SEQ.

    An entry is written with one command, which also takes away what has become too old: that is, all up to the newest entry that
    this process wrote long enough ago. What others wrote before it goes with its first one.
    """

    def __init__(self, url: str, seconds: float | None = None, most: int = MOST_BYTES) -> None:
        self._seconds = config.journal_seconds if seconds is None else seconds
        self._most = most
        self._client: Any = redis.Redis.from_url(
            url, protocol=2, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)
        )
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream] = {}
        self._rest_until = 0.0
        self._silent = False

    def append(self, feed: str, entry: Entry) -> bool:
        """See ``Journal``."""
        with self._lock:
            stream = self._streams.get(feed) or self._streams.setdefault(feed, _Stream(self._client, feed))
        position = (entry.epoch, entry.seq)
        if time.monotonic() < self._rest_until:
            metrics.JOURNAL_FAILURES.labels(feed, "unavailable").inc()
            return False
        try:
            with stream.lock:
                stream.write(position, _pack(entry, stream.compressor), self._seconds, self._most)
        except redis.ResponseError as error:
            if "equal or smaller" in str(error):
                _refused(feed, position)
            else:
                self._failed(feed, error)
            return False
        except redis.RedisError as error:
            self._failed(feed, error)
            return False
        if self._silent:
            self._silent = False
            log.info("journal_back", feed=feed)
        metrics.JOURNAL_BYTES.labels(feed).set(stream.kept.bytes)
        return True

    def _failed(self, feed: str, error: redis.RedisError) -> None:
        self._rest_until = time.monotonic() + REST
        metrics.JOURNAL_FAILURES.labels(feed, "unavailable").inc()
        if not self._silent:
            self._silent = True
            log.error("journal_unavailable", feed=feed, error=type(error).__name__, detail=str(error))

    def read(self, feed: str, after: Position, until: Position) -> Reading:
        """See ``Journal``."""
        key, found, size = _key(feed), list[Entry](), 0
        at = after
        try:
            while at < until:
                rows = self._client.xrange(key, f"({at[0]}-{at[1]}", f"{until[0]}-{until[1]}", READ_CHUNK)
                for name, fields in rows:
                    data = _unpacked(fields[b"e"])
                    size += len(data)
                    if size > READ_BYTES:
                        return Reading(found, False, TOO_MUCH)
                    found.append(_decode(data))
                    at = _position(name)
                if len(rows) < READ_CHUNK:
                    break
            return reading(found, after, until, lambda: self._oldest(key))
        except (redis.RedisError, msgspec.MsgspecError, zstandard.ZstdError) as error:
            log.warning("journal_not_read", feed=feed, error=type(error).__name__, detail=str(error))
            return Reading(found, False, UNAVAILABLE)

    def _oldest(self, key: str) -> Position | None:
        rows = self._client.xrange(key, "-", "+", 1)
        return _position(rows[0][0]) if rows else None


def _key(feed: str) -> str:
    return f"argus:feed:{feed}:journal"


def _position(name: bytes) -> Position:
    epoch, _, seq = name.partition(b"-")
    return int(epoch), int(seq)


class _Stream:
    """One feed's stream, as far as this process writes it."""

    def __init__(self, client: Any, feed: str) -> None:
        self.lock = threading.Lock()
        self.kept = _Kept()
        self.compressor = zstandard.ZstdCompressor(level=1)
        self._client = client
        self._key = _key(feed)
        self._epoch = 0
        self._put_off_at = 0.0

    def write(self, position: Position, data: bytes, seconds: float, most: int) -> None:
        """Raises ``redis.RedisError``."""
        now = time.monotonic()
        if position[0] != self._epoch:
            # Others may have written since.
            self.kept.find(self._client.memory_usage(self._key) or 0)
            self._epoch = position[0]
        self.kept.add(position, len(data))
        below = self.kept.expire(seconds, most)
        trim = () if below is None else ("MINID", f"{below[0]}-{below[1]}")
        self._client.execute_command("XADD", self._key, *trim, f"{position[0]}-{position[1]}", "e", data)
        if now >= self._put_off_at:
            # A feed that is no more leaves nothing behind.
            self._put_off_at = now + PUT_OFF
            self._client.pexpire(self._key, int(1000 * (2 * seconds + 2 * PUT_OFF)))


_journals: dict[str, Journal] = {}
_making = threading.Lock()


def journal() -> Journal:
    """This process's journal, in Redis where there is one."""
    url = config.redis_url
    with _making:
        if url not in _journals:
            _journals[url] = RedisJournal(url) if url else MemoryJournal()
        return _journals[url]

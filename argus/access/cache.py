"""What this process remembers of keys, so that a request costs no query.

Found keys are trusted for a second; while the watcher (``argus.access.watch``) vouches that it sees every change, for a
minute. Keys that do not exist are remembered apart and for a short time, so that a flood of them costs neither queries nor
the places of the good ones. Nothing here holds a key, only hashes. Safe to use from several threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from argus.access.principal import Principal
from argus.errors import Problem

Known = Principal | Problem
"""What a lookup finds: who has the key, or why it is refused."""


class _Entry(NamedTuple):
    known: Known
    key_id: int
    loaded: float


class KeyCache:
    """Digest -> what is known of the key. When a table is full its oldest entry gives way."""

    ALONE = 1.0
    """Seconds that an entry is trusted while nobody watches for changes."""
    WATCHED = 60.0
    """Seconds that an entry is trusted while the watcher vouches for it."""
    VOUCHED = 3.0
    """Seconds that the word of the watcher holds."""
    GRACE = 600.0
    """Seconds that an entry may still be used while the database cannot be asked."""
    UNKNOWN = 10.0
    """Seconds that a key is remembered not to exist."""

    def __init__(self, *, size: int = 20_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._lock = Lock()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries: dict[str, _Entry] = {}
            self._digests: dict[int, str] = {}
            self._unknown: dict[str, float] = {}
            self._vouched_until = float("-inf")
            self.tracked: dict[int, int | None] = {}
            """Every key that was ever admitted here and still exists -> when it expires, in ms."""
            self.used: set[int] = set()
            """The keys used since somebody last took this set."""
            self.generation = 0
            """Counts the drops: what was read before a drop may not be stored after it."""

    def find(self, digest: str) -> Known | None:
        """What is known and can be trusted."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        now = self._clock()
        age = now - entry.loaded
        if age < self.ALONE or (now < self._vouched_until and age < self.WATCHED):
            return entry.known
        return None

    def find_old(self, digest: str) -> Known | None:
        """What was known not too long ago: better than nothing while the database is away."""
        entry = self._entries.get(digest)
        return entry.known if entry is not None and self._clock() - entry.loaded < self.GRACE else None

    def is_unknown(self, digest: str) -> bool:
        """Whether the key was looked for lately in vain."""
        until = self._unknown.get(digest)
        return until is not None and self._clock() < until

    def put(self, digest: str, known: Known, key_id: int, generation: int) -> None:
        """Store what a query found that was begun at this generation."""
        with self._lock:
            if isinstance(known, Principal):
                self.tracked[key_id] = known.expires
            if generation != self.generation:
                return
            self._entries.pop(digest, None)
            self._entries[digest] = _Entry(known, key_id, self._clock())
            self._digests[key_id] = digest
            if len(self._entries) > self._size:
                oldest = next(iter(self._entries))
                del self._digests[self._entries.pop(oldest).key_id]

    def put_unknown(self, digest: str) -> None:
        """Store that there is no such key."""
        with self._lock:
            self._unknown.pop(digest, None)
            self._unknown[digest] = self._clock() + self.UNKNOWN
            if len(self._unknown) > self._size:
                del self._unknown[next(iter(self._unknown))]

    def drop(self, key_id: int) -> None:
        """Forget a key that changed."""
        with self._lock:
            self.generation += 1
            digest = self._digests.pop(key_id, None)
            if digest is not None:
                del self._entries[digest]

    def forget(self, key_id: int) -> None:
        """Drop a key that is gone for good."""
        self.drop(key_id)
        self.tracked.pop(key_id, None)

    def vouch(self) -> None:
        """The watcher has just seen every change there was."""
        self._vouched_until = self._clock() + self.VOUCHED

    def take_used(self) -> set[int]:
        """The keys used since the last call."""
        used, self.used = self.used, set()
        return used

    def take_expired(self, now_ms: int) -> list[int]:
        """The tracked keys whose time has come, each once."""
        expired = [key_id for key_id, expires in list(self.tracked.items()) if expires is not None and now_ms >= expires]
        for key_id in expired:
            self.tracked[key_id] = None
        return expired

    def sizes(self) -> tuple[int, int]:
        """How many keys are remembered, and how many that do not exist."""
        return len(self._entries), len(self._unknown)

"""What connections hold while they live, in this process' memory: a place with each owner, and a number of subscriptions.

An owner is whoever a limit belongs to, a key or an address, under the name by which Redis knows it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from threading import Lock
from typing import NamedTuple


class Held(NamedTuple):
    """A connection's place with one of its owners."""

    owner: str
    connection_id: str
    subscriptions: int


class Leases:
    """Owner -> connection -> the lease's end. Safe to use from several threads.

    A lease that has lapsed counts no more, but it is known until the connection is closed, so that it can be renewed.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = Lock()
        self._ends: dict[str, dict[str, float]] = {}
        self._held: dict[str, dict[str, int]] = {}

    def open(self, owner: str, connection_id: str, limit: int | None) -> bool:
        """Take a place unless the owner's are all taken. Idempotent. Without a limit: another limiter has allowed it."""
        with self._lock:
            live = self._live(owner)
            if limit is not None and connection_id not in live and len(live) >= limit:
                return False
            self._hold(owner, connection_id, self._held.get(connection_id, {}).get(owner, 0))
            return True

    def count(self, owner: str, connection_id: str, subscriptions: int, limit: int | None) -> bool:
        """Hold so many subscriptions, unless they are more than before and all of the owner's more than the limit."""
        with self._lock:
            before = self._held.get(connection_id, {}).get(owner, 0)
            if limit is not None and subscriptions > before:
                others = sum(self._held[name][owner] for name in self._live(owner) if name != connection_id)
                if others + subscriptions > limit:
                    return False
            self._hold(owner, connection_id, subscriptions)
            return True

    def close(self, owner: str, connection_id: str) -> None:
        """Give the place back. Idempotent."""
        with self._lock:
            held = self._held.get(connection_id, {})
            held.pop(owner, None)
            if not held:
                self._held.pop(connection_id, None)
            ends = self._ends.get(owner, {})
            ends.pop(connection_id, None)
            if not ends:
                self._ends.pop(owner, None)

    def renew(self, connection_ids: Collection[str]) -> None:
        """Begin the leases of these connections anew."""
        with self._lock:
            for owner, connection_id, subscriptions in self._of(connection_ids):
                self._hold(owner, connection_id, subscriptions)

    def held(self, connection_ids: Collection[str]) -> list[Held]:
        """What these connections hold."""
        with self._lock:
            return self._of(connection_ids)

    def _of(self, connection_ids: Collection[str]) -> list[Held]:
        return [
            Held(owner, connection_id, subscriptions)
            for connection_id in connection_ids
            for owner, subscriptions in self._held.get(connection_id, {}).items()
        ]

    def _hold(self, owner: str, connection_id: str, subscriptions: int) -> None:
        self._ends.setdefault(owner, {})[connection_id] = self._clock() + self._seconds
        self._held.setdefault(connection_id, {})[owner] = subscriptions

    def _live(self, owner: str) -> dict[str, float]:
        """The owner's leases, of which those that have lapsed are ended."""
        ends = self._ends.get(owner, {})
        now = self._clock()
        for connection_id in [connection_id for connection_id, end in ends.items() if now >= end]:
            del ends[connection_id]
        return ends

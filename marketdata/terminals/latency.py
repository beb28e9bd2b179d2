"""How long the last requests took: a bounded window of durations with its quantiles."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque


class Window:
    """The newest ``size`` durations that are at most ``age`` seconds old.

    ``now`` is any clock that goes on, in seconds. Not safe for threads by itself: the caller holds a lock.
    """

    def __init__(self, size: int = 512, age: float = 300.0) -> None:
        self._size = size
        self._age = age
        self._entries: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def add(self, took: float, now: float) -> None:
        """Note a duration in seconds; the oldest goes where there is no room."""
        self._entries.append((now, took))
        insort(self._sorted, took)
        if len(self._entries) > self._size:
            self._drop()
        self._expire(now)

    def quantile(self, q: float, now: float) -> float | None:
        """The smallest duration noted that at least the share ``q`` (0 to 1) of them does not exceed; None without any."""
        self._expire(now)
        if not self._sorted:
            return None
        rank = math.ceil(q * len(self._sorted) - 1e-9)  # 0.07 * 100 is a little more than 7
        return self._sorted[min(max(rank, 1), len(self._sorted)) - 1]

    def count(self, now: float) -> int:
        """How many durations the window holds."""
        self._expire(now)
        return len(self._entries)

    def _expire(self, now: float) -> None:
        while self._entries and self._entries[0][0] < now - self._age:
            self._drop()

    def _drop(self) -> None:
        _, took = self._entries.popleft()
        del self._sorted[bisect_left(self._sorted, took)]

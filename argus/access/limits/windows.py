"""Fixed windows that count what is spent within them, in this process' memory, in constant time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from threading import Lock
from typing import NamedTuple


class Spent(NamedTuple):
    """``used`` is what the window has used after this; ``left`` the whole seconds until it ends (0: none has begun)."""

    allowed: bool
    used: int
    left: int


class _Window:
    __slots__ = ("ends", "used")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.used = 0


class Windows:
    """A window per key, begun by the first thing spent and forgotten when it ends. Safe to use from several threads.

    All windows have one length, so a dict in order of insertion is in order of their ends: each new window sweeps out at
    most two ended ones from its front. Beyond ``capacity`` the oldest window is forgotten.
    """

    def __init__(self, seconds: float, *, capacity: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._capacity = capacity
        self._clock = clock
        self._lock = Lock()
        self._windows: dict[Hashable, _Window] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def spend(self, key: Hashable, cost: int, limit: int) -> Spent:
        """Spend the cost if the limit allows it; what is refused costs nothing. A cost of 0 only looks."""
        with self._lock:
            now = self._clock()
            window = self._windows.get(key)
            if window is not None and now >= window.ends:
                del self._windows[key]
                window = None
            if window is None:
                if cost > limit or not cost:
                    return Spent(not cost, 0, 0)
                self._sweep(now)
                window = self._windows[key] = _Window(now + self._seconds)
            allowed = window.used + cost <= limit or not cost
            if allowed:
                window.used += cost
            # To the millisecond first: 60.00000000000001 s are 60.
            return Spent(allowed, window.used, max(1, math.ceil(round(window.ends - now, 3))))

    def _sweep(self, now: float) -> None:
        for _ in range(2):
            if not self._windows:
                return
            oldest = next(iter(self._windows))
            full = self._capacity is not None and len(self._windows) >= self._capacity
            if now < self._windows[oldest].ends and not full:
                return
            del self._windows[oldest]

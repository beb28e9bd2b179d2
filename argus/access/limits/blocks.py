"""What this process has taken out of budgets ahead of need, so that most requests need not ask where they are counted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import Lock

from argus.access.limits.base import Quota

SHARE = 200
"""A block is this part of what is left of a budget, so each of the last 200 requests is asked for by itself."""


class _Block:
    __slots__ = ("ends", "limit", "unused", "used")

    def __init__(self, limit: int, used: int, unused: int, ends: float) -> None:
        self.limit = limit
        self.used = used
        self.unused = unused
        self.ends = ends


class Blocks:
    """A block per key, of the window under way; forgotten when that ends. Safe to use from several threads.

    A block has been counted where the budget is, all of it: what is not used of it expires, and nothing is allowed twice.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._blocks: dict[int, _Block] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def spend(self, key: int, cost: int, limit: int) -> Quota | None:
        """Spend the cost from the key's block; None where there is none of this limit and window that has as much."""
        with self._lock:
            block = self._blocks.get(key)
            if block is None or not block.unused or cost > block.unused or block.limit != limit:
                return None
            left = block.ends - self._clock()
            if left <= 0:
                return None
            block.unused -= cost
            return Quota(limit, limit - block.used + block.unused, math.ceil(left))

    def add(self, key: int, limit: int, used: int, ahead: int, ends: float) -> int:
        """Keep what was taken ahead, in a window that ends at that time of the clock, when ``used`` of the budget were gone.

        Returns what is used of the budget beside what is kept here.
        """
        with self._lock:
            now = self._clock()
            block = self._blocks.get(key)
            if block is not None and block.limit == limit and now < block.ends:
                block.used = max(block.used, used)
                block.unused += ahead
                return block.used - block.unused
            if ahead:
                self._sweep(now)
                self._blocks.pop(key, None)
                self._blocks[key] = _Block(limit, used, ahead, ends)
            return used - ahead

    def _sweep(self, now: float) -> None:
        """Each new block sweeps out at most two ended ones from among the oldest, so that they do not heap up."""
        for _ in range(2):
            oldest = next(iter(self._blocks), None)
            if oldest is None or now < self._blocks[oldest].ends:
                return
            del self._blocks[oldest]

"""How often each block was used lately: what the tiers adapt to."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from marketdata.cache.block import BlockKey

WINDOW: Final = 86_400.0
"""Seconds without a use after which a block is new again."""

BOUND: Final = 50_000
"""Blocks that are remembered; of more, those that were used longest ago are forgotten."""


class Heat:
    """Uses of blocks in this process. Safe to use from several threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._uses: OrderedDict[BlockKey, tuple[int, float]] = OrderedDict()

    def use(self, keys: Iterable[BlockKey]) -> None:
        """Count one use of each."""
        now = self._clock()
        with self._lock:
            for key in keys:
                count, last = self._uses.pop(key, (0, now))
                self._uses[key] = (1 if now - last > WINDOW else count + 1, now)
            while len(self._uses) > BOUND:
                self._uses.popitem(last=False)

    def uses(self, key: BlockKey) -> int:
        """Uses without a pause as long as the window."""
        return self._uses.get(key, (0, 0.0))[0]

    def hottest(self, count: int) -> list[tuple[BlockKey, int]]:
        """The blocks used most often, and how often."""
        with self._lock:
            held = [(key, uses) for key, (uses, _last) in self._uses.items()]
        return sorted(held, key=lambda item: (-item[1], item[0]))[:count]

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._uses.clear()

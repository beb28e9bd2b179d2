"""Values of this process that live for seconds: forming bars, and what a terminal said that it does not have."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from marketdata.cache.block import BlockKey

T = TypeVar("T")


class ShortLived(Generic[T]):
    """Safe to use from several threads. When ``bound`` values are held the oldest gives way."""

    def __init__(self, *, bound: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._bound = bound
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[BlockKey, tuple[T, float]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: BlockKey) -> T | None:
        """The value while it is good."""
        value, until = self._held.get(key, (None, 0.0))
        return value if value is not None and self._clock() < until else None

    def last(self, key: BlockKey) -> T | None:
        """The value that was put last, good or not, as long as nothing took its place."""
        return self._held.get(key, (None, 0.0))[0]

    def put(self, key: BlockKey, value: T, seconds: float) -> None:
        """Keep it for so many seconds."""
        with self._lock:
            self._held.pop(key, None)
            if len(self._held) >= self._bound:
                del self._held[next(iter(self._held))]
            self._held[key] = (value, self._clock() + seconds)

    def remove(self, key: BlockKey) -> None:
        """Drop it."""
        with self._lock:
            self._held.pop(key, None)

    def remove_if(self, chosen: Callable[[BlockKey], bool]) -> int:
        """Drop what is chosen; how many there were."""
        with self._lock:
            keys = [key for key in self._held if chosen(key)]
            for key in keys:
                del self._held[key]
        return len(keys)

    def expire(self) -> int:
        """Drop what is not good any more; how many there were."""
        now = self._clock()
        with self._lock:
            keys = [key for key, (_value, until) in self._held.items() if now >= until]
            for key in keys:
                del self._held[key]
        return len(keys)

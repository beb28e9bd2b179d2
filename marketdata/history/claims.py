"""Which blocks are being fetched by whom in this process: whoever needs one that another fetches waits for that one's end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from marketdata.cache.block import BlockKey


class Claims:
    """Single flight for many keys at once: a call to a terminal carries the blocks of up to a hundred symbols."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[BlockKey, threading.Event] = {}
        self.landed = 0
        """Claims that have ended so far."""

    @contextmanager
    def take(self, keys: Iterable[BlockKey]) -> Iterator[tuple[list[BlockKey], dict[BlockKey, threading.Event]]]:
        """The keys that nobody had, which are this caller's until the end of the block, and the others with their ends."""
        mine: list[BlockKey] = []
        others: dict[BlockKey, threading.Event] = {}
        ended = threading.Event()
        with self._lock:
            for key in keys:
                if (event := self._taken.get(key)) is None:
                    self._taken[key] = ended
                    mine.append(key)
                else:
                    others[key] = event
        try:
            yield mine, others
        finally:
            with self._lock:
                for key in mine:
                    del self._taken[key]
                self.landed += bool(mine)
            ended.set()


def wait(ends: Iterable[threading.Event], deadline: float) -> bool:
    """Wait for all of them; False where the deadline (monotonic clock) came first."""
    return all(event.wait(max(0.0, deadline - time.monotonic())) for event in set(ends))

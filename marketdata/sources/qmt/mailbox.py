"""Where the terminal's callbacks leave their ticks: all of them wait in order, up to a bound; beyond, the newest per symbol."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Generic, TypeVar

Value = TypeVar("Value")

BOUND = 30_000
"""Values that may wait: some fifteen seconds of the A-share market."""


class Mailbox(Generic[Value]):
    """Values under keys, in the order of their arrival. Putting never blocks.

    Where more than ``bound`` wait, those that have a newer one under their key are dropped and counted in ``merged``, so it
    never holds more than that, or twice as many as there are keys.
    """

    def __init__(self, bound: int) -> None:
        self._changed = threading.Condition()
        self._bound = self._limit = bound
        self._waiting: list[tuple[str, Value]] = []
        self._closed = False
        self.merged = 0

    def put(self, values: Iterable[tuple[str, Value]]) -> None:
        """Leave values, each with its key."""
        with self._changed:
            self._waiting.extend(values)
            if len(self._waiting) > self._limit:
                self._merge()
            self._changed.notify()

    def _merge(self) -> None:
        newest: dict[str, Value] = {}
        for key, value in self._waiting:
            # Taken out first, so that it stands where it arrived last.
            newest.pop(key, None)
            newest[key] = value
        self.merged += len(self._waiting) - len(newest)
        self._waiting = list(newest.items())
        self._limit = max(self._bound, 2 * len(newest))

    def take(self, timeout: float | None = None) -> list[Value]:
        """Everything that waits, as soon as anything does; nothing at the timeout or once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            taken, self._waiting, self._limit = self._waiting, [], self._bound
        return [value for _, value in taken]

    def close(self) -> None:
        """Wake whoever takes; what waits is dropped."""
        with self._changed:
            self._closed = True
            self._waiting = []
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether there will be nothing more."""
        return self._closed

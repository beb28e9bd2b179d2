"""Where the terminal's callbacks leave their ticks: the newest per symbol waits, and what it replaced is counted."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Mailbox(Generic[Value]):
    """One waiting value per key, so it never holds more than there are keys. Putting never blocks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, Value] = {}
        self._closed = False
        self.merged = 0

    def put(self, values: dict[str, Value], merged: int = 0) -> None:
        """Leave values; a newer one replaces the one that waits."""
        with self._changed:
            self.merged += merged + len(self._waiting.keys() & values.keys())
            self._waiting.update(values)
            self._changed.notify()

    def take(self, timeout: float | None = None) -> dict[str, Value]:
        """Everything that waits, as soon as anything does; nothing at the timeout or once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            taken, self._waiting = self._waiting, {}
            return taken

    def close(self) -> None:
        """Wake whoever takes; what waits is dropped."""
        with self._changed:
            self._closed = True
            self._waiting = {}
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether there will be nothing more."""
        return self._closed

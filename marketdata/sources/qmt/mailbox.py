"""Where values wait between the thread that brings them and the one that has time for them: bounded, in order of arrival."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

Value = TypeVar("Value")
Item = TypeVar("Item")

BOUND = 30_000
"""Values that may wait: some fifteen seconds of the A-share market's ticks."""


class _Box(Generic[Item]):
    """What waits, and whoever takes it all. Putting never blocks."""

    def __init__(self, bound: int) -> None:
        self._changed = threading.Condition()
        self._bound = bound
        self._waiting: list[Item] = []
        self._closed = False

    def _take(self, timeout: float | None) -> list[Item]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            taken, self._waiting = self._waiting, []
            self._emptied()
        return taken

    def _emptied(self) -> None:
        """Everything was taken; called under the lock."""

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


class Mailbox(_Box[tuple[str, Value]], Generic[Value]):
    """State: values under keys.

    Where more than ``bound`` wait, those that have a newer one under their key are dropped and counted in ``merged``, so it
    never holds more than that, or twice as many as there are keys.
    """

    def __init__(self, bound: int) -> None:
        super().__init__(bound)
        self._limit = bound
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

    def _emptied(self) -> None:
        self._limit = self._bound

    def take(self, timeout: float | None = None) -> list[Value]:
        """Everything that waits, as soon as anything does; nothing at the timeout or once closed."""
        return [value for _, value in self._take(timeout)]


class Backlog(_Box[Value], Generic[Value]):
    """Events: none replaces another.

    Where ``bound`` wait, what comes is dropped until they are taken: counted in ``dropped``, and as one of ``overflows``.
    """

    def __init__(self, bound: int) -> None:
        super().__init__(bound)
        self._full = False
        self.dropped = 0
        self.overflows = 0

    def put(self, values: Sequence[Value]) -> None:
        """Leave values."""
        with self._changed:
            if self._closed:
                return
            kept = () if self._full else values[: self._bound - len(self._waiting)]
            self._waiting.extend(kept)
            if len(kept) < len(values):
                self.dropped += len(values) - len(kept)
                self.overflows += not self._full
                self._full = True
            self._changed.notify()

    def _emptied(self) -> None:
        self._full = False

    def take(self, timeout: float | None = None) -> list[Value]:
        """Everything that waits, as soon as anything does; nothing at the timeout or once closed."""
        return self._take(timeout)

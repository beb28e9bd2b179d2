"""Single flight: of all who ask for the same at the same time one does the work, and the others get what came of it.

Within a process that is certain. Across processes it is best effort, through a lock in the shared tier that ends by itself:
who does not get it waits for its end and then looks whether the other's result has come.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final, Generic, TypeVar

from marketdata.cache.shared import Shared

T = TypeVar("T")

TRY_EVERY: Final = 0.05
"""Seconds between two tries to take the lock that another process has."""


class DeadlineExceeded(Exception):
    """The work did not end before the caller's deadline; it may go on for others."""


class Flight(Generic[T]):
    """For blocking callers. A caller's deadline is its own: it neither shortens nor lengthens another's."""

    def __init__(self, shared: Shared | None = None) -> None:
        self._shared = shared
        self._lock = threading.Lock()
        self._flying: dict[str, Future[Any]] = {}

    def __len__(self) -> int:
        return len(self._flying)

    def run(self, key: str, work: Callable[[], T], *, seconds: float, look: Callable[[], T | None] | None = None) -> T:
        """What ``work`` returns or raises, done once for all who ask for ``key`` meanwhile.

        ``work`` runs in the first caller's thread and must keep that caller's deadline by itself. ``look`` finds what another
        process has stored (None: not that), once it has ended; without it nothing is shared across processes. Raises
        ``DeadlineExceeded`` after ``seconds``.
        """
        until = time.monotonic() + seconds
        while True:
            with self._lock:
                leader = self._flying.get(key)
                if leader is None:
                    mine: Future[T] = Future()
                    self._flying[key] = mine
            if leader is None:
                return self._lead(key, mine, work, look, until)
            try:
                result: T = leader.result(max(0.0, until - time.monotonic()))
            except FutureTimeout:
                if not leader.done() or time.monotonic() >= until:
                    raise DeadlineExceeded(key) from None
            except DeadlineExceeded:
                if time.monotonic() >= until:
                    raise
            else:
                return result
            # The leader ran out of its own time and there is some left of ours.

    def _lead(self, key: str, mine: Future[T], work: Callable[[], T], look: Callable[[], T | None] | None, until: float) -> T:
        try:
            result = self._work(key, work, look, until)
        except BaseException as error:
            self._land(key)
            mine.set_exception(error)
            raise
        self._land(key)
        mine.set_result(result)
        return result

    def _land(self, key: str) -> None:
        with self._lock:
            del self._flying[key]

    def _work(self, key: str, work: Callable[[], T], look: Callable[[], T | None] | None, until: float) -> T:
        if look is None or self._shared is None or not self._shared.on:
            return work()
        waited = False
        while (left := until - time.monotonic()) > 0:
            release = self._shared.lock(key, left + 1)
            if release is not None:
                try:
                    found = look() if waited else None
                    return work() if found is None else found
                finally:
                    release()
            waited = True
            time.sleep(min(TRY_EVERY, left))
        raise DeadlineExceeded(key)

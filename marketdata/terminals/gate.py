"""What a terminal stands, whoever asks: in its worker, so many requests at a time and so many begun within a second.

A request that is not let in is told when to come again: threads that wait would be missing to the polls. Only what there is one
of at a time, such as the refresh of the reference data, waits in its thread.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, cast

from marketdata.sources.base import Source, SourceTimeout
from marketdata.terminals import roster
from marketdata.terminals.slots import PATIENCE, Priority

TURN: Final = 0.1
"""Seconds after which a request that was not let in looks again."""
STANDS_BACK: Final = 0.3
"""Seconds for which BULK is not let in after a LIVE request was not: it comes again meanwhile."""


class NotNow(Exception):
    """The terminal has enough to do; ask again in ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not before {seconds:.2f} s")
        self.seconds = seconds


class Gate:
    """One terminal's. BULK never has all of several turns, but one less at most.

    It also takes neither the last free turn of several nor the last start of several within a second, and stands back while LIVE
    comes again; but where none of BULK was let in for ``PATIENCE`` seconds although it came, the next one does.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started: deque[float] = deque()
        self._inside = dict.fromkeys(Priority, 0)
        self._live_refused = float("-inf")
        self._bulk_refused: float | None = None
        """When BULK was first refused since one of it was let in."""

    @property
    def inside(self) -> int:
        """Requests that the terminal works on."""
        return sum(self._inside.values())

    def enter(self, priority: Priority, concurrent: int, per_second: int | None) -> None:
        """Take a turn. Raises ``NotNow``."""
        with self._lock:
            now = self._clock()
            bulk = priority is Priority.BULK
            impatient = bulk and self._bulk_refused is not None and now - self._bulk_refused >= PATIENCE
            try:
                self._enter(priority, bulk and not impatient, concurrent, per_second, now)
            except NotNow:
                if bulk:
                    self._bulk_refused = now if self._bulk_refused is None else self._bulk_refused
                else:
                    self._live_refused = now
                raise
            if bulk:
                self._bulk_refused = None

    def leave(self, priority: Priority) -> None:
        """Give back a turn that the class has."""
        with self._lock:
            self._inside[priority] -= 1

    def _enter(self, priority: Priority, yields: bool, concurrent: int, per_second: int | None, now: float) -> None:
        if yields and now - self._live_refused < STANDS_BACK:
            raise NotNow(TURN)
        if self.inside >= _allowed(concurrent, yields):
            raise NotNow(TURN)
        if self._inside[priority] >= _allowed(concurrent, priority is Priority.BULK):
            raise NotNow(TURN)
        while self._started and now - self._started[0] >= 1.0:
            self._started.popleft()
        if per_second is not None:
            if len(self._started) >= (allowed := _allowed(per_second, yields)):
                # The start that has to be a second ago before this one.
                raise NotNow(self._started[len(self._started) - allowed] + 1.0 - now)
            self._started.append(now)
        self._inside[priority] += 1


def _allowed(limit: int, less: bool) -> int:
    return limit - 1 if less and limit > 1 else limit


_gates: defaultdict[str, Gate] = defaultdict(Gate)


@contextmanager
def turn(terminal: str, priority: Priority) -> Iterator[None]:
    """A turn at the terminal, for as long as the block lasts. Raises ``NotNow``."""
    spec = roster.current().terminals.get(terminal) or roster.TerminalSpec(terminal, "")
    gate = _gates[terminal]
    gate.enter(priority, spec.concurrent, spec.per_second)
    try:
        yield
    finally:
        gate.leave(priority)


def inside(terminal: str) -> int:
    """Requests that the terminal works on in this process."""
    return _gates[terminal].inside


def in_turns(source: Source, terminal: str, priority: Priority) -> Source:
    """The terminal's source, of which each call waits for a turn of its own, within the call's own timeout."""
    return cast("Source", _InTurns(source, terminal, priority))


class _InTurns:
    """A source, but for how its calls begin."""

    def __init__(self, source: Source, terminal: str, priority: Priority) -> None:
        self._source = source
        self._terminal = terminal
        self._priority = priority

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._source, name)
        if name != "universe" and not name.startswith("fetch_"):
            return attribute

        @wraps(attribute)
        def call(*args: Any, timeout: float, **options: Any) -> Any:
            until = time.monotonic() + timeout
            while True:
                try:
                    with turn(self._terminal, self._priority):
                        return attribute(*args, timeout=until - time.monotonic(), **options)
                except NotNow as not_now:
                    if time.monotonic() + not_now.seconds >= until:
                        raise SourceTimeout(f"the terminal had too much else to do for {timeout:.0f} s") from None
                    time.sleep(not_now.seconds)

        return call

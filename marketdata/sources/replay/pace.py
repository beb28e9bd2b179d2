"""When each ms of a recording is due, by a monotonic clock."""

from __future__ import annotations

import threading
import time
from typing import Protocol

SKIPPED_PAUSE_MS = 2 * 3600 * 1000
"""A longer pause without any row (a night, a weekend, the way from one file's day to another's) is not waited out. The
longest pause within a session, lunch, has 1.5 h and rows every minute."""
LONGEST_WAIT = 3600.0
"""Seconds; operating systems refuse waits of weeks."""


class Clock(Protocol):
    """The passing of time, so that tests can have their own."""

    def now(self) -> float:
        """Seconds, never going back, whatever happens to the wall clock."""

    def wait(self, wake: threading.Event, seconds: float) -> None:
        """Return after ``seconds``, or sooner when ``wake`` is set."""


class MonotonicClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def wait(self, wake: threading.Event, seconds: float) -> None:
        """Sleep, or be woken."""
        wake.wait(min(seconds, LONGEST_WAIT))


class Pace:
    """``speed`` times as fast as recorded; 0: everything is due at once.

    Every ms is due at a fixed distance from the first, so errors of single sleeps do not add up, and a replay that was
    held up catches up: what is overdue comes at once, in order, until it is on time again.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._origin: float | None = None
        self._origin_ms = 0
        self._latest_ms = 0

    def due_in(self, time_ms: int, now: float) -> float:
        """Seconds from ``now`` to the moment at which ``time_ms`` is due, never below 0. The first call starts the run."""
        if self._speed == 0:
            return 0.0
        if self._origin is None:
            self._origin, self._origin_ms, self._latest_ms = now, time_ms, time_ms
        pause = time_ms - self._latest_ms
        if pause > SKIPPED_PAUSE_MS:
            self._origin_ms += pause
        self._latest_ms = max(self._latest_ms, time_ms)
        return max(0.0, self._origin + (time_ms - self._origin_ms) / 1000 / self._speed - now)

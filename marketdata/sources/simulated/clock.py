"""The simulated market's clocks: the wall clock, one under which it always trades, and one that a test sets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from marketdata.calendar import day_of, midnight
from marketdata.sources.simulated.days import trades_on, trading_day_before


class Clock(Protocol):
    """A market's time, in ms since the epoch."""

    def now(self) -> int:
        """The market's time."""

    def delay(self, until: int) -> float:
        """Real seconds to sleep before looking again whether ``until`` has come; more than 0 while it has not."""


class LiveClock:
    """The wall clock: the market trades when the exchanges do."""

    def now(self) -> int:
        """The time of day."""
        return time.time_ns() // 1_000_000

    def delay(self, until: int) -> float:
        """As long as it takes, looking again each second because a wall clock may be set."""
        return min(1.0, max(0.0, (until - self.now()) / 1000))


def _seconds(text: str) -> int:
    hours, minutes, seconds = map(int, text.split(":"))
    return (hours * 60 + minutes) * 60 + seconds


SHOWN = tuple(
    (_seconds(start), _seconds(end))
    for start, end in (("09:15:00", "09:25:30"), ("09:29:50", "11:30:30"), ("12:59:30", "15:00:30"))
)
"""The parts of a day that a virtual clock runs through; it jumps over the others."""

VIRTUAL_START = _seconds("09:29:57")


class VirtualClock:
    """Runs through sessions alone, ``speed`` times as fast as real time, whatever the hour.

    Begins just before continuous trading, on the last trading day up to today or at ``start`` (ms), and jumps over lunch
    breaks, nights, weekends and holidays.
    """

    def __init__(self, start: int | None = None, speed: float = 1.0, real: Callable[[], float] = time.monotonic) -> None:
        if speed <= 0:
            raise ValueError("a clock's speed is more than 0")
        self._speed = speed
        self._lock = threading.Lock()
        self._at = _last_open() if start is None else start
        self._real_now = real
        self._real = real()

    def now(self) -> int:
        """The market's time; each call carries it on by the real time since the one before."""
        with self._lock:
            elapsed = int((self._real_now() - self._real) * 1000 * self._speed)
            # Only whole milliseconds are taken off, so that frequent calls lose nothing.
            self._real += elapsed / 1000 / self._speed
            self._at = forward(self._at, elapsed)
            return self._at

    def delay(self, until: int) -> float:
        """Jumps make the time come sooner than it seems, so this looks again each second."""
        return min(1.0, max(0.0, (until - self.now()) / 1000 / self._speed))


def _last_open() -> int:
    today = day_of(time.time_ns() // 1_000_000)
    day = trading_day_before(today + timedelta(days=1))
    return midnight(day) + VIRTUAL_START * 1000


def forward(ms: int, elapsed: int) -> int:
    """A market time, ``elapsed`` ms of shown time later."""
    day = day_of(ms)
    while True:
        if trades_on(day):
            for start, end in SHOWN:
                first, last = midnight(day) + start * 1000, midnight(day) + end * 1000
                if ms >= last:
                    continue
                ms = max(ms, first)
                if ms + elapsed < last:
                    return ms + elapsed
                elapsed -= last - ms
                ms = last
        day += timedelta(days=1)


class ManualClock:
    """Stands still until it is told otherwise."""

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self) -> int:
        """The time that was set."""
        return self._now

    def set(self, ms: int) -> None:
        """Set the time."""
        self._now = ms

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self._now += ms

    def delay(self, until: int) -> float:
        """A moment: nobody knows when the time will be set."""
        return 0.0 if self._now >= until else 0.005

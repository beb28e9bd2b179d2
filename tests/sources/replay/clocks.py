"""Clocks for replays under test: one that jumps over every wait, one that stands until it is moved."""

from __future__ import annotations

import threading


class JumpingClock:
    """Every wait passes at once and is written down."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.waits: list[float] = []

    def now(self) -> float:
        """The time so far."""
        return self.time

    def wait(self, wake: threading.Event, seconds: float) -> None:
        """Jump."""
        if not wake.is_set():
            self.waits.append(seconds)
            self.time += seconds


class StandingClock:
    """Stands still until a test moves it on."""

    def __init__(self) -> None:
        self._time = 1000.0
        self._wake: threading.Event | None = None
        self.waiting = threading.Event()

    def now(self) -> float:
        """The time so far."""
        return self._time

    def wait(self, wake: threading.Event, seconds: float) -> None:
        """Wait, really, until the clock is moved or the replay is woken."""
        self._wake = wake
        self.waiting.set()
        wake.wait()
        self.waiting.clear()

    def advance(self, seconds: float) -> None:
        """Move on, and let the replay look at the clock."""
        self._time += seconds
        if self._wake is not None:
            self._wake.set()

"""How many quotes came in each of the last seconds: a ring of counters, cheap to write and safe to read from any thread."""

from __future__ import annotations

import time


class Throughput:
    """Counts per whole second of the monotonic clock, for the last ``seconds`` of them."""

    def __init__(self, seconds: int = 300) -> None:
        self._counts = [0] * seconds
        self._stamps = [-1] * seconds
        self._since: int | None = None

    def add(self, count: int, now: float | None = None) -> None:
        """Count quotes that come now."""
        second = int(time.monotonic() if now is None else now)
        slot = second % len(self._counts)
        if self._stamps[slot] != second:
            self._stamps[slot], self._counts[slot] = second, 0
        self._counts[slot] += count
        if self._since is None:
            self._since = second

    def last(self, seconds: int, now: float | None = None) -> list[int | None]:
        """The counts of the last complete seconds, oldest first; None for those before the first count."""
        second = int(time.monotonic() if now is None else now)
        return [self._of(second - back) for back in range(min(seconds, len(self._counts) - 1), 0, -1)]

    def _of(self, second: int) -> int | None:
        if self._since is None or second < self._since:
            return None
        slot = second % len(self._counts)
        return self._counts[slot] if self._stamps[slot] == second else 0

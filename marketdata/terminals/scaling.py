"""How many requests a terminal is given at a time, by measured queue time and latency.

The rule, with a span of 5 s (or eight times the last latency, where that is longer):

* Measured is in windows of one span, longer where it saw fewer than 20 requests, but six spans at most. Requests begun before
  the last change of the size are not counted. A window's latency is the mean of its requests without the slowest twentieth
  (with all slots busy it is slots divided by throughput, while a median is blind to the few that wait inside the terminal).
* A window is full when it has 20 requests and the p90 of their queue time exceeds half of the p50 of their latency.
* Two full windows in a row: grow by one. The new size is on trial until two more in a row agree on it. Where the latency of
  both exceeds 1.2 times the best known at smaller sizes (the lower quartile of these), the terminal does not serve more, it
  only serves slower. Then the growth is taken back, the smaller size is on trial in its turn, and it is not tried again for
  12 spans, which double with each failure up to 192 (a minute, a quarter of an hour).
* What is remembered of sizes is how their latencies compare: when the latency at the present size changes out of trial,
  because the requests are others, all of them change in proportion.
* Two full windows in a row, out of trial, with more than twice the latency known: shrink by one. Without a queue a doubled
  latency says that the requests are others, not that they are too many.
* Quiet, that is: less than 2% of the requests were begun when they took the last slot, for six spans: shrink by one, and
  again by one for each window that stays so. Growth needs a tenth of the requests to wait, and what a quiet slot would have
  served is less than that, so the two do not alternate.
* At least two spans lie between changes.

Never outside ``min_size`` to ``max_size``, and never over ``concurrent``, the terminal's own limit, which wins over both. New
bounds act at once, and so does ``fixed``, which is held to ``concurrent`` alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

SPAN = 5.0
"""Seconds."""
LATENCIES = 8
"""Latencies that a span lasts at least."""
LEAST = 20
"""Requests from which on a window says something."""
MOST = 2000
"""Newest requests of a window that are looked at."""
QUEUE_SHARE = 0.5
"""Of the p50 of the latency: the p90 of the queue time from which on a window is full."""
IN_A_ROW = 2
"""Full windows that it takes to act."""
RISEN = 1.2
"""Times the best latency at smaller sizes from which on growth was in vain."""
DOUBLED = 2.0
"""Times the known latency from which on there are too many requests."""
QUIET_SHARE = 0.02
"""Share of requests on the last slot below which it is idle."""
QUIET_SPANS = 6
COOL_DOWN_SPANS = 2
PAUSE_SPANS = 12
LONGEST_PAUSE_SPANS = 192


@dataclass(frozen=True, slots=True)
class _Request:
    begun: float
    ended: float
    waited: float


@dataclass(frozen=True, slots=True)
class _Window:
    """What a window of requests says. ``latency`` is None without any request."""

    latency: float | None
    full: bool
    quiet: bool


class Scaler:
    """The size of one terminal's slots. All times in seconds, ``now`` of any clock that goes on.

    Not safe for threads: the caller holds a lock. ``fixed``: the size as set by hand, None for the rule's.
    """

    def __init__(self, min_size: int, max_size: int, concurrent: int | None = None, *, span: float = SPAN) -> None:
        """``concurrent``: requests that the terminal stands at a time, None where nothing is known. See ``bounds``."""
        self.fixed: int | None = None
        self.bounds(min_size, max_size, concurrent)
        self._size = self._floor
        self._span = span
        self._requests: deque[_Request] = deque(maxlen=MOST)
        self._opened = math.inf
        self._changed = -math.inf
        self._last_latency = 0.0
        self._levels: dict[int, float] = {}
        self._settled: set[int] = set()
        self._trial = False
        self._row_good = 0
        self._row_bad = 0
        self._quiet_since: float | None = None
        self._vain = math.inf
        self._vain_until = -math.inf
        self._pause = float(PAUSE_SPANS)

    def bounds(self, min_size: int, max_size: int, concurrent: int | None = None) -> None:
        """Set the bounds; the next ``decide`` keeps them. Raises ``ValueError`` unless 1 <= min_size <= max_size."""
        if not 1 <= min_size <= max_size or (concurrent is not None and concurrent < 1):
            raise ValueError(f"no size is from {min_size} to {max_size} and at most {concurrent}")
        self._limit = math.inf if concurrent is None else concurrent
        self._ceiling = int(min(max_size, self._limit))
        self._floor = min(min_size, self._ceiling)

    def observe(self, waited: float, took: float, now: float) -> None:
        """A request has ended: it waited so long for its slot and then held it so long."""
        if now - took >= self._changed:
            self._requests.append(_Request(now - took, now, waited))

    def decide(self, now: float) -> int:
        """The size from now on. To be asked about once a second."""
        self._opened = min(self._opened, now)
        if self.fixed is not None:
            allowed = int(min(max(self.fixed, 1), self._limit))
        else:
            allowed = min(max(self._size, self._floor), self._ceiling)
        if allowed != self._size:
            self._change(allowed, now)
        elif self.fixed is None and self._complete(now):
            self._judge(self._read(), now)
        return self._size

    def _spans(self, count: float) -> float:
        return count * max(self._span, LATENCIES * self._last_latency)

    def _complete(self, now: float) -> bool:
        return now - self._opened >= self._spans(1 if len(self._requests) >= LEAST else QUIET_SPANS)

    def _read(self) -> _Window:
        requests = list(self._requests)
        if not requests:
            return _Window(None, full=False, quiet=True)
        tooks = sorted(request.ended - request.begun for request in requests)
        counted = tooks[: len(tooks) - len(tooks) // 20]
        waits = sorted(request.waited for request in requests)
        slow = waits[math.ceil(0.9 * len(waits)) - 1] > QUEUE_SHARE * tooks[(len(tooks) - 1) // 2]
        begun = sorted(request.begun for request in requests)
        ended = sorted(request.ended for request in requests)
        beside = (count - bisect_right(ended, start) for count, start in enumerate(begun, 1))
        last_slot = sum(busy >= self._size for busy in beside)
        return _Window(
            sum(counted) / len(counted),
            full=slow and len(requests) >= LEAST,
            quiet=last_slot < QUIET_SHARE * len(requests),
        )

    def _judge(self, window: _Window, now: float) -> None:
        self._requests.clear()
        began, self._opened = self._opened, now
        self._last_latency = window.latency or self._last_latency
        cool = now - self._changed >= self._spans(COOL_DOWN_SPANS)
        if window.full and window.latency is not None:
            self._quiet_since = None
            self._judge_full(window.latency, cool, now)
            return
        self._row_good = self._row_bad = 0
        if not window.quiet:
            self._quiet_since = None
            return
        if self._quiet_since is None:
            self._quiet_since = began
        quiet_since = self._quiet_since
        if cool and self._size > self._floor and now - quiet_since >= self._spans(QUIET_SPANS):
            self._change(self._size - 1, now)
            self._quiet_since = quiet_since

    def _judge_full(self, latency: float, cool: bool, now: float) -> None:
        smaller = [level for size, level in self._levels.items() if size < self._size]
        if self._trial:
            good = not smaller or latency <= RISEN * _best(smaller)
        else:
            known = self._levels.get(self._size) or (_best(smaller) if smaller else latency)
            good = latency <= DOUBLED * known
        good = good or self._size == self._floor
        self._row_good, self._row_bad = (self._row_good + 1, 0) if good else (0, self._row_bad + 1)
        if good:
            self._learn(latency)
        if not cool or max(self._row_good, self._row_bad) < IN_A_ROW:
            return
        if self._row_bad:
            if self._trial:
                self._give_up(now)
            self._change(self._size - 1, now, trial=self._trial)
            return
        if self._trial and self._size >= self._vain:
            self._vain, self._pause = math.inf, max(self._pause / 2, PAUSE_SPANS)
        if self._size < self._ceiling and (self._size + 1 < self._vain or now >= self._vain_until):
            self._change(self._size + 1, now, trial=True)
        elif self._trial:
            self._trial = False
            if self._size not in self._settled:  # measured while it was accepted for being low: what comes now is truer
                self._settled.add(self._size)
                del self._levels[self._size]

    def _give_up(self, now: float) -> None:
        """The present size serves no more than a smaller one."""
        if now >= self._vain_until:
            self._vain_until = now + self._spans(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SPANS)
        self._vain = self._size

    def _learn(self, latency: float) -> None:
        """Half of the way, so that one odd window does not move everything."""
        known = self._levels.get(self._size)
        if not known:
            self._levels[self._size] = latency
        elif not self._trial:
            factor = (1 + latency / known) / 2
            self._levels = {size: level * factor for size, level in self._levels.items()}

    def _change(self, size: int, now: float, *, trial: bool = False) -> None:
        self._size = size
        self._changed = self._opened = now
        self._requests.clear()
        self._levels = {known: level for known, level in self._levels.items() if known <= size}
        self._settled = {known for known in self._settled if known <= size}
        self._trial = trial
        self._row_good = self._row_bad = 0
        self._quiet_since = None


def _best(levels: list[float]) -> float:
    """The lower quartile: the lowest of several that scatter is lower than any of them truly is."""
    return sorted(levels)[len(levels) // 4]

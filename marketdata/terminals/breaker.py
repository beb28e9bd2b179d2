"""Whether a terminal that fails is asked any more: a circuit breaker.

Closed, it opens at the 5th failure in a row, or at a failure with which at least half of the verdicts of the last 60 s (of the
last 20, where there are more) are failures, where these are 10 or more. Open, it refuses for 10 s. After them it lets exactly
one request through as a probe: success closes it and forgets everything, failure opens it for twice as long as before, up to
300 s, and a probe that ends without a verdict makes room for another one.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

FAILURES = 5
"""Failures in a row that open it."""
SAMPLE = 20
"""Verdicts whose failures are counted, at most."""
LEAST = 10
"""Verdicts below which a share of failures says nothing."""
SHARE = 0.5
"""Share of failures that opens it."""
AGE = 60.0
"""Seconds after which a verdict is not counted any more."""


class State(StrEnum):
    """``OPEN`` lasts until a probe is let through; ``HALF_OPEN`` until the probe's verdict."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """One terminal's breaker. ``now`` is any clock that goes on, in seconds; not safe for threads: the caller holds a lock.

    Whoever was allowed says one of ``succeeded``, ``failed`` and ``cancelled`` afterwards. A verdict on a request that was let
    through before it opened is not counted while it is open, and counts as the probe's while it is half open.
    """

    def __init__(self, *, first: float = 10.0, longest: float = 300.0) -> None:
        """``first``: seconds for which it opens at first; ``longest``: to which they double."""
        self._first = first
        self._longest = longest
        self._state = State.CLOSED
        self._until = 0.0
        self._probing = False
        self._period = 0.0
        self._row = 0
        self._verdicts: deque[tuple[float, bool]] = deque(maxlen=SAMPLE)
        self._close()

    @property
    def state(self) -> State:
        """What it is now."""
        return self._state

    @property
    def until(self) -> float | None:
        """The time from which on a probe may pass; None while closed."""
        return None if self._state is State.CLOSED else self._until

    def ready(self, now: float) -> bool:
        """What ``allow`` would say. Does not take the probe's place."""
        return self._state is State.CLOSED or (not self._probing and now >= self._until)

    def allow(self, now: float) -> bool:
        """Whether a request may pass. While it is not closed, the one that may is the probe."""
        if not self.ready(now):
            return False
        if self._state is not State.CLOSED:
            self._state, self._probing = State.HALF_OPEN, True
        return True

    def succeeded(self, now: float) -> None:
        """A request was answered; that the terminal lacks the function or the symbol is an answer too."""
        if self._state is State.HALF_OPEN:
            self._close()
        elif self._state is State.CLOSED:
            self._row = 0
            self._verdicts.append((now, False))

    def failed(self, now: float) -> None:
        """A request was not answered: the terminal is gone, hangs, or broke."""
        if self._state is State.HALF_OPEN:
            self._period = min(self._period * 2, self._longest)
            self._open(now)
        elif self._state is State.CLOSED:
            self._row += 1
            self._verdicts.append((now, True))
            if self._row >= FAILURES or self._often(now):
                self._open(now)

    def cancelled(self, now: float) -> None:
        """A request ended without saying anything of the terminal: not wanted any more, or its deadline was too near."""
        if self._state is State.HALF_OPEN:
            self._probing = False

    def _often(self, now: float) -> bool:
        counted = [failure for at, failure in self._verdicts if at >= now - AGE]
        return len(counted) >= LEAST and sum(counted) >= SHARE * len(counted)

    def _open(self, now: float) -> None:
        self._state, self._until, self._probing = State.OPEN, now + self._period, False

    def _close(self) -> None:
        self._state, self._probing = State.CLOSED, False
        self._period = min(self._first, self._longest)
        self._row = 0
        self._verdicts.clear()

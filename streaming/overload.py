"""What is done when there is more to do than time, in steps: whom it concerns, when it ends. Pure; its policy: docs/limits.md.

``Gauge`` turns what a hub counts into a load, ``Overload`` a load into a level. A level rises by one when the load has been too
high for ``RISE`` seconds, and falls by one when it has been low for a while, which is longer each time that it proves too short.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import NamedTuple

WINDOW = 3.0
"""Seconds over which a load is measured: one sweep of the market."""
LATE = 0.25
"""Seconds by which the event loop comes too late, in the mean, from which on it is overloaded."""
LAG = 1.0
"""Seconds by which even the quickest of late messages came later than without load, from which on the hub is overloaded."""
LONGEST_DELAY = 1.0
"""Seconds that one delay counts at most: a machine that was suspended is not overloaded."""
BUSY = 0.9
"""The share of the time in fan-out from which on merging begins, before anything comes late."""
LOW = 0.5
"""The part of these marks below which the load is low."""
RISE = 1.0
"""Seconds of too much load before the next level."""
FALL, LONGEST_FALL = 5.0, 60.0
"""Seconds of low load before the level below; twice as many after each level that had to rise again within ``RELAPSE``."""
RELAPSE = 30.0
LOW_PRIORITY = 0
"""The priority of the plans whose connections may be shed."""
SHED_SHARE, SHED_LEAST = 0.02, 5.0
"""Connections that are shed per second: this share of those of low priority, and no fewer than so many."""
RECONNECT_AFTER_MS = (5_000, 30_000)
"""Between these, at random, lies what those who are shed are told to wait for: they shall not come back together."""


class Level(IntEnum):
    """Each does all that the one before does."""

    CALM = 0
    MERGE_LOW = 1
    MERGE_NORMAL = 2
    SHED_LOW = 3

    @property
    def merged_below(self) -> int:
        """Views of a lower priority than this receive merged messages."""
        return min(int(self), 2)

    @property
    def interval(self) -> float:
        """Seconds between two merged messages."""
        return (0.25, 0.25, 0.5, 1.0)[self]


class Load(NamedTuple):
    """``busy`` is the share of the time in fan-out, ``late`` the event loop's mean delay and ``lag`` the hub's, in seconds."""

    busy: float
    late: float
    lag: float

    @property
    def pain(self) -> float:
        """How far what clients feel is from its mark; from 1.0 on it is too much."""
        return max(self.late / LATE, self.lag / LAG)

    @property
    def pressure(self) -> float:
        """How far the nearest mark is."""
        return max(self.pain, self.busy / BUSY)


class _Look(NamedTuple):
    at: float
    fan_out: float
    late: float
    lag: float | None


class Gauge:
    """The load over the last ``WINDOW`` seconds."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque()
        self._late = 0.0
        self._messages = 0

    def look(self, now: float, *, due: float, fan_out: float, messages: int, lag: float) -> Load:
        """The load now, when this look was due at ``due``.

        ``fan_out`` are the seconds in fan-out so far, ``messages`` those so far, ``lag`` that of the last one.
        """
        late = min(max(0.0, now - due), LONGEST_DELAY)
        self._looks.append(_Look(now, fan_out, late, lag if messages != self._messages else None))
        self._messages = messages
        self._late += late
        while self._looks[0].at < now - WINDOW and len(self._looks) > 1:
            self._late -= self._looks.popleft().late
        first = self._looks[0]
        span = now - first.at
        lags = [look.lag for look in self._looks if look.lag is not None]
        return Load(
            busy=(fan_out - first.fan_out) / span if span > 0 else 0.0,
            late=max(0.0, self._late / len(self._looks)),
            lag=min(lags, default=0.0),
        )


class Overload:
    """The level of one hub. ``now`` is a clock in seconds that does not go back."""

    def __init__(self) -> None:
        self.level = Level.CALM
        self._high_since: float | None = None
        self._low_since: float | None = None
        self._fell_at = float("-inf")
        self._fall = FALL
        self._pain = 0.0
        self._may_shed = 0.0
        self._shed_at: float | None = None

    def step(self, now: float, load: Load) -> Level:
        """The level from now on. Nobody is shed for a hub that is busy but in time."""
        self._pain = load.pain
        highest = Level.SHED_LOW if load.pain >= 1 else Level.MERGE_LOW if load.pressure >= 1 else Level.CALM
        if self.level < highest:
            self._low_since = None
            if self._high_since is None:
                self._high_since = now
            if now - self._high_since >= RISE:
                self._rise(now)
        elif load.pressure < LOW and self.level > Level.CALM:
            self._high_since = None
            if self._low_since is None:
                self._low_since = now
            if now - self._low_since >= self._fall:
                self.level = Level(self.level - 1)
                self._low_since = self._fell_at = now
        else:
            self._high_since = self._low_since = None
        if self.level is Level.CALM and now - self._fell_at > RELAPSE:
            self._fall = FALL
        return self.level

    def shed(self, now: float, low: int) -> int:
        """How many of the ``low`` connections of low priority to shed now. Call it as often as you like."""
        if self.level is not Level.SHED_LOW or self._pain < 1:
            self._shed_at = None
            return 0
        rate = max(SHED_LEAST, SHED_SHARE * low)
        if self._shed_at is None:
            self._shed_at, self._may_shed = now, 0.0
        self._may_shed = min(self._may_shed + (now - self._shed_at) * rate, rate)
        self._shed_at = now
        count = min(int(self._may_shed), low)
        self._may_shed -= count
        return count

    def _rise(self, now: float) -> None:
        if now - self._fell_at <= RELAPSE:
            self._fall = min(2 * self._fall, LONGEST_FALL)
        self.level = Level(self.level + 1)
        self._high_since = now

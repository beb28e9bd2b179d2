"""What an overloaded hub does for those who come first: merge for the others, then send some of these away. docs/limits.md."""

from __future__ import annotations

import heapq
import random

import structlog

from argus.errors import OVERLOADED, ArgusError
from streaming.connection import Connection
from streaming.hub import Hub
from streaming.overload import LOW_PRIORITY, RECONNECT_AFTER_MS, Gauge, Level, Load, Overload
from streaming.protocol import Goodbye

log = structlog.get_logger(__name__)


SHED_INTERVAL = 0.25
"""Seconds between two looks who is to go: each goes through all connections."""


class Relief:
    """One hub's. ``tick`` is called some 20 times a second."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._gauge = Gauge()
        self._overload = Overload()
        self._shed_at = float("-inf")

    @property
    def level(self) -> Level:
        """What is done at present."""
        return self._overload.level

    def tick(self, now: float, due: float) -> None:
        """Look at the load and act on it. ``now`` is the monotonic clock, ``due`` when it was to be called."""
        before, load = self.level, self.measure(now, due)
        level = self._overload.step(now, load)
        hub, counters = self._hub, self._hub.counters
        counters.busy, counters.late, counters.overload = load.busy, load.late, int(level)
        if level is not before:
            log.warning("overload", now=level.name.lower(), before=before.name.lower(), **load._asdict())
            hub.hold_back(level.merged_below, level.interval)
        if level is Level.SHED_LOW and now - self._shed_at >= SHED_INTERVAL:
            self._shed_at = now
            known = [(c.principal, c) for c in hub.connections.values() if not c.closed]
            low = [c for principal, c in known if principal is not None and principal.limits.priority == LOW_PRIORITY]
            for connection in heapq.nsmallest(self._overload.shed(now, len(low)), low, key=_turn):
                self._send_away(connection)

    def measure(self, now: float, due: float) -> Load:
        """The hub's load."""
        counters = self._hub.counters
        return self._gauge.look(now, due=due, fan_out=counters.fan_out.sum, messages=counters.batches, lag=counters.lag)

    def require_room(self, priority: int) -> None:
        """Raise OVERLOADED for a client of a plan of this priority while those like it are being sent away."""
        if self.level is Level.SHED_LOW and priority == LOW_PRIORITY:
            seconds = reconnect_after_ms() // 1000
            text = f"The service is overloaded and plans of higher priority come first; try again in {seconds} s."
            raise ArgusError(OVERLOADED, text, retry_after=seconds)

    def _send_away(self, connection: Connection) -> None:
        self._hub.counters.shed += 1
        connection.say(Goodbye(reason="overload", reconnect_after_ms=reconnect_after_ms()))
        connection.close(OVERLOADED, "overload")


def reconnect_after_ms() -> int:
    """Another time for each, so that they do not come back together."""
    return random.randint(*RECONNECT_AFTER_MS)


def _turn(connection: Connection) -> tuple[bool, float, float]:
    """First go those that are behind, the longest first; then the youngest, which have the least to lose."""
    behind_since = connection.behind_since
    return behind_since is None, behind_since or 0.0, -connection.opened

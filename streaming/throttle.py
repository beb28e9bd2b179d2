"""How many messages a connection may send: a token bucket, and an end for who does not heed it. Pure."""

from __future__ import annotations

import math
from typing import Any

from argus.errors import MESSAGE_LIMIT, RATE_LIMITED, ArgusError

BURST = 5
"""Seconds' worth of messages that may come at once, such as all subscriptions of a client that has just connected."""
PATIENCE = 10
"""Seconds' worth of messages that may be refused before the connection is closed; forgiven as the bucket fills."""
UNKNOWN = 100
"""Messages per second of a connection without a key, which has nothing to ask for but ``auth`` and ``ping``."""


class Throttle:
    """One connection's bucket. ``now`` is a clock in seconds that does not go back."""

    __slots__ = ("_at", "_refused", "_tokens")

    def __init__(self, now: float) -> None:
        self._at = now
        self._tokens = math.inf
        self._refused = 0.0

    def take(self, now: float, per_second: int) -> None:
        """Let one message through, or raise: RATE_LIMITED, and after many of these MESSAGE_LIMIT.

        ``per_second`` may be another one each time: a plan's edit counts from the next message.
        """
        gained = max(0.0, now - self._at) * per_second
        self._at = max(now, self._at)
        self._tokens = min(self._tokens + gained, float(BURST * per_second))
        self._refused = max(0.0, self._refused - gained)
        if self._tokens >= 1:
            self._tokens -= 1
            return
        self._refused += 1
        if self._refused > PATIENCE * per_second:
            raise ArgusError(MESSAGE_LIMIT, **_limit(per_second))
        retry_after = max(1, math.ceil((1 - self._tokens) / per_second))
        detail = f"A connection may send {per_second} messages per second; try again in {retry_after} s."
        raise ArgusError(RATE_LIMITED, detail, retry_after=retry_after, **_limit(per_second))


def _limit(per_second: int) -> dict[str, Any]:
    return {"parameter": "messages_per_second", "limit": per_second}

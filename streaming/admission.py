"""How many clients are let in per second: a token bucket whose last half is kept for addresses that have not had much. Pure.

After a restart or a cut of the network all clients come at once; each costs a handshake, a look at its key and a snapshot. Those
beyond the rate are told when to come again, each a little later than the one before, so that they come at the rate.

Of the bucket's two seconds, an address may take as long as it leaves there what it has had itself of late, and one second's worth
at most. So one address alone gets the whole rate; but whoever comes from another finds a second's worth to take from, and of
several that crowd, those get more who had less.
"""

from __future__ import annotations

import math

BURST = 2.0
"""Seconds' worth that may come in at once."""
SHARE = 0.25
"""The part of the rate at which what an address has had is forgotten."""
LONGEST = 30
"""Seconds that a client is told to wait at most."""
ADDRESSES = 10_000
"""Addresses that are remembered; beyond them, those that came least recently are forgotten."""


class Admission:
    """One process' door. ``now`` is a clock in seconds that does not go back."""

    def __init__(self, per_second: float, now: float) -> None:
        self._rate = per_second
        self._at = now
        self._tokens = self._capacity = max(1.0, BURST * per_second)
        self._turned_away = 0.0
        self._had: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._had)

    def admit(self, address: str, now: float) -> int:
        """0: let it in. Else the seconds after which to come again."""
        gained = max(0.0, now - self._at) * self._rate
        self._at = max(now, self._at)
        self._tokens = min(self._capacity, self._tokens + gained)
        self._turned_away = max(0.0, self._turned_away - gained)
        had, since = self._had.pop(address, (0.0, self._at))
        had = max(0.0, had - (self._at - since) * self._rate * SHARE)
        kept_for_others = min(had, self._capacity / 2)
        admitted = self._tokens - 1 >= kept_for_others or self._tokens >= self._capacity
        if admitted:
            self._tokens -= 1
            had = min(had + 1, self._capacity)
        if had:
            self._had[address] = (had, self._at)
            if len(self._had) > ADDRESSES:
                del self._had[next(iter(self._had))]
        if admitted:
            return 0
        self._turned_away += 1
        # As many as were turned away come before this one; nobody's turn is further away than is worth waiting for.
        wait = min(float(LONGEST), self._turned_away / self._rate)
        self._turned_away = min(self._turned_away, LONGEST * self._rate)
        return max(1, math.ceil(wait))

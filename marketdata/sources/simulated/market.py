"""All instruments of the simulated market at one time: the one place that holds and moves their tapes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import date

from marketdata.calendar import midnight
from marketdata.sources.simulated import snapshot
from marketdata.sources.simulated.days import trading_day_at
from marketdata.sources.simulated.instruments import Listing
from marketdata.sources.simulated.tape import Tape
from marketdata.types import Quote

CHUNK = 256
"""Instruments between two looks at whether the caller still waits."""


class Interrupted(Exception):
    """The caller no longer waits. What has been done is kept; the next call goes on from there."""


class Market:
    """Moves forward only: where the clock goes back it stands still until the time is reached again. Thread-safe."""

    def __init__(self, listings: tuple[Listing, ...], seed: int) -> None:
        self.listings = listings
        self.index = {listing.symbol: position for position, listing in enumerate(listings)}
        self._seed = seed
        self._lock = threading.Lock()
        self._now = 0
        self._day: date | None = None
        self._tapes: list[Tape] = []
        self._quotes: list[Quote | None] = [None] * len(listings)
        self._shown = [0] * len(listings)

    def positions(self, symbols: Iterable[str] | None) -> list[int]:
        """Where the instruments stand, unknown and repeated symbols left out; all of them for None."""
        if symbols is None:
            return list(range(len(self.listings)))
        return [self.index[symbol] for symbol in dict.fromkeys(symbols) if symbol in self.index]

    def at(self, now: int, positions: list[int], given_up: Callable[[], bool], seen: dict[int, int] | None = None) -> list[Quote]:
        """The quotes at a time (ms). With ``seen`` (position -> events; updated) only those that have changed since.

        Raises ``Interrupted`` as soon as ``given_up`` says so.
        """
        while not self._lock.acquire(timeout=0.02):
            if given_up():
                raise Interrupted
        try:
            self._forward(now, given_up)
            if seen is not None:
                tapes = self._tapes
                positions = [position for position in positions if tapes[position].events != seen.get(position)]
                seen.update((position, tapes[position].events) for position in positions)
            return [self._quote(position) for position in positions]
        finally:
            self._lock.release()

    def _forward(self, now: int, given_up: Callable[[], bool]) -> None:
        self._now = now = max(now, self._now)
        day = trading_day_at(now)
        if day != self._day:
            self._begin(day, given_up)
        second = (now - midnight(day)) // 1000
        for start in range(0, len(self._tapes), CHUNK):
            if given_up():
                raise Interrupted
            for tape in self._tapes[start : start + CHUNK]:
                if tape.due <= second:
                    tape.run(second)

    def _begin(self, day: date, given_up: Callable[[], bool]) -> None:
        tapes: list[Tape] = []
        for position, listing in enumerate(self.listings):
            if position % CHUNK == 0 and given_up():
                raise Interrupted
            tapes.append(Tape(listing, self._seed, day, self._tapes[position].events if self._tapes else 0))
        self._tapes, self._day = tapes, day

    def _quote(self, position: int) -> Quote:
        tape, known = self._tapes[position], self._quotes[position]
        if known is None or self._shown[position] != tape.events:
            known = self._quotes[position] = snapshot.quote(tape)
            self._shown[position] = tape.events
        return known

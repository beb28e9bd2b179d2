"""From parsed trades to what is new: each one once, as an event."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from marketdata.calendar import DAY
from marketdata.events import Event
from marketdata.types import DataType, Trade

REMEMBERED = 250_000
"""Trades after which the ones before are forgotten in turn: at most twice as many are remembered."""
BEIJING = 8 * 3_600_000
"""Milliseconds by which the day begins earlier than in UTC."""

_encode = msgspec.json.Encoder().encode


class Trades:
    """The trades that a feed has seen lately, by symbol, day and index. Not thread-safe: one owner."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._count = 0
        self._new: dict[tuple[str, int], set[int]] = {}
        self._old: dict[tuple[str, int], set[int]] = {}

    def take(self, trades: Iterable[Trade]) -> list[Event]:
        """Those that are new, in order."""
        found = []
        for trade in trades:
            key, index = (trade.symbol, (trade.time + BEIJING) // DAY), trade.index
            seen = self._new.get(key)
            if seen is None:
                seen = self._new[key] = set()
            if index in seen or index in self._old.get(key, ()):
                continue
            seen.add(index)
            found.append(Event(DataType.TRADE, trade.symbol, _encode(trade)))
            self._count += 1
            if self._count >= self._remembered:
                self._old, self._new, self._count = self._new, {}, 0
        return found

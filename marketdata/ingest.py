"""From parsed quotes to what is new: duplicates and late quotes taken out, each quote encoded once.

Rules, per symbol:

* a quote that equals the last one in every field is a duplicate (pushes and polls bring the same snapshot twice);
* a quote whose exchange time lies before the last one's, or whose volume is smaller at the same time, is late;
* three late quotes in a row, each newer than the one before, mean that the source's clock was set back (or that one quote
  from the future had got in): the third is taken and counted as a clock reset.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from marketdata.types import Number, Quote

CLOCK_RESET_AFTER = 3

Group = dict[str, bytes]
"""Symbol -> the quote's JSON object without its ``seq``. A symbol stands once in a group."""


@dataclass(slots=True)
class Accepted:
    """What one take brought. ``groups`` keep the order of the quotes: a symbol's second quote opens a new group.
    ``quotes`` are those that were accepted, in order."""

    groups: list[Group] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)
    accepted: int = 0
    duplicates: int = 0
    late: int = 0
    clock_resets: int = 0


class Ingest:
    """The last accepted quote of every symbol of a feed, and the rules above. Not thread-safe: one owner."""

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._last: dict[str, tuple[int, Number | None, bytes]] = {}
        self._late: dict[str, tuple[int, int]] = {}

    def take(self, quotes: Iterable[Quote]) -> Accepted:
        """Sort out a sequence of quotes in the order of their arrival."""
        result = Accepted()
        group: Group = {}
        last_of, late_of, encode = self._last, self._late, self._encode
        for quote in quotes:
            symbol = quote.symbol
            body = encode(quote)
            last = last_of.get(symbol)
            if last is not None:
                if body == last[2]:
                    result.duplicates += 1
                    continue
                if is_late(quote.time, quote.volume, last[0], last[1]):
                    if not self._is_reset(quote):
                        result.late += 1
                        continue
                    result.clock_resets += 1
            late_of.pop(symbol, None)
            last_of[symbol] = (quote.time, quote.volume, body)
            if symbol in group:
                result.groups.append(group)
                group = {}
            group[symbol] = body
            result.quotes.append(quote)
            result.accepted += 1
        if group:
            result.groups.append(group)
        return result

    def ahead(self, quotes: Iterable[Quote]) -> list[Quote]:
        """Those that are newer than the last one by time or volume. Of two that differ in neither, one asked for and one pushed,
        nobody can say which came first."""
        found = []
        for quote in quotes:
            last = self._last.get(quote.symbol)
            if last is None or is_late(last[0], last[1], quote.time, quote.volume):
                found.append(quote)
        return found

    def _is_reset(self, quote: Quote) -> bool:
        count, time = self._late.get(quote.symbol, (0, 0))
        if quote.time <= time:
            return False
        self._late[quote.symbol] = (count + 1, quote.time)
        return count + 1 >= CLOCK_RESET_AFTER


def is_late(time: int, volume: Number | None, last_time: int, last_volume: Number | None) -> bool:
    """Whether a quote's time lies before the last one's, or its volume is smaller at the same time."""
    if time != last_time:
        return time < last_time
    return volume is not None and last_volume is not None and volume < last_volume

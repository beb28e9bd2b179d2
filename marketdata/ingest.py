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

    def symbols(self) -> list[str]:
        """Every symbol that a quote was accepted of, in the order of the first one."""
        return list(self._last)

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
                if quote.time < last[0] or (quote.time == last[0] and _smaller(quote.volume, last[1])):
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

    def _is_reset(self, quote: Quote) -> bool:
        count, time = self._late.get(quote.symbol, (0, 0))
        if quote.time <= time:
            return False
        self._late[quote.symbol] = (count + 1, quote.time)
        return count + 1 >= CLOCK_RESET_AFTER


def _smaller(volume: Number | None, last: Number | None) -> bool:
    return volume is not None and last is not None and volume < last

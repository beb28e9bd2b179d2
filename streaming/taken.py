"""What a message says of events and of forming bars, as far as somebody here wants it: others have wanted the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from marketdata.batch import Bars as Forms
from marketdata.batch import Events
from marketdata.klines import KLINE_OF
from marketdata.types import KLINES, DataType
from streaming.bars import Bars
from streaming.lanes import EventTables
from streaming.rows import Table

First = Mapping[DataType, Mapping[str, bytes | None]]
"""Data type -> the symbols of which no bar was known, each with the last one that has closed: what is now known of them is the
snapshot that their subscribers wait for."""


class Taken(NamedTuple):
    """What was taken of a message: events, forming bars, and apart from both what is known for the first time."""

    events: EventTables
    bars: Mapping[DataType, Table]
    first: First

    def happened(self) -> EventTables:
        """The events, and after them the bars that have closed of the symbols of which none was known."""
        result = {
            data_type: {symbol: list(pieces) for symbol, pieces in table.items()} for data_type, table in self.events.items()
        }
        for data_type, ends in self.first.items():
            for symbol, fragment in ends.items():
                if fragment is not None:
                    result.setdefault(data_type, {}).setdefault(symbol, []).append(fragment)
        return result

    def later(self) -> Taken:
        """The same where all that has happened is told later."""
        return Taken({}, self.bars, {data_type: dict.fromkeys(ends) for data_type, ends in self.first.items()})


def take(
    known: Bars,
    wanting: Callable[[DataType, Collection[str]], set[str]],
    happening: Events,
    forms: Forms,
    *,
    withheld: bool = False,
) -> Taken:
    """Take what is wanted of a message, and note its bars among those that are ``known``. Of events that are ``withheld`` all, as
    somebody may yet want them. ``wanting``: those of a data type's symbols that somebody wants."""
    events: dict[DataType, dict[str, list[bytes]]] = {}
    bars: dict[DataType, Table] = {}
    forming = {KLINE_OF[period]: table for period, table in forms.items()}
    first: dict[DataType, dict[str, bytes | None]] = {}
    for data_type in {**happening, **forming}:
        happened = happening.get(data_type, ((), ()))
        formed = forming.get(data_type, ((), ()))
        symbols = {*happened[0], *formed[0]}
        wanted = wanting(data_type, symbols)
        if data_type in KLINES:
            # What is known stays as it is, though whoever wanted it is away for a while.
            wanted |= known.known(data_type) & symbols
        if withheld:
            for symbol, fragment in zip(*happened, strict=True):
                if symbol not in wanted:
                    events.setdefault(data_type, {}).setdefault(symbol, []).append(fragment)
        if not wanted:
            continue
        pairs = [pair for pair in zip(*happened, strict=True) if pair[0] in wanted]
        new: set[str] = set()
        if data_type in KLINES:
            new = wanted - known.known(data_type)
            pairs = known.close(data_type, pairs)
            table = {symbol: fragment for symbol, fragment in zip(*formed, strict=True) if symbol in wanted}
            known.form(data_type, table)
            if new:
                first[data_type] = dict.fromkeys(new)
                table = {symbol: fragment for symbol, fragment in table.items() if symbol not in new}
            if table:
                bars[data_type] = table
        for symbol, fragment in pairs:
            if symbol in new:
                fragment, first[data_type][symbol] = first[data_type][symbol], fragment
            if fragment is not None:
                events.setdefault(data_type, {}).setdefault(symbol, []).append(fragment)
    return Taken(events, bars, first)

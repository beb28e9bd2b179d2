"""What a connection receives: the union of its selections, each (data type, symbol) at its fastest frequency for each filter."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from marketdata.types import DataType
from streaming.filters import Filter
from streaming.selection import Frequency, Selection


class Symbols(NamedTuple):
    """A set of symbols: ``names``, or everything there is ``but`` some where ``names`` is None."""

    names: frozenset[str] | None
    but: frozenset[str] = frozenset()

    def __contains__(self, symbol: object) -> bool:
        return symbol not in self.but if self.names is None else symbol in self.names

    def among(self, symbols: Collection[str]) -> set[str]:
        """Those of ``symbols`` that are in here. Fast where ``symbols`` is a set or the keys of a dictionary."""
        if self.names is None:
            return set(symbols) - self.but
        if isinstance(symbols, set):
            return symbols & self.names
        if len(self.names) < len(symbols):
            return {symbol for symbol in self.names if symbol in symbols}
        return {symbol for symbol in symbols if symbol in self.names}


Coverage = Mapping[DataType, Symbols]
"""What is covered at one frequency, through one filter."""

Pace = tuple[Frequency, Filter | None]


class Changes:
    """Which symbols changed, by data type, in one message: small enough to be kept after the message is gone."""

    __slots__ = ("_keys", "_sets")

    def __init__(self, keys: Mapping[DataType, Iterable[str]]) -> None:
        self._keys = keys
        self._sets: dict[DataType, frozenset[str]] = {}

    def among(self, data_type: DataType, symbols: Symbols) -> set[str]:
        """Those of ``symbols`` that changed."""
        changed = self._sets.get(data_type)
        if changed is None:
            changed = self._sets[data_type] = frozenset(self._keys.get(data_type, ()))
        return symbols.among(changed)


def cover(selections: Iterable[Selection]) -> dict[Pace, dict[DataType, Symbols]]:
    """Each (data type, symbol) of the selections once, at its fastest frequency; and once more for each filter that brings it
    faster than it comes unfiltered."""
    chosen = list(selections)
    filters = dict.fromkeys(selection.filter for selection in chosen if selection.filter is not None)
    result: dict[Pace, dict[DataType, Symbols]] = {}
    for data_type in DataType:
        wanted = [selection for selection in chosen if data_type in selection.data_types]
        if not wanted:
            continue
        unfiltered = _fastest([selection for selection in wanted if selection.filter is None], {})
        for frequency, symbols in unfiltered.items():
            result.setdefault((frequency, None), {})[data_type] = symbols
        for filter in filters:
            for frequency, symbols in _fastest([s for s in wanted if s.filter == filter], unfiltered).items():
                result.setdefault((frequency, filter), {})[data_type] = symbols
    return result


def _fastest(selections: list[Selection], others: Mapping[Frequency, Symbols]) -> dict[Frequency, Symbols]:
    """The symbols of each frequency that neither a faster selection has, nor the others at the same or a faster one."""
    found: dict[Frequency, Symbols] = {}
    taken: frozenset[str] = frozenset()
    for frequency in Frequency:
        if other := others.get(frequency):
            if other.names is None:
                # With what is taken already, it is all that there is.
                break
            taken |= other.names
        wanted = [selection.symbols for selection in selections if selection.frequency is frequency]
        if not wanted:
            continue
        if any(symbols is None for symbols in wanted):
            found[frequency] = Symbols(None, taken)
            break
        names = _union([symbols for symbols in wanted if symbols is not None])
        if taken:
            names -= taken
        if names:
            found[frequency] = Symbols(names)
            taken = taken | names if taken else names
    return found


def _union(sets: list[frozenset[str]]) -> frozenset[str]:
    return sets[0] if len(sets) == 1 else frozenset().union(*sets)


def merged(coverages: Iterable[Coverage], data_type: DataType) -> Symbols | None:
    """All symbols of a data type at whatever frequency; None where there is none."""
    parts = [coverage[data_type] for coverage in coverages if data_type in coverage]
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    names = _union([part.names for part in parts if part.names is not None])
    for part in parts:
        if part.names is None:
            return Symbols(None, part.but - names)
    return Symbols(names)

"""Connections that receive the same share one view; an index finds the views that a changed symbol concerns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, cast

from marketdata.types import DataType
from streaming.codecs import Codec
from streaming.coverage import Coverage, Pace, Symbols
from streaming.filters import Filter
from streaming.frame import Frame
from streaming.rows import Getter, Row, Rows, Tables
from streaming.selection import Frequency

ViewKey = tuple[int, Codec, Frequency, Filter | None, frozenset[tuple[DataType, Symbols]], int]
"""The last is the slice: at a tick not all who get the same are written to at once."""

PURE_EVENTS = frozenset({DataType.STATUS, DataType.TRADE})
"""The data types without a state that is sent as it changes."""


class Receiver(Protocol):
    """Whoever is in a view."""

    def deliver(self, frame: Frame) -> bool: ...


def view_key(priority: int, codec: Codec, pace: Pace, coverage: Coverage, part: int = 0) -> ViewKey:
    """What makes two connections' views the same. ``part``: their slice."""
    return priority, codec, *pace, frozenset(coverage.items()), part


class View:
    """The connections with one coverage at one frequency, one filter, one priority and one codec: all of them, or where there are
    ticks a slice. ``changed`` waits for the next tick."""

    __slots__ = ("_getters", "changed", "codec", "coverage", "filter", "frequency", "key", "priority", "receivers")

    def __init__(self, key: ViewKey) -> None:
        self.key = key
        self.priority, self.codec, self.frequency, self.filter, items, _ = key
        self.coverage: Coverage = dict(items)
        self.receivers: dict[Receiver, None] = {}
        self.changed: dict[DataType, set[str]] = {}
        self._getters: list[tuple[DataType, Getter]] = []

    @property
    def realtime(self) -> bool:
        """Whether every change is sent as it comes."""
        return self.frequency is Frequency.REALTIME

    @property
    def has_states(self) -> bool:
        """Whether it covers more than events alone."""
        return any(data_type not in PURE_EVENTS for data_type in self.coverage)

    def take_places(self, rows: Rows) -> None:
        """Be ready for ``pick``."""
        self._getters = [(t, rows.getter(names)) for t, (names, _) in self.coverage.items() if names is not None]

    def give_back_places(self, rows: Rows) -> None:
        """Have done with ``pick``."""
        for names, _ in self.coverage.values():
            if names is not None:
                rows.release(names)

    def pick(self, rows: Mapping[DataType, Row], tables: Tables) -> Sequence[bytes]:
        """The fragments of a message that changes much of what there is."""
        pieces: Sequence[bytes | None] = ()
        for data_type, getter in self._getters:
            if row := rows.get(data_type):
                picked = getter(row.cells) if row.complete else list(filter(None, getter(row.cells)))
                pieces = [*pieces, *picked] if pieces else picked
        if len(self._getters) < len(self.coverage):
            for data_type, (names, but) in self.coverage.items():
                if names is None and (table := tables.get(data_type)):
                    picked = [piece for symbol, piece in table.items() if symbol not in but] if but else list(table.values())
                    pieces = [*pieces, *picked] if pieces else picked
        return cast(Sequence[bytes], pieces)

    def note(self, tables: Mapping[DataType, Collection[str]]) -> None:
        """Remember for the next tick what changed."""
        for data_type, symbols in self.coverage.items():
            table = tables.get(data_type)
            noted = self.changed.get(data_type)
            # Of a market of which all has changed there is nothing more to note.
            if not table or (noted and symbols.names is not None and len(noted) == len(symbols.names)):
                continue
            if changed := symbols.among(table):
                self.changed.setdefault(data_type, set()).update(changed)


class Index:
    """Data type -> symbol -> the views that name it, and the views that want everything."""

    def __init__(self) -> None:
        self._named: dict[DataType, dict[str, set[View]]] = {}
        self._whole: dict[DataType, set[View]] = {}

    def __len__(self) -> int:
        """The symbols that are named, of the data type of which there are most."""
        return max(map(len, self._named.values()), default=0)

    def add(self, view: View) -> None:
        """Find the view from now on."""
        for data_type, symbols in view.coverage.items():
            if symbols.names is None:
                self._whole.setdefault(data_type, set()).add(view)
                continue
            named = self._named.setdefault(data_type, {})
            for symbol in symbols.names:
                if symbol in named:
                    named[symbol].add(view)
                else:
                    named[symbol] = {view}

    def remove(self, view: View) -> None:
        """Find the view no more."""
        for data_type, symbols in view.coverage.items():
            if symbols.names is None:
                self._whole[data_type].discard(view)
                continue
            named = self._named[data_type]
            for symbol in symbols.names:
                named[symbol].discard(view)
                if not named[symbol]:
                    del named[symbol]

    def covered(self, data_type: DataType) -> frozenset[str] | None:
        """All symbols of a data type that somebody wants; None for everything."""
        return None if self._whole.get(data_type) else frozenset(self._named.get(data_type, ()))

    def wanted(self, data_type: DataType, symbols: Collection[str]) -> Collection[str]:
        """Those of ``symbols`` whose ``data_type`` somebody wants."""
        if self._whole.get(data_type):
            return symbols
        named = self._named.get(data_type)
        return [symbol for symbol in symbols if symbol in named] if named else ()

    def match(self, tables: Tables) -> dict[View, list[bytes]]:
        """The fragments for each view that a message with few symbols concerns."""
        found: defaultdict[View, list[bytes]] = defaultdict(list)
        for data_type, table in tables.items():
            named = self._named.get(data_type, {})
            for symbol, piece in table.items():
                for view in named.get(symbol, ()):
                    found[view].append(piece)
            for view in self._whole.get(data_type, ()):
                but = view.coverage[data_type].but
                if pieces := [piece for symbol, piece in table.items() if symbol not in but]:
                    found[view] += pieces
        return found

    def happened(self, events: Mapping[DataType, Mapping[str, list[bytes]]]) -> dict[View, list[bytes]]:
        """The events for each view that they concern."""
        found: defaultdict[View, list[bytes]] = defaultdict(list)
        for data_type, table in events.items():
            named = self._named.get(data_type, {})
            for symbol, pieces in table.items():
                for view in named.get(symbol, ()):
                    found[view] += pieces
            for view in self._whole.get(data_type, ()):
                but = view.coverage[data_type].but
                if chosen := [piece for symbol, pieces in table.items() if symbol not in but for piece in pieces]:
                    found[view] += chosen
        return found

    def touched(self, tables: Mapping[DataType, Iterable[str]]) -> set[View]:
        """The views that a message may concern."""
        found: set[View] = set()
        for data_type, table in tables.items():
            found |= self._whole.get(data_type, set())
            if named := self._named.get(data_type):
                found.update(*(named[symbol] for symbol in table if symbol in named))
        return found

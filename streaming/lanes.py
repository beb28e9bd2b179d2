"""The views of one priority that share a codec: from what a message says to their frames."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sized
from types import MappingProxyType
from typing import NamedTuple

from marketdata.types import DataType
from streaming.codecs import Codec, Head
from streaming.converted import Converted
from streaming.coverage import Changes
from streaming.filtered import FilteredViews, Keys
from streaming.frame import Events, Frame
from streaming.rows import Rows, Tables
from streaming.views import Index, View

EventTables = Mapping[DataType, Mapping[str, list[bytes]]]
"""Data type -> symbol -> what happened to it, in order."""


class Outgoing(NamedTuple):
    """What a message says. ``tables`` are the states that it changed; ``head.more``: others of it come later; ``chosen``: what of
    the states passes the filter of each view that has one."""

    head: Head
    tables: Tables
    changes: Changes
    events: EventTables
    chosen: Mapping[Lane, Mapping[View, Keys]] = MappingProxyType({})


class Lane:
    """A codec's views of one priority, the fast and the slow ones."""

    def __init__(self, codec: Codec, converted: Converted) -> None:
        self._codec = codec
        self._converted = converted
        self._realtime: dict[View, None] = {}
        self._rows = Rows()
        self._index = Index()
        self._slow: dict[View, None] = {}
        self._slow_index = Index()
        self.filtered = FilteredViews()

    def add(self, view: View) -> None:
        """Serve a view from now on."""
        if view.filter is not None:
            self.filtered.add(view)
        elif view.realtime:
            self._realtime[view] = None
            self._index.add(view)
            view.take_places(self._rows)
        else:
            self._slow[view] = None
            self._slow_index.add(view)

    def remove(self, view: View) -> None:
        """Serve it no more."""
        if view.filter is not None:
            self.filtered.remove(view)
        elif view.realtime:
            del self._realtime[view]
            self._index.remove(view)
            view.give_back_places(self._rows)
        else:
            del self._slow[view]
            self._slow_index.remove(view)

    def wanted(self, data_type: DataType, symbols: Collection[str]) -> Collection[str]:
        """Those of ``symbols`` whose ``data_type`` somebody wants without a filter."""
        fast, slow = self._index.wanted(data_type, symbols), self._slow_index.wanted(data_type, symbols)
        return {*fast, *slow} if fast and slow else fast or slow

    def covered(self, data_type: DataType) -> frozenset[str] | None:
        """All symbols of a data type that somebody wants without a filter; None for everything."""
        fast, slow = self._index.covered(data_type), self._slow_index.covered(data_type)
        return None if fast is None or slow is None else fast | slow

    def touched(self, tables: Mapping[DataType, Iterable[str]]) -> Iterable[View]:
        """All views without a filter, fast or slow, that a message may concern."""
        return self._index.touched(tables) | self._slow_index.touched(tables)

    def frames(self, message: Outgoing) -> Iterator[tuple[View, Frame]]:
        """The frame of each view that the message concerns now; the slow ones note what changed."""
        codec = self._codec
        head, changes = message.head, message.changes
        chosen = message.chosen.get(self, {})
        tables, events = self._written(message.tables, message.events, chosen)
        begin = codec.head(head)
        happened = self._index.happened(events) if events else {}
        for view, pieces in self._changed(tables):
            view_events = happened.pop(view, None) if happened else None
            if view_events is None:
                yield view, codec.frame(begin, pieces, changes, view.coverage)
            else:
                # A bar that closes comes before the one that forms next.
                frame = codec.frame(begin, [*view_events, *pieces], changes, view.coverage)
                frame.events = Events(codec, head, view_events)
                yield view, frame
        for view, pieces in happened.items():
            yield view, Events(codec, head, pieces).frame()
        for view, keys in chosen.items():
            if pieces := [piece for t, symbols in keys.items() for piece in map(tables[t].get, symbols) if piece is not None]:
                yield view, codec.frame(begin, pieces, Changes(keys), view.coverage)
        if tables:
            for view in self._slow if _is_sweep(tables, self._slow_index) else self._slow_index.touched(tables):
                view.note(tables)
        if events:
            for view, pieces in self._slow_index.happened(events).items():
                # What else has changed waits for the view's tick.
                yield view, Events(codec, head._replace(more=True) if view.has_states else head, pieces).frame()

    def _written(self, tables: Tables, events: EventTables, chosen: Mapping[View, Keys]) -> tuple[Tables, EventTables]:
        if self._codec.plain:
            return tables, events
        converted = self._converted
        passing = {t: {symbol for keys in chosen.values() for symbol in keys.get(t, ())} for t in tables} if chosen else {}
        return (
            {t: converted.table(t, table, {*self.wanted(t, table.keys()), *passing.get(t, ())}) for t, table in tables.items()},
            {t: converted.events(t, table, self.wanted(t, table.keys())) for t, table in events.items()},
        )

    def _changed(self, tables: Tables) -> Iterable[tuple[View, list[bytes] | tuple[bytes, ...]]]:
        # A sweep looks at every view, a small message at the views of its symbols (measured: even at half of all symbols).
        if tables and _is_sweep(tables, self._rows):
            rows = self._rows.lay_out(tables)
            return [(view, pieces) for view in self._realtime if (pieces := view.pick(rows, tables))]  # type: ignore[misc]
        return self._index.match(tables).items()


def _is_sweep(tables: Tables, named: Sized) -> bool:
    """Whether a message says so much that most of those who name these symbols are concerned."""
    return 2 * max(map(len, tables.values())) >= len(named)

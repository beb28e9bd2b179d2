"""Views with a filter: what of a message is for each of them, each distinct filter being asked once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from marketdata.types import DataType
from streaming.codecs import Codec
from streaming.coverage import Symbols
from streaming.filters import FILTERED, Filter, Filters, Numbers
from streaming.frame import Frame
from streaming.newest import Newest
from streaming.rows import Table
from streaming.views import Index, View

Keys = Mapping[DataType, set[str]]
Passing = Mapping[Filter, set[str]]
"""Filter -> the symbols that pass it."""


class FilteredViews:
    """The views of a lane that have a filter."""

    def __init__(self) -> None:
        self._realtime: dict[View, None] = {}
        self._index = Index()
        self._slow_index = Index()

    def add(self, view: View) -> None:
        """Serve a view from now on."""
        if view.realtime:
            self._realtime[view] = None
            self._index.add(view)
        else:
            self._slow_index.add(view)

    def remove(self, view: View) -> None:
        """Serve it no more."""
        if view.realtime:
            del self._realtime[view]
            self._index.remove(view)
        else:
            self._slow_index.remove(view)

    def fast(self, symbols: Collection[str]) -> Iterable[View]:
        """The views in real time that may cover some of these symbols."""
        # As with lanes: a sweep looks at every view, a small message at the views of its symbols.
        if not self._realtime or 2 * len(symbols) >= len(self._index):
            return self._realtime
        return self._index.touched(dict.fromkeys(FILTERED, symbols))

    def slow(self, symbols: Collection[str]) -> Iterable[View]:
        """The slow views that cover some of these symbols."""
        return self._slow_index.touched(dict.fromkeys(FILTERED, symbols))

    def choose(self, passing: Passing) -> dict[View, Keys]:
        """What of this is for which view in real time."""
        chosen: dict[View, Keys] = {}
        for view in self.fast(set().union(*passing.values())):
            symbols = passing.get(filter_of(view), ())
            if symbols and (keys := {t: found for t, covered in view.coverage.items() if (found := covered.among(symbols))}):
                chosen[view] = keys
        return chosen


def decide(filters: Filters, lanes: Iterable[FilteredViews], quotes: Table) -> Passing:
    """What of a message's quotes passes the filters of whoever covers them. The slow views note it for their ticks."""
    fast: defaultdict[Filter, set[Symbols]] = defaultdict(set)
    slow: defaultdict[Filter, list[View]] = defaultdict(list)
    for lane in lanes:
        for view in lane.fast(quotes):
            fast[filter_of(view)].update(view.coverage.values())
        for view in lane.slow(quotes):
            slow[filter_of(view)].append(view)
            fast[filter_of(view)].update(view.coverage.values())
    passing = {}
    everything: list[Numbers] | None = None
    for filter, coverages in fast.items():
        if sum(len(quotes if covered.names is None else covered.names) for covered in coverages) < len(quotes):
            rows = filters.read(set[str]().union(*(covered.among(quotes) for covered in coverages)))
        else:
            everything = rows = filters.read(quotes) if everything is None else everything
        if found := filters.passing(filter, rows):
            passing[filter] = found
            for view in slow[filter]:
                view.note(dict.fromkeys(FILTERED, found))
    filters.note(quotes)
    return passing


def admitted(filters: Filters, filter: Filter | None, keys: Keys) -> Keys:
    """What of this is as a view's filter wants it at present."""
    return keys if filter is None else {t: filters.admitted(filter, symbols) for t, symbols in keys.items()}


class Admitted:
    """The newest of what a connection is owed, as far as its views let it through now."""

    def __init__(self, newest: Newest, views: Sequence[View]) -> None:
        self._newest = newest
        self._views = views

    def frames(self, keys: Keys, codec: Codec, priority: int, **marks: Any) -> list[Frame]:
        """See ``Newest``."""
        return self._newest.frames({t: self._admitted(t, symbols) for t, symbols in keys.items()}, codec, priority, **marks)

    def _admitted(self, data_type: DataType, symbols: set[str]) -> set[str]:
        found: set[str] = set()
        for view in self._views:
            if (covered := view.coverage.get(data_type)) is not None:
                part = covered.among(symbols)
                found |= part if view.filter is None else self._newest.filters.admitted(view.filter, part)
        return found


def filter_of(view: View) -> Filter:
    """The filter of a view that has one."""
    assert view.filter is not None
    return view.filter

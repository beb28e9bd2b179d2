"""Who gets what of a hub: its clients' views, shared by those who get the same, and the ticks of the slower ones."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator

from marketdata.klines import Wanted
from marketdata.types import KLINES, DataType
from streaming.codecs import Codec
from streaming.coverage import Coverage, Pace, merged
from streaming.lanes import Lane
from streaming.newest import Newest
from streaming.selection import Frequency
from streaming.views import Receiver, View, ViewKey, view_key

PHASES = 0.618034
"""The golden ratio spreads the ticks of any number of views evenly."""
SLICES = 20
"""Parts of those who get the same at one frequency, each with a tick of its own: as many as there are ticks of the hub in 1 s."""
SLICE = 50
"""Receivers from which on the next slice is begun: each builds its frame anew."""

ON_DEMAND = frozenset({DataType.TRADE, *KLINES})
"""The data types that feeds bring only where somebody wants them."""


class Audience:
    """The views of one hub. ``lanes``: priority and codec -> their views; those of a higher priority come first. ``demand``
    counts up whenever what ``wanted`` says may have changed."""

    def __init__(self, newest: Newest) -> None:
        self.lanes: dict[tuple[int, Codec], Lane] = {}
        self.demand = 0
        self._newest = newest
        self._views: dict[ViewKey, View] = {}
        self._ticks: list[tuple[float, int, View]] = []
        self._made = 0
        self._lingering: deque[tuple[float, Wanted]] = deque()

    def __len__(self) -> int:
        """How many views there are."""
        return len(self._views)

    def join(self, receiver: Receiver, priority: int, codec: Codec, pace: Pace, coverage: Coverage) -> View:
        """Have somebody get this from now on."""
        key = view_key(priority, codec, pace, coverage)
        if pace[0] is not Frequency.REALTIME:
            key = self._slice(key)
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View(key)
            self._lane(priority, codec).add(view)
            if view.filter is not None:
                self._newest.filters.take(view.filter)
            self._note_demand(view)
            if not view.realtime:
                self._made += 1
                phase = (self._made * PHASES) % 1
                heapq.heappush(self._ticks, (time.monotonic() + view.frequency.seconds * (1 - phase), self._made, view))
        view.receivers[receiver] = None
        return view

    def leave(self, view: View, receiver: Receiver) -> None:
        """They get it no more."""
        view.receivers.pop(receiver, None)
        if not view.receivers:
            del self._views[view.key]
            self.lanes[view.priority, view.codec].remove(view)
            if view.filter is not None:
                self._newest.filters.release(view.filter)
            self._note_demand(view)

    def _slice(self, first: ViewKey) -> ViewKey:
        """The first slice with room, or the emptiest."""
        keys = [(*first[:-1], part) for part in range(SLICES)]
        sizes = [len(view.receivers) if (view := self._views.get(key)) else 0 for key in keys]
        return next((key for key, size in zip(keys, sizes, strict=True) if size < SLICE), keys[sizes.index(min(sizes))])

    def _lane(self, priority: int, codec: Codec) -> Lane:
        lane = self.lanes.get((priority, codec))
        if lane is None:
            lane = Lane(codec, self._newest.converted(codec))
            lanes = {**self.lanes, (priority, codec): lane}
            self.lanes = dict(sorted(lanes.items(), key=lambda item: -item[0][0]))
        return lane

    def _note_demand(self, view: View) -> None:
        if not ON_DEMAND.isdisjoint(view.coverage):
            self.demand += 1

    def everybody(self) -> list[Lane]:
        """All lanes."""
        return list(self.lanes.values())

    def not_below(self, priority: int) -> list[Lane]:
        """The lanes of this priority and of higher ones."""
        return [lane for (own, _), lane in self.lanes.items() if own >= priority]

    def below(self, priority: int) -> list[Lane]:
        """The lanes of lower priorities."""
        return [lane for (own, _), lane in self.lanes.items() if own < priority]

    def wanting(self, data_type: DataType, symbols: Collection[str], lanes: Iterable[Lane] | None = None) -> set[str]:
        """Those of ``symbols`` whose ``data_type`` somebody wants without a filter, in some lanes or in any."""
        lanes = self.lanes.values() if lanes is None else lanes
        return {symbol for lane in lanes for symbol in lane.wanted(data_type, symbols)}

    def due(self, now: float) -> Iterator[View]:
        """The slower views whose tick has come (monotonic)."""
        while self._ticks and self._ticks[0][0] <= now:
            due, number, view = heapq.heappop(self._ticks)
            if view.receivers:
                yield view
                period = view.frequency.seconds
                heapq.heappush(self._ticks, (due + period * ((now - due) // period + 1), number, view))

    def linger(self, coverages: Collection[Coverage], until: float) -> None:
        """Whoever got this may come back until a moment (monotonic): what of it is on demand stays wanted."""
        wanted: dict[DataType, frozenset[str] | None] = {}
        for data_type in ON_DEMAND:
            if (symbols := merged(coverages, data_type)) is not None:
                wanted[data_type] = symbols.names
        if wanted:
            self._lingering.append((until, wanted))

    def forget_lingering(self, now: float) -> None:
        """Wait no longer for those who have not come back until now (monotonic)."""
        while self._lingering and self._lingering[0][0] <= now:
            self._lingering.popleft()
            self.demand += 1

    def wanted(self) -> Wanted:
        """The bars and the trades that all of them want together."""
        wanted: dict[DataType, frozenset[str] | None] = {}
        for data_type in ON_DEMAND:
            parts = [lane.covered(data_type) for lane in self.lanes.values()]
            parts += [left.get(data_type, frozenset()) for _, left in self._lingering]
            if None in parts:
                wanted[data_type] = None
            elif names := frozenset[str]().union(*(part for part in parts if part is not None)):
                wanted[data_type] = names
        return wanted

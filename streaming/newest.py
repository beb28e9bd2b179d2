"""Data messages made of the newest that the store has: for ticks, for snapshots, and for clients that fell behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, KeysView, Mapping, Set
from functools import partial

from marketdata.latest import LatestStore
from marketdata.types import DataType
from streaming.bars import Bars
from streaming.coverage import Changes, Coverage
from streaming.facets import Facets
from streaming.frame import Frame
from streaming.protocol import data_head

TAIL = b"]}"


class Newest:
    """The store, its facets and the bars, as frames."""

    def __init__(self, store: LatestStore) -> None:
        self.store = store
        self.facets = Facets(store.fragments)
        self.bars = Bars()

    def symbols(self, data_type: DataType) -> KeysView[str]:
        """Those of which there may be something to send."""
        return self.bars.tables.get(data_type, self.store.fragments).keys()

    def forget(self, symbols: Set[str]) -> None:
        """Have nothing of these symbols any more."""
        self.facets.forget(symbols)
        self.bars.forget(symbols)

    def frames(
        self, keys: Mapping[DataType, Iterable[str]], *, snapshot: bool = False, coverage: Coverage | None = None
    ) -> list[Frame]:
        """One frame per feed with the newest of every key that has one."""
        feed_of = self.store.feed_of
        pieces: dict[str, list[bytes]] = {}
        for data_type, symbols in keys.items():
            get = self._getter(data_type)
            for symbol in symbols:
                fragment = get(symbol)
                if fragment is not None:
                    feed = feed_of[symbol]
                    if feed in pieces:
                        pieces[feed].append(fragment)
                    else:
                        pieces[feed] = [fragment]
        changes = None if coverage is None else Changes(keys)
        return [self._frame(feed, found, snapshot, changes, coverage) for feed, found in pieces.items()]

    def _getter(self, data_type: DataType) -> Callable[[str], bytes | None]:
        bars = self.bars.tables.get(data_type)
        return partial(self.facets.get, data_type) if bars is None else bars.get

    def _frame(self, feed: str, pieces: list[bytes], snapshot: bool, changes: Changes | None, coverage: Coverage | None) -> Frame:
        state = self.store.feeds[feed]
        head = data_head(feed, state.epoch, state.seq, snapshot=snapshot)
        return Frame(head, b",".join(pieces), TAIL, len(pieces), changes, coverage)

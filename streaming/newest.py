"""Data messages made of the newest that the store has: for ticks, for snapshots, and for clients that fell behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from marketdata.latest import LatestStore
from marketdata.types import DataType
from streaming.coverage import Changes, Coverage
from streaming.facets import Facets
from streaming.frame import Frame
from streaming.protocol import data_head

TAIL = b"]}"


class Newest:
    """The store and its facets, as frames."""

    def __init__(self, store: LatestStore) -> None:
        self.store = store
        self.facets = Facets(store.fragments)

    def frames(
        self, keys: Mapping[DataType, Iterable[str]], *, snapshot: bool = False, coverage: Coverage | None = None
    ) -> list[Frame]:
        """One frame per feed with the newest of every key that has a quote."""
        feed_of, get = self.store.feed_of, self.facets.get
        pieces: dict[str, list[bytes]] = {}
        for data_type, symbols in keys.items():
            for symbol in symbols:
                fragment = get(data_type, symbol)
                if fragment is not None:
                    feed = feed_of[symbol]
                    if feed in pieces:
                        pieces[feed].append(fragment)
                    else:
                        pieces[feed] = [fragment]
        changes = None if coverage is None else Changes(keys)
        return [self._frame(feed, found, snapshot, changes, coverage) for feed, found in pieces.items()]

    def _frame(self, feed: str, pieces: list[bytes], snapshot: bool, changes: Changes | None, coverage: Coverage | None) -> Frame:
        state = self.store.feeds[feed]
        head = data_head(feed, state.epoch, state.seq, snapshot=snapshot)
        return Frame(head, b",".join(pieces), TAIL, len(pieces), changes, coverage)

"""Data messages made of the newest that the store has: for ticks, for snapshots, and for clients that fell behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set

from marketdata.latest import LatestStore
from marketdata.types import KLINES, DataType
from streaming.bars import Bars
from streaming.codecs import Codec, Head
from streaming.converted import Converted
from streaming.coverage import Changes, Coverage
from streaming.facets import Facets
from streaming.filters import Filters
from streaming.frame import Frame


class Newest:
    """The store, its facets and the bars, as frames of any codec.

    ``partial`` says of a feed below which priority clients have not been told, or sent, all that led to how it stands here: no
    message to them is one to resume from.
    """

    def __init__(self, store: LatestStore, partial: Callable[[str], int] = lambda feed: 0) -> None:
        self.store = store
        self.facets = Facets(store.fragments)
        self.bars = Bars()
        self.filters = Filters(store.fragments)
        self.partial = partial
        self._converted: dict[Codec, Converted] = {}

    def converted(self, codec: Codec) -> Converted:
        """The fragments as a codec writes them."""
        if codec not in self._converted:
            self._converted[codec] = Converted(codec)
        return self._converted[codec]

    def symbols(self, data_type: DataType) -> Set[str]:
        """Those of which there may be something to send as a state."""
        if data_type is DataType.TRADE:
            return frozenset()
        return self.bars.known(data_type) if data_type in KLINES else self.store.fragments.keys()

    def forget(self, symbols: Set[str]) -> None:
        """Have nothing of these symbols any more."""
        self.facets.forget(symbols)
        self.bars.forget(symbols)
        self.filters.forget(symbols)
        for converted in self._converted.values():
            converted.forget(symbols)

    def frames(
        self,
        keys: Mapping[DataType, Iterable[str]],
        codec: Codec,
        priority: int,
        *,
        snapshot: bool = False,
        more: bool = False,
        coverage: Coverage | None = None,
    ) -> list[Frame]:
        """One frame per feed with the newest of every key that has one, for clients of a priority; of bars a snapshot has the
        closed one as well."""
        feed_of = self.store.feed_of
        pieces: dict[str, list[bytes]] = {}
        for data_type, symbols in keys.items():
            if data_type is DataType.QUOTE and codec.plain and len(self.store.feeds) == 1:
                # Most of what is sent this way, and a third of the time in all.
                (feed,) = self.store.feeds
                if found := [quote for quote in map(self.store.fragments.get, symbols) if quote is not None]:
                    pieces.setdefault(feed, []).extend(found)
                continue
            for symbol in symbols:
                for fragment in self._pieces(data_type, symbol, snapshot):
                    piece = fragment if codec.plain else self._convert(codec, data_type, symbol, fragment)
                    if piece is not None:
                        pieces.setdefault(feed_of[symbol], []).append(piece)
        changes = None if coverage is None else Changes(keys)
        frames = []
        for feed, found in pieces.items():
            state = self.store.feeds[feed]
            head = codec.head(Head(feed, state.epoch, state.seq, snapshot, more or priority < self.partial(feed)))
            frame = codec.frame(head, found, changes, coverage)
            frame.snapshot = snapshot
            frames.append(frame)
        return frames

    def _pieces(self, data_type: DataType, symbol: str, snapshot: bool) -> Iterable[bytes]:
        if data_type in KLINES:
            if snapshot:
                return self.bars.pieces(data_type, symbol)
            fragment = self.bars.forming[data_type].get(symbol)
        else:
            fragment = self.facets.get(data_type, symbol)
        return () if fragment is None else (fragment,)

    def _convert(self, codec: Codec, data_type: DataType, symbol: str, fragment: bytes) -> bytes | None:
        # A symbol's closed bar would take its forming one's place in what is kept.
        return (
            codec.fragment(data_type, fragment) if data_type in KLINES else self.converted(codec).one(data_type, symbol, fragment)
        )

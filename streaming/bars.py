"""The newest bars of what this hub's clients cover: of each symbol and period the last closed one and the one that forms."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set

import msgspec

from marketdata.batch import without_seq
from marketdata.types import KLINES, DataType


class _Stamp(msgspec.Struct, frozen=True):
    time: int


_stamp = msgspec.json.Decoder(_Stamp).decode


class Bars:
    """Kline data type -> symbol -> its newest bars. ``known`` are the symbols of which there is one."""

    def __init__(self) -> None:
        self.closed: dict[DataType, dict[str, bytes]] = {data_type: {} for data_type in KLINES}
        self.forming: dict[DataType, dict[str, bytes]] = {data_type: {} for data_type in KLINES}

    def known(self, data_type: DataType) -> Set[str]:
        """The symbols of which there is a bar."""
        return self.closed[data_type].keys() | self.forming[data_type].keys()

    def pieces(self, data_type: DataType, symbol: str) -> Iterator[bytes]:
        """A symbol's closed bar and then the one that forms, as far as there are any."""
        for table in (self.closed[data_type], self.forming[data_type]):
            if (fragment := table.get(symbol)) is not None:
                yield fragment

    def close(self, data_type: DataType, events: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Take in bars that have closed, in order. Those of them that are news: whoever takes a feed over says the last one
        again as it was."""
        closed, forming = self.closed[data_type], self.forming[data_type]
        news = []
        for symbol, fragment in events:
            before = closed.get(symbol)
            if before is not None:
                if without_seq(before) == without_seq(fragment):
                    continue
                if _stamp(fragment).time < _stamp(before).time:
                    # An older bar was settled, or the market's clock was set back: the forming one tells.
                    news.append((symbol, fragment))
                    continue
            closed[symbol] = fragment
            if symbol in forming and _stamp(forming[symbol]).time <= _stamp(fragment).time:
                del forming[symbol]
            news.append((symbol, fragment))
        return news

    def form(self, data_type: DataType, fragments: Mapping[str, bytes]) -> None:
        """Take in bars that form."""
        closed = self.closed[data_type]
        self.forming[data_type].update(fragments)
        for symbol in closed.keys() & fragments.keys():
            if _stamp(fragments[symbol]).time <= _stamp(closed[symbol]).time:
                # The market's clock was set back, or a recording begins again.
                del closed[symbol]

    def keep(self, data_type: DataType, symbols: Collection[str]) -> None:
        """Forget all symbols but these: nobody covers them, so their bars will not be said any more."""
        for table in (self.closed[data_type], self.forming[data_type]):
            for symbol in table.keys() - symbols:
                del table[symbol]

    def forget(self, symbols: Set[str]) -> None:
        """Forget these symbols."""
        for data_type in KLINES:
            self.keep(data_type, self.known(data_type) - symbols)

"""The newest bars of what this hub's clients cover: of each symbol and period the last closed one and the one that forms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import NamedTuple

from marketdata.batch import bars_of
from marketdata.types import KLINES, DataType


class _Newest(NamedTuple):
    """``until`` is the closed bar's end (ms), 0 where there is none."""

    until: int
    closed: bytes
    forming: bytes


class Bars:
    """Kline data type -> symbol -> its newest bars, joined as a data message carries them."""

    def __init__(self) -> None:
        self.tables: dict[DataType, dict[str, bytes]] = {data_type: {} for data_type in KLINES}
        self._newest: dict[DataType, dict[str, _Newest]] = {data_type: {} for data_type in KLINES}

    def take(self, data_type: DataType, fragments: Mapping[str, bytes]) -> set[str]:
        """Note what a message says; the symbols of which nothing was known before."""
        table, newest = self.tables[data_type], self._newest[data_type]
        first = fragments.keys() - table.keys()
        for symbol, fragment in fragments.items():
            now = newest[symbol] = _after(newest.get(symbol, _NOTHING), fragment)
            table[symbol] = b",".join(filter(None, now[1:]))
        return first

    def keep(self, data_type: DataType, symbols: Collection[str]) -> None:
        """Forget all symbols but these: nobody covers them, so their bars will not be said any more."""
        table, newest = self.tables[data_type], self._newest[data_type]
        for symbol in table.keys() - symbols:
            del table[symbol], newest[symbol]

    def forget(self, symbols: Set[str]) -> None:
        """Forget these symbols."""
        for data_type, table in self.tables.items():
            self.keep(data_type, table.keys() - symbols)


_NOTHING = _Newest(0, b"", b"")


def _after(newest: _Newest, fragment: bytes) -> _Newest:
    """What is newest after a message's bars of one symbol."""
    until, closed, forming = newest
    ends = 0
    for stamp, piece in bars_of(fragment):
        if not stamp.closed:
            forming = piece
            if stamp.time <= until:
                # The market's clock was set back, or a recording begins again.
                until, closed = 0, b""
        elif stamp.time >= until:
            until, closed, ends = stamp.time, piece, stamp.time
    if ends and forming is newest.forming and forming and next(bars_of(forming))[0].time <= ends:
        forming = b""
    return _Newest(until, closed, forming)

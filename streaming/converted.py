"""Fragments as one codec writes them: made when somebody wants them, once per fragment, and shared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from marketdata.types import DataType
from streaming.codecs import Codec

Table = Mapping[str, bytes]


class Converted:
    """What was made of the newest fragment of each (data type, symbol), until another takes its place."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._made: dict[DataType, dict[str, tuple[bytes, bytes | None]]] = {}

    def one(self, data_type: DataType, symbol: str, fragment: bytes) -> bytes | None:
        """The newest fragment; None where the codec does not tell it."""
        made = self._made.setdefault(data_type, {})
        known = made.get(symbol)
        if known is None or known[0] is not fragment:
            known = made[symbol] = (fragment, self._codec.fragment(data_type, fragment))
        return known[1]

    def table(self, data_type: DataType, table: Table, wanted: Iterable[str]) -> dict[str, bytes]:
        """Those of a message's fragments that somebody wants."""
        result = {}
        for symbol in wanted:
            if (piece := self.one(data_type, symbol, table[symbol])) is not None:
                result[symbol] = piece
        return result

    def events(self, data_type: DataType, table: Mapping[str, list[bytes]], wanted: Iterable[str]) -> dict[str, list[bytes]]:
        """The same of events, of which each is sent once."""
        result = {}
        for symbol in wanted:
            pieces = [piece for event in table[symbol] if (piece := self._codec.fragment(data_type, event)) is not None]
            if pieces:
                result[symbol] = pieces
        return result

    def forget(self, symbols: Set[str]) -> None:
        """Keep nothing of these symbols."""
        for made in self._made.values():
            for symbol in symbols & made.keys():
                del made[symbol]

"""How Alpaca's stream writes: arrays of objects with a ``T``, as JSON text or as MessagePack, whose times are timestamps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from marketdata.compat import alpaca
from marketdata.compat.fragments import FORMING
from marketdata.types import DataType
from streaming.codecs import Head, array_header
from streaming.coverage import Changes, Coverage
from streaming.dialects.alpaca_errors import error_of
from streaming.dialects.json_arrays import JsonArrays
from streaming.frame import Frame
from streaming.protocol import Failure, Message

Words = dict[str, Any]


class Told(Message, frozen=True, kw_only=True, tag="alpaca"):
    """A control message in Alpaca's words. It travels alone in its array."""

    words: Words


def _minute_bar(fragment: bytes) -> Words | None:
    return None if FORMING in fragment else alpaca.bar_message(fragment)


_WORDS: Final[Mapping[DataType, Callable[[bytes], Words | None]]] = {
    DataType.QUOTE: alpaca.quote_message,
    DataType.TRADE: alpaca.trade_message,
    DataType.STATUS: alpaca.status_message,
    DataType.KLINE_1M: _minute_bar,
    DataType.KLINE_1D: alpaca.bar_message,
}
"""Data type -> how one of our JSON objects is told; others are not asked for here."""


class AlpacaJson(JsonArrays):
    """Text."""

    name = "alpaca.json"
    binary = False

    def __init__(self) -> None:
        self._encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode

    def encode(self, message: Message | Failure) -> Frame | None:
        """See ``Codec``. Of our own messages Alpaca has none: its clients take silence for health."""
        if isinstance(message, Failure):
            words = error_of(message.error)
        elif isinstance(message, Told):
            words = message.words
        else:
            return None
        return Frame(self._encode([words]), binary=self.binary)

    def fragment(self, data_type: DataType, fragment: bytes) -> bytes | None:
        """See ``Codec``."""
        words = _WORDS[data_type](fragment)
        return None if words is None else self._encode(words)


class AlpacaMessagePack(AlpacaJson):
    """Binary."""

    name = "alpaca.msgpack"
    packed = True
    binary = True

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode

    def head(self, head: Head) -> bytes:
        """See ``Codec``."""
        return b""

    def frame(
        self, head: bytes, pieces: Sequence[bytes], changes: Changes | None = None, coverage: Coverage | None = None
    ) -> Frame:
        """See ``Codec``."""
        return Frame(array_header(len(pieces)), b"".join(pieces), b"", len(pieces), changes, coverage, binary=True)


JSON: Final = AlpacaJson()
MSGPACK: Final = AlpacaMessagePack()

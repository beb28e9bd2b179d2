"""The smaller data types, cut out of an encoded quote: only for symbols that somebody selected, and once per quote.

``price``, ``volume`` and ``orderbook`` come with every quote. A ``status`` is told by the publisher when it changes; here it is
cut out for those who want to know how it stands. Every fragment carries the symbol, the quote's exchange time, its source and
the ``seq`` of the message it came with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set

import msgspec

from marketdata.types import DataType, LimitState, TradingStatus, limit_state


class _Part(msgspec.Struct, kw_only=True):
    symbol: str
    time: int
    source: str
    seq: int


# Numbers are cut out as they stand, so that they are the quote's own to the last digit.
_NULL = msgspec.Raw(b"null")
_EMPTY = msgspec.Raw(b"[]")


class _Price(_Part, kw_only=True):
    price: msgspec.Raw = _NULL
    open: msgspec.Raw = _NULL
    high: msgspec.Raw = _NULL
    low: msgspec.Raw = _NULL
    prev_close: msgspec.Raw = _NULL


class _Volume(_Part, kw_only=True):
    volume: msgspec.Raw = _NULL
    amount: msgspec.Raw = _NULL
    trades: msgspec.Raw = _NULL
    open_interest: msgspec.Raw = _NULL


class _Orderbook(_Part, kw_only=True):
    bid_price: msgspec.Raw = _EMPTY
    bid_volume: msgspec.Raw = _EMPTY
    ask_price: msgspec.Raw = _EMPTY
    ask_volume: msgspec.Raw = _EMPTY


class _Limits(_Part, kw_only=True):
    status: TradingStatus = TradingStatus.UNKNOWN
    price: float | None = None
    limit_up: float | None = None
    limit_down: float | None = None


class _Status(_Part, kw_only=True):
    status: TradingStatus
    limit: LimitState | None
    limit_up: float | None
    limit_down: float | None


_encode = msgspec.json.encode
_decode_limits = msgspec.json.Decoder(_Limits).decode


def _cutter(data_type: DataType, part: type[_Part]) -> Callable[[bytes], bytes]:
    decode = msgspec.json.Decoder(part).decode
    head = b'{"type":"%s",' % data_type.value.encode()
    return lambda quote: head + _encode(decode(quote))[1:]


DERIVED = (DataType.PRICE, DataType.VOLUME, DataType.ORDERBOOK)
"""What is cut out of every quote."""


def _status(quote: bytes) -> bytes:
    now = _decode_limits(quote)
    status = _Status(
        symbol=now.symbol,
        time=now.time,
        status=now.status,
        limit=limit_state(now.price, now.limit_up, now.limit_down),
        limit_up=now.limit_up,
        limit_down=now.limit_down,
        source=now.source,
        seq=now.seq,
    )
    return b'{"type":"status",' + _encode(status)[1:]


_CUT = {
    DataType.STATUS: _status,
    DataType.PRICE: _cutter(DataType.PRICE, _Price),
    DataType.VOLUME: _cutter(DataType.VOLUME, _Volume),
    DataType.ORDERBOOK: _cutter(DataType.ORDERBOOK, _Orderbook),
}

Table = dict[str, bytes]
"""Symbol -> fragment."""


class Facets:
    """The fragments of quotes and of what is derived from them, on demand. ``quotes`` is a store's symbol -> fragment.

    A cut is kept until its quote is replaced, so at most one per symbol and data type.
    """

    def __init__(self, quotes: Mapping[str, bytes]) -> None:
        self._quotes = quotes
        self._cuts: dict[DataType, dict[str, tuple[bytes, bytes]]] = {data_type: {} for data_type in _CUT}

    def get(self, data_type: DataType, symbol: str) -> bytes | None:
        """The newest fragment of a symbol; None where there is no quote yet."""
        quote = self._quotes.get(symbol)
        if quote is None or data_type is DataType.QUOTE:
            return quote
        return self._cut(data_type, symbol, quote)

    def table(self, data_type: DataType, symbols: Iterable[str]) -> Table:
        """What a message that changed the quotes of ``symbols`` says of another data type."""
        quotes = self._quotes
        return {symbol: self._cut(data_type, symbol, quotes[symbol]) for symbol in symbols}

    def forget(self, symbols: Set[str]) -> None:
        """Forget what was made of the quotes of these symbols."""
        for cuts in self._cuts.values():
            for symbol in symbols & cuts.keys():
                del cuts[symbol]

    def _cut(self, data_type: DataType, symbol: str, quote: bytes) -> bytes:
        cuts = self._cuts[data_type]
        cut = cuts.get(symbol)
        if cut is None or cut[0] is not quote:
            cut = cuts[symbol] = (quote, _CUT[data_type](quote))
        return cut[1]

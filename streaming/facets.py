"""The smaller data types, cut out of an encoded quote: only for symbols that somebody selected, and once per quote.

``price``, ``volume`` and ``orderbook`` come with every quote, ``status`` only when the phase or the limit state changes.
Every fragment carries the symbol, the quote's exchange time, its source and the ``seq`` of the message it came with.
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


DERIVED = (DataType.PRICE, DataType.VOLUME, DataType.ORDERBOOK, DataType.STATUS)
"""What is cut out of quotes."""

_CUT = {
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
        self._states: dict[str, tuple[TradingStatus, LimitState | None]] = {}
        self._statuses: Table = {}

    def get(self, data_type: DataType, symbol: str) -> bytes | None:
        """The newest fragment of a symbol; None where there is no quote yet."""
        quote = self._quotes.get(symbol)
        if quote is None or data_type is DataType.QUOTE:
            return quote
        if data_type is DataType.STATUS:
            return self._statuses.get(symbol)
        return self._cut(data_type, symbol, quote)

    def table(self, data_type: DataType, symbols: Iterable[str]) -> Table:
        """What a message that changed the quotes of ``symbols`` says of another data type."""
        quotes = self._quotes
        if data_type is DataType.STATUS:
            changed = [symbol for symbol in symbols if self._note_status(symbol, quotes[symbol])]
            return {symbol: self._statuses[symbol] for symbol in changed}
        return {symbol: self._cut(data_type, symbol, quotes[symbol]) for symbol in symbols}

    def note_status(self, symbols: Iterable[str]) -> None:
        """Catch up with what happened to the status of symbols while nobody wanted to know."""
        for symbol in symbols:
            self._note_status(symbol, self._quotes[symbol])

    def forget(self, symbols: Set[str]) -> None:
        """Forget what was made of the quotes of these symbols."""
        for symbol in symbols:
            for cuts in self._cuts.values():
                cuts.pop(symbol, None)
            self._states.pop(symbol, None)
            self._statuses.pop(symbol, None)

    def _cut(self, data_type: DataType, symbol: str, quote: bytes) -> bytes:
        cuts = self._cuts[data_type]
        cut = cuts.get(symbol)
        if cut is None or cut[0] is not quote:
            cut = cuts[symbol] = (quote, _CUT[data_type](quote))
        return cut[1]

    def _note_status(self, symbol: str, quote: bytes) -> bool:
        now = _decode_limits(quote)
        state = (now.status, limit_state(now.price, now.limit_up, now.limit_down))
        if self._states.get(symbol) == state:
            return False
        self._states[symbol] = state
        status = _Status(
            symbol=symbol,
            time=now.time,
            status=now.status,
            limit=state[1],
            limit_up=now.limit_up,
            limit_down=now.limit_down,
            source=now.source,
            seq=now.seq,
        )
        self._statuses[symbol] = b'{"type":"status",' + _encode(status)[1:]
        return True

"""Recorded quotes and trades as columns: one row for each, with the message that carried it, and back without any loss.

``at`` is the market's time (ms) at which the message was published: the wall clock's, or a simulated or recorded market's own.
Numbers of pairs (crypto) are fractions and stay so; all other counts are whole unless the source itself said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa

from marketdata.exchanges import Kind
from marketdata.symbols import kind
from marketdata.types import DataType, Number, Quote, Side, Trade, TradingStatus

_PRICES: Final = ("price", "open", "high", "low", "prev_close")
_TAIL: Final = ("limit_up", "limit_down")
_NAMES: Final = pa.dictionary(pa.int32(), pa.string())
_LEVELS: Final = pa.list_(pa.float64())
_MESSAGE: Final = tuple(pa.field(name, pa.int64(), False) for name in ("at", "epoch", "seq"))
_OWN: Final = len(_MESSAGE)
_COUNTS: Final = frozenset({"volume", "open_interest"})
_SIDES: Final = frozenset({"bid_volume", "ask_volume"})


class Message(NamedTuple):
    """What one published message said of a data type: its quotes, or its trades, in order, as the fragments that travelled."""

    at: int
    epoch: int
    seq: int
    symbols: list[str]
    fragments: list[bytes]
    data_type: DataType = DataType.QUOTE


class Layout(NamedTuple):
    """How the values of a data type are laid out. Times are ms since the epoch, everything else is as in the value itself."""

    data_type: DataType
    folder: str
    """Where its days lie, in the folder of the market; empty: in that folder itself."""
    schema: pa.Schema
    word: str
    """The column that holds an enumeration's words."""
    decode: Callable[[bytes], Any]
    """The value of a fragment."""
    value: Callable[[dict[str, Any]], Any]
    """The value of a row."""


def _quote(row: dict[str, Any]) -> Quote:
    fractions = kind(row["symbol"]) is Kind.CRYPTO
    for name in _COUNTS:
        row[name] = _count(row[name], fractions)
    for name in _SIDES:
        row[name] = tuple(_count(value, fractions) for value in row[name])
    row["bid_price"], row["ask_price"] = tuple(row["bid_price"]), tuple(row["ask_price"])
    row["status"] = TradingStatus(row["status"])
    return Quote(**row)


def _trade(row: dict[str, Any]) -> Trade:
    row["volume"] = _count(row["volume"], kind(row["symbol"]) is Kind.CRYPTO)
    row["side"] = row["side"] and Side(row["side"])
    return Trade(**row)


def _count(value: float | None, fractions: bool) -> Number | None:
    return int(value) if value is not None and not fractions and value.is_integer() else value


QUOTES: Final = Layout(
    DataType.QUOTE,
    "",
    pa.schema(
        [
            *_MESSAGE,
            pa.field("symbol", _NAMES, False),
            pa.field("time", pa.int64(), False),
            *(pa.field(name, pa.float64()) for name in _PRICES),
            pa.field("volume", pa.float64()),
            pa.field("amount", pa.float64()),
            pa.field("trades", pa.int64()),
            *(pa.field(f"{side}_{what}", _LEVELS, False) for side in ("bid", "ask") for what in ("price", "volume")),
            pa.field("status", _NAMES, False),
            *(pa.field(name, pa.float64()) for name in _TAIL),
            pa.field("open_interest", pa.float64()),
            pa.field("prev_settlement", pa.float64()),
            pa.field("source", _NAMES, False),
        ]
    ),
    "status",
    msgspec.json.Decoder(Quote).decode,
    _quote,
)
TRADES: Final = Layout(
    DataType.TRADE,
    "trades",
    pa.schema(
        [
            *_MESSAGE,
            pa.field("symbol", _NAMES, False),
            pa.field("time", pa.int64(), False),
            pa.field("index", pa.int64(), False),
            pa.field("price", pa.float64(), False),
            pa.field("volume", pa.float64(), False),
            pa.field("amount", pa.float64()),
            pa.field("side", _NAMES),
            pa.field("source", _NAMES, False),
        ]
    ),
    "side",
    msgspec.json.Decoder(Trade).decode,
    _trade,
)

_encode = msgspec.json.Encoder().encode


def table(messages: Iterable[Message], layout: Layout = QUOTES) -> pa.Table:
    """The rows of messages. Raises ``msgspec.MsgspecError`` for a fragment that is none of the layout's values."""
    columns: dict[str, list[Any]] = {name: [] for name in layout.schema.names}
    fields = layout.schema.names[_OWN:]
    for message in messages:
        for fragment in message.fragments:
            value = layout.decode(fragment)
            columns["at"].append(message.at)
            columns["epoch"].append(message.epoch)
            columns["seq"].append(message.seq)
            for name in fields:
                columns[name].append(getattr(value, name))
    columns[layout.word] = [word and word.value for word in columns[layout.word]]
    return pa.Table.from_pydict(columns, schema=layout.schema)


def messages(rows: pa.RecordBatch | pa.Table, layout: Layout = QUOTES) -> Iterator[Message]:
    """The messages of rows, each with the very bytes that were published."""
    fields = layout.schema.names[_OWN:]
    for (at, epoch, seq), group in groupby(_rows(rows, layout), key=itemgetter(0, 1, 2)):
        symbols: list[str] = []
        fragments: list[bytes] = []
        tail = b',"seq":%d}' % seq
        for row in group:
            value = layout.value(dict(zip(fields, row[_OWN:], strict=True)))
            symbols.append(value.symbol)
            fragments.append(_encode(value)[:-1] + tail)
        yield Message(at, epoch, seq, symbols, fragments, layout.data_type)


def values(rows: pa.RecordBatch | pa.Table, layout: Layout = QUOTES) -> Iterator[tuple[int, Any]]:
    """The quotes or trades of rows, each with the market's time at which it was published."""
    fields = layout.schema.names[_OWN:]
    for row in _rows(rows, layout):
        yield row[0], layout.value(dict(zip(fields, row[_OWN:], strict=True)))


def _rows(rows: pa.RecordBatch | pa.Table, layout: Layout) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows.column(name).to_pylist() for name in layout.schema.names), strict=True)

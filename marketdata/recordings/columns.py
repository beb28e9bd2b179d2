"""Recorded quotes as columns: one row per quote, with the message that carried it, and back without any loss.

``at`` is the market's time (ms) at which the message was published: the wall clock's, or a simulated or recorded market's own.
Numbers of pairs (crypto) are fractions and stay so; all other counts are whole unless the source itself said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa

from marketdata.exchanges import Kind
from marketdata.symbols import kind
from marketdata.types import Number, Quote, TradingStatus

_PRICES: Final = ("price", "open", "high", "low", "prev_close")
_TAIL: Final = ("limit_up", "limit_down")
_NAMES: Final = pa.dictionary(pa.int32(), pa.string())
_LEVELS: Final = pa.list_(pa.float64())

SCHEMA: Final = pa.schema(
    [
        pa.field("at", pa.int64(), False),
        pa.field("epoch", pa.int64(), False),
        pa.field("seq", pa.int64(), False),
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
)
"""The columns of a recording; times are ms since the epoch, everything else as in ``Quote``."""

_OWN: Final = ("at", "epoch", "seq")
_QUOTE: Final = tuple(name for name in SCHEMA.names if name not in _OWN)
_COUNTS: Final = frozenset({"volume", "open_interest"})
_SIDES: Final = frozenset({"bid_volume", "ask_volume"})

_decode = msgspec.json.Decoder(Quote).decode
_encode = msgspec.json.Encoder().encode


class Message(NamedTuple):
    """One published message: its quotes as the fragments that travelled, in their order."""

    at: int
    epoch: int
    seq: int
    symbols: list[str]
    fragments: list[bytes]


def table(messages: Iterable[Message]) -> pa.Table:
    """The rows of messages. Raises ``msgspec.MsgspecError`` for a fragment that is no quote."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for message in messages:
        for fragment in message.fragments:
            quote = _decode(fragment)
            columns["at"].append(message.at)
            columns["epoch"].append(message.epoch)
            columns["seq"].append(message.seq)
            for name in _QUOTE:
                columns[name].append(getattr(quote, name))
    columns["status"] = [status.value for status in columns["status"]]
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def messages(rows: pa.RecordBatch | pa.Table) -> Iterator[Message]:
    """The messages of rows, each with the very bytes that were published."""
    for (at, epoch, seq), group in groupby(_rows(rows), key=itemgetter(0, 1, 2)):
        symbols: list[str] = []
        fragments: list[bytes] = []
        tail = b',"seq":%d}' % seq
        for row in group:
            quote = _quote(row[3:])
            symbols.append(quote.symbol)
            fragments.append(_encode(quote)[:-1] + tail)
        yield Message(at, epoch, seq, symbols, fragments)


def quotes(rows: pa.RecordBatch | pa.Table) -> Iterator[tuple[int, Quote]]:
    """The quotes of rows, each with the market's time at which it was published."""
    for row in _rows(rows):
        yield row[0], _quote(row[3:])


def _rows(rows: pa.RecordBatch | pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows.column(name).to_pylist() for name in (*_OWN, *_QUOTE)), strict=True)


def _quote(values: Sequence[Any]) -> Quote:
    row = dict(zip(_QUOTE, values, strict=True))
    fractions = kind(row["symbol"]) is Kind.CRYPTO
    for name in _COUNTS:
        row[name] = _count(row[name], fractions)
    for name in _SIDES:
        row[name] = tuple(_count(value, fractions) for value in row[name])
    row["bid_price"], row["ask_price"] = tuple(row["bid_price"]), tuple(row["ask_price"])
    row["status"] = TradingStatus(row["status"])
    return Quote(**row)


def _count(value: float | None, fractions: bool) -> Number | None:
    return int(value) if value is not None and not fractions and value.is_integer() else value

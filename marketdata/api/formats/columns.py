"""The columns of an answer as Arrow record batches: what the CSV, Arrow and Parquet writers have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from marketdata.series import OPTIONAL, SCHEMA, Series

TIME: Final = pa.timestamp("ms", "Asia/Shanghai")
SYMBOL: Final = pa.dictionary(pa.int32(), pa.string())
ROWS: Final = 4096
"""Rows of a batch at most: some 320 KB, which allocators reuse without new pages."""


def schema(fields: Sequence[str], about: bytes) -> pa.Schema:
    """``symbol`` and the columns asked for; ``about`` stands under ``argus`` in its metadata."""
    columns = [pa.field(name, TIME, False) if name == "time" else SCHEMA.field(name) for name in fields]
    return pa.schema([pa.field("symbol", SYMBOL, False), *columns], metadata={b"argus": about})


def batches(
    parts: Iterable[tuple[str, Series]], symbols: Sequence[str], fields: Sequence[str], kind: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """A batch for each symbol's bars, of long ones several. All share one dictionary of symbols, and memory with the bars."""
    index = {symbol: number for number, symbol in enumerate(symbols)}
    names = pa.array(symbols, pa.string())
    for symbol, series in parts:
        for start in range(0, len(series), ROWS):
            piece = series.pick(slice(start, start + ROWS))
            numbers = pa.array(np.full(len(piece), index[symbol], np.int32))
            columns = [_column(name, getattr(piece, name)) for name in fields]
            yield pa.RecordBatch.from_arrays([pa.DictionaryArray.from_arrays(numbers, names), *columns], schema=kind)


def _column(name: str, values: Any) -> pa.Array:
    if name == "time":
        return pa.array(values).view(TIME)
    return pa.array(values, from_pandas=name in OPTIONAL)


class Sink:
    """A file to write to that hands on what has been written, and keeps nothing.

    ``borrows``: whoever writes leaves the bytes as they are until they are taken, so they need no copy of their own.
    """

    closed = False

    def __init__(self, *, borrows: bool = False) -> None:
        self._borrows = borrows
        self._parts: list[Any] = []
        self.size = 0

    def write(self, data: Any) -> int:
        """Take some bytes."""
        part = data if self._borrows else bytes(data)
        self._parts.append(part)
        self.size += len(part)
        return len(part)

    def flush(self) -> None:
        """There is nothing below to flush."""

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """What has been handed on is gone."""
        return False

    def close(self) -> None:
        """What is left is still to be taken."""

    def take(self) -> bytes:
        """All that has been written since the last time."""
        taken = b"".join(self._parts)
        self._parts.clear()
        self.size = 0
        return taken

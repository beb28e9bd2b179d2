"""Bars as CSV (RFC 4180): a header, ``time`` in ms and beside it ``datetime`` in Beijing time; unknown numbers are empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from marketdata.api.formats.columns import Sink, batches, schema
from marketdata.series import Series

CHUNK: Final = 256 * 1024
"""Bytes of small pieces that are handed on together."""


def write(parts: Iterable[tuple[str, Series]], symbols: Sequence[str], fields: Sequence[str]) -> Iterator[bytes]:
    """The lines in chunks. The first two parameters are those of ``formats.arrow.write``."""
    kind = schema(fields, b"")
    sink = Sink()
    names = ["symbol", *(name for field in fields for name in (("time", "datetime") if field == "time" else (field,)))]
    # Symbols, numbers and flags: nothing of it needs quotes.
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    yield ",".join(names).encode() + b"\r\n"
    for batch in batches(parts, symbols, fields, kind):
        table = pa.Table.from_arrays(list(_columns(batch)), names=names)
        text = pa.BufferOutputStream()
        pyarrow.csv.write_csv(table, text, options)
        sink.write(text.getvalue().to_pybytes().replace(b"\n", b"\r\n"))
        if sink.size >= CHUNK:
            yield sink.take()
    if sink.size:
        yield sink.take()


def _columns(batch: pa.RecordBatch) -> Iterator[Any]:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name == "symbol":
            yield column.dictionary_decode()
        elif name == "time":
            yield column.view(pa.int64())
            # Written by hand: strftime of a zoned time needs the zones' database, which Windows has not.
            beijing = pc.add(column.view(pa.int64()), 8 * 3_600_000).view(pa.timestamp("ms"))
            yield pc.strftime(pc.cast(beijing, pa.timestamp("s"), safe=False), "%Y-%m-%dT%H:%M:%S+08:00")
        else:
            yield column

"""Bars as a Parquet file, written row group by row group to a client that cannot seek."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from marketdata.api.formats.columns import Sink, batches, schema
from marketdata.series import Series

ROW_GROUP: Final = 65_536
"""Rows that are gathered before they are written: some 5 MB, and enough for the columns to compress well."""


def write(parts: Iterable[tuple[str, Series]], symbols: Sequence[str], fields: Sequence[str], about: bytes) -> Iterator[bytes]:
    """The file in chunks. The parameters are those of ``formats.arrow.write``."""
    kind = schema(fields, about)
    sink = Sink()
    held: list[pa.RecordBatch] = []
    rows = 0
    with pa.PythonFile(sink, "w") as file, pq.ParquetWriter(file, kind, compression="zstd", use_dictionary=["symbol"]) as writer:
        for batch in batches(parts, symbols, fields, kind):
            held.append(batch)
            rows += batch.num_rows
            if rows >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(held, kind), row_group_size=rows)
                held.clear()
                rows = 0
                yield sink.take()
        if held:
            writer.write_table(pa.Table.from_batches(held, kind), row_group_size=rows)
        writer.close()
        yield sink.take()

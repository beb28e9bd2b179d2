"""Bars as an Arrow IPC stream: a record batch for each symbol's bars, of long ones several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa

from marketdata.api.formats.columns import Sink, batches, schema
from marketdata.series import Series

CHUNK: Final = 256 * 1024
"""Bytes of small batches that are handed on together."""


def write(parts: Iterable[tuple[str, Series]], symbols: Sequence[str], fields: Sequence[str], about: bytes) -> Iterator[bytes]:
    """The stream in chunks. ``symbols`` are all that the parts may have, ``about`` the JSON in the schema's metadata."""
    kind = schema(fields, about)
    sink = Sink(borrows=True)
    with pa.PythonFile(sink, "w") as file, pa.ipc.new_stream(file, kind) as writer:
        for batch in batches(parts, symbols, fields, kind):
            writer.write_batch(batch)
            if sink.size >= CHUNK:
                yield sink.take()
        writer.close()
        yield sink.take()

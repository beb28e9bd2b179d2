"""Bars of many symbols as one Arrow stream: how what a worker fetched travels to whoever asked."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from marketdata.series import SCHEMA, Series, from_table

_SYMBOLS = b"symbols"


def pack(bars: Mapping[str, Series]) -> bytes:
    """One batch per symbol, the symbols' names in the schema."""
    held = {symbol: series for symbol, series in bars.items() if len(series)}
    schema = SCHEMA.with_metadata({_SYMBOLS: " ".join(held)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for series in held.values():
            writer.write_table(series.table().combine_chunks())
    return bytes(sink.getvalue())


def unpack(parcel: bytes) -> dict[str, Series]:
    """What ``pack`` was given, without the symbols that had no bars."""
    with pa.ipc.open_stream(parcel) as reader:
        symbols = reader.schema.metadata[_SYMBOLS].decode().split()
        return {symbol: from_table(pa.Table.from_batches([batch])) for symbol, batch in zip(symbols, reader, strict=True)}

"""A block as bytes and back: what the shared tier holds, and how covered days are written."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Final

import msgspec
import pyarrow as pa

from marketdata.cache.block import Block
from marketdata.series import from_table

MAGIC: Final = b"ARG1"
"""Format and version; a value that begins otherwise is foreign."""

_HEAD: Final = struct.Struct("<4sI")
_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4")


class Damaged(Exception):
    """Bytes that are not what was written, or that something else has written."""


class _About(msgspec.Struct, frozen=True):
    days: str
    fetched_at: int


def encode(block: Block) -> bytes:
    """Magic, CRC-32 of the rest, an Arrow IPC stream in LZ4 whose schema carries days and ``fetched_at``."""
    about = msgspec.json.encode(_About(pack_days(block.days), block.fetched_at))
    table = block.series.table().replace_schema_metadata({b"argus": about})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    payload = sink.getvalue()
    return _HEAD.pack(MAGIC, zlib.crc32(payload)) + bytes(payload)


def decode(data: bytes) -> Block:
    """The block. Raises ``Damaged``."""
    if len(data) <= _HEAD.size:
        raise Damaged("too short")
    magic, checksum = _HEAD.unpack_from(data)
    payload = memoryview(data)[_HEAD.size :]
    if magic != MAGIC or zlib.crc32(payload) != checksum:
        raise Damaged("foreign" if magic != MAGIC else "the checksum differs")
    try:
        with pa.ipc.open_stream(pa.py_buffer(payload)) as reader:
            table = reader.read_all()
        about = msgspec.json.decode(table.schema.metadata[b"argus"], type=_About)
        return Block(from_table(table), unpack_days(about.days), about.fetched_at)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(str(error)) from error


def pack_days(days: Iterable[int]) -> str:
    """Ordinals as runs: ``738000+5 738007+2``; a week of trading is one run.

    >>> pack_days({738000, 738001, 738007})
    '738000+2 738007+1'
    """
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and day == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([day, 1])
    return " ".join(f"{first}+{count}" for first, count in runs)


def unpack_days(text: str) -> frozenset[int]:
    """The ordinals of such a text. Raises ``ValueError``."""
    days: set[int] = set()
    for run in text.split():
        first, _, count = run.partition("+")
        if not 0 < int(count) <= 4_000_000:
            raise ValueError(f"{run!r} is not a run of days")
        days.update(range(int(first), int(first) + int(count)))
    return frozenset(days)

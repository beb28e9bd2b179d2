"""The recorded files as the tests read them: with other means than the readers under test, and excerpts of them."""

from __future__ import annotations

import csv
import ctypes
import gzip
import io
import json
import struct
import zipfile
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import zstandard

SZ = "ashare_l1_snapshots/tick.zip"
SH = "ashare_l1_snapshots/20211201snapshot_30stocks.zip"
FUTURES = ("futures_ticks/CFFEX.IF.HOT_tick_20210104.dsb", "futures_ticks/CFFEX.IF.HOT_tick_20210105.dsb")
SPOT = "crypto/spot/btcusdt_20240808.gz"
ETH = "crypto/spot/ethusdt_20240808.gz"
USD_M = "crypto/usdm/btcusdt_20240808.gz"
EVERY = (SZ, SH, *FUTURES, SPOT, ETH, USD_M)
SH_TRADES = "ashare_l2_orders_trades/SHtrans.zip"
TRADES = "ashare_l2_orders_trades/tradeData.zip"
"""600000 of Shanghai and 000001 of Shenzhen, with its cancels."""


def csv_text(path: Path) -> str:
    """The one member of a zip."""
    with zipfile.ZipFile(path) as archive:
        (name,) = archive.namelist()
        return archive.read(name).decode()


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a zipped CSV by Python's csv module."""
    return csv.DictReader(io.StringIO(csv_text(path)))


def cents(text: str) -> float | None:
    """A price text on the A-share tick, by decimal arithmetic; None for 0."""
    value = Decimal(text).quantize(Decimal("0.01"))
    return float(value) if value else None


def write_zip(path: Path, text: str, *, name: str = "rows.csv") -> Path:
    """A zip with one member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return path


class Tick(ctypes.LittleEndianStructure):
    """WonderTrader's record of a tick."""

    _pack_ = 1
    _fields_ = [
        ("exchange", ctypes.c_char * 10),
        ("code", ctypes.c_char * 32),
        ("price", ctypes.c_double),
        ("open", ctypes.c_double),
        ("high", ctypes.c_double),
        ("low", ctypes.c_double),
        ("settlement", ctypes.c_double),
        ("upper_limit", ctypes.c_double),
        ("lower_limit", ctypes.c_double),
        ("total_volume", ctypes.c_uint32),
        ("volume", ctypes.c_uint32),
        ("total_turnover", ctypes.c_double),
        ("turnover", ctypes.c_double),
        ("open_interest", ctypes.c_uint32),
        ("diff_interest", ctypes.c_int32),
        ("trading_date", ctypes.c_uint32),
        ("action_date", ctypes.c_uint32),
        ("action_time", ctypes.c_uint32),
        ("pre_close", ctypes.c_double),
        ("pre_settlement", ctypes.c_double),
        ("pre_interest", ctypes.c_int32),
        ("bid_prices", ctypes.c_double * 10),
        ("ask_prices", ctypes.c_double * 10),
        ("bid_volumes", ctypes.c_uint32 * 10),
        ("ask_volumes", ctypes.c_uint32 * 10),
    ]


def ticks(path: Path) -> list[Tick]:
    """Every record of a ``.dsb`` file."""
    data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()[20:])
    return list((Tick * (len(data) // ctypes.sizeof(Tick))).from_buffer_copy(data))


def write_dsb(path: Path, records: Sequence[Tick], *, kind: int = 24, version: int = 2, tail: bytes = b"") -> Path:
    """A ``.dsb`` file of records."""
    data = zstandard.compress(b"".join(bytes(record) for record in records) + tail)
    path.write_bytes(struct.pack("<8sHHQ", b"&^%$#@!\0", kind, version, len(data)) + data)
    return path


def lines(path: Path) -> list[bytes]:
    """The lines of a gzip."""
    return gzip.decompress(path.read_bytes()).splitlines()


def frames(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Receive time in ms and message of every line."""
    for line in lines(path):
        received, _, text = line.partition(b" ")
        yield int(received) // 1_000_000, json.loads(text)


def write_gzip(path: Path, content: Sequence[bytes]) -> Path:
    """A gzip of lines."""
    path.write_bytes(gzip.compress(b"\n".join(content) + b"\n"))
    return path


def excerpt(data_dir: Path, name: str, target: Path, rows: int) -> Path:
    """The first rows of a recorded file (of a CSV: of each of its first three instruments), as a file of its format."""
    source, path = data_dir / name, target / Path(name).name
    if name.endswith(".dsb"):
        return write_dsb(path, ticks(source)[:rows])
    if name.endswith(".gz"):
        return write_gzip(path, lines(source)[:rows])
    header, *body = csv_text(source).splitlines()
    at = header.split(",").index("SecurityID")
    blocks: dict[str, list[str]] = {}
    for row in body:
        blocks.setdefault(row.split(",")[at], []).append(row)
    return write_zip(path, "\n".join([header, *(row for block in list(blocks.values())[:3] for row in block[:rows])]) + "\n")


def move(path: Path, day: str, to: str) -> Path:
    """Another day's date in every row of a zipped CSV."""
    return write_zip(path, csv_text(path).replace(day, to))

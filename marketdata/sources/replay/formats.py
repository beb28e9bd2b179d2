"""Which reader a recorded file needs, told by what the file holds, never by its name."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from marketdata.sources.replay import binance_frames, futures_ticks, sh_snapshots, sz_snapshots, trades_csv
from marketdata.sources.replay.recorded_day import RecordedDay
from marketdata.sources.replay.recording import Recording, RecordingError
from marketdata.sources.replay.snapshot_csv import SnapshotCsv
from marketdata.sources.replay.trades_csv import TradesCsv

SNAPSHOTS = (sz_snapshots.LAYOUT, sh_snapshots.LAYOUT)
KNOWN = (
    "a recorded day's folder, zipped CSV of Shenzhen or Shanghai snapshots or of Level-2 trades, WonderTrader ticks (.dsb), "
    "gzipped Binance frames"
)
HEAD = 64 * 1024
"""Bytes that the first line of a text file may have."""
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for a broken, a foreign and an encrypted member."""


def open_recording(path: Path) -> Recording:
    """The recording in a file. Reads its beginning alone. Raises ``RecordingError`` with what is wrong."""
    try:
        if path.is_dir():
            return RecordedDay(path)
        with path.open("rb") as file:
            head = file.read(8)
        reader = next((reader for mark, reader in _READERS if head.startswith(mark)), None)
        if reader is None:
            raise RecordingError(f"the format is not known; what can be replayed: {KNOWN}")
        return reader(path)
    except OSError as error:
        raise RecordingError(error.strerror or str(error)) from error


def _open_zip(path: Path) -> Recording:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
            if len(names) != 1:
                raise RecordingError(f"the archive holds {len(names)} CSV files instead of one")
            with archive.open(names[0]) as member:
                header = member.readline(HEAD)
    except ZIP_DAMAGE as error:
        raise RecordingError(f"the archive is damaged: {error}") from error
    columns = frozenset(header.rstrip(b"\r\n").decode("utf-8-sig", "replace").split(","))
    load = partial(_member, path, names[0])
    for layout in SNAPSHOTS:
        if layout.columns() <= columns:
            return SnapshotCsv(layout, load)
    for trade_layout in trades_csv.LAYOUTS:
        if trade_layout.columns() <= columns:
            return TradesCsv(trade_layout, load)
    raise RecordingError(f"the columns of {names[0]} are those of no known vendor; what can be replayed: {KNOWN}")


def _member(path: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except ZIP_DAMAGE as error:
        raise RecordingError(f"the archive is damaged: {error}") from error


def _open_gzip(path: Path) -> Recording:
    try:
        with gzip.open(path, "rb") as file:
            line = file.readline(HEAD * 16)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordingError(f"the file is damaged at its beginning: {error}") from error
    if not binance_frames.LINE.fullmatch(line.rstrip(b"\r\n")):
        raise RecordingError(f"the first line is not '<receive ns> <json>'; what can be replayed: {KNOWN}")
    return binance_frames.BinanceFrames(path)


_READERS: tuple[tuple[bytes, Callable[[Path], Recording]], ...] = (
    (b"PK", _open_zip),
    (b"\x1f\x8b", _open_gzip),
    (futures_ticks.MAGIC, futures_ticks.FuturesTicks),
)
"""The first bytes of a file -> what opens it."""

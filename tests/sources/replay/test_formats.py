"""Which files can be replayed, and what is said of those that cannot."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from marketdata.sources.replay.binance_frames import BinanceFrames
from marketdata.sources.replay.formats import open_recording
from marketdata.sources.replay.futures_ticks import FuturesTicks
from marketdata.sources.replay.recording import RecordingError
from marketdata.sources.replay.snapshot_csv import SnapshotCsv
from marketdata.sources.replay.trades_csv import TradesCsv
from tests.sources.replay.raw import EVERY, SH_TRADES, SZ, TRADES, excerpt, write_gzip, write_zip


@pytest.mark.parametrize("name", EVERY)
def test_the_format_is_told_by_the_content_whatever_the_name(data_dir: Path, tmp_path: Path, name: str) -> None:
    path = excerpt(data_dir, name, tmp_path, 200).rename(tmp_path / "renamed")
    reader = SnapshotCsv if name.endswith(".zip") else FuturesTicks if name.endswith(".dsb") else BinanceFrames
    assert isinstance(open_recording(path), reader)


@pytest.mark.parametrize("name", [SH_TRADES, TRADES])
def test_files_of_trades_are_told_from_those_of_quotes(data_dir: Path, tmp_path: Path, name: str) -> None:
    recording = open_recording(excerpt(data_dir, name, tmp_path, 20))
    assert isinstance(recording, TradesCsv)
    assert (recording.trades, open_recording(data_dir / SZ).trades) == (True, False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "format is not known"),
        (b"just a text\n", "format is not known"),
        (b"PK\x03\x04 but no more", "damaged"),
        (b"\x1f\x8b and nothing", "damaged"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=said):
        open_recording(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.zip", tmp_path):
        with pytest.raises(RecordingError):
            open_recording(path)


def test_an_archive_without_a_csv_and_with_two_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.zip"
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(RecordingError, match="0 CSV files"):
        open_recording(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(RecordingError, match="2 CSV files"):
        open_recording(path)


@pytest.mark.parametrize("text", ["", "a,b,c\n1,2,3\n", "SecurityID,DateTime,LastPx\n600000,x,1\n"])
def test_a_csv_of_no_known_vendor_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecordingError, match="no known vendor"):
        open_recording(write_zip(tmp_path / "other.zip", text))


def test_a_csv_with_a_header_alone_or_without_a_time_is_refused(data_dir: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(data_dir / SZ) as archive, archive.open("tick.csv") as member:
        header = member.readline().decode()
    with pytest.raises(RecordingError, match="no row"):
        open_recording(write_zip(tmp_path / "header.zip", header)).scan()
    with pytest.raises(RecordingError, match="no row"):
        open_recording(write_zip(tmp_path / "noise.zip", f"{header}noise\nmore noise\n")).scan()


def test_a_damaged_archive_is_refused(data_dir: Path, tmp_path: Path) -> None:
    whole = (data_dir / SZ).read_bytes()
    path = tmp_path / "damaged.zip"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordingError, match="damaged"):
        open_recording(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(RecordingError, match="damaged"):
        open_recording(path).scan()


def test_a_gzip_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="first line"):
        open_recording(write_gzip(tmp_path / "other.gz", [b"a,b,c"]))
    path = tmp_path / "empty.gz"
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(RecordingError, match="first line"):
        open_recording(path)

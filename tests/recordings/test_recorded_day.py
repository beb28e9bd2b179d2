"""A day that Argus recorded can be a source again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.columns import table
from marketdata.sources.replay.formats import open_recording
from marketdata.sources.replay.recording import RecordingError
from marketdata.types import Quote
from tests.recordings.made import DAY, OPEN, message


def day_folder(tmp_path: Path) -> Path:
    return tmp_path / "recordings" / "qmt" / DAY.isoformat()


def test_its_rows_are_the_quotes_at_the_markets_time(tmp_path: Path) -> None:
    archive = RecordingArchive(str(tmp_path), "qmt")
    archive.write(DAY, 3, table([message(seq) for seq in range(1, 6)]))
    archive.write(DAY, 3, table([message(seq) for seq in range(6, 11)]))
    recording = open_recording(day_folder(tmp_path))
    span = recording.scan()
    assert (span.symbols, span.rows, span.first, span.last) == (("000001.SZ", "600000.SH"), 20, OPEN + 1_000, OPEN + 10_000)
    rows = list(recording.rows())
    assert [at for at, _ in rows] == sorted(OPEN + seq * 1_000 for seq in [*range(1, 11), *range(1, 11)])
    # Simulated quotes say so wherever they are shown; the market's own say that they are recorded.
    assert {quote.source for _, quote in rows if isinstance(quote, Quote)} == {"simulated"}


@pytest.mark.parametrize("name", ["recordings/qmt/2022-06-31", "recordings/qmt/2022-06-01", "elsewhere/qmt/2022-06-01"])
def test_a_folder_that_is_no_recorded_day_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(RecordingError):
        open_recording(tmp_path / name)


def test_a_damaged_part_is_refused_where_it_is_reached(tmp_path: Path) -> None:
    archive = RecordingArchive(str(tmp_path), "qmt")
    archive.write(DAY, 3, table([message(1)]))
    later = archive.write(DAY, 4, table([message(1, at=OPEN + timedelta(hours=1).seconds * 1000, epoch=4)]))
    path = day_folder(tmp_path) / later.name
    path.write_bytes(path.read_bytes()[:-1])
    rows = open_recording(day_folder(tmp_path)).rows()
    assert isinstance(next(rows)[1], Quote)
    assert isinstance(next(rows)[1], Quote)
    with pytest.raises(RecordingError, match="damaged"):
        next(rows)

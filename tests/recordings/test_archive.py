"""Parts of a day: written with a checksum, joined, deleted when old, refused when damaged."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marketdata.recordings.archive import DamagedRecording, RecordingArchive
from marketdata.recordings.columns import table
from marketdata.recordings.reader import before, play, symbols_of
from tests.recordings.made import DAY, OPEN, message


def state(archive: RecordingArchive, start: int) -> dict[str, bytes]:
    found = before(archive, start)
    return {} if found is None else dict(zip(found.symbols, found.fragments, strict=True))


@pytest.fixture(params=["path", "url"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> RecordingArchive:
    url = str(tmp_path) if request.param == "path" else f"memory://{tmp_path.name}"
    return RecordingArchive(url, "qmt")


def test_what_was_written_is_read_in_order(archive: RecordingArchive) -> None:
    sent = [message(seq) for seq in range(1, 31)]
    archive.write(DAY, 3, table(sent[10:]))
    archive.write(DAY, 3, table(sent[:10]))
    assert list(play(archive, OPEN)) == sent
    assert archive.days() == (DAY,)


def test_it_begins_at_any_moment_with_the_state_of_that_moment(archive: RecordingArchive) -> None:
    sent = [message(1), message(2, symbols=("600000.SH",)), message(3), message(4)]
    archive.write(DAY, 3, table(sent))
    assert list(play(archive, sent[2].at)) == sent[2:]
    assert state(archive, sent[2].at) == {"000001.SZ": sent[0].fragments[0], "600000.SH": sent[1].fragments[0]}
    assert before(archive, sent[0].at) is None


def test_the_state_of_a_moment_is_that_of_the_last_message_before_it(archive: RecordingArchive) -> None:
    archive.write(DAY, 3, table([message(seq) for seq in range(1, 6)]))
    archive.write(DAY, 4, table([message(1, at=OPEN + 60_000, epoch=4)]))
    assert before(archive, OPEN + 30_000) == message(5)
    assert before(archive, OPEN + 60_001) == message(1, at=OPEN + 60_000, epoch=4)


def test_days_follow_one_another(archive: RecordingArchive) -> None:
    next_day = [message(seq, at=OPEN + 86_400_000 + seq) for seq in range(1, 4)]
    today = [message(seq) for seq in range(1, 4)]
    archive.write(DAY + timedelta(days=1), 3, table(next_day))
    archive.write(DAY, 3, table(today))
    assert list(play(archive, OPEN)) == today + next_day


def test_what_a_publisher_said_after_its_term_is_dropped_as_it_was_live(archive: RecordingArchive) -> None:
    first, second = [message(1), message(5)], [message(1, at=OPEN + 3_000, epoch=4), message(2, at=OPEN + 6_000, epoch=4)]
    archive.write(DAY, 3, table(first))
    archive.write(DAY, 4, table(second))
    assert list(play(archive, OPEN)) == [first[0], *second]


def test_it_begins_within_a_joined_day_and_reads_no_more_of_it_than_it_must(
    archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {8: ("000001.SZ", "300750.SZ"), 25: ("600000.SH", "688001.SH")}
    sent = [message(seq, symbols=names.get(seq, ("000001.SZ", "600000.SH"))) for seq in range(1, 31)]
    for first in range(0, 30, 10):
        archive.write(DAY, 3, table(sent[first : first + 10]))
    expected = {start: state(archive, sent[start].at) for start in (0, 5, 12, 29)}
    assert [len(found) for found in expected.values()] == [0, 2, 3, 4]
    archive.join(DAY)
    read: list[int] = []
    whole = pq.ParquetFile.read_row_group

    def noted(file: pq.ParquetFile, group: int, columns: list[str] | None = None) -> pa.Table:
        if columns is None:
            read.append(group)
        return whole(file, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    for start, found in expected.items():
        assert state(archive, sent[start].at) == found
        assert list(play(archive, sent[start].at)) == sent[start:]
    # Of the last moment's state: the newest group, and the first for a name that is nowhere else.
    assert read[-2:] == [2, 0]


def test_some_symbols_alone_are_read_of_a_recording(archive: RecordingArchive) -> None:
    archive.write(DAY, 3, table([message(1), message(2, symbols=("600000.SH",)), message(3)]))
    found = list(play(archive, OPEN, {"000001.SZ"}))
    assert [(item.seq, item.symbols) for item in found] == [(1, ["000001.SZ"]), (3, ["000001.SZ"])]
    assert found[1].fragments == message(3).fragments[:1]


def test_a_term_that_was_over_says_nothing_after_a_later_start(archive: RecordingArchive) -> None:
    archive.write(DAY, 3, table([message(1), message(5)]))
    archive.write(DAY, 4, table([message(1, at=OPEN + 3_000, epoch=4), message(2, at=OPEN + 9_000, epoch=4)]))
    assert [(item.epoch, item.seq) for item in play(archive, OPEN + 4_000)] == [(4, 2)]


def test_a_day_that_was_gone_through_again_is_played_as_it_was_the_last_time(archive: RecordingArchive) -> None:
    first, again = [message(seq) for seq in range(1, 9)], [message(seq, epoch=4, at=OPEN + 3_100 + seq) for seq in range(1, 5)]
    archive.write(DAY, 3, table(first))
    archive.write(DAY, 4, table(again))
    assert list(play(archive, OPEN)) == [*first[:3], *again]
    assert state(archive, OPEN + 60_000)["000001.SZ"] == again[-1].fragments[0]
    archive.write(DAY, 5, table([message(1, epoch=5)]))
    assert list(play(archive, OPEN)) == [first[0], message(1, epoch=5)]


def test_joining_changes_nothing_but_the_number_of_files(archive: RecordingArchive) -> None:
    sent = [message(seq) for seq in range(1, 31)]
    for first in range(0, 30, 10):
        archive.write(DAY, 3, table(sent[first : first + 10]))
    archive.join(DAY)
    archive.join(DAY)
    assert len(archive.parts(DAY)) == 1
    assert list(play(archive, OPEN)) == sent


def test_a_day_that_is_joined_while_it_is_played_is_played_whole(archive: RecordingArchive) -> None:
    sent = [message(seq) for seq in range(1, 31)]
    sent += [message(seq, at=OPEN + 60_000 + seq, epoch=4) for seq in range(1, 21)]
    for first in range(0, 50, 10):
        archive.write(DAY, sent[first].epoch, table(sent[first : first + 10]))
    playing = play(archive, OPEN)
    begun = [next(playing) for _ in range(5)]
    archive.join(DAY)
    assert [*begun, *playing] == sent


@pytest.mark.parametrize("when", ["listed", "noted"])
def test_a_day_that_is_joined_while_its_state_is_read_has_the_same_state(
    archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    sent = [message(1), message(2, symbols=("600000.SH",)), message(3, symbols=("300750.SZ",))]
    for item in sent:
        archive.write(DAY, 3, table([item]))
    expected = before(archive, OPEN + 60_000), symbols_of(archive, DAY)
    assert expected[1] == {"000001.SZ", "600000.SH", "300750.SZ"}
    step = "parts" if when == "listed" else "_notes"
    real = getattr(RecordingArchive, step)
    found = []
    for read in (lambda: before(archive, OPEN + 60_000), lambda: symbols_of(archive, DAY)):
        joins = [True]

        def joined_then(self: RecordingArchive, day: date, joins: list[bool] = joins) -> object:
            listed = real(self, day)
            if joins:
                joins.clear()
                archive.join(day)
            return listed

        monkeypatch.setattr(RecordingArchive, step, joined_then)
        found.append(read())
        monkeypatch.setattr(RecordingArchive, step, real)
        assert not joins
        archive.forget_before(DAY + timedelta(days=1))
        for item in sent:
            archive.write(DAY, 3, table([item]))
    assert tuple(found) == expected


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    archive = RecordingArchive(str(tmp_path), "qmt")
    archive.write(DAY, 3, table([message(1)]))
    part = archive.write(DAY, 3, table([message(2)]))
    next(tmp_path.rglob(part.name)).unlink()
    for read in (lambda: list(play(archive, OPEN)), lambda: before(archive, OPEN + 60_000), lambda: symbols_of(archive, DAY)):
        with pytest.raises(DamagedRecording, match=part.name):
            read()


@pytest.mark.parametrize("kept", [0.5, 0.0])
def test_the_symbols_of_a_part_that_is_torn_are_not_told(tmp_path: Path, kept: float) -> None:
    archive = RecordingArchive(str(tmp_path), "qmt")
    part = archive.write(DAY, 3, table([message(1)]))
    path = next(tmp_path.rglob(part.name))
    path.write_bytes(path.read_bytes()[: int(part.size * kept)])
    with pytest.raises(DamagedRecording, match=part.name):
        symbols_of(archive, DAY)


def test_parts_that_a_crash_left_beside_their_joined_file_are_not_played_twice(archive: RecordingArchive) -> None:
    sent = [message(seq) for seq in range(1, 21)]
    archive.write(DAY, 3, table(sent[:10]))
    archive.write(DAY, 3, table(sent[10:]))
    archive.write(DAY, 3, table(sent), joined=True)
    assert list(play(archive, OPEN)) == sent


def test_a_flipped_byte_is_named_and_not_played(tmp_path: Path) -> None:
    archive = RecordingArchive(str(tmp_path), "qmt")
    part = archive.write(DAY, 3, table([message(1)]))
    path = next(tmp_path.rglob(part.name))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedRecording, match=part.name):
        list(play(archive, OPEN))


def test_a_part_without_its_checksum_was_never_finished(tmp_path: Path) -> None:
    archive = RecordingArchive(str(tmp_path), "qmt")
    part = archive.write(DAY, 3, table([message(1)]))
    next(tmp_path.rglob(part.name.replace(".parquet", ".json"))).unlink()
    assert archive.parts(DAY) == ()


def test_old_days_are_deleted(archive: RecordingArchive) -> None:
    for offset in range(3):
        archive.write(DAY + timedelta(days=offset), 3, table([message(1)]))
    assert archive.forget_before(DAY + timedelta(days=2)) == 2
    assert archive.days() == (DAY + timedelta(days=2),)


def test_an_empty_archive_has_no_days(archive: RecordingArchive) -> None:
    assert archive.days() == ()
    assert archive.parts(date(2022, 6, 1)) == ()

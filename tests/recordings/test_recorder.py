"""The recorder writes what passes, a part at a time, and never holds the feed up."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from marketdata.recordings import recorder as room
from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.columns import table
from marketdata.recordings.reader import play
from marketdata.recordings.recorder import Recorder
from tests.recordings.made import DAY, OPEN, message


@pytest.fixture
def archive(tmp_path: Path) -> RecordingArchive:
    return RecordingArchive(str(tmp_path), "simulated-1")


def record(archive: RecordingArchive, messages: list[room.Message], days: int = 30) -> None:
    recorder = Recorder(archive, feed="main", days=days)
    recorder.start()
    for item in messages:
        recorder.take(item)
    recorder.close()


def test_what_passed_is_there_after_the_end(archive: RecordingArchive) -> None:
    sent = [message(seq) for seq in range(1, 50)]
    record(archive, sent)
    assert list(play(archive, OPEN)) == sent


def test_a_part_is_finished_when_it_is_full(archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PART_ROWS", 20)
    sent = [message(seq) for seq in range(1, 26)]
    record(archive, sent)
    assert [part.rows for part in archive.parts(DAY)] == [20, 20, 10]
    assert list(play(archive, OPEN)) == sent


def test_a_day_that_is_over_becomes_one_file_and_old_ones_go(archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PART_ROWS", 4)
    archive.write(DAY - timedelta(days=5), 1, table([message(1, at=OPEN - 5 * 86_400_000)]))
    today, tomorrow = [message(seq) for seq in range(1, 7)], [message(seq, at=OPEN + 86_400_000) for seq in range(7, 9)]
    record(archive, today + tomorrow, days=3)
    assert archive.days() == (DAY, DAY + timedelta(days=1))
    assert [part.joined for part in archive.parts(DAY)] == [True]
    assert list(play(archive, OPEN)) == today + tomorrow


def test_a_clock_that_was_set_back_does_not_turn_the_recording_back(archive: RecordingArchive) -> None:
    sent = [message(1), message(2, at=OPEN - 5_000), message(3)]
    record(archive, sent)
    assert [item.at for item in play(archive, OPEN)] == [sent[0].at, sent[0].at, sent[2].at]


def test_parts_of_a_clock_that_stands_are_all_kept(archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than have one digit, and joined in order."""
    monkeypatch.setattr(room, "PART_ROWS", 2)
    sent = [message(seq, at=OPEN) for seq in range(1, 13)]
    record(archive, sent)
    assert len(archive.parts(DAY)) == 12
    assert list(play(archive, OPEN)) == sent
    archive.join(DAY)
    assert len(archive.parts(DAY)) == 1
    assert list(play(archive, OPEN)) == sent


def test_a_disk_that_fails_costs_a_part_and_not_the_feed(archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PART_ROWS", 2)
    write, failures = archive.write, [OSError("no space left on device")]

    def failing(*arguments: object, **named: object) -> object:
        if failures:
            raise failures.pop()
        return write(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(archive, "write", failing)
    dropped = room.metrics.DROPPED.labels("main")._value.get()
    record(archive, [message(1), message(2)])
    assert list(play(archive, OPEN)) == [message(2)]
    assert room.metrics.DROPPED.labels("main")._value.get() == dropped + 2


def odd(seq: int) -> room.Message:
    """A message with a number that no column holds."""
    made = message(seq)
    quote = msgspec.json.decode(made.fragments[0]) | {"volume": 2**53 + 1}
    return made._replace(fragments=[msgspec.json.encode(quote), made.fragments[1]])


def test_an_odd_message_costs_what_waited_with_it_and_not_the_recording(
    archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LAID_OUT", 4)
    dropped = room.metrics.DROPPED.labels("main")._value.get()
    record(archive, [message(1), message(2), message(3), odd(4), message(5), message(6), message(7), odd(8)])
    assert [item.seq for item in play(archive, OPEN)] == [1, 2, 5, 6]
    assert [part.rows for part in archive.parts(DAY)] == [8]
    assert room.metrics.DROPPED.labels("main")._value.get() == dropped + 8


def test_a_time_that_is_none_costs_its_message_alone(archive: RecordingArchive) -> None:
    record(archive, [message(1), message(2, at=10**18), message(3)])
    assert [item.seq for item in play(archive, OPEN)] == [1, 3]


@pytest.mark.parametrize("step", ["forget_before", "join"])
def test_days_that_cannot_be_tidied_stand_in_no_ones_way(
    archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    archive.write(DAY - timedelta(days=1), 3, table([message(1, at=OPEN - 86_400_000)]))

    def failing(*_: object) -> None:
        raise RuntimeError("the bucket's library has an exception of its own")

    monkeypatch.setattr(archive, step, failing)
    record(archive, [message(1), message(2)])
    assert list(play(archive, OPEN)) == [message(1), message(2)]


def test_a_recorder_whose_disk_hangs_ends_all_the_same(archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "QUEUE", 2)
    monkeypatch.setattr(room, "PART_ROWS", 1)
    monkeypatch.setattr(room, "CLOSING", 0.1)
    writing, goes_on = threading.Event(), threading.Event()
    write = archive.write

    def hanging(*arguments: object, **named: object) -> object:
        writing.set()
        goes_on.wait(60)
        return write(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(archive, "write", hanging)
    recorder = Recorder(archive, feed="hanging", days=30)
    recorder.start()
    recorder.take(message(1))
    assert writing.wait(60)
    for seq in (2, 3):
        recorder.take(message(seq))
    closing = threading.Thread(target=recorder.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
    goes_on.set()
    monkeypatch.setattr(room, "CLOSING", 60.0)
    recorder.close()
    assert list(play(archive, OPEN)) == [message(1), message(2), message(3)]


def test_what_the_disk_cannot_follow_is_counted(archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "QUEUE", 3)
    recorder = Recorder(archive, feed="full", days=30)
    for seq in range(1, 6):
        recorder.take(message(seq))
    assert room.metrics.DROPPED.labels("full")._value.get() == 4
    recorder.start()
    recorder.close()
    assert list(play(archive, OPEN)) == [message(1), message(2), message(3)]


def test_a_process_that_was_killed_is_followed_by_one_that_goes_on(archive: RecordingArchive, tmp_path: Path) -> None:
    record(archive, [message(seq) for seq in range(1, 4)])
    # A part that was being written: its data alone, or not even that.
    torn = archive.write(DAY, 3, table([message(4)]))
    next(tmp_path.rglob(torn.name.replace(".parquet", ".json"))).unlink()
    next(tmp_path.rglob(torn.name)).with_suffix(".parquet.partial").write_bytes(b"PAR1")
    again = [message(seq, at=OPEN + 60_000 + seq, epoch=4) for seq in range(1, 4)]
    record(archive, again)
    assert list(play(archive, OPEN)) == [*(message(seq) for seq in range(1, 4)), *again]


def test_days_that_nobody_has_joined_are_joined_later_and_a_damaged_one_stands_in_no_ones_way(
    archive: RecordingArchive, tmp_path: Path
) -> None:
    ages = (9, 4, 3, 2)
    for age in ages:
        for seq in (1, 2):
            part = table([message(seq, at=OPEN - age * 86_400_000 + seq)])
            archive.write(DAY - timedelta(days=age), 3, part)
    days = {age: DAY - timedelta(days=age) for age in ages}
    damaged = archive.parts(days[4])[1]
    next(tmp_path.rglob(damaged.name)).write_bytes(b"")
    record(archive, [message(1)], days=5)
    assert archive.days() == (days[4], days[3], days[2], DAY)
    assert [len(archive.parts(days[age])) for age in (4, 3, 2)] == [2, 1, 1]

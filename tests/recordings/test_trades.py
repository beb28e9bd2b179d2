"""Trades are recorded beside the quotes of their messages, and come out again as they were published."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from marketdata import demand
from marketdata.events import Event
from marketdata.lease import MemoryLease
from marketdata.publish import PublishError
from marketdata.recordings import recorder as room
from marketdata.recordings.archive import DamagedRecording, RecordingArchive
from marketdata.recordings.columns import TRADES, Message, table
from marketdata.recordings.reader import play, play_all, symbols_of
from marketdata.recordings.recorder import Recorder
from marketdata.sources.replay.formats import open_recording
from marketdata.sources.replay.timeline import steps
from marketdata.types import DataType, Trade
from tests.feeds.wire import Unavailable, Wire, group, publisher
from tests.recordings.made import DAY, OPEN, message, trades
from tests.recordings.session import record_session, told
from tests.sources.replay.raw import SH_TRADES, excerpt


@pytest.fixture
def archive(tmp_path: Path) -> RecordingArchive:
    return RecordingArchive(str(tmp_path), "qmt")


def record(archive: RecordingArchive, messages: list[Message], days: int = 30) -> None:
    recorder = Recorder(archive, feed="main", days=days)
    recorder.start()
    for item in messages:
        recorder.take(item)
    recorder.close()


def test_quotes_and_trades_of_a_message_come_back_together(archive: RecordingArchive) -> None:
    record(archive, [message(1), trades(2), trades(3), message(3), message(4)])
    assert list(play(archive, OPEN)) == [message(1), message(3), message(4)]
    assert list(play(archive.of(TRADES), OPEN)) == [trades(2), trades(3)]
    found = list(play_all(archive, OPEN))
    none = message(2)._replace(symbols=[], fragments=[])
    assert [one for one, _ in found] == [message(1), none, message(3), message(4)]
    assert [happened.get(DataType.TRADE) for _, happened in found] == [
        None,
        (trades(2).symbols, trades(2).fragments),
        (trades(3).symbols, trades(3).fragments),
        None,
    ]
    assert list(play_all(archive, OPEN + 3_500)) == [(message(4), {})]
    assert symbols_of(archive.of(TRADES), DAY) == {"600000.SH"}


def test_a_day_without_trades_has_nothing_of_them(archive: RecordingArchive, tmp_path: Path) -> None:
    record(archive, [message(1), message(2)])
    assert [path.name for path in (tmp_path / "recordings" / "qmt").iterdir()] == [DAY.isoformat()]
    assert list(play_all(archive, OPEN)) == [(message(1), {}), (message(2), {})]
    assert archive.of(TRADES).days() == ()


def test_trades_are_joined_and_deleted_as_quotes_are(archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PART_ROWS", 4)
    kept = archive.of(TRADES)
    kept.write(DAY - timedelta(days=5), 1, table([trades(1, at=OPEN - 5 * 86_400_000)], TRADES))
    today, tomorrow = [trades(seq) for seq in range(1, 7)], [trades(7, at=OPEN + 86_400_000)]
    record(archive, [*today, *tomorrow], days=3)
    assert kept.days() == (DAY, DAY + timedelta(days=1))
    assert [(part.rows, part.joined) for part in kept.parts(DAY)] == [(12, True)]
    assert list(play(kept, OPEN)) == [*today, *tomorrow]
    assert archive.days() == ()


def test_what_the_disk_refuses_of_the_one_does_not_cost_the_other(
    archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(archive, "write", full)
    dropped = room.metrics.DROPPED.labels("main")._value.get()
    recorded = room.metrics.RECORDED[DataType.TRADE].labels("main")._value.get()
    record(archive, [message(1), trades(1)])
    assert list(play(archive.of(TRADES), OPEN)) == [trades(1)]
    assert room.metrics.DROPPED.labels("main")._value.get() == dropped + 2
    assert room.metrics.RECORDED[DataType.TRADE].labels("main")._value.get() == recorded + 2


def test_what_a_publisher_said_of_trades_after_its_term_is_dropped(archive: RecordingArchive) -> None:
    """The later term's quotes say when it began: trades of its own it may have had none by then."""
    archive.write(DAY, 3, table([message(1)]))
    archive.write(DAY, 4, table([message(1, epoch=4, at=OPEN + 3_000)]))
    kept = archive.of(TRADES)
    kept.write(DAY, 3, table([trades(2), trades(5)], TRADES))
    kept.write(DAY, 4, table([trades(2, epoch=4, at=OPEN + 8_000)], TRADES))
    assert list(play(kept, OPEN)) == [trades(2), trades(2, epoch=4, at=OPEN + 8_000)]
    assert [(one.epoch, one.seq) for one, _ in play_all(archive, OPEN)] == [(3, 1), (3, 2), (4, 1), (4, 2)]


def test_a_damaged_part_of_trades_is_named(archive: RecordingArchive, tmp_path: Path) -> None:
    part = archive.of(TRADES).write(DAY, 3, table([trades(1)], TRADES))
    path = next(tmp_path.rglob(part.name))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedRecording, match=part.name):
        list(play_all(archive, OPEN))


def test_quotes_and_trades_of_a_day_are_played_on_one_timeline(archive: RecordingArchive, tmp_path: Path) -> None:
    record(archive, [message(1), trades(1), trades(2), message(3)])
    market = tmp_path / "recordings" / "qmt"
    day, of_trades = (open_recording(market / name / DAY.isoformat()) for name in ("", "trades"))
    assert (day.trades, of_trades.trades) == (False, True)
    span = of_trades.scan()
    assert (span.symbols, span.rows, span.first, span.last) == (("600000.SH",), 4, OPEN + 1_000, OPEN + 2_000)
    shown = [(step.time, len(step.parsed.quotes), len(step.trades.trades)) for step in steps([day, of_trades])]
    assert shown == [(OPEN + 1_000, 2, 2), (OPEN + 2_000, 0, 2), (OPEN + 3_000, 2, 0)]
    told_again = [value for _, value in of_trades.rows()]
    fragments = [*trades(1).fragments, *trades(2).fragments]
    assert told_again == [msgspec.json.decode(fragment, type=Trade) for fragment in fragments]


@pytest.mark.django_db
def test_a_level_2_session_is_recorded_as_it_was_published(
    archive: RecordingArchive, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the symbols that somebody takes, and of no other; every one once, in order, under its own epoch and seq."""
    monkeypatch.setattr(demand, "LOOK", 0.0)
    wire = record_session([excerpt(data_dir, SH_TRADES, tmp_path, 400)], archive, frozenset({"605580.SH", "600536.SH"}), 800)
    (day,) = archive.of(TRADES).days()
    assert archive.days() == ()
    found = list(play(archive.of(TRADES), 0))
    published = [batch for batch in wire.sent if DataType.TRADE in batch.events]
    assert [(one.epoch, one.seq, (one.symbols, one.fragments)) for one in found] == [
        (batch.epoch, batch.seq, batch.events[DataType.TRADE]) for batch in published
    ]
    assert len(told(wire)) == 800
    assert day.isoformat() == "2023-07-11"
    assert [one.at for one in found] == [batch.clock for batch in published]


def trade(index: int) -> Event:
    """A trade of which nobody has been told."""
    one = Trade(symbol="600000.SH", time=OPEN, index=index, price=10.0, volume=100, source="test")
    return Event(DataType.TRADE, "600000.SH", msgspec.json.encode(one))


@pytest.mark.parametrize("journaled", [True, False])
def test_a_trade_is_recorded_once_whatever_the_channel_layer_refuses(journaled: bool) -> None:
    """With the journal it is published though the layer refused it; without, it goes out again later."""
    wire, kept = Wire(), list[Message]()
    journal = None if journaled else Unavailable()
    one = publisher(wire, MemoryLease(), record=kept.append, journal=journal)
    one.hold()
    one.publish([group(1, a=1)], None, trades=[trade(1)])
    wire.broken = True
    with pytest.raises(PublishError):
        one.publish([], None, trades=[trade(2)])
    wire.broken = False
    one.publish([], None, trades=[trade(3)])
    found = [
        msgspec.json.decode(fragment, type=Trade).index
        for item in kept
        if item.data_type is DataType.TRADE
        for fragment in item.fragments
    ]
    assert found == [1, 2, 3]
    assert [item.symbols for item in kept if item.data_type is DataType.QUOTE] == [["a"]]

"""A recorded day played to a single client, beside the live stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from asgiref.sync import sync_to_async

from argus.access import services
from argus.access.models import APIKey
from argus.config import config
from argus.errors import INVALID_ARGUMENT, ArgusError
from marketdata.builder import BarBuilder
from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.columns import TRADES, Message, table
from marketdata.types import Period, Quote
from streaming import replays
from tests.recordings.made import DAY, OPEN, message, trades
from tests.streaming.server import SYMBOLS, Client, Server, client, new_key, quote, subscriber, until

RECORDED = [message(seq) for seq in range(1, 41)]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingArchive:
    monkeypatch.setitem(config.__dict__, "archive_url", str(tmp_path))
    made = RecordingArchive(str(tmp_path), config.market)
    made.write(DAY, 3, table(RECORDED))
    return made


def moment(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat().replace("+00:00", "Z")


async def play(one: Client) -> list[dict[str, Any]]:
    """All data messages up to the end."""
    found = []
    while (received := await one.receive())["type"] != "finished":
        if received["type"] == "data":
            found.append(received)
    return found


def rows(messages: list[Message], *symbols: str) -> list[dict[str, Any]]:
    fragments = [
        fragment for item in messages for symbol, fragment in zip(item.symbols, item.fragments, strict=True) if symbol in symbols
    ]
    return [json.loads(fragment) for fragment in fragments]


async def test_it_plays_what_was_recorded_from_a_moment_on(server: Server, key: str, archive: RecordingArchive) -> None:
    path = f"/ws?replay={moment(RECORDED[20].at)}&speed=0"
    async with client(server, key, path=path) as one:
        await one.receive("connected")
        answer = await one.ask("subscribe", symbols=["600000.SH"])
        assert answer["symbols"] == ["600000.SH"]
        frames = await play(one)
        assert await one.closed() == 1000
    # First the state of that moment, then every message with its own epoch and seq.
    assert [row for frame in frames for row in frame["data"]] == rows(RECORDED[19:], "600000.SH")
    assert [(frame["epoch"], frame["seq"]) for frame in frames][1:] == [(3, item.seq) for item in RECORDED[20:]]


@pytest.mark.parametrize("by_message", [False, True])
async def test_a_replay_has_no_session_to_come_back_to(
    server: Server, key: str, archive: RecordingArchive, *, by_message: bool
) -> None:
    path = f"/ws?replay={moment(RECORDED[20].at)}"
    async with client(server, None if by_message else key, path=path) as one:
        told = await one.receive("connected")
        if by_message:
            told = await one.ask("auth", key=key)
        assert "session" not in told


async def test_a_replay_that_begins_between_two_terms_has_the_first_message_of_the_new_one(
    server: Server, key: str, archive: RecordingArchive
) -> None:
    term = [message(seq, at=OPEN + 60_000 + seq, epoch=4) for seq in (1, 2)]
    archive.write(DAY, 4, table(term))
    async with client(server, key, path=f"/ws?replay={moment(OPEN + 50_000)}&speed=0") as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=["600000.SH"])
        frames = await play(one)
    assert [(frame["epoch"], frame["seq"]) for frame in frames] == [(3, 40), (4, 1), (4, 2)]
    assert [row for frame in frames for row in frame["data"]] == rows([RECORDED[-1], *term], "600000.SH")


async def test_the_frames_are_those_of_the_live_stream(server: Server, key: str, archive: RecordingArchive) -> None:
    async with client(server, key, path=f"/ws?replay={moment(OPEN)}&speed=0") as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=["*"], data_types=["price", "status"])
        frames = await play(one)
    assert {row["type"] for frame in frames for row in frame["data"]} == {"price", "status"}
    assert {frozenset(frame) for frame in frames} <= {
        frozenset({"type", "feed", "epoch", "seq", "data"}),
        frozenset({"type", "feed", "epoch", "seq", "snapshot", "data"}),
    }


async def test_the_live_stream_goes_on_beside_it(server: Server, key: str, archive: RecordingArchive) -> None:
    async with (
        client(server, key, path=f"/ws?replay={moment(OPEN)}&speed=1") as replayed,
        subscriber(server, key, SYMBOLS[0]) as live,
    ):
        await replayed.receive("connected")
        assert (await replayed.ask("subscribe", symbols=["000001.SZ"]))["symbols"] == ["000001.SZ"]
        await server.feed.publish(quote(SYMBOLS[0], price=99.0))
        assert (await live.receive("data"))["data"][0]["price"] == 99.0
        assert (await replayed.receive("data"))["data"] == rows(RECORDED[:1], "000001.SZ")


async def test_a_client_that_reads_slowly_gets_everything(
    server: Server, key: str, tmp_path: Path, archive: RecordingArchive
) -> None:
    many = [message(seq, symbols=tuple(f"{code:06}.SZ" for code in range(1, 200))) for seq in range(100, 500)]
    archive.write(DAY, 5, table(many))
    async with client(server, key, path=f"/ws?replay={moment(many[0].at)}&speed=0", max_queue=1) as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=["000007.SZ", "market:SZ"])
        await until(lambda: any(c.behind_since is not None for c in server.connections.values()), "the client to be behind")
        frames = await play(one)
    seen = [row["seq"] for frame in frames for row in frame["data"] if row["symbol"] == "000007.SZ"]
    assert seen == [item.seq for item in many]


async def test_the_clock_starts_with_the_first_subscription(server: Server, key: str, archive: RecordingArchive) -> None:
    async with client(server, key, path=f"/ws?replay={moment(OPEN)}&speed=1000") as one:
        await one.receive("connected")
        await asyncio.sleep(0.3)
        await one.ask("subscribe", symbols=["600000.SH"])
        assert [row for frame in await play(one) for row in frame["data"]] == rows(RECORDED, "600000.SH")


async def test_nothing_recorded_is_an_answer_that_says_what_there_is(server: Server, key: str, archive: RecordingArchive) -> None:
    async with client(server, key, path="/ws?replay=2021-01-01T09:30") as one:
        error = await one.receive("error")
        assert (error["name"], error["parameter"]) == ("no_recording", "replay")
        assert "2022-06-01" in error["message"]
        assert await one.closed() == 4139


@pytest.mark.parametrize("time", ["", "0001-01-01T00:00", "9999-12-31T23:59-12:00", "2022-06-01T09:30&speed="])
async def test_a_time_that_is_none_is_refused_by_the_stream(
    server: Server, key: str, archive: RecordingArchive, time: str
) -> None:
    async with client(server, key, path=f"/ws?replay={time}") as one:
        error = await one.receive("error")
        assert error["name"] == "invalid_argument"
        assert error["parameter"] == ("speed" if "speed" in time else "replay")


async def test_a_plus_sign_in_an_address_needs_no_escape(server: Server, key: str, archive: RecordingArchive) -> None:
    async with client(server, key, path="/ws?replay=2022-06-01T09:30+08:00&speed=0") as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=["600000.SH"])
        assert [row for frame in await play(one) for row in frame["data"]] == rows(RECORDED, "600000.SH")


async def test_a_recording_that_is_torn_is_an_answer(server: Server, key: str, archive: RecordingArchive, tmp_path: Path) -> None:
    part = next(tmp_path.rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-100])
    async with client(server, key, path=f"/ws?replay={moment(OPEN)}") as one:
        assert (await one.receive("error"))["name"] == "no_recording"


async def test_a_day_that_is_joined_meanwhile_is_played_whole(server: Server, key: str, archive: RecordingArchive) -> None:
    more = [message(seq) for seq in range(41, 241)]
    for first in range(0, 200, 10):
        archive.write(DAY, 3, table(more[first : first + 10]))
    async with client(server, key, path=f"/ws?replay={moment(OPEN)}&speed=1000") as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=["600000.SH"])
        await one.receive("data")
        archive.join(DAY)
        frames = await play(one)
    assert [row["seq"] for frame in frames for row in frame["data"]] == [*range(2, 241)]


async def test_a_stranger_reads_no_recordings(server: Server, archive: RecordingArchive) -> None:
    async with client(server, path=f"/ws?replay={moment(OPEN)}") as one:
        assert (await one.receive("connected"))["streams"] == {}
        assert not replays._running


async def test_replays_are_counted_and_given_back(
    server: Server, key: str, archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(config.__dict__, "replays", 1)
    path = f"/ws?replay={moment(OPEN)}"
    async with client(server, key, path=path) as one:
        await one.receive("connected")
        async with client(server, key, path=path) as other:
            assert (await other.receive("error"))["name"] == "replay_limit"
            assert await other.closed() == 4138
    await until(lambda: not replays._running, "the replay to be given back")
    async with client(server, key, path=path) as again:
        assert (await again.receive())["type"] == "connected"


async def test_a_damaged_part_ends_the_replay_and_nothing_else(
    server: Server, key: str, archive: RecordingArchive, tmp_path: Path
) -> None:
    part = next(tmp_path.rglob("*.parquet"))
    data = bytearray(part.read_bytes())
    data[40] ^= 1
    part.write_bytes(data)
    async with subscriber(server, key, SYMBOLS[0]) as live:
        async with client(server, key, path=f"/ws?replay={moment(OPEN)}") as one:
            await one.receive("connected")
            await one.ask("subscribe", symbols=["600000.SH"])
            assert await one.closed() == 1011
        await server.feed.publish(quote(SYMBOLS[0]))
        assert await live.receive("data")


async def test_a_revoked_key_ends_its_replay(server: Server, archive: RecordingArchive) -> None:
    made, text = await new_key()
    async with client(server, text, path=f"/ws?replay={moment(OPEN)}") as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=["600000.SH"])
        await sync_to_async(services.revoke_keys)(keys=APIKey.objects.filter(pk=made.pk))
        assert await one.closed() == 4110


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"replay": ["yesterday"]}, "replay"),
        ({"replay": ["0001-01-01T00:00"]}, "replay"),
        ({"replay": ["2022-06-01"], "speed": ["-1"]}, "speed"),
        ({"replay": ["2022-06-01"], "speed": ["nan"]}, "speed"),
        ({"replay": ["2022-06-01"], "speed": ["quick"]}, "speed"),
        ({"speed": ["2"]}, "speed"),
    ],
)
def test_what_cannot_be_read_is_refused(query: dict[str, list[str]], parameter: str) -> None:
    with pytest.raises(ArgusError) as refused:
        replays.asked(query)
    assert refused.value.problem is INVALID_ARGUMENT
    assert refused.value.params["parameter"] == parameter


def test_times_are_beijings_unless_they_say_otherwise() -> None:
    assert replays.asked({"replay": ["2022-06-01T09:30"]}) == replays.Asked(OPEN, 1.0)
    assert replays.asked({"replay": ["2022-06-01T01:30:00Z"], "speed": ["20"]}) == replays.Asked(OPEN, 20.0)
    assert replays.asked({}) is None


async def test_trades_that_were_recorded_are_told_again(server: Server, key: str, archive: RecordingArchive) -> None:
    """Those of a message with quotes beside these, those of a message of trades alone with its own seq, none from before."""
    sent = [trades(5), trades(30), trades(40), trades(41)]
    archive.of(TRADES).write(DAY, 3, table(sent, TRADES))
    async with client(server, key, path=f"/ws?replay={moment(RECORDED[20].at)}&speed=0") as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=["600000.SH"], data_types=["trade", "quote"])
        frames = await play(one)
    found = [(frame["epoch"], frame["seq"], row) for frame in frames for row in frame["data"]]
    assert [(epoch, seq, row) for epoch, seq, row in found if row["type"] == "trade"] == [
        (3, item.seq, row) for item in sent[1:] for row in rows([item], "600000.SH")
    ]
    assert [row for _, _, row in found if row["type"] == "quote"] == rows(RECORDED[19:], "600000.SH")


async def test_a_day_of_trades_alone_is_played(server: Server, key: str, archive: RecordingArchive) -> None:
    alone = [trades(seq, at=OPEN + 86_400_000 + seq) for seq in (1, 2)]
    archive.of(TRADES).write(DAY + timedelta(days=1), 3, table(alone, TRADES))
    async with client(server, key, path=f"/ws?replay={moment(OPEN + 86_400_000)}&speed=0") as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=["600000.SH"], data_types=["trade"])
        assert [row for frame in await play(one) for row in frame["data"]] == rows(alone, "600000.SH")
    async with client(server, key, path=f"/ws?replay={moment(OPEN + 2 * 86_400_000)}") as one:
        refused = await one.receive("error")
    assert refused["name"] == "no_recording"
    assert "2022-06-02" in refused["message"]


def day_of_minutes(archive: RecordingArchive) -> list[Message]:
    """The next day's quotes from 09:15 on, three a minute, in three parts: two symbols, one of which speaks seldom."""
    midnight = OPEN + 86_400_000 - 34_200_000
    made = []
    for seq in range(1, 300):
        names = ("000001.SZ", "600000.SH") if seq % 30 == 1 else ("600000.SH",)
        at, tail, price = midnight + 33_300_000 + seq * 20_000 + 500, b',"seq":%d}' % seq, 10.0 + seq / 100
        numbers = {"price": price, "open": 10.0, "high": price, "low": 9.0, "volume": 100 * seq, "amount": 1000.0 * seq}
        quotes = [Quote(symbol=name, time=at, prev_close=9.9, source="simulated", **numbers) for name in names]
        made.append(Message(at, 3, seq, list(names), [msgspec.json.encode(one)[:-1] + tail for one in quotes]))
    for first in range(0, len(made), 100):
        archive.write(DAY + timedelta(days=1), 3, table(made[first : first + 100]))
    return made


def as_live(messages: list[Message], symbol: str, period: Period, since: int) -> dict[tuple[int, bool], dict[str, Any]]:
    """The last word on every bar that whoever had listened all day would have had from a time on."""
    builder, found = BarBuilder(), {}
    wanted = {period: frozenset({symbol})}
    for item in messages:
        builder.take(msgspec.json.decode(fragment, type=Quote) for fragment in item.fragments)
        builder.advance(item.at)
        bars = builder.drain(wanted)
        if item.at >= since:
            first = not found
            for bar in [*bars, *(builder.current(wanted) if first else ())]:
                found[bar.time, bar.closed] = json.loads(msgspec.json.encode(bar))
    return found


@pytest.mark.parametrize("period", [Period.M1, Period.M5, Period.H1, Period.D1])
@pytest.mark.parametrize("symbol", ["600000.SH", "000001.SZ"])
async def test_bars_are_those_of_whoever_had_listened_all_day(
    server: Server, key: str, archive: RecordingArchive, period: Period, symbol: str
) -> None:
    minutes = day_of_minutes(archive)
    start = minutes[160].at - 100
    async with client(server, key, path=f"/ws?replay={moment(start)}&speed=0") as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=[symbol], data_types=[f"kline:{period}"])
        found = {(row["time"], row["closed"]): row for frame in await play(one) for row in frame["data"]}
    expected = as_live(minutes, symbol, period, start)
    old = [time for time, closed in expected if closed and time < start]
    if symbol == "600000.SH" and period in (Period.M1, Period.M5):
        assert found.keys() & {(time, True) for time in old}, "the last bar that closed before"
    # Of a symbol that is seldom traded, that one may lie further back than a replay looks.
    expected = {key: row for key, row in expected.items() if key in found or key[0] not in old}
    assert {key: {**row, "seq": 0} for key, row in found.items()} == {key: {**row, "seq": 0} for key, row in expected.items()}
    assert found


def test_what_is_read_for_bars_is_given_up_with_the_client(archive: RecordingArchive) -> None:
    minutes = day_of_minutes(archive)
    wanted = {Period.H1: frozenset({"600000.SH"})}
    looks = iter([False] * 10 + [True] * 300)
    begun = replays._begun(archive, wanted, frozenset(), minutes[200], lambda: next(looks))
    assert next(looks) is True, "after the first True nobody looks again"
    assert len(list(looks)) == 298
    (bar,) = begun.current(wanted)
    assert bar.volume == 100 * minutes[9].seq


async def test_bars_that_are_asked_for_on_the_way_begin_with_what_forms(
    server: Server, key: str, archive: RecordingArchive
) -> None:
    minutes = day_of_minutes(archive)
    async with client(server, key, path=f"/ws?replay={moment(minutes[100].at)}&speed=100") as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=["600000.SH"], data_types=["quote"])
        await one.receive("data")
        await one.ask("subscribe", subscription="bars", symbols=["600000.SH"], data_types=["kline:1h"])
        rows_seen = [row for _ in range(30) for row in (await one.receive("data"))["data"]]
    first = next(row for row in rows_seen if row["type"] == "kline")
    before = [row for row in rows_seen if row["type"] == "quote" and row["seq"] <= first["seq"]][-1]
    # The hour has the opening auction in it, so its volume is all that the day has had.
    assert first["volume"] == before["volume"]


async def test_as_many_as_are_allowed_play_at_a_time_and_nothing_stays_of_them(
    server: Server, key: str, archive: RecordingArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(config.__dict__, "replays", 20)
    path = f"/ws?replay={moment(RECORDED[0].at)}&speed=0.001"

    async def one_of_many(stack: contextlib.AsyncExitStack) -> str:
        one = await stack.enter_async_context(client(server, key, path=path))
        if (first := await one.receive())["type"] == "error":
            return str(first["name"])
        await one.ask("subscribe", symbols=["600000.SH"], data_types=["quote", "kline:1m"])
        return str((await one.receive("data"))["type"])

    async with contextlib.AsyncExitStack() as stack:
        outcomes = await asyncio.gather(*(one_of_many(stack) for _ in range(25)))
        assert sorted(outcomes) == ["data"] * 20 + ["replay_limit"] * 5
    await until(lambda: not server.connections, "the clients to be gone")
    assert not replays._running
    await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("replay-")], "the tasks to end")


async def test_unpaced_replays_leave_the_live_stream_its_turn(server: Server, key: str, archive: RecordingArchive) -> None:
    async with subscriber(server, key, SYMBOLS[0]) as live, contextlib.AsyncExitStack() as stack:

        async def whole() -> list[dict[str, Any]]:
            one = await stack.enter_async_context(client(server, key, path=f"/ws?replay={moment(OPEN)}&speed=0"))
            await one.receive("connected")
            await one.ask("subscribe", symbols=["*"])
            return await play(one)

        playing = [asyncio.create_task(whole()) for _ in range(10)]
        await server.feed.publish(quote(SYMBOLS[0], price=77.0))
        assert (await live.receive("data"))["data"][0]["price"] == 77.0
        for frames in await asyncio.gather(*playing):
            seen = [row for frame in frames for row in frame["data"]]
            assert sorted(seen, key=lambda row: (row["seq"], row["symbol"])) == rows(RECORDED, "000001.SZ", "600000.SH")

"""A recorded day played to a single client, beside the live stream."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from argus.access import services
from argus.access.models import APIKey
from argus.config import config
from argus.errors import INVALID_ARGUMENT, ArgusError
from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.columns import Message, table
from streaming import replays
from tests.recordings.made import DAY, OPEN, message
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


async def test_bars_are_built_as_they_were_live(server: Server, key: str, archive: RecordingArchive) -> None:
    opened = OPEN + 86_400_000
    minutes = [message(seq, at=opened + seq * 20_000) for seq in range(1, 12)]
    archive.write(DAY + timedelta(days=1), 3, table(minutes))
    async with client(server, key, path=f"/ws?replay={moment(minutes[0].at)}&speed=0") as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=["600000.SH"], data_types=["kline:1m"])
        found = [row for frame in await play(one) for row in frame["data"]]
    assert {row["type"] for row in found} == {"kline"}
    # 09:31 had begun before the replay; the last one is still forming.
    assert [row["time"] - opened for row in found if row["closed"]] == [120_000, 180_000]
    assert found[-1] | {"closed": False, "time": opened + 240_000, "close": 11.11} == found[-1]

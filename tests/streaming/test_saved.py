"""Sessions outlive their connections: for how long, for whom, and without a word about their tokens in a log."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.test import override_settings

from argus.logging import formatter
from streaming import runtime, saved
from streaming.protocol import Position
from streaming.saved import HELD, OPEN, RENEW, Keeper, Record, Saved
from streaming.selection import Frequency
from tests.streaming.returning import Source, again, first, trade
from tests.streaming.server import SYMBOLS, Server, client, new_key, serve, until

A, B = SYMBOLS[:2]
RECORD = Record(
    prefix="test",
    digest="digest",
    subscriptions={
        "main": Saved(
            symbols=[A], data_types=["trade"], update_frequency=Frequency.REALTIME, since={"main": Position(epoch=1, seq=2)}
        )
    },
)


class Kept:
    """A cache of sessions, and the clock that it and the keepers of this process have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._passed = 0.0
        monkeypatch.setattr(saved, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + self._passed))

    def left(self, token: str) -> float | None:
        """Seconds for which a session is kept on; None where there is none."""
        raise NotImplementedError

    def let(self, seconds: float) -> None:
        """So much time passes."""
        self._passed += seconds


class InMemory(Kept):
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        for module in ("base", "locmem"):
            clock = SimpleNamespace(time=lambda: time.time() + self._passed)
            monkeypatch.setattr(f"django.core.cache.backends.{module}.time", clock)

    def left(self, token: str) -> float | None:
        if caches["default"].get(saved._name(token)) is None:
            return None
        until = caches["default"]._expire_info[caches["default"].make_key(saved._name(token))]
        return float(until - time.time() - self._passed)


class InRedis(Kept):
    def __init__(self, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        super().__init__(monkeypatch)
        self._client: Any = redis.Redis.from_url(url, protocol=2)

    def left(self, token: str) -> float | None:
        left = self._client.pttl(caches["default"].make_key(saved._name(token)))
        assert left != -1, "it would be kept for ever"
        return None if left < 0 else left / 1000

    def let(self, seconds: float) -> None:
        super().let(seconds)
        for key in self._client.scan_iter("*stream-session:*"):
            self._client.pexpire(key, max(0, int(self._client.pttl(key) - 1000 * seconds)))


@pytest.fixture(params=["memory", "redis"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Where the sessions are kept; ask for it before a server."""
    if request.param == "memory":
        yield InMemory(monkeypatch)
        return
    url = request.getfixturevalue("redis_url")
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}}):
        yield InRedis(monkeypatch, url)


@contextlib.asynccontextmanager
async def running(keeper: Keeper) -> AsyncIterator[None]:
    """A keeper that writes."""
    task = asyncio.create_task(keeper.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def written(kept: Kept, token: str, within: int) -> None:
    """Wait until a session is kept, and for so many seconds."""
    await until(lambda: within - 5 < (kept.left(token) or 0) <= within, f"the session to be kept for {within} s")


# For how long


async def test_a_session_is_held_for_a_minute_after_its_connection_and_then_gone(kept: Kept, server: Server, key: str) -> None:
    async with first(server, key, A) as one:
        await written(kept, one.token, OPEN)
    await written(kept, one.token, HELD)
    assert HELD == 60
    kept.let(HELD - 5)
    async with again(server, one.left, key) as (_, answer):
        assert answer["type"] == "resumed"
    kept.let(6)
    assert await saved.load(one.token) is None
    async with client(server, key) as late:
        await late.receive("connected")
        refused = await late.ask("resume", session=one.token)
        assert (refused["name"], refused["code"]) == ("session_unknown", 442)


async def test_the_session_of_an_open_connection_never_lapses(kept: Kept, server: Server, key: str) -> None:
    async with first(server, key, A) as one:
        await written(kept, one.token, OPEN)
        for _ in range(10):
            kept.let(RENEW)
            assert (kept.left(one.token) or 0) > HELD, "it would be lost before it is renewed, or with its process"
            await written(kept, one.token, OPEN)
    await written(kept, one.token, HELD)


async def test_the_session_of_a_process_that_was_killed_lapses(kept: Kept) -> None:
    killed = Keeper()
    killed.keep("token", RECORD)
    await killed._write()
    kept.let(OPEN - 5)
    assert await saved.load("token") == RECORD
    kept.let(6)
    assert await saved.load("token") is None


async def test_a_process_that_stops_leaves_its_sessions_for_a_minute(kept: Kept, clean_process: None) -> None:
    key = (await new_key())[1]
    async with serve() as server, client(server, key) as one:
        token = (await one.receive("connected"))["session"]
        await one.ask("subscribe", symbols=[A])
        await written(kept, token, OPEN)
    await written(kept, token, HELD)


async def test_a_session_that_ends_before_it_was_written_is_held(kept: Kept) -> None:
    keeper = Keeper()
    async with running(keeper):
        keeper.keep("token", RECORD)
        keeper.end("token")
        await written(kept, "token", HELD)


async def test_a_keeper_that_is_cancelled_leaves_what_is_open_for_a_minute(kept: Kept) -> None:
    keeper = Keeper()
    async with running(keeper):
        keeper.keep("token", RECORD)
        await written(kept, "token", OPEN)
    await written(kept, "token", HELD)


async def test_what_the_cache_does_not_take_is_written_when_it_does_and_as_it_is_then(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[object] = []
    keeper = Keeper()

    def refuse(work: Mapping[str, object], over: object) -> None:
        refused.append(work)
        keeper.end("ended")
        raise redis.ConnectionError("away")

    with monkeypatch.context() as away:
        away.setattr(saved, "_write", refuse)
        async with running(keeper):
            keeper.keep("open", RECORD)
            keeper.keep("ended", RECORD)
            await until(lambda: len(refused) > 1, "another attempt")
            away.undo()
            await written(kept, "open", OPEN)
            await written(kept, "ended", HELD)


async def test_a_keeper_that_failed_goes_on_with_all_that_is_open(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(work: Mapping[str, object], over: object) -> None:
        raise ValueError("broken")

    keeper = Keeper()
    with monkeypatch.context() as broken:
        broken.setattr(saved, "_write", fail)
        keeper.keep("token", RECORD)
        with pytest.raises(ValueError, match="broken"):
            await keeper.run()
    async with running(keeper):
        await written(kept, "token", OPEN)
        kept.let(RENEW)
        await written(kept, "token", OPEN)


@pytest.mark.parametrize("kept", ["memory"], indirect=True)
async def test_more_sessions_than_a_machine_holds_connections_push_none_out(kept: Kept) -> None:
    keeper = Keeper()
    tokens = [f"token {number}" for number in range(12_000)]
    for token in tokens:
        keeper.keep(token, RECORD)
    await keeper._write()
    assert [token for token in tokens if kept.left(token) is None] == []


@pytest.mark.parametrize("kept", ["memory"], indirect=True)
async def test_sessions_that_are_over_take_no_memory(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "LOOK", 0.01)
    keeper = Keeper()
    async with running(keeper):
        for number in range(50):
            keeper.keep(f"token {number}", RECORD)
            keeper.end(f"token {number}")
        keeper.keep("open", RECORD)
        await until(lambda: len(caches["default"]._cache) == 51, "all of them to be written")
        kept.let(HELD - 5)
        await asyncio.sleep(0.1)
        assert len(caches["default"]._cache) == 51
        kept.let(7)
        await until(lambda: len(caches["default"]._cache) == 1, "them to be gone")
        assert await saved.load("open") == RECORD


# For whom


async def test_a_session_may_be_taken_up_more_than_once_and_is_the_same_each_time(
    kept: Kept, server: Server, source: Source, key: str
) -> None:
    async with first(server, key, A, data_types=["trade"]) as one:
        await source.tell(happened=[trade(A, 1)])
        await one.read(1)
    await source.tell(happened=[trade(A, 2), trade(B, 1)])
    await until(lambda: runtime.current().hub.position("main")[1] == 2, "the hub to hear it")  # type: ignore[union-attr]
    async with again(server, one.left) as (two, answer):
        assert (answer["recovered"], answer["subscriptions"].keys()) == (True, {"main"})
        assert [piece["index"] for piece in await two.read(1)] == [2]
        assert (await two.client.ask("subscribe", subscription="more", symbols=[B], data_types=["trade"]))["type"] == "subscribed"
        await source.tell(happened=[trade(A, 3), trade(B, 2)])
        assert [(piece["symbol"], piece["index"]) for piece in await two.read(2)] == [(A, 3), (B, 2)]
    # The second one to take it up sees what it was when it ended, from where that client was; nothing of what the first one did.
    async with again(server, one.left) as (three, answer):
        assert (answer["recovered"], answer["subscriptions"].keys()) == (True, {"main"})
        assert answer["gaps"][0]["from"] == {"epoch": 1, "seq": 2}
        assert [(piece["symbol"], piece["index"]) for piece in await three.read(2)] == [(A, 2), (A, 3)]
    assert len({one.token, two.token, three.token}) == 3
    # What the first one did is in the session of its own.
    async with again(server, two.left) as (_, answer):
        assert answer["subscriptions"].keys() == {"main", "more"}
        assert answer["gaps"][0]["to"] == {"epoch": 1, "seq": 3}


async def test_a_session_is_taken_up_while_its_connection_is_still_thought_to_be_open(
    kept: Kept, server: Server, source: Source, key: str
) -> None:
    async with first(server, key, A, data_types=["trade"]) as one:
        await source.tell(happened=[trade(A, 1)])
        await one.read(1)
        await written(kept, one.token, OPEN)
        # ``again`` would wait for the connections to end.
        async with client(server) as back:
            await back.receive("connected")
            await back.send("resume", id=1, session=one.token, streams=one.streams)
            assert (await back.receive("resumed"))["subscriptions"].keys() == {"main"}
            await source.tell(happened=[trade(A, 2)])
            assert [piece["index"] for piece in (await back.receive("data"))["data"]] == [2]


@pytest.mark.parametrize("data", [b"\xc1", b"\x80", b'{"prefix":"x"}'], ids=["garbage", "another version's", "JSON"])
async def test_what_is_no_session_is_none_and_the_connection_goes_on(server: Server, key: str, data: bytes) -> None:
    caches["default"].set(saved._name("token"), data, HELD)
    async with client(server, key) as one:
        await one.receive("connected")
        assert (await one.ask("resume", session="token"))["name"] == "session_unknown"
        assert (await one.ask("subscribe", symbols=[A]))["type"] == "subscribed"


async def test_a_client_is_told_its_token_and_its_time_once_its_key_is_known(server: Server, key: str) -> None:
    async with client(server, key) as known, client(server) as stranger:
        hello = await known.receive("connected")
        assert (len(hello["session"]) >= 32, hello["session_seconds"]) == (True, HELD)
        assert (await stranger.receive("connected")).keys().isdisjoint({"session", "session_seconds"})
        accepted = await stranger.ask("auth", key=key)
        assert (accepted["type"], accepted["session_seconds"]) == ("authenticated", HELD)
        assert accepted["session"] != hello["session"]


# In a log


@pytest.fixture
def lines() -> Iterator[Callable[[], str]]:
    """All that was logged, as it goes into a file, however little it matters."""
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    handler.setFormatter(formatter())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream.getvalue
    root.removeHandler(handler)
    root.setLevel(level)


async def test_no_line_of_a_log_has_a_token(
    lines: Callable[[], str], server: Server, source: Source, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where all is well nor where it is not: whoever reads a log could go on with the key's rights."""
    async with first(server, key, A, data_types=["trade"]) as one:
        await source.tell(happened=[trade(A, 1)])
        await one.read(1)
    async with again(server, one.left) as (two, _):
        pass
    async with again(server, one.left, (await new_key())[1]) as (_, answer):
        assert answer["name"] == "session_unknown"
    async with client(server, key) as wrong:
        await wrong.receive("connected")
        assert (await wrong.ask("resume", session=one.token, streams="x"))["name"] == "invalid_argument"
        await wrong.ws.send(f'{{"action": "resume", "session": "{one.token}"')
        assert (await wrong.receive("error"))["name"] == "bad_json"
        for error in (redis.ConnectionError("away"), ValueError(f'{{"action": "resume", "session": "{one.token}"}}')):

            def fail(name: str, error: Exception = error) -> None:
                raise error

            with monkeypatch.context() as away:
                away.setattr(saved.cache, "get", fail)
                answer = await wrong.ask("resume", session=one.token)
                assert answer["name"] == ("not_ready" if isinstance(error, redis.RedisError) else "internal")
    said = lines()
    assert said.count("stream_resumed") == 1 and "message_failed" in said
    assert [token for token in (one.token, two.token) if token[:12] in said] == []

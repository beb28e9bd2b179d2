"""Limits of the stream as clients meet them: at the door, in what they send, in what they subscribe to, and under overload."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus

from argus.access import check, limits
from argus.access.models import Plan
from argus.config import config
from argus.errors import ADDRESS_LIMIT, BUSY, ArgusError
from marketdata import universe
from marketdata.universe import Universe
from streaming import door, overload, runtime, saved
from streaming.metrics import Counters, collector
from streaming.overload import Level, Load
from streaming.relief import Relief
from streaming.session import MAX_REFUSED
from streaming.throttle import BURST, PATIENCE
from tests.streaming.server import SYMBOLS, Server, client, new_key, quote, serve, subscriber, until

A, B, C = SYMBOLS[:3]

Configured = Callable[..., contextlib.AbstractAsyncContextManager[Server]]


@pytest.fixture
def configured(clean_process: None, monkeypatch: pytest.MonkeyPatch) -> Configured:
    """Starts a server with other settings; X-Forwarded-For is believed, so that clients may come from several addresses."""
    monkeypatch.setattr(check, "_trusted", (ip_network("127.0.0.1/32"),))

    @contextlib.asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[Server]:
        for name, value in settings.items():
            monkeypatch.setitem(config.__dict__, name, value)
        async with serve() as running:
            yield running

    return start


def counters() -> Counters:
    current = runtime.current()
    assert current is not None
    return current.hub.counters


def comes_from(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


async def refusal(server: Server, **options: Any) -> tuple[int, Headers, dict[str, Any]]:
    """Status, headers and problem document of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with client(server, **options):
            pass
    response = caught.value.response
    assert response.body is not None
    return response.status_code, response.headers, json.loads(response.body)


# The door


async def test_a_storm_is_let_in_at_the_rate_and_all_of_it_after_the_time_that_it_is_told(configured: Configured) -> None:
    _, key = await new_key(connections=1000)
    refused: list[int] = []

    async def come(server: Server) -> ClientConnection:
        while True:
            try:
                return await connect(f"{server.url}/ws", additional_headers={"X-API-Key": key}, proxy=None, open_timeout=60)
            except InvalidStatus as error:
                assert error.response.status_code == 503
                refused.append(int(error.response.headers["Retry-After"]))
                await asyncio.sleep(refused[-1])

    async with configured(admit_per_second=150) as server:
        clients = await asyncio.gather(*(come(server) for _ in range(500)))
        assert len(server.connections) == counters().admitted == 500
        assert len(refused) == counters().refusals.counts["busy"] > 0
        assert max(refused) > 1
        await asyncio.gather(*(one.close() for one in clients))


async def test_who_is_turned_away_is_told_why_and_when_to_come_again(configured: Configured) -> None:
    _, key = await new_key()
    async with configured(admit_per_second=0.1) as server, client(server, key, headers=comes_from("192.0.2.7")) as one:
        await one.receive("connected")
        status, headers, problem = await refusal(server, key=key, headers=comes_from("192.0.2.8"))
    assert (status, headers["Retry-After"], headers["Content-Type"]) == (503, "10", "application/problem+json")
    assert (problem["name"], problem["retry_after"], problem["retryable"]) == ("busy", 10, True)
    assert "try again in 10 s" in problem["detail"]


async def test_an_address_that_storms_does_not_keep_another_one_out(configured: Configured) -> None:
    _, key = await new_key(connections=1000)
    async with configured(admit_per_second=20) as server:

        async def storm() -> None:
            while True:
                with contextlib.suppress(InvalidStatus):
                    async with client(server, headers=comes_from("192.0.2.7")):
                        pass
                await asyncio.sleep(0)

        storms = [asyncio.create_task(storm()) for _ in range(4)]
        try:
            await until(lambda: counters().refusals.counts.get("busy", 0) > 20, "the storm to be turned away")
            for number in range(10):
                async with client(server, key, headers=comes_from(f"198.51.100.{number}")) as one:
                    assert (await one.receive())["authenticated"] is True
        finally:
            for task in storms:
                task.cancel()
            await asyncio.gather(*storms, return_exceptions=True)


async def test_without_a_rate_nobody_is_turned_away(configured: Configured) -> None:
    _, key = await new_key()
    async with configured(admit_per_second=0) as server, contextlib.AsyncExitStack() as clients:
        for _ in range(50):
            await clients.enter_async_context(client(server, key))
        assert "busy" not in counters().refusals.counts


async def test_an_address_has_as_many_connections_as_it_may(configured: Configured) -> None:
    _, key = await new_key()
    async with configured(connections_per_address=2) as server:
        here, elsewhere = comes_from("192.0.2.7"), comes_from("192.0.2.8")
        async with client(server, key, headers=here), client(server, headers=elsewhere):
            async with client(server, headers=here):
                status, _, problem = await refusal(server, key=key, headers=here)
                assert (status, problem["name"], problem["limit"]) == (429, "address_limit", 2)
                async with client(server, headers=elsewhere) as other:
                    assert (await other.receive())["type"] == "connected"
            await until(lambda: len(server.connections) == 2, "two of them to be gone")
            async with client(server, headers=here) as again:
                assert (await again.receive())["type"] == "connected"
        assert counters().refusals.counts == {"address_limit": 1}


@pytest.mark.parametrize("error", [ArgusError(BUSY, retry_after=3), ArgusError(ADDRESS_LIMIT, limit=2)])
async def test_where_a_server_cannot_answer_a_handshake_the_stream_says_the_same(error: ArgusError) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await door.refuse({"type": "websocket", "argus.connection_id": "1"}, send, error)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert json.loads(sent[1]["text"]) == error.reply(None)
    assert sent[2]["code"] == error.problem.close


# What a connection sends


async def key_on(**limits: Any) -> str:
    """The text of a key on a plan with these limits."""
    row, text = await new_key()
    await sync_to_async(Plan.objects.filter(pk=row.plan_id).update)(**limits)
    return text


async def test_who_floods_is_told_then_closed_and_a_neighbour_misses_nothing(server: Server, key: str) -> None:
    flooding = await key_on(messages_per_second=2)
    async with client(server, flooding) as flooder, subscriber(server, key, A) as neighbour:
        assert (await flooder.receive("connected"))["limits"]["messages_per_second"] == 2
        names = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                answer = await flooder.ask("ping")
                names.append(answer.get("name", answer["type"]))
                await publish(server, 1)
                if names[-1] == "rate_limited":
                    assert (answer["retryable"], answer["retry_after"]) == (True, 1)
                    assert answer["parameter"] == "messages_per_second"
        assert names[: BURST * 2 + 1] == ["pong"] * BURST * 2 + ["rate_limited"]
        assert names[-1] == "message_limit"
        assert names.count("rate_limited") >= PATIENCE * 2
        assert await flooder.closed() == 4128
        assert [(await neighbour.receive("data"))["seq"] for _ in names] == list(range(1, len(names) + 1))
        assert counters().refusals.counts["message_limit"] == 1


async def test_a_client_that_heeds_the_limit_goes_on(server: Server) -> None:
    async with client(server, await key_on(messages_per_second=5)) as one:
        await one.receive("connected")
        waits = 0
        for _ in range(BURST * 5 + 5):
            while "retry_after" in (answer := await one.ask("ping")):
                waits += 1
                await asyncio.sleep(answer["retry_after"])
        assert answer["type"] == "pong"
        assert waits >= 1
        assert "message_limit" not in counters().refusals.counts


async def test_the_limit_of_an_edited_plan_counts_from_the_next_message(server: Server) -> None:
    row, text = await new_key()
    async with client(server, text) as one:
        await one.receive("connected")
        await sync_to_async(Plan.objects.filter(pk=row.plan_id).update)(messages_per_second=1)
        assert (await one.receive("limits"))["limits"]["messages_per_second"] == 1
        names = {(await one.ask("ping")).get("name") for _ in range(BURST + 1)}
        assert "rate_limited" in names


async def test_a_stranger_who_floods_is_closed(server: Server) -> None:
    async with client(server) as one:
        names = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                answer = await one.ask("ping")
                names.append(answer.get("name", answer["type"]))
        assert await one.closed() == 4101
        assert names.count("rate_limited") == MAX_REFUSED


# What a key subscribes to


async def test_a_key_has_so_many_subscriptions_over_all_its_connections(server: Server) -> None:
    text = await key_on(subscriptions=3)
    async with client(server, text) as one, client(server, text) as two:
        assert (await one.receive("connected"))["limits"]["key_subscriptions"] == 3
        for name in ("a", "b"):
            assert (await one.ask("subscribe", subscription=name, symbols=[A]))["type"] == "subscribed"
        assert (await two.ask("subscribe", subscription="c", symbols=[A]))["type"] == "subscribed"
        refused = await two.ask("subscribe", subscription="d", symbols=[B])
        assert (refused["name"], refused["limit"]) == ("subscription_limit", 3)
        assert (await two.ask("subscriptions"))["subscriptions"].keys() == {"c"}
        assert (await two.ask("subscribe", subscription="c", symbols=[B]))["type"] == "subscribed"
        await server.feed.publish(quote(B))
        assert [piece["symbol"] for piece in (await two.receive("data"))["data"]] == [B]
        await one.ask("unsubscribe", subscription="b")
        assert (await two.ask("subscribe", subscription="d", symbols=[B]))["type"] == "subscribed"
    await until(lambda: not server.connections, "both to be gone")
    async with client(server, text) as three:
        for name in ("a", "b", "c"):
            assert (await three.ask("subscribe", subscription=name, symbols=[A]))["type"] == "subscribed"


async def test_a_session_that_is_taken_up_counts_as_well(server: Server) -> None:
    text = await key_on(subscriptions=2)
    async with client(server, text) as one:
        token = (await one.receive("connected"))["session"]
        for name in ("a", "b"):
            await one.ask("subscribe", subscription=name, symbols=[A])
    async with asyncio.timeout(10):
        while (record := await saved.load(token)) is None or len(record.subscriptions) < 2 or server.connections:
            await asyncio.sleep(0.01)
    async with client(server, text) as other, client(server) as back:
        await other.ask("subscribe", symbols=[A])
        refused = await back.ask("resume", session=token)
        assert (refused["name"], refused["limit"]) == ("subscription_limit", 2)
        assert (await back.ask("subscriptions"))["subscriptions"] == {}
        await other.ask("unsubscribe")
        assert (await back.ask("resume", session=token))["subscriptions"].keys() == {"a", "b"}
        assert (await other.ask("subscribe", symbols=[A]))["name"] == "subscription_limit"


async def test_what_changes_while_subscriptions_are_counted_is_not_lost(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    text = await key_on(subscriptions=1)
    hold = limits.quota().hold_subscriptions

    async def meanwhile(*arguments: Any) -> None:
        known = universe.current()
        universe.set_current(Universe(symbols=known.symbols, sectors={"few": (A, B)}))
        for connection in list(server.connections.values()):
            assert connection.on_universe is not None
            connection.on_universe()
        await hold(*arguments)

    async with subscriber(server, text, "sector:few") as one:
        monkeypatch.setattr(limits.quota(), "hold_subscriptions", meanwhile)
        refused = await one.ask("subscribe", subscription="more", symbols=["sector:few", C])
        assert refused["name"] == "subscription_limit"
        assert (await one.ask("subscriptions"))["subscriptions"]["main"]["count"] == 2
        await server.feed.publish(quote(C), quote(B))
        assert [piece["symbol"] for piece in (await one.receive("data"))["data"]] == [B]


# Overload


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Load], None]:
    """Says what the hub measures; levels change as soon as it is looked at."""
    measured = [Load(0.0, 0.0, 0.0)]
    monkeypatch.setattr(Relief, "measure", lambda *_: measured[0])
    monkeypatch.setattr(overload, "RISE", 0.0)
    monkeypatch.setattr(overload, "FALL", 0.0)
    monkeypatch.setattr(overload, "RELAPSE", -1.0)

    def set_load(value: Load) -> None:
        measured[0] = value

    return set_load


def at_level(level: Level) -> Callable[[], bool]:
    return lambda: counters().overload == level


async def publish(server: Server, count: int) -> None:
    for _ in range(count):
        await server.feed.publish(quote(A, time=1_700_000_000_000 + 3000 * server.feed.seq))


async def test_under_overload_low_priority_merges_then_is_sent_away_and_high_priority_gets_every_message(
    load: Callable[[Load], None], server: Server
) -> None:
    keys = [await key_on(priority=priority) for priority in (0, 1, 2)]
    async with (
        subscriber(server, keys[0], A) as low,
        subscriber(server, keys[1], A) as normal,
        subscriber(server, keys[2], A) as high,
    ):
        load(Load(overload.BUSY, 0.0, 0.0))
        await until(at_level(Level.MERGE_LOW), "merging")
        await publish(server, 100)
        assert [(await high.receive("data"))["seq"] for _ in range(100)] == list(range(1, 101))
        assert [(await normal.receive("data"))["seq"] for _ in range(100)] == list(range(1, 101))
        merged = [(await low.receive("data"))["seq"]]
        while merged[-1] < 100:
            merged.append((await low.receive("data"))["seq"])
        assert len(merged) < 100

        load(Load(overload.BUSY, overload.LATE, overload.LAG))
        goodbye = await low.receive("goodbye")
        assert goodbye["reason"] == "overload"
        assert 5_000 <= goodbye["reconnect_after_ms"] <= 30_000
        assert await low.closed() == 4008
        await publish(server, 100)
        assert [(await high.receive("data"))["seq"] for _ in range(100)] == list(range(101, 201))
        held = [(await normal.receive("data"))["seq"]]
        while held[-1] < 200:
            held.append((await normal.receive("data"))["seq"])
        assert len(held) < 100
        async with client(server, keys[0]) as back:
            error = await back.receive("error")
            assert (error["name"], error["retryable"]) == ("overloaded", True)
            assert 5 <= error["retry_after"] <= 30
            assert await back.closed() == 4008

        load(Load(0.0, 0.0, 0.0))
        await until(at_level(Level.CALM), "calm")
        await publish(server, 20)
        for one in (normal, high):
            assert [(await one.receive("data"))["seq"] for _ in range(20)] == list(range(201, 221))
        async with subscriber(server, keys[0], A) as again:
            await publish(server, 1)
            assert [(await again.receive("data"))["seq"] for _ in range(2)] == [220, 221]


async def test_those_who_are_sent_away_come_back_at_different_times(load: Callable[[Load], None], server: Server) -> None:
    text = await key_on(priority=0, connections=20)
    async with contextlib.AsyncExitStack() as clients:
        crowd = [await clients.enter_async_context(client(server, text)) for _ in range(10)]
        for one in crowd:
            await one.receive("connected")
        load(Load(0.0, overload.LATE, 0.0))
        told = [(await one.receive("goodbye"))["reconnect_after_ms"] for one in crowd]
        assert len(set(told)) > 5
        assert [await one.closed() for one in crowd] == [4008] * 10
        assert counters().shed == 10


def metrics(*names: str, of: str = "") -> list[float]:
    """What those who watch a process are told of its stream."""
    found = {}
    for family in text_string_to_metric_families(generate_latest().decode()):
        found |= {(sample.name, sample.labels.get("name", "")): sample.value for sample in family.samples}
    return [found.get((f"argus_stream_{name}", of), 0.0) for name in names]


async def test_each_step_is_in_the_metrics(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """From calm to shedding and back: each step shows in its own metrics, and only once it is taken."""
    keys = {priority: await key_on(priority=priority) for priority in (0, 1, 2)}
    target, high = Level.CALM, Load(0.75, overload.LATE, 0.0)
    between, low = Load(0.625, 0.75 * overload.LATE, 0.0), Load(0.125, 0.0, 0.0)

    def measure(relief: Relief, now: float, due: float) -> Load:
        return between if relief.level is target else high if relief.level < target else low

    # Hubs of earlier tests may still be there.
    monkeypatch.setattr(collector, "_sources", {counters()})
    monkeypatch.setattr(Relief, "measure", measure)
    for name, value in {"RISE": 0.0, "FALL": 0.0, "RELAPSE": -1.0}.items():
        monkeypatch.setattr(overload, name, value)
    async with contextlib.AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(subscriber(server, text, A)) for name, text in keys.items()}

        async def step(level: Level) -> list[int]:
            """Take all steps up or down to this one, and publish ten messages there; how many each client has received."""
            nonlocal target
            target, (before,) = level, metrics("frames_total")
            await until(lambda: metrics("overload", "busy") == [level, between.busy], f"level {level}")
            await publish(server, 10)
            last, received = server.feed.seq, []
            for one in clients.values():
                received.append(1)
                while (await one.receive("data"))["seq"] < last:
                    received[-1] += 1
            assert metrics("frames_total") == [before + sum(received)]
            return received

        assert await step(Level.CALM) == [10, 10, 10]
        assert metrics("lagged_total", "shed_total") == [0, 0]
        low_priority, *others = await step(Level.MERGE_LOW)
        assert low_priority < 10 and others == [10, 10]
        assert metrics("lagged_total", "shed_total") == [10, 0]
        *merged, spared = await step(Level.MERGE_NORMAL)
        assert max(merged) < 10 and spared == 10
        assert metrics("lagged_total", "shed_total") == [20, 0]
        assert metrics("refusals_total", of="overloaded") == [0]

        target = Level.SHED_LOW
        monkeypatch.setattr(Relief, "measure", lambda *_: high)
        assert await clients.pop(0).closed() == 4008
        await until(lambda: metrics("connections") == [2], "it to be gone")
        assert metrics("overload", "shed_total", "late", "busy") == [Level.SHED_LOW, 1, high.late, high.busy]
        for refused in (1, 2):
            async with client(server, keys[0]) as one:
                assert await one.closed() == 4008
            assert metrics("refusals_total", of="overloaded") == [refused]
        async with client(server, keys[1]) as one:
            assert (await one.receive())["type"] == "connected"
        assert metrics("admitted_total") == [6]

        monkeypatch.setattr(Relief, "measure", measure)
        lagged = metrics("lagged_total")
        assert await step(Level.CALM) == [10, 10]
        assert metrics("lagged_total", "shed_total") == [*lagged, 1]

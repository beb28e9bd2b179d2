"""Limits of the stream as clients meet them: at the door, in what they send, in what they subscribe to, and under overload."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from argus.access import check
from argus.config import config
from argus.errors import ADDRESS_LIMIT, BUSY, ArgusError
from streaming import door, runtime
from streaming.metrics import Counters
from tests.streaming.server import Server, client, new_key, serve, until

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


async def refusal(server: Server, **options: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and problem document of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with client(server, **options):
            pass
    response = caught.value.response
    assert response.body is not None
    return response.status_code, dict(response.headers.items()), json.loads(response.body)


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

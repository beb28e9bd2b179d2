"""Bad input and bad clients: each is answered with its error, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from argus.config import config
from argus.requestid import RequestIds
from marketdata import universe
from marketdata.types import Quote
from marketdata.universe import Universe
from streaming import runtime
from streaming.connection import Connection
from streaming.hub import Hub
from streaming.wire import HIGH_WATER
from tests.streaming.server import SYMBOLS, Server, client, new_key, quote, subscriber, until

A = SYMBOLS[0]


# Messages


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ('{"action":"fly","id":1}', "unknown_action"),
        ("{", "bad_json"),
        ("", "bad_json"),
        ("[" * 100_000, "bad_json"),
        ('{"action":"subscribe","id":1,"symbols":7}', "invalid_argument"),
        (b"\x00\xff", "not_text"),
        (json.dumps({"action": "subscribe", "symbols": [f"{code:06}.SZ" for code in range(10_000)]}), "symbol_limit"),
        (json.dumps({"action": "subscribe", "symbols": ["999999.SZ", "x" * 100_000]}), "unknown_symbol"),
    ],
    ids=["unknown action", "broken", "empty", "deep", "wrong type", "binary", "10,000 symbols", "unknown symbols"],
)
async def test_a_bad_message_is_answered_and_the_connection_goes_on(
    server: Server, key: str, message: str | bytes, name: str
) -> None:
    async with subscriber(server, key, A) as one:
        await one.ws.send(message)
        assert (await one.receive("error"))["name"] == name
        assert list((await one.ask("subscriptions"))["subscriptions"]["main"]["symbols"]) == [A]
        await server.feed.publish(quote(A))
        assert (await one.receive("data"))["data"][0]["symbol"] == A


async def test_a_message_of_10_mb_closes_its_connection_and_no_other(patience: None, server: Server, key: str) -> None:
    async with subscriber(server, key, A) as one, subscriber(server, key, A) as other:
        with contextlib.suppress(ConnectionClosed):
            await one.ws.send("x" * 10_000_000)
        assert await one.closed() == 1009
        await until(lambda: len(server.connections) == 1, "the connection to be forgotten")
        await server.feed.publish(quote(A))
        assert (await other.receive("data"))["data"][0]["symbol"] == A


async def test_a_message_as_large_as_is_accepted_is_read(patience: None, server: Server, key: str) -> None:
    async with client(server, key) as one:
        await one.receive("connected")
        await one.ws.send("x" * config.max_message_size)
        assert (await one.receive("error"))["name"] == "bad_json"
        await one.ws.send("x" * (config.max_message_size + 1))
        assert await one.closed() == 1009


async def test_noise_is_survived(server: Server, key: str) -> None:
    noise = random.Random(7)
    async with client(server, key) as one:
        await one.receive("connected")
        for _ in range(300):
            data = noise.randbytes(noise.randrange(200))
            await one.ws.send(data if noise.random() < 0.5 else data.decode("latin-1"))
        assert [(await one.receive())["type"] for _ in range(300)] == ["error"] * 300
        assert (await one.ask("ping"))["type"] == "pong"


async def test_a_fault_of_ours_ends_one_connection_and_is_found_by_its_id(
    server: Server, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with subscriber(server, key, A) as other, client(server, key) as one:
        connection_id = (await one.receive("connected"))["connection_id"]
        universe.set_current(Universe(symbols=7))  # type: ignore[arg-type]
        error = await one.ask("subscribe", symbols=[A])
        assert (error["name"], error["retryable"]) == ("internal", True)
        assert error["request_id"] == f"{connection_id}.ask"
        assert await one.closed() == 1011
        assert error["request_id"] in caplog.text
        assert (await other.ask("ping"))["type"] == "pong"


async def test_a_group_is_not_unknown_before_the_universe_is_known(server: Server, key: str) -> None:
    universe.set_current(Universe())
    async with client(server, key) as one:
        answer = await one.ask("subscribe", symbols=["market:SH"])
        assert (answer["name"], answer["retryable"]) == ("not_ready", True)
        assert (await one.ask("subscribe", symbols=[A, "*"]))["type"] == "subscribed"


# Clients that vanish


async def test_connections_that_end_in_any_way_leave_nothing_behind(server: Server) -> None:
    _, text = await new_key(connections=20)

    async def abrupt(number: int) -> None:
        async with client(server, text) as one:
            await one.receive("connected")
            await one.send("subscribe", symbols=["*"])
            if number % 2:
                linger = struct.pack("ii", 1, 0)
                one.ws.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                one.ws.transport.abort()

    # More than the plan has at a time: each must have been given back before the next may come.
    for _ in range(3):
        await asyncio.gather(*(abrupt(number) for number in range(20)))
        await until(lambda: not server.connections, "all connections to be forgotten")
        await until(_no_consumers, "the consumers' tasks to end")
    async with client(server, text) as one:
        assert (await one.receive())["type"] == "connected"


def _no_consumers() -> bool:
    names = (str(task.get_coro()) for task in asyncio.all_tasks())
    return not any("run_asgi" in name or "StreamConsumer" in name or RequestIds.__name__ in name for name in names)


async def test_a_client_that_leaves_while_its_key_is_checked_leaves_nothing_behind(server: Server) -> None:
    for _ in range(10):
        _, text = await new_key(connections=1)
        async with client(server) as one:
            await one.send("auth", key=text)
            one.ws.transport.abort()
        await until(lambda: not server.connections, "the connection to be forgotten")
        async with client(server, text) as again:
            assert (await again.receive())["type"] == "connected"
        await until(lambda: not server.connections, "the connection to be forgotten")


# A client that never reads


@contextlib.asynccontextmanager
async def mute(server: Server, key: str) -> AsyncIterator[tuple[Connection, Callable[[bytes], Awaitable[None]]]]:
    """A client that reads nothing, not even the answer to its handshake: its connection, and how it sends."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    handshake = (
        f"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-API-Key: {key}\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    before = set(server.connections)
    try:
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        await loop.sock_sendall(sock, handshake.encode())
        (id,) = await until(lambda: set(server.connections) - before, "the handshake")
        yield server.connections[id], partial(loop.sock_sendall, sock)
    finally:
        sock.close()


@contextlib.asynccontextmanager
async def mute_subscriber(server: Server, key: str) -> AsyncIterator[Connection]:
    """A client that subscribes to everything and reads nothing."""
    async with mute(server, key) as (connection, send):
        await send(frame('{"action":"subscribe","symbols":["*"]}'))
        await until(lambda: connection.views, "the subscription")
        yield connection


def frame(text: str) -> bytes:
    """What a client sends."""
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=True)


def sweep(number: int) -> list[Quote]:
    """A quote of every symbol, 1.5 KB each."""
    return [quote(symbol, time=1_700_000_000_000 + number, price=10.0 + number, bid_price=(10.0,) * 200) for symbol in SYMBOLS]


async def test_a_client_that_never_reads_is_dropped_without_harm_to_others(patience: None, server: Server, key: str) -> None:
    async with subscriber(server, key, "*") as reader:
        (healthy,) = server.connections.values()
        async with mute_subscriber(server, key) as silent:
            most = number = 0
            while silent.id in server.connections:
                number += 1
                await server.feed.publish(*sweep(number))
                assert (await reader.receive("data"))["seq"] == number
                most = max(most, silent.wire.pending())
                assert number < 5_000, "the silent client is still there"
            assert silent.closed
            # What is kept for it: the transport's buffer up to its mark, and the frame that crossed it.
            assert most <= HIGH_WATER + 2 * healthy.bytes // healthy.frames
        assert hub().counters.slow == 1
        assert (await reader.ask("ping"))["type"] == "pong"


async def test_what_is_owed_to_a_client_that_does_not_read_stays_flat(server: Server, key: str) -> None:
    async with mute_subscriber(server, key) as silent:
        number = 0
        while silent.behind_since is None:
            number += 1
            await server.feed.publish(*sweep(number))
            await asyncio.sleep(0)
        written, pending = silent.bytes, silent.wire.pending()
        for _ in range(50):
            number += 1
            await server.feed.publish(*sweep(number))
        await until(lambda: hub().store.feeds["main"].seq == number, "the last message")
        assert (silent.bytes, silent.wire.pending()) == (written, pending)


async def test_a_client_that_floods_and_never_reads_is_dropped(patience: None, server: Server, key: str) -> None:
    async with subscriber(server, key, A) as other, mute(server, key) as (connection, send):
        flood = frame('{"action":"ping","id":"' + "x" * 120 + '"}') * 500

        async def pour() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    await send(flood)

        pouring = asyncio.create_task(pour())
        await until(lambda: connection.id not in server.connections, "the flood to be cut off", 30)
        await pouring
        assert (await other.ask("ping"))["type"] == "pong"


def hub() -> Hub:
    current = runtime.current()
    assert current is not None
    return current.hub

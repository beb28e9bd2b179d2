"""Real sockets on real servers: what a client that does not read costs, large frames, limits and close codes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from streaming.wire import HIGH_WATER

ROOT = Path(__file__).resolve().parents[2]
SEND_TIMEOUT = 1.0
MAX_MESSAGE = 4096
PATIENCE = 30.0


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The server's name and its port."""
    directory = tmp_path_factory.mktemp(request.param)
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "argus.settings",
        "ARGUS_DATA_DIR": str(directory),
        "ARGUS_LOG_FILE": "false",
        "ARGUS_SEND_TIMEOUT": str(SEND_TIMEOUT),
        "ARGUS_MAX_MESSAGE_SIZE": str(MAX_MESSAGE),
    }
    command = [sys.executable, "-m", "tests.hub.target", request.param]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (directory / "log").read_text()
    yield request.param, int(line)
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def port(server: tuple[str, int]) -> int:
    return server[1]


Dial = Callable[..., Awaitable[ClientConnection]]


@pytest.fixture
async def dial(port: int) -> AsyncIterator[Dial]:
    """Connects a client that has been greeted."""
    clients: list[ClientConnection] = []

    async def one(path: str = "") -> ClientConnection:
        client = await connect(f"ws://127.0.0.1:{port}/{path}", max_size=None, compression=None, close_timeout=1)
        clients.append(client)
        assert (await hear(client))["type"] == "connected"
        return client

    yield one
    for client in clients:
        await client.close()


async def say(client: ClientConnection, *command: Any) -> None:
    await client.send(json.dumps(command))


async def hear(client: ClientConnection, kind: str = "") -> dict[str, Any]:
    """The next message (of a kind)."""
    async with asyncio.timeout(PATIENCE):
        while True:
            message: dict[str, Any] = json.loads(await client.recv())
            if not kind or message["type"] == kind:
                return message


async def close_of(client: ClientConnection) -> tuple[int, str]:
    """The code and the reason with which the server ends the connection."""
    async with asyncio.timeout(PATIENCE):
        try:
            while True:
                await client.recv()
        except ConnectionClosed:
            return client.close_code or 0, client.close_reason or ""


async def report_when(client: ClientConnection, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The server's first report of which the condition is true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        await say(client, "report")
        report = await hear(client, "report")
        if condition(report):
            return report
        assert time.monotonic() < deadline, report
        await asyncio.sleep(0.02)


async def mute(port: int) -> socket.socket:
    """A client that covers everything and then never reads."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(
        client,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += await loop.sock_recv(client, 1)
    command = b'["cover"]'
    await loop.sock_sendall(client, bytes([0x81, 0x80 | len(command), 0, 0, 0, 0]) + command)
    return client


async def test_frames_leave_through_the_servers_own_wire(dial: Dial) -> None:
    client = await dial()
    assert (await report_when(client, lambda report: True))["wires"] == ["RawWire"]


async def test_the_plain_way_works_too(dial: Dial) -> None:
    client = await dial("plain")
    await say(client, "cover")
    await say(client, "publish", 20, 3, 0.01)
    while (await hear(client, "data"))["data"][0]["seq"] < 3:
        pass


async def test_frames_larger_than_a_megabyte_arrive_whole(dial: Dial) -> None:
    client = await dial()
    await say(client, "cover")
    await say(client, "publish", 5500, 1, 0)
    while True:
        message = await hear(client, "data")
        if "snapshot" not in message:
            break
    assert len(message["data"]) == 5500


async def test_a_client_that_never_reads_stays_small_is_dropped_and_nobody_else_notices(dial: Dial, port: int) -> None:
    client = await dial()
    before = await report_when(client, lambda report: True)
    await say(client, "cover")
    silent = await mute(port)
    await report_when(client, lambda report: report["connections"] == before["connections"] + 1)
    await say(client, "publish", 2000, 60, 0.06)
    largest = 0
    seqs: list[int] = []
    while len(seqs) < 60:
        message = await hear(client)
        if message["type"] == "data" and "snapshot" not in message:
            seqs.append(message["seq"])
        if message["type"] == "report":
            largest = max(largest, message["rss"])
            assert message["pending"] < 4 * HIGH_WATER + 2 * 750_000
        else:
            await say(client, "report")
    assert seqs == list(range(seqs[0], seqs[0] + 60))
    # Sixty sweeps are 45 MB; what the silent one costs is its buffers and one frame.
    assert largest - before["rss"] < 25_000_000
    after = await report_when(client, lambda report: report["connections"] == before["connections"])
    assert after["slow"] == before["slow"] + 1
    silent.close()


async def test_a_close_of_a_client_that_does_not_read_does_not_wait_for_it(dial: Dial, port: int) -> None:
    client = await dial()
    before = await report_when(client, lambda report: True)
    silent = await mute(port)
    await report_when(client, lambda report: report["connections"] == before["connections"] + 1)
    await say(client, "publish", 2000, 3, 0)
    await report_when(client, lambda report: report["pending"] > 0)
    began = time.monotonic()
    await say(client, "close_others", 4110)
    await report_when(client, lambda report: report["connections"] == before["connections"])
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        try:
            while await loop.sock_recv(silent, 65536):
                await asyncio.sleep(0.1)
        except ConnectionResetError:
            pass
    assert time.monotonic() - began < PATIENCE
    silent.close()


@pytest.mark.parametrize("code", [1000, 1012, 1013, 4007, 4110])
async def test_every_close_code_arrives_with_its_reason(dial: Dial, code: int) -> None:
    client = await dial()
    await say(client, "close", code, "because")
    assert await close_of(client) == (code, "because")


@pytest.mark.parametrize("size", [MAX_MESSAGE + 1, 10_000_000])
async def test_a_message_that_is_too_large_ends_its_connection_with_1009_and_no_other(dial: Dial, size: int) -> None:
    client, other = await dial(), await dial()
    sending = asyncio.create_task(client.send("x" * size))
    assert (await close_of(client))[0] == 1009
    await asyncio.gather(sending, return_exceptions=True)
    await report_when(other, lambda report: True)


async def test_a_message_of_the_largest_size_is_taken(dial: Dial) -> None:
    client = await dial()
    await client.send('["report"' + " " * (MAX_MESSAGE - 10) + "]")
    await hear(client, "report")


async def test_a_flood_of_messages_is_answered_in_full(dial: Dial) -> None:
    client = await dial()
    for _ in range(50):
        await say(client, "report")
    for _ in range(50):
        await hear(client, "report")

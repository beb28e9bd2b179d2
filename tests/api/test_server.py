"""Through a real server and real sockets: REST and the stream agree, and health answers whatever the database does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
import websockets
from channels.layers import get_channel_layer

from marketdata.batch import Batch, encode
from marketdata.latest import store
from marketdata.publish import MESSAGE_TYPE, group_name
from marketdata.universe import Universe, current, set_current
from streaming.servers.uvicorn import uvicorn_config
from tests.api.conftest import SYMBOLS, Keys, batch, quote

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 20.0


class Server(uvicorn.Server):
    """Leaves the signals to the test runner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
async def port(transactional_db: None) -> AsyncIterator[int]:
    """The port of the whole application under uvicorn as Argus runs it, on this event loop."""
    from argus.asgi import application

    before = current()
    store.clear()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = Server(uvicorn_config(application))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        async with asyncio.timeout(PATIENCE):
            while not server.started:
                await asyncio.sleep(0.01)
        set_current(Universe(symbols=SYMBOLS))
        yield listening.getsockname()[1]
        server.should_exit = True
        await serving
    store.clear()
    set_current(before)


async def publish(message: Batch) -> None:
    """As a feed does; waits until the hub has it."""
    layer = get_channel_layer()
    async with asyncio.timeout(PATIENCE):
        # The hub joins the group soon after the start; repeats are refused by their number.
        while store.streams().get("main", {}).get("seq", 0) < message.seq:
            await layer.group_send(group_name("main"), {"type": MESSAGE_TYPE, "blob": encode(message)})
            await asyncio.sleep(0.01)


async def test_rest_and_the_stream_agree_to_the_last_digit_and_the_same_seq(port: int, keys: Keys) -> None:
    await publish(batch(1, *(quote(symbol, 0.1 + 0.2 + number) for number, symbol in enumerate(SYMBOLS))))
    address, headers = f"127.0.0.1:{port}", {"X-API-Key": keys.reader}
    seen: dict[str, dict[str, object]] = {}
    raw: list[str] = []
    async with (
        websockets.connect(f"ws://{address}/ws/market_data", additional_headers=headers) as stream,
        httpx.AsyncClient(base_url=f"http://{address}", headers=headers) as http,
        asyncio.timeout(PATIENCE),
    ):
        await stream.send(json.dumps({"action": "subscribe", "id": "1", "symbols": ["*"]}))
        await publish(batch(2, quote("000001.SZ", 11.370000000000001)))
        await publish(batch(3, quote("600000.SH", 10.05), quote("000001.SH", 3335.7458)))
        last = 0
        while len(seen) < len(SYMBOLS) or last < 3:
            text = await stream.recv()
            message = json.loads(text)
            if message["type"] == "data":
                raw.append(str(text))
                last = max(last, message["seq"])
                seen |= {item["symbol"]: item for item in message["data"]}
        answer = await http.get("/api/v1/market_data/latest", params={"symbols": ",".join(SYMBOLS)})
        full = await http.get("/full_market")
    assert answer.status_code == 200
    assert {item["symbol"]: item for item in answer.json()["data"]} == seen
    assert {item["symbol"]: item for item in full.json()["data"]} == seen
    assert {item["symbol"]: item["seq"] for item in answer.json()["data"]} == {
        **dict.fromkeys(SYMBOLS, 1),
        **{"000001.SZ": 2, "600000.SH": 3, "000001.SH": 3},
    }
    assert answer.json()["streams"] == {"main": {"epoch": 7, "seq": 3}}
    # Not only equal as numbers: the same characters.
    for symbol in SYMBOLS:
        assert any(store.fragments[symbol].decode() in text for text in raw), symbol
        assert store.fragments[symbol] in answer.content


async def test_rest_and_the_stream_spend_one_budget_and_tell_it_alike(port: int, keys: Keys) -> None:
    await publish(batch(1, *(quote(symbol, 10.0) for symbol in SYMBOLS)))
    address, headers = f"127.0.0.1:{port}", {"X-API-Key": keys.small}
    path = "/api/v1/market_data/latest?symbols=600000.SH"
    async with (
        httpx.AsyncClient(base_url=f"http://{address}", headers=headers) as http,
        websockets.connect(f"ws://{address}/ws", additional_headers=headers) as stream,
        asyncio.timeout(PATIENCE),
    ):
        before = json.loads(await stream.recv())["quota"]
        told = (await http.get(path)).headers
        assert (int(told["ratelimit-limit"]), int(told["ratelimit-remaining"])) == (before["limit"], before["remaining"] - 1)
        for _ in range(before["remaining"] - 1):
            await stream.send(json.dumps({"action": "subscriptions"}))
            assert json.loads(await stream.recv())["type"] == "subscriptions"
        by_rest = await http.get(path)
        await stream.send(json.dumps({"action": "subscribe", "symbols": ["600000.SH"]}))
        by_stream = json.loads(await stream.recv())
    assert (by_rest.status_code, by_rest.json()["code"], by_rest.json()["name"]) == (429, by_stream["code"], by_stream["name"])
    assert int(by_rest.headers["retry-after"]) > 0
    assert by_stream["retry_after"] > 0


async def test_plain_routes_keep_the_connection_and_head_sends_no_body(port: int, keys: Keys) -> None:
    await publish(batch(1, quote("600000.SH", 10.05)))
    headers = {"Authorization": f"Bearer {keys.reader}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as http:
        path = "/latest_market?symbols=600000"
        assert (await http.head(path)).content == b""
        answer = await http.get(path)
        assert answer.json()["data"][0]["price"] == 10.05
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert (await http.get("/health/ready")).status_code == 200
        assert (await http.post(path)).status_code == 405


@pytest.mark.parametrize("count", [10_000, 100_000])
async def test_an_address_that_is_too_long_is_refused_with_the_parameter_that_makes_it_so(
    port: int, keys: Keys, count: int
) -> None:
    symbols = ",".join(f"{600_000 + number}.SH" for number in range(count))
    request = f"GET /api/v1/market_data/history?count=1&symbols={symbols}&fields=close HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    async with asyncio.timeout(PATIENCE):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    problem = json.loads(body)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"content-type: application/problem+json" in head
    assert (problem["status"], problem["name"], problem["parameter"]) == (413, "message_too_big", "symbols")
    assert "POST" in problem["detail"]
    assert problem["request_id"]


SERVE = """
import socket, sys, uvicorn
from argus.asgi import application
from streaming.servers.uvicorn import uvicorn_config
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
uvicorn.Server(uvicorn_config(application)).run(sockets=[listening])
"""


@contextlib.contextmanager
def service(data: Path, **environment: str) -> Iterator[int]:
    """The application in a process of its own; its port."""
    env = {**os.environ, "ARGUS_DATA_DIR": str(data), "ARGUS_LOG_FILE": "false", **environment}
    with (data / "service.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", SERVE], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (data / "service.log").read_text()
            yield int(line)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
                process.wait()
                process.stdout.close()


def ask_until_it_listens(http: httpx.Client, path: str) -> httpx.Response:
    for _ in range(int(PATIENCE / 0.05)):
        with contextlib.suppress(httpx.ConnectError):
            return http.get(path)
        time.sleep(0.05)
    pytest.fail("the service does not listen")


@pytest.mark.parametrize("database", ["locked", "away"])
def test_health_answers_while_the_database_does_not(tmp_path: Path, database: str) -> None:
    lock = sqlite3.connect(tmp_path / "argus.sqlite3", isolation_level=None)
    environment = {}
    if database == "locked":
        lock.execute("BEGIN EXCLUSIVE")
    else:
        environment["DATABASE_URL"] = "postgres://nobody:nothing@127.0.0.1:9/none"
    try:
        with service(tmp_path, **environment) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as http:
            ask_until_it_listens(http, "/health")
            for _ in range(20):
                answer = http.get("/health")
                assert answer.status_code == 200
                assert (answer.json()["live"], answer.json()["ready"]) == (True, False)
                assert http.get("/health/ready").status_code == 503
    finally:
        lock.close()

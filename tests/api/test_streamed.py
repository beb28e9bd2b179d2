"""Streamed answers under both servers: whole, broken off, not read, not wanted any more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from argus.access.principal import SCOPE_READ, Principal
from argus.config import config
from argus.line import EXTENSION, Line
from argus.streamed import THREADS, Reply, streamed
from tests.api.conftest import Keys
from tests.api.streamed_app import LARGE, LONGEST
from tests.e2e.service import Service, free_port, get, wait_for

COMMANDS = {
    "uvicorn": (
        "-c",
        "import sys, uvicorn; from tests.api.streamed_app import application; "
        "from streaming.servers.uvicorn import uvicorn_config; "
        "uvicorn.Server(uvicorn_config(application, port=int(sys.argv[1]))).run()",
    ),
    "daphne": ("-m", "daphne", "tests.api.streamed_app:application", "-b", "127.0.0.1", "-p"),
}
SEND_TIMEOUT = "1"


@pytest.fixture(scope="module", params=COMMANDS)
def http(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    service = Service(tmp_path_factory.mktemp(request.param), ARGUS_SEND_TIMEOUT=SEND_TIMEOUT)
    key = service.install(("create_key", "test")).split()[-1]
    port = free_port()
    service.start(request.param, *COMMANDS[request.param], str(port))
    try:
        wait_for(lambda: get(port, "/health/live")[0] == 200, "the server to listen")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}, timeout=20) as client:
            yield client
    finally:
        service.close()


@contextlib.contextmanager
def deaf(http: httpx.Client, path: str) -> Iterator[socket.socket]:
    """A client that asks and does not read."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((http.base_url.host, http.base_url.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {http.headers['x-api-key']}\r\n\r\n".encode())
        yield client


def is_cut_off(client: socket.socket) -> bool:
    """Whether the server has let go of the connection: it then answers whatever comes with a reset."""
    try:
        client.send(b"\r\n")
    except OSError:
        return True
    return False


def state(http: httpx.Client) -> tuple[int, int, int]:
    """How many chunks of endless bodies were made, how many such bodies were closed, how many answers are being prepared."""
    made, closed, under_way = map(int, http.get("/state").text.split())
    return made, closed, under_way


def test_a_whole_answer_comes_to_its_proper_end(http: httpx.Client) -> None:
    answer = http.get("/whole")
    assert (answer.status_code, len(answer.content)) == (200, 400_000)
    assert "ratelimit-remaining" in answer.headers


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(http: httpx.Client) -> None:
    with pytest.raises(httpx.TransportError):
        http.get("/broken")


def test_who_goes_away_before_the_answer_gives_up_the_place(http: httpx.Client) -> None:
    request = f"GET /held HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {http.headers['x-api-key']}\r\n\r\n".encode()
    with contextlib.ExitStack() as waiting:
        for _ in range(THREADS + 20):
            client = waiting.enter_context(socket.create_connection((http.base_url.host, http.base_url.port)))
            client.sendall(request)
        wait_for(lambda: state(http)[2] == THREADS + 20, "all of them to be waited for")
    # What a thread has begun it ends; those that waited for one have gone.
    wait_for(lambda: state(http)[2] == THREADS, "the places to be free")
    http.get("/release")
    wait_for(lambda: state(http)[2] == 0, "the threads to be free")


def test_the_work_ends_when_the_client_goes_away(http: httpx.Client) -> None:
    closed = state(http)[1]
    with http.stream("GET", "/endless") as answer:
        next(answer.iter_bytes())
    wait_for(lambda: state(http)[1] == closed + 1, "the iterator to be closed")


def test_a_client_that_does_not_read_costs_little_and_is_cut_off(http: httpx.Client) -> None:
    made, closed, _ = state(http)
    with deaf(http, "/endless"):
        wait_for(lambda: state(http)[1] == closed + 1, "the client to be cut off")
    # What was made lies in the kernel's buffers and one chunk.
    assert state(http)[0] - made < 60


def test_a_body_that_is_too_long_is_refused_with_its_limit_however_long_it_is(http: httpx.Client) -> None:
    assert http.post("/whole", content=b"x" * LONGEST).status_code == 200
    for size in (LONGEST + 1, 20_000_000):
        answer = http.post("/whole", content=b"x" * size)
        assert (answer.status_code, answer.json()["name"], answer.json()["limit"]) == (413, "message_too_big", LONGEST)


def test_what_takes_too_long_is_a_problem_document(http: httpx.Client) -> None:
    answer = http.get("/slow")
    assert (answer.status_code, answer.json()["name"]) == (504, "deadline")


def test_a_client_that_does_not_read_an_answer_in_one_piece_is_cut_off_too(http: httpx.Client) -> None:
    with deaf(http, "/large") as client:
        wait_for(lambda: is_cut_off(client), "the client to be cut off")


def test_a_client_that_reads_slowly_has_all_of_it(http: httpx.Client) -> None:
    # Longer than the time for one piece, and never so long without taking any.
    with deaf(http, "/large") as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        received, pauses = 0, 0
        while received < LARGE and (data := client.recv(1 << 18)):
            received += len(data)
            if received // (LARGE // 10) > pauses:
                pauses += 1
                time.sleep(0.4)
    assert received >= LARGE


def test_bodies_that_wait_do_not_hold_up_the_others(http: httpx.Client) -> None:
    with contextlib.ExitStack() as waiting:
        for _ in range(4):
            answer = waiting.enter_context(http.stream("GET", "/waiting"))
            next(answer.iter_raw())
        assert len(http.get("/whole").content) == 400_000
        http.get("/resume")


def test_who_is_refused_is_told_why_whatever_the_body(http: httpx.Client) -> None:
    for key, status, name in ((None, 401, "not_authenticated"), ("argus_wrong", 401, "key_invalid")):
        with httpx.Client(base_url=http.base_url, headers={} if key is None else {"X-API-Key": key}) as stranger:
            for size in (10, LONGEST + 1):
                answer = stranger.post("/whole", content=b"x" * size)
                assert (answer.status_code, answer.json()["name"]) == (status, name)
                assert "connection" not in answer.headers


class Connection:
    """A request to a streamed answer whose body comes in these parts and then no further, or only when more is asked for."""

    def __init__(self, key: str, *parts: bytes, ends: bool) -> None:
        self.key = key
        self.aborted = False
        self.sent: list[dict[str, Any]] = []
        self.stuck = False
        self._parts = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        if ends:
            self._parts.append({"type": "http.request"})

    def abort(self) -> None:
        self.aborted = True

    async def receive(self) -> dict[str, Any]:
        return self._parts.pop(0) if self._parts else await asyncio.Future()

    async def send(self, message: Any) -> None:
        """The client takes all but the end of the answer."""
        if self.stuck and message["type"] == "http.response.body" and not message.get("more_body"):
            await asyncio.Future()
        self.sent.append(message)

    async def ask(self) -> None:
        async def respond(scope: Any, principal: Principal, body: bytes) -> Reply:
            return Reply(status=200, headers=[], chunks=iter([body]), quick=True)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(b"x-api-key", self.key.encode())],
            "client": ("127.0.0.1", 1),
            "extensions": {EXTENSION: Line(self.abort)},
        }
        await streamed(SCOPE_READ, ("POST",), respond, longest=LONGEST)(scope, self.receive, self.send)


async def test_a_client_that_does_not_take_the_end_is_cut_off(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.__dict__, "send_timeout", 0.05)
    connection = Connection(keys.reader, b"abc", ends=True)
    connection.stuck = True
    async with asyncio.timeout(20):
        await connection.ask()
    assert connection.sent[1]["body"] == b"abc"
    assert connection.aborted


@pytest.mark.parametrize(("known", "status", "name"), [(True, 504, b"deadline"), (False, 401, b"key_invalid")])
async def test_a_body_that_does_not_come_in_time_is_a_problem_document(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, known: bool, status: int, name: bytes
) -> None:
    monkeypatch.setitem(config.__dict__, "fetch_timeout", 0.05)
    connection = Connection(keys.reader if known else "argus_wrong", b"abc", ends=False)
    async with asyncio.timeout(20):
        await connection.ask()
    start, body = connection.sent
    assert start["status"] == status
    assert (b"connection", b"close") in start["headers"]
    assert b'"name":"%s"' % name in body["body"]

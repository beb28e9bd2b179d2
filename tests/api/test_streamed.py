"""Streamed answers under both servers: whole, broken off, not read, not wanted any more."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import httpx
import pytest

from argus.streamed import THREADS
from tests.api.streamed_app import LONGEST
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
    service.manage("migrate", "-v0")
    key = service.manage("create_key", "test").split()[-1]
    port = free_port()
    service.start(request.param, *COMMANDS[request.param], str(port))
    try:
        wait_for(lambda: get(port, "/health/live")[0] == 200, "the server to listen")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}, timeout=20) as client:
            yield client
    finally:
        service.close()


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
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((http.base_url.host, http.base_url.port))
        deaf.sendall(f"GET /endless HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {http.headers['x-api-key']}\r\n\r\n".encode())
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

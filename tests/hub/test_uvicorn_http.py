"""An answer's head leaves together with the first of its body, and never waits longer than a turn of the event loop.

A request's head has a bound and a time, and so has what a client does not take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from uvicorn.server import ServerState

from argus.config import config
from argus.line import PIECE
from streaming.servers import uvicorn as server
from streaming.servers.uvicorn import LONGEST_HEAD, ArgusHttpProtocol, uvicorn_config
from tests.hub.test_uvicorn_internals import Transport

Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = Callable[[Send, list[bytes]], Awaitable[None]]
"""Sends an answer, and may look at what has been written."""

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}


async def answered(answer: Answer) -> Transport:
    """The transport after the application has answered."""
    done = asyncio.Event()
    transport = Transport()

    async def application(scope: Any, receive: Any, send: Send) -> None:
        try:
            await answer(send, transport.written)
        finally:
            done.set()

    settings = uvicorn_config(application, lifespan="off")
    settings.load()
    protocol = ArgusHttpProtocol(settings, ServerState(), {})
    protocol.connection_made(transport)
    protocol.data_received(REQUEST)
    await done.wait()
    await asyncio.sleep(0)
    protocol.connection_lost(None)
    return transport


async def test_head_and_body_are_one_write() -> None:
    async def answer(send: Send, written: list[bytes]) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b"cd"})

    first, second = (await answered(answer)).written
    assert first.startswith(b"HTTP/1.1 200 OK\r\n") and first.endswith(b"\r\n\r\nab")
    assert second == b"cd"


async def test_a_head_does_not_wait_for_a_body_that_is_late() -> None:
    async def answer(send: Send, written: list[bytes]) -> None:
        await send(START)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(written) == 1 and written[0].endswith(b"\r\n\r\n")
        await send({"type": "http.response.body", "body": b"abcd"})

    assert (await answered(answer)).written[1:] == [b"abcd"]


async def test_an_answer_without_a_body_and_a_closed_connection_lose_nothing() -> None:
    async def answer(send: Send, written: list[bytes]) -> None:
        await send({"type": "http.response.start", "status": 304, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b""})

    transport = await answered(answer)
    assert b"".join(transport.written).startswith(b"HTTP/1.1 304 Not Modified\r\n")
    assert transport.closing


async def whole(scope: Any, receive: Any, send: Send) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": b"abcd"})


def connected(transport: Transport) -> ArgusHttpProtocol:
    settings = uvicorn_config(whole, lifespan="off")
    settings.load()
    protocol = ArgusHttpProtocol(settings, ServerState(), {})
    protocol.connection_made(transport)
    return protocol


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("piece", [b"a: b\r\n" * 1000, b"x" * 6000], ids=["many", "one without an end"])
async def test_headers_have_a_bound_wherever_they_are_cut(piece: bytes) -> None:
    transport = Transport()
    protocol = connected(transport)
    protocol.data_received(REQUEST[:-2] + b"a: ")
    received = 0
    while not transport.closing:
        assert received <= LONGEST_HEAD
        received += len(piece)
        protocol.data_received(piece)
    head, _, body = b"".join(transport.written).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ") and b"connection: close" in head
    assert b'"limit":%d' % LONGEST_HEAD in body
    protocol.connection_lost(None)


async def test_heads_below_the_bound_are_read_however_they_are_cut_and_however_many() -> None:
    transport = Transport()
    protocol = connected(transport)
    request = REQUEST[:-2] + b"a: " + b"x" * (LONGEST_HEAD // 2) + b"\r\n\r\n"
    for _ in range(4):
        transport.written.clear()
        for start in range(0, len(request), 9000):
            protocol.data_received(request[start : start + 9000])
        await until(lambda: b"".join(transport.written).endswith(b"abcd"))
    assert not transport.closing
    protocol.connection_lost(None)


@pytest.mark.parametrize("begun", [b"", REQUEST[:-2]], ids=["nothing", "a part"])
@pytest.mark.parametrize("before", [0, 1])
async def test_a_head_must_come_in_time(monkeypatch: pytest.MonkeyPatch, before: int, begun: bytes) -> None:
    monkeypatch.setitem(config.__dict__, "auth_timeout", 0.05)
    transport = Transport()
    protocol = connected(transport)
    if before:
        protocol.timeout_keep_alive = 1
        protocol.data_received(REQUEST)
        await until(lambda: bool(transport.written) and transport.written[-1].endswith(b"abcd"))
    if begun:
        protocol.data_received(begun)
    await until(lambda: transport.closing)
    protocol.connection_lost(None)


class Clogged(Transport):
    """Its client takes so many bytes at each look."""

    def __init__(self, unsent: int, taken: int) -> None:
        super().__init__()
        self.unsent = unsent
        self.taken = taken

    def get_write_buffer_size(self) -> int:
        before = self.unsent
        self.unsent = max(0, self.unsent - self.taken)
        return before


@pytest.mark.parametrize("leave", ["much", "a closing connection", "an idle connection"])
@pytest.mark.parametrize("taken", [0, PIECE], ids=["deaf", "slow"])
async def test_what_is_left_unsent_must_be_taken_in_time(monkeypatch: pytest.MonkeyPatch, leave: str, taken: int) -> None:
    monkeypatch.setitem(config.__dict__, "send_timeout", 0.01)
    monkeypatch.setattr(server, "GRACE", 0.01)
    transport = Clogged(5 * PIECE, taken)
    protocol = connected(transport)
    if leave == "much":
        protocol.pause_writing()
    elif leave == "a closing connection":
        protocol.data_received(REQUEST.replace(b"Host", b"Connection: close\r\nHost"))
    else:
        protocol.timeout_keep_alive_handler()
    await until(lambda: transport.aborted or not transport.unsent)
    assert transport.aborted == (taken == 0)
    protocol.connection_lost(None)

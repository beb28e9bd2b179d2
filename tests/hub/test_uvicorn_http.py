"""An answer's head leaves together with the first of its body, and never waits longer than a turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.server import ServerState

from streaming.servers.uvicorn import ArgusHttpProtocol, uvicorn_config
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

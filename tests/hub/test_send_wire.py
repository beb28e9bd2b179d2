"""The wire over plain ASGI ``send``: one message at a time, and an end to a send that does not get through."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from argus.config import config
from streaming.frame import Frame
from streaming.wire import EXTENSION, RawWire, SendWire, wire_for


class Server:
    """An ASGI server whose ``send`` waits until it is let go on."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.fault: Exception | None = None

    async def send(self, message: Any) -> None:
        await self.open.wait()
        if self.fault is not None:
            raise self.fault
        self.sent.append(dict(message))


async def idle(wire: SendWire) -> None:
    async with asyncio.timeout(10):
        while not wire.room():
            await asyncio.sleep(0.005)


async def test_messages_go_out_in_order_and_there_is_room_when_all_are_out() -> None:
    server = Server()
    wire = SendWire(server.send)
    freed: list[int] = []
    wire.on_room = lambda: freed.append(len(server.sent))
    wire.write(Frame(b"1"))
    assert not wire.room()
    wire.write(Frame(b"2"))
    await idle(wire)
    wire.close(1012, "restart")
    await idle(wire)
    wire.write(Frame(b"3"))
    assert server.sent == [
        {"type": "websocket.send", "text": "1"},
        {"type": "websocket.send", "text": "2"},
        {"type": "websocket.close", "code": 1012, "reason": "restart"},
    ]
    assert freed == [2]


async def test_a_send_that_does_not_get_through_ends_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.__dict__, "send_timeout", 0.05)
    server = Server()
    server.open.clear()

    async def application() -> None:
        SendWire(server.send).write(Frame(b"1"))
        await asyncio.Event().wait()

    task = asyncio.create_task(application())
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)


async def test_a_client_that_is_gone_ends_the_wire_and_leaves_the_application_to_the_server() -> None:
    server = Server()
    server.fault = ConnectionResetError()
    wire = SendWire(server.send)
    wire.write(Frame(b"1"))
    wire.write(Frame(b"2"))
    await idle(wire)
    server.fault = None
    wire.write(Frame(b"3"))
    await idle(wire)
    assert server.sent == []


async def test_the_servers_own_wire_is_taken_where_there_is_one() -> None:
    class Socket:
        def write_parts(self, parts: tuple[bytes, ...]) -> None: ...
        def unsent(self) -> int:
            return 0

        def close_orderly(self, code: int, reason: str) -> None: ...
        def abort(self) -> None: ...

    raw = RawWire(Socket())
    assert wire_for({"extensions": {EXTENSION: raw}}, Server().send) is raw
    assert isinstance(wire_for({}, Server().send), SendWire)

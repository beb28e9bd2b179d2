"""What our protocol class takes from uvicorn's inside: fails when a new version of uvicorn moves it."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from argus.config import config
from streaming.frame import Frame
from streaming.servers.uvicorn import ArgusWebSocketProtocol, forgets_to_pause, uvicorn_config
from streaming.wire import EXTENSION, HIGH_WATER, RawWire

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Transport(asyncio.Transport):
    """A transport at the edge that keeps what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.limits: dict[str, Any] = {}
        self.aborted = False
        self.closing = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = {"high": high}

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.aborted = self.closing = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Application:
    """Accepts, and waits to be told that the client is gone."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {}
        self.accepted = asyncio.Event()
        self.heard: list[dict[str, Any]] = []
        self.gone = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        await receive()
        await send({"type": "websocket.accept"})
        self.accepted.set()
        while True:
            self.heard.append(await receive())
            if self.heard[-1]["type"] == "websocket.disconnect":
                break
        self.gone.set()


class Open:
    """An open connection."""

    def __init__(self) -> None:
        self.application = Application()
        settings = uvicorn_config(self.application, lifespan="off")
        settings.load()
        self.transport = Transport()
        self.protocol = ArgusWebSocketProtocol(settings, ServerState(), {})
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(HANDSHAKE)

    @property
    def wire(self) -> RawWire:
        wire: RawWire = self.application.scope["extensions"][EXTENSION]
        return wire


@pytest.fixture
async def connection(monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setitem(config.__dict__, "send_timeout", 0.05)
    connection = Open()
    await connection.application.accepted.wait()
    connection.transport.written.clear()
    return connection


def test_what_we_override_and_use_is_there() -> None:
    own = {name for name, value in vars(ArgusWebSocketProtocol).items() if inspect.isfunction(value)}
    new = {"write_parts", "unsent", "close_orderly", "abort", "_abort_soon"}
    assert own - new <= set(dir(WebSocketsSansIOProtocol))
    assert not new & set(dir(WebSocketsSansIOProtocol))
    source = inspect.getsource(WebSocketsSansIOProtocol)
    for name in ("queue", "conn", "scope", "close_sent", "close_timer", "read_paused", "disconnected", "handshake_complete"):
        assert f"self.{name}" in source, name


def test_the_configuration_is_accepted_and_takes_overrides() -> None:
    settings = uvicorn_config("argus.asgi:application", port=0, lifespan="off")
    assert isinstance(settings, uvicorn.Config)
    assert settings.ws_max_size == config.max_message_size
    assert not settings.ws_per_message_deflate
    assert settings.lifespan == "off"


async def test_the_wire_is_in_the_scope_and_writes_frames_past_asgi(connection: Open) -> None:
    assert connection.transport.limits == {"high": HIGH_WATER}
    connection.wire.write(Frame(b'{"a":', b"1", b"}"))
    assert b"".join(connection.transport.written) == b'\x81\x07{"a":1}'


async def test_the_transports_water_marks_reach_the_wire(connection: Open) -> None:
    calls: list[bool] = []
    connection.wire.on_room = lambda: calls.append(connection.wire.room())
    connection.protocol.pause_writing()
    assert not connection.wire.room()
    connection.protocol.resume_writing()
    assert calls == [True]


async def test_a_close_does_not_wait_for_room_and_is_followed_by_an_abort(connection: Open) -> None:
    connection.protocol.pause_writing()
    connection.wire.close(4007, "slow_client")
    assert b"".join(connection.transport.written) == b"\x88\x0d\x0f\xa7slow_client"
    await asyncio.wait_for(connection.application.gone.wait(), 5)
    assert connection.application.heard[-1]["code"] == 4007
    while not connection.transport.aborted:
        await asyncio.sleep(0.01)
    connection.wire.write(Frame(b"{}"))
    assert len(connection.transport.written) == 1


async def test_an_answered_close_ends_without_an_abort(connection: Open) -> None:
    connection.wire.close(1000)
    connection.protocol.data_received(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
    assert connection.transport.closing
    assert not connection.transport.aborted


async def test_a_message_that_is_too_large_is_answered_with_1009_and_what_follows_is_discarded(connection: Open) -> None:
    size = config.max_message_size + 1
    connection.protocol.data_received(b"\x81\xff" + size.to_bytes(8, "big") + b"\x00" * 4 + b"x" * 1000)
    assert b"".join(connection.transport.written)[2:4] == (1009).to_bytes(2, "big")
    assert not connection.transport.closing
    connection.protocol.data_received(b"x" * 100_000)
    assert len(connection.transport.written) == 1
    await asyncio.wait_for(connection.application.gone.wait(), 5)
    assert [message["type"] for message in connection.application.heard] == ["websocket.disconnect"]
    while not connection.transport.aborted:
        await asyncio.sleep(0.01)


async def test_a_peer_that_answers_no_ping_is_aborted(connection: Open) -> None:
    connection.protocol.keepalive_timeout()
    assert connection.transport.aborted


async def test_a_clients_own_close_with_much_unread_is_followed_by_an_abort(connection: Open) -> None:
    connection.protocol.data_received(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
    assert connection.transport.closing
    while not connection.transport.aborted:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("version", "forgets"),
    [((3, 11, 7), False), ((3, 12, 0), True), ((3, 12, 8), True), ((3, 12, 9), False), ((3, 13, 1), True), ((3, 13, 2), False)],
)
async def test_pieces_are_joined_where_asyncio_forgets_to_pause(version: tuple[int, ...], forgets: bool) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert forgets_to_pause(writer.transport, version) is forgets
    assert not forgets_to_pause(Transport(), version)
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()

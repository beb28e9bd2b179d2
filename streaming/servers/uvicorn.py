"""uvicorn's WebSocket protocol with back-pressure: raw frames, small buffers, and an end for clients that do not read.

uvicorn itself writes through ``await send()``, which blocks after about 4 MB for a client that never reads, and then its
close blocks too, because ``transport.close()`` waits for a flush. This subclass gives the hub the transport itself (as a
``RawWire`` in the scope's extensions) and follows every close with an abort. It reaches into uvicorn's internals:
``tests/hub/test_uvicorn_internals.py`` fails when a new version moves them. Where uvicorn and websockets deviate from RFC 6455
they are put right: ``tests/conformance`` holds both servers to it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from argus import requestid
from argus.config import config
from argus.errors import MESSAGE_TOO_BIG, ArgusError
from argus.http import PROBLEM
from argus.line import EXTENSION as LINE
from argus.line import GRACE, PIECE, Line
from streaming.wire import EXTENSION, HIGH_WATER, RawWire

VERSION = "13"
"""The version of WebSocket that RFC 6455 describes."""
PING_INTERVAL = 20.0
PING_TIMEOUT = 20.0
"""Seconds. A peer that has vanished without a word is noticed after both."""
LONGEST_ADDRESS = 65_535
"""Characters of a request's address; httptools counts them in 16 bits."""
LONGEST_HEAD = 65_536
"""Bytes of a request's headers, where they do not come in one packet."""
STOP_TIMEOUT = 2
"""Seconds for requests that are still being answered when the server stops."""


def forgets_to_pause(transport: asyncio.BaseTransport, version: tuple[int, ...] = sys.version_info[:3]) -> bool:
    """Whether the transport's ``writelines`` never says that it is full, and so grows without bound (CVE-2024-12254).

    That is asyncio's own in CPython 3.12.0 to 3.12.8, 3.13.0 and 3.13.1; uvloop's is right.
    """
    broken = (3, 12) <= version < (3, 12, 9) or (3, 13) <= version < (3, 13, 2)
    return broken and type(transport).__module__.startswith("asyncio.")


class _Rules(ServerProtocol):
    """websockets' own rules, but for three."""

    def accept(self, request: Request) -> Response:
        """Another version is told ours (RFC 6455, 4.4; websockets says 400 alone), and a request names its host (4.2.1)."""
        response = super().accept(request)
        if response.status_code == HTTPStatus.BAD_REQUEST and request.headers.get_all("Sec-WebSocket-Version") != [VERSION]:
            response = self.reject(HTTPStatus.UPGRADE_REQUIRED, f"The version of WebSocket that is spoken here is {VERSION}.\n")
            response.headers["Sec-WebSocket-Version"] = VERSION
        elif response.status_code == HTTPStatus.SWITCHING_PROTOCOLS and "Host" not in request.headers:
            response = self.reject(HTTPStatus.BAD_REQUEST, "The header Host is missing.\n")
        return response

    def recv_frame(self, frame: Frame) -> None:
        """A client may say goodbye between two fragments (5.4); websockets takes that for an error of the protocol."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class ArgusWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection."""

    wire: RawWire | None = None
    _abort_timer: asyncio.TimerHandle | None = None
    _deaf = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Rules(
            extensions=self.conn.available_extensions, max_size=self.config.ws_max_size, logger=logging.getLogger("uvicorn.error")
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep little in the kernel and little in this process: what a slow client is owed is decided by the hub."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        peer = self.transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone, and with it all that was to be sent."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if self.wire is not None:
            self.wire.lost()
        super().connection_lost(exc)

    def handle_connect(self, event: Request) -> None:
        """Offer the wire to the application."""
        super().handle_connect(event)
        if not self.close_sent:
            self.wire = RawWire(self, None if forgets_to_pause(self.transport) else self.transport.writelines)
            cast(dict[str, Any], self.scope["extensions"])[EXTENSION] = self.wire

    def pause_writing(self) -> None:
        """The transport's buffer is above its high-water mark."""
        super().pause_writing()
        if self.wire is not None:
            self.wire.pause()

    def resume_writing(self) -> None:
        """The transport's buffer is below its low-water mark."""
        super().resume_writing()
        if self.wire is not None:
            self.wire.resume()

    def write_parts(self, parts: tuple[bytes, ...]) -> None:
        """See ``RawSocket``."""
        self.transport.write(b"".join(parts))

    def unsent(self) -> int:
        """See ``RawSocket``."""
        return self.transport.get_write_buffer_size()

    def close_orderly(self, code: int, reason: str) -> None:
        """See ``RawSocket``. What uvicorn does on ``websocket.close``, without waiting for room first."""
        if self.close_sent or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.conn.state is State.OPEN:
            self.conn.send_close(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # The same field as uvicorn's own: it keeps the transport open for the peer's answer when the application returns.
        self.close_timer = self.loop.call_later(config.send_timeout, self.transport.abort)

    def abort(self) -> None:
        """See ``RawSocket``."""
        self.transport.abort()

    async def send(self, message: Any) -> None:
        """As uvicorn, but a close never waits for room."""
        if message["type"] == "websocket.close" and self.handshake_complete and self.wire is not None:
            self.wire.close(message.get("code") or 1000, message.get("reason") or "")
            return
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            # It has been answered, by another answer than 101; uvicorn would log an error for each.
            self.handshake_complete = True

    def data_received(self, data: bytes) -> None:
        """Nothing is read any more from a client that has broken the protocol."""
        if not self._deaf:
            super().data_received(data)

    def send_receive_event_to_app(self) -> None:
        """As uvicorn, but text that is not UTF-8 is the client's fault: its traceback is nothing for our log."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(CloseCode.INVALID_DATA, "text that is not UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """Say why (1002, 1007, 1009) and go on discarding until the client is gone.

        Closing at once, as uvicorn does, resets a client that is still sending, which then never reads the reason.
        """
        self._deaf = True
        close = self.conn.close_sent or Close(1002, "")
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.wire is not None:
            self.wire.lost()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(config.send_timeout, self.transport.abort)

    def handle_close(self, event: Any) -> None:
        """The client says goodbye; it may still not read what is under way."""
        super().handle_close(event)
        if self.wire is not None:
            self.wire.lost()
        self._abort_soon()

    def keepalive_timeout(self) -> None:
        """The peer is gone: there is nobody to wait for."""
        self.pong_timer = None
        self.transport.abort()

    def shutdown(self) -> None:
        """The server stops."""
        super().shutdown()
        self._abort_soon()

    async def run_asgi(self) -> None:
        """Run the application; what it has left behind is flushed, but not for ever."""
        await super().run_asgi()
        self._abort_soon()

    def _abort_soon(self) -> None:
        if self._abort_timer is None and not self.disconnected:
            self._abort_timer = self.loop.call_later(config.send_timeout, self.transport.abort)


class _HeadHeld:
    """The transport of one response: its head waits for the first of its body, so that both leave in one call and one packet.

    A body that is not there in this turn of the event loop does not hold the head up.
    """

    __slots__ = ("_close", "_head", "_loop", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, close: Callable[[], None]) -> None:
        self._transport = transport
        self._loop = loop
        self._close = close
        self._head: bytes | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._head = data
            self._loop.call_soon(self._flush)
        elif self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class ArgusHttpProtocol(HttpToolsProtocol):
    """One HTTP connection, which the application may end at once: a close would wait for a client that does not read.

    A request's head must come in time and within its bound. Whatever the application leaves unsent must be taken in time, too:
    the transport says when there is much of it, and of what is less, the connection's close is the time to look.
    """

    _line: Line
    _in_head = False
    _head = 0
    """Bytes of the headers of a head that does not come in one packet."""
    _head_timer: asyncio.TimerHandle | None = None
    _unsent_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """What the application is offered of the connection; its first request must come in time."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._line = Line(self.transport.abort)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """There is nothing to wait for any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """From here on the other protocol looks after the connection."""
        self._stop_waiting()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Look after a head that does not come in one packet: ``on_header`` is told of a header when it has ended, if ever."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if self._head_timer is None:
            # The first packet of this head, which may have the end of a body in it.
            self._head = 0
            self._await_head()
            return
        self._head += len(data)
        if self._head > LONGEST_HEAD:
            detail = f"The headers of a request have no more than {LONGEST_HEAD} bytes."
            self._turn_away(ArgusError(MESSAGE_TOO_BIG, detail, limit=LONGEST_HEAD))

    def pause_writing(self) -> None:
        """There is much unsent."""
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        """Most of it has been taken."""
        super().resume_writing()
        self._watch_unsent()

    def timeout_keep_alive_handler(self) -> None:
        """The client asks for nothing more."""
        if not self.transport.is_closing():
            self._close()

    def on_message_begin(self) -> None:
        """A request begins, and with it its scope."""
        super().on_message_begin()
        self._in_head = True
        cast("dict[str, Any]", self.scope)["extensions"] = {LINE: self._line}

    def on_url(self, url: bytes) -> None:
        """A piece of the address; no more of it is kept than tells that it is too long."""
        self._head -= len(url)
        if len(self.url) <= LONGEST_ADDRESS:
            super().on_url(url)

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be read; one whose address is too long with what would do."""
        if len(self.url) <= LONGEST_ADDRESS:
            super().send_400_response(msg)
            return
        detail = f"An address has no more than {LONGEST_ADDRESS} characters. A POST to the same one takes parameters in its body."
        error = ArgusError(MESSAGE_TOO_BIG, detail, limit=LONGEST_ADDRESS, parameter=_longest_parameter(self.url))
        self._turn_away(error)

    def on_headers_complete(self) -> None:
        """The answer can begin."""
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            self.cycle.transport = cast(asyncio.Transport, _HeadHeld(self.transport, self.loop, self._close))

    def _turn_away(self, error: ArgusError) -> None:
        body = msgspec.json.encode(error.document(requestid.new()))
        head = f"HTTP/1.1 {error.problem.status} Content Too Large\r\ncontent-type: {PROBLEM}\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self._close()

    def _close(self) -> None:
        """Close the connection once all has been sent, but do not wait for that for ever."""
        self.transport.close()
        self._watch_unsent()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(config.auth_timeout, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # Behind a request that is still being answered, it may be us who do not read.
            self._await_head()
        else:
            self._close()

    def _watch_unsent(self) -> None:
        """End the connection where no ``PIECE`` of what is unsent, or not the rest, is taken in time.

        Streamed answers keep that time themselves, and count who is cut off: this is later by ``GRACE``.
        """
        if self._unsent_timer is not None:
            self._unsent_timer.cancel()
            self._unsent_timer = None
        if unsent := self.transport.get_write_buffer_size():
            self._unsent_timer = self.loop.call_later(config.send_timeout + GRACE, self._look, unsent)

    def _look(self, before: int) -> None:
        if self.transport.get_write_buffer_size() > max(0, before - PIECE):
            self.transport.abort()
        else:
            self._watch_unsent()

    def _stop_waiting(self) -> None:
        for timer in (self._head_timer, self._unsent_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._unsent_timer = None


def _longest_parameter(address: bytes) -> str:
    """The name of the longest parameter in an address."""
    longest = max(address.partition(b"?")[2].split(b"&"), key=len)
    return longest.partition(b"=")[0][:40].decode("latin-1")


def uvicorn_config(app: Callable[..., Any] | str, **overrides: Any) -> uvicorn.Config:
    """uvicorn as Argus is served by it. No compression: it costs memory per connection and the sharing of frames."""
    settings: dict[str, Any] = {
        "http": ArgusHttpProtocol,
        "ws": ArgusWebSocketProtocol,
        "ws_max_size": config.max_message_size,
        "ws_per_message_deflate": False,
        "ws_ping_interval": PING_INTERVAL,
        "ws_ping_timeout": PING_TIMEOUT,
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        # Whose X-Forwarded-For is believed is decided in argus.access, for every server alike.
        "proxy_headers": False,
        "timeout_graceful_shutdown": STOP_TIMEOUT,
    }
    return uvicorn.Config(app, **(settings | overrides))

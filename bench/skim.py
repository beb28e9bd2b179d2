"""A subscriber of very large frames that keeps none of them: all connections read into one small buffer.

A client that puts frames of 2.6 MB together would spend more time than the hub does, and the measurement would be its own.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

HEAD = 170
"""Bytes from a frame's beginning in which all is said that tells what it is."""
MASKED = b"\x00\x00\x00\x00"
"""The mask that changes nothing."""
_buffer = memoryview(bytearray(1 << 18))


class Skimmer(asyncio.BufferedProtocol):
    """One connection. ``add(seq, quotes)`` is told of each data frame that is no snapshot when its last byte is there."""

    sizes: dict[tuple[int, int], int] = {}
    """Bytes of a frame and digits of its seq -> the quotes in it; one of each kind is read."""

    def __init__(self, add: Callable[[int, int], None], request: bytes, subscribe: bytes) -> None:
        self._add = add
        self._request = request
        self._subscribe = subscribe
        self._head = b""
        self._left = -1
        self._size = 0
        self._kept: bytearray | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the server closed a connection"))

    def get_buffer(self, sizehint: int) -> memoryview:
        return _buffer

    def buffer_updated(self, size: int) -> None:
        if size <= self._left and self._kept is None:
            self._left -= size
            if not self._left:
                self._end()
            return
        data = self._head + bytes(_buffer[:size]) if not self._left or self._left < 0 else bytes(_buffer[:size])
        self._head = b""
        if self._left < 0:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self.ready.set_exception(ConnectionError(data[:200].decode("latin-1")))
                return
            data, self._left = data[end + 4 :], 0
            self._transport.write(self._subscribe)
        while data:
            if not self._left and not self._begin(data):
                self._head = data
                return
            if self._left > len(data):
                self._take(data)
                return
            part, data = data[: self._left], data[self._left :]
            self._take(part)

    def _begin(self, data: bytes) -> bool:
        """Whether enough of a frame is there to tell what it is."""
        if len(data) < 2:
            return False
        length = data[1]
        head = 2 if length < 126 else 4 if length == 126 else 10
        if len(data) < head:
            return False
        if head > 2:
            length = int.from_bytes(data[2:head])
        if len(data) < head + min(length, HEAD):
            return False
        self._left, self._size, self._payload = head + length, length, data[head : head + min(length, HEAD)]
        at = self._payload.find(b'"seq":') + 6
        self._seq = 0
        if self._payload.startswith(b'{"type":"data"') and b'"snapshot":true' not in self._payload:
            digits = self._payload[at : self._payload.index(b",", at)]
            self._seq = int(digits)
            self._kind = (length, len(digits))
            self._kept = None if self._kind in self.sizes else bytearray()
        return True

    def _take(self, part: bytes) -> None:
        if self._kept is not None:
            self._kept += part
        self._left -= len(part)
        if not self._left:
            self._end()

    def _end(self) -> None:
        if self._kept is not None:
            self.sizes[self._kind] = self._kept.count(b'"type":"quote"')
            self._kept = None
        if self._seq:
            self._add(self._seq, self.sizes[self._kind])
        elif self._payload.startswith(b'{"type":"subscribed"'):
            self.ready.set_result(None)
        elif self._payload.startswith(b'{"type":"error"'):
            self.ready.set_exception(RuntimeError(self._payload.decode()))


def frame(text: bytes) -> bytes:
    """A client's message."""
    size = len(text)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2)
    return head + MASKED + text


def handshake(key: str, protocol: str = "", *, deflate: bool = False) -> bytes:
    """What opens a connection."""
    lines = ["GET /ws/market_data HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}", "Sec-WebSocket-Version: 13", f"X-API-Key: {key}"]
    if protocol:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    if deflate:
        lines.append("Sec-WebSocket-Extensions: permessage-deflate")
    return "\r\n".join([*lines, "", ""]).encode()

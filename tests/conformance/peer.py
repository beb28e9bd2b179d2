"""A WebSocket client that may break every rule: it writes frames bit by bit and shows exactly what comes back."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

PATIENCE = 20.0
"""Seconds for anything that the server is to do."""
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to ``KEY`` (RFC 6455, 1.3)."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


LARGEST = 131_072
"""Bytes of the largest message that the servers of these tests take."""


class Server(NamedTuple):
    """A running server, and what it has logged so far."""

    port: int
    log: Callable[[], str]


class Got(NamedTuple):
    """One frame of the server."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a close frame; 1005 where it has none."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    mask: bytes | None = b"\x12\x34\x56\x78",
    length: bytes | None = None,
) -> bytes:
    """The bytes of a frame; ``reserved`` are its three bits, ``length`` stands in the place of what it should say of its own."""
    masked = 0 if mask is None else 0x80
    size = len(payload)
    if length is None:
        if size < 126:
            length = bytes([size])
        elif size < 65536:
            length = b"\x7e" + size.to_bytes(2, "big")
        else:
            length = b"\x7f" + size.to_bytes(8, "big")
    if mask is not None:
        repeated = mask * (size // 4 + 1)
        payload = bytes(a ^ b for a, b in zip(payload, repeated, strict=False))
    return bytes([fin << 7 | reserved << 4 | opcode, masked | length[0]]) + length[1:] + (mask or b"") + payload


def closing(code: int, reason: bytes = b"") -> bytes:
    """A close frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def request(path: str = "/ws", method: str = "GET", **headers: str | None) -> bytes:
    """An opening handshake with some of its headers replaced, added, or (None) left out; ``_`` stands for ``-``."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    names = {name.lower(): name for name in fields}
    for given, value in headers.items():
        name = given.replace("_", "-")
        fields[names.get(name.lower(), name)] = value
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def ask(id: str | int, size: int = 0) -> bytes:
    """The payload of a request that anybody may make, of at least this size; its answer shows the id."""
    return json.dumps({"action": "ping", "id": id}, ensure_ascii=False).encode().ljust(size)


class Peer:
    """One connection. It answers the server's pings while it reads, unless it is ``dead``."""

    def __init__(self, port: int, opening: bytes | None = None) -> None:
        """Connect with this opening handshake, or with a good one."""
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.dead = False
        self._read = b""
        self.socket.sendall(opening or request())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = self.socket.recv(1)
            assert piece, f"the server hung up in its answer: {head!r}"
            head += piece
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Write these bytes, each piece in a packet of its own."""
        for piece in pieces:
            self.socket.sendall(piece)

    def quietly(self, *pieces: bytes) -> None:
        """Write to a server that may have hung up."""
        with suppress(ConnectionError):
            self.send(*pieces)

    def finish(self) -> None:
        """Say nothing more."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def next(self) -> Got | None:
        """The next frame, its rules checked (RFC 6455, 5.1, 5.5); None where the server has ended the connection."""
        head = self._take(2)
        if head is None:
            return None
        opcode, size = head[0] & 0x0F, head[1]
        assert head[0] & 0xF0 == 0x80, "a frame of the server's is whole and has no reserved bits"
        assert size < 128, "a frame of the server's is not masked"
        assert opcode < CLOSE or size < 126
        if size >= 126:
            length = self._take(2 if size == 126 else 8)
            assert length is not None
            size = int.from_bytes(length, "big")
        payload = self._take(size)
        assert payload is not None
        if opcode == PING and not self.dead:
            self.quietly(frame(PONG, payload))
        return Got(opcode, payload)

    def heard(self) -> Got | None:
        """The next frame that is neither the server's own ping nor a heartbeat."""
        while (got := self.next()) is not None:
            if got.opcode != PING and not (got.opcode == TEXT and json.loads(got.payload)["type"] == "heartbeat"):
                return got
        return None

    def message(self) -> dict[str, Any]:
        """The next message that is no heartbeat."""
        got = self.heard()
        assert got is not None, "the server has ended the connection"
        assert got.opcode == TEXT, got
        return dict(json.loads(got.payload))

    def greeted(self) -> Self:
        """The connection after its first message."""
        assert self.status == 101, self.status
        assert self.message()["type"] == "connected"
        return self

    def alive(self) -> bool:
        """Whether a request is still answered, and nothing else comes before its answer."""
        self.send(frame(TEXT, ask("alive")))
        return self.message().get("id") == "alive"

    def end(self) -> tuple[list[Got], Got | None]:
        """Read to the connection's end: what came before the close frame, and the close frame (None: there was none).

        Nothing may come after it.
        """
        before: list[Got] = []
        while (got := self.heard()) is not None:
            if got.opcode == CLOSE:
                self.finish()
                assert self.next() is None, "something came after the close frame"
                return before, got
            before.append(got)
        return before, None

    def _take(self, size: int) -> bytes | None:
        while len(self._read) < size:
            try:
                piece = self.socket.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                assert not self._read, f"the connection ended within a frame: {self._read!r}"
                return None
            self._read += piece
        taken, self._read = self._read[:size], self._read[size:]
        return taken

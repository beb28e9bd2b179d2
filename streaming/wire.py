"""The last step to a client: one message at a time, never waiting, on whatever server runs below."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from argus.config import config
from streaming.frame import Frame

EXTENSION = "argus.raw"
"""Under this name a server of ours puts a connection's ``RawWire`` into the ASGI scope's extensions."""
HIGH_WATER = 256 * 1024
"""Bytes unsent in this process above which a connection has no room, and the size of the socket's own buffer."""

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Wire(Protocol):
    """What a connection needs of a transport. All methods return at once."""

    on_room: Callable[[], None] | None
    """Called when there is room again after there was none."""

    def room(self) -> bool:
        """Whether another frame may be written; a caller without room waits for ``on_room``."""

    def write(self, frame: Frame) -> None:
        """Send one message."""

    def pending(self) -> int:
        """What was written and has not left this process: it shrinks while the client reads."""

    def close(self, code: int, reason: str = "") -> None:
        """End in an orderly way after what was written; cut off if that takes too long. Idempotent."""

    def abort(self) -> None:
        """Cut the connection off now, whatever is still unsent. Idempotent."""


class RawSocket(Protocol):
    """What a server's protocol class offers below a ``RawWire``."""

    def write_parts(self, parts: tuple[bytes, ...]) -> None:
        """Write framed bytes, in order, without waiting."""

    def unsent(self) -> int:
        """Bytes in this process's buffer."""

    def close_orderly(self, code: int, reason: str) -> None:
        """Send the close frame; abort if the handshake takes longer than ``config.send_timeout``."""

    def abort(self) -> None:
        """Drop the connection."""


class RawWire:
    """Frames straight into the server's transport, whose own water marks say whether there is room."""

    __slots__ = ("_ended", "_paused", "_socket", "_write", "on_room")

    def __init__(self, socket: RawSocket, write: Callable[[tuple[bytes, ...]], None] | None = None) -> None:
        self._socket = socket
        self._write = write or socket.write_parts
        self._paused = False
        self._ended = False
        self.on_room: Callable[[], None] | None = None

    def room(self) -> bool:
        """See ``Wire``. A connection that has ended takes everything and drops it."""
        return not self._paused

    def write(self, frame: Frame) -> None:
        """See ``Wire``."""
        if not self._ended:
            self._write(frame.parts)

    def pending(self) -> int:
        """See ``Wire``."""
        return 0 if self._ended else self._socket.unsent()

    def close(self, code: int, reason: str = "") -> None:
        """See ``Wire``."""
        if not self._ended:
            self._ended = True
            self._socket.close_orderly(code, reason)

    def abort(self) -> None:
        """See ``Wire``."""
        self._ended = True
        self._socket.abort()

    def pause(self) -> None:
        """The server's transport is above its high-water mark."""
        self._paused = True

    def resume(self) -> None:
        """The server's transport is below its low-water mark."""
        self._paused = False
        if self.on_room is not None and not self._ended:
            self.on_room()

    def lost(self) -> None:
        """The server's transport is gone."""
        self._ended = True
        self._paused = False


class SendWire:
    """Plain ASGI ``send``: one task that sends one frame after the other; there is room while it has nothing to do.

    A frame that does not get through in ``config.send_timeout`` ends the connection: the application's own task is
    cancelled, upon which every server drops the transport.
    """

    def __init__(self, send: Send) -> None:
        self.on_room: Callable[[], None] | None = None
        self._send = send
        self._queue: deque[Message] = deque()
        self._ended = False
        self._application = asyncio.current_task()
        self._sender: asyncio.Task[None] | None = None

    def room(self) -> bool:
        """See ``Wire``."""
        return self._sender is None

    def write(self, frame: Frame) -> None:
        """See ``Wire``."""
        if not self._ended:
            payload = frame.payload()
            self._put({"type": "websocket.send", **({"bytes": payload} if frame.binary else {"text": payload.decode()})})

    def pending(self) -> int:
        """See ``Wire``; in messages, as the bytes are out of sight."""
        return len(self._queue)

    def close(self, code: int, reason: str = "") -> None:
        """See ``Wire``."""
        if not self._ended:
            self._ended = True
            self._put({"type": "websocket.close", "code": code, "reason": reason})

    def abort(self) -> None:
        """See ``Wire``."""
        self._ended = True
        self._queue.clear()
        for task in (self._sender, self._application):
            if task is not None and not task.done():
                task.cancel()

    def _put(self, message: Message) -> None:
        self._queue.append(message)
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._queue:
                async with asyncio.timeout(config.send_timeout):
                    await self._send(self._queue.popleft())
        except TimeoutError:
            self.abort()
            return
        except Exception:  # noqa: BLE001 - each server has its own; all mean that the client is gone, and it tells the application
            self._ended = True
            self._queue.clear()
        self._sender = None
        if self.on_room is not None and not self._ended:
            self.on_room()


def wire_for(scope: MutableMapping[str, Any], send: Send) -> Wire:
    """The fastest wire that the server below offers. Call it in the connection's own task, after the accept."""
    raw: RawWire | None = scope.get("extensions", {}).get(EXTENSION)
    return raw if raw is not None else SendWire(send)

"""A TCP relay in the middle, which a test slows down, stalls, cuts, turns towards another target, or lets fall silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
CHUNK = 65536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: a close is a reset."""


class Relay:
    """Listens on ``port`` of this machine. All that is asked of it holds for connections that are open and for later ones."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        """Seconds that each piece takes longer, in either direction."""
        self._flows = asyncio.Event()
        self._flows.set()
        self._silent = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def stall(self) -> None:
        """Let nothing pass; what is sent waits."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def flow(self) -> None:
        """Let everything pass again."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def fall_silent(self) -> None:
        """Swallow all that comes from either side from now on, also its goodbye: each believes that the other is there."""
        self._silent = True

    def turn(self, target: int) -> None:
        """Reset every connection, and lead those that come to another port."""
        self.target = target
        self._run(self._cut())

    def _run(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, to = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        self._writers.add(to)
        for source, sink in ((reader, to), (there, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._flows.wait()
                if not self._silent:
                    sink.write(data)
                    await sink.drain()
        if not self._silent:
            self._writers.discard(sink)
            sink.close()

    async def _cut(self) -> None:
        writers, self._writers = self._writers, set()
        for writer in writers:
            _reset(writer)

    async def _end(self) -> None:
        self._server.close()
        self._flows.set()
        await self._cut()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await self._server.wait_closed()
        await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, AttributeError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()

"""uvicorn as Argus runs it: the signals are ours, and clients are told goodbye before their connections are closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import FrameType

import structlog
import uvicorn

log = structlog.get_logger(__name__)

if sys.platform == "win32":
    STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK)
else:
    STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Step = Callable[[], Awaitable[object]]


class Server(uvicorn.Server):
    """A uvicorn server that calls ``started`` once it listens, and ``stopping`` before it closes any connection.

    It ends with a signal, and when ``until`` is over, which begins after ``started``.
    """

    def __init__(self, config: uvicorn.Config, *, on_started: Step, on_stopping: Step, until: Step | None = None) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._on_stopping = on_stopping
        self._until = until
        self._watch: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals and, unlike uvicorn, do not raise them again afterwards: the stop was the answer to them."""
        before = {number: signal.signal(number, self.handle_exit) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the service in order; the second ends the process at once."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            await self._on_started()
            if self._until is not None:
                self._watch = asyncio.create_task(self._end_after(self._until))

    async def _end_after(self, until: Step) -> None:
        await until()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for server in self.servers:
            server.close()
        # Nobody may wait here for an answer that does not come, where other processes listen on the same port.
        for bound in sockets or ():
            bound.close()
        await self._on_stopping()
        await super().shutdown(sockets)


def run(
    config: uvicorn.Config,
    sockets: Sequence[socket.socket],
    *,
    on_started: Step,
    on_stopping: Step,
    until: Step | None = None,
) -> None:
    """Serve on the bound sockets until a signal comes or ``until`` is over; returns after the orderly stop."""
    server = Server(config, on_started=on_started, on_stopping=on_stopping, until=until)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(list(sockets)))


async def in_thread(function: Callable[[], object]) -> None:
    """Run it in a daemon thread and wait for its end: unlike ``asyncio.to_thread``, the process can end without it."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def work() -> None:
        try:
            function()
        finally:
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name="argus-stop", daemon=True).start()
    await done.wait()

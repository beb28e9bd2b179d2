"""Several web processes on one port: started, started again when they end, and replaced one after the other without a gap.

The kernel divides the port's connections among the processes that listen on it (SO_REUSEPORT, Linux). Each process is tied to its
supervisor by a line of its own: it says there that it serves, and takes the line's end for the order to stop, so that no process
outlives its supervisor, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

log = structlog.get_logger(__name__)

READY_WITHIN = 60.0
"""Seconds that a process may take until it serves."""
STOP_WITHIN = 10.0
"""Seconds that it may take for its end; then it is killed."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a process that has ended is started again: doubled each time until one has run for longer than that."""
SERVES = b"1"

Command = Callable[[int, int], Sequence[str]]
"""What starts the process of a place (from 1), whose line has this file descriptor."""


class NotServing(Exception):
    """A process ended before it served, with this exit code, or did not serve in time (then it was killed)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class _Place:
    """One of the processes that there are to be, and who is it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: _Child | None = None
        self.starting = asyncio.Lock()


class _Child:
    """A process that serves."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket) -> None:
        self.process = process
        self._line = line
        self.since = time.monotonic()

    async def end(self) -> None:
        """Have it stop in an orderly way, or kill it."""
        self._line.close()
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await self.process.wait()
        except TimeoutError:
            log.error("web_process_killed", child=self.process.pid, waited=STOP_WITHIN)
            await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        self._line.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class Supervisor:
    """Runs until SIGTERM or SIGINT, which end all processes in an orderly way; a second one kills them. SIGHUP replaces each by a
    new one, one after the other, each only when its successor serves; where one does not come to serve, the others stay."""

    def __init__(self, command: Command, count: int, say: Callable[[str], None]) -> None:
        self._command = command
        self._say = say
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._children: set[_Child] = set()
        self._stop: asyncio.Future[int] | None = None
        self._roll = asyncio.Event()

    async def run(self) -> int:
        """Until everything has ended; the exit code. The first process has to come to serve before there are others: what stands
        against its start is in the configuration, and ends the supervisor with the same exit code."""
        loop = asyncio.get_running_loop()
        stop = self._stop = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._roll.set)
        work = asyncio.create_task(self._work())
        await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
        code = 0
        if work.done():
            code = work.result()
        else:
            work.cancel()
            await asyncio.wait([work])
            self._say("stopping ...")
        await asyncio.gather(*(child.end() for child in self._children))
        return code

    def _on_stop(self, number: int) -> None:
        assert self._stop is not None
        if not self._stop.done():
            self._stop.set_result(number)
            return
        for child in self._children:
            if child.process.returncode is None:
                child.process.kill()
        os._exit(128 + number)

    async def _work(self) -> int:
        first, *others = self._places
        try:
            first.child = await self._start(first)
        except NotServing as error:
            return error.code or 1
        async with asyncio.TaskGroup() as tasks:
            for place in self._places:
                tasks.create_task(self._keep(place))
            tasks.create_task(self._replace_on_request())
            self._say(f"web process 1 of {1 + len(others)} serves (SIGHUP replaces all of them, one after the other)")
        raise AssertionError("its tasks have no end")

    async def _keep(self, place: _Place) -> None:
        """Have a process in its place, whatever becomes of it."""
        pause = FIRST_PAUSE
        while True:
            async with place.starting:
                child = place.child
                if child is None:
                    try:
                        child = place.child = await self._start(place)
                    except NotServing as error:
                        log.error("web_process_not_serving", place=place.number, code=error.code, again_in=pause)
            if child is not None:
                code = await child.process.wait()
                self._children.discard(child)
                if place.child is not child:
                    continue
                place.child = None
                if time.monotonic() - child.since > LONGEST_PAUSE:
                    pause = FIRST_PAUSE
                log.error("web_process_ended", place=place.number, child=child.process.pid, code=code, again_in=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _replace_on_request(self) -> None:
        while True:
            await self._roll.wait()
            self._roll.clear()
            log.info("web_processes_replaced", begun=True)
            for place in self._places:
                if not await self._replace(place):
                    break
            else:
                log.info("web_processes_replaced", begun=False)
                self._say("all web processes have been replaced")

    async def _replace(self, place: _Place) -> bool:
        async with place.starting:
            old = place.child
            try:
                place.child = await self._start(place)
            except NotServing as error:
                log.error("web_processes_stay", place=place.number, code=error.code)
                self._say(f"the new web process {place.number} does not come to serve; those that there are stay")
                return False
        if old is not None:
            await old.end()
        return True

    async def _start(self, place: _Place) -> _Child:
        """Start a process and wait until it serves. Raises ``NotServing``."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            command = self._command(place.number, theirs.fileno())
            # A session of its own: a terminal's Ctrl-C is for the supervisor alone.
            process = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()], start_new_session=True)
        child = _Child(process, ours)
        self._children.add(child)
        said = b""
        try:
            async with asyncio.timeout(READY_WITHIN):
                said = await _heard(asyncio.get_running_loop().sock_recv(ours, 1))
        except TimeoutError:
            log.error("web_process_killed", child=process.pid, waited=READY_WITHIN)
        if said != SERVES:
            # It is about to end by itself, unless it has hung until now.
            await child.end()
            self._children.discard(child)
            assert process.returncode is not None
            raise NotServing(process.returncode)
        log.info("web_process_serves", place=place.number, child=process.pid)
        return child


async def _heard(step: Coroutine[Any, Any, bytes]) -> bytes:
    try:
        return await step
    except ConnectionError:
        return b""


async def serves(descriptor: int) -> None:
    """Tell the supervisor at the other end of the line that this process serves, and return when it is to stop."""
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=descriptor) as line:
        line.setblocking(False)
        try:
            await loop.sock_sendall(line, SERVES)
            while await loop.sock_recv(line, 1):
                pass
        except ConnectionError:
            return

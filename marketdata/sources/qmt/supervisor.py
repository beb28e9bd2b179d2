"""A terminal's child process through all its lives: started again when it ends, asked with deadlines, killed past them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

import msgspec
import structlog

from marketdata.sources.base import Capability, SourceError, SourceTimeout, SourceUnavailable, State, Unsupported
from marketdata.sources.qmt import messages
from marketdata.sources.qmt.process import Process, spawn
from marketdata.types import Parsed, ParsedTrades

log = structlog.get_logger(__name__)

PING: Final = 1.0
MISSING: Final = 15.0
"""Seconds without an answer to a ping after which the vendor's code is taken to hold the interpreter."""
IMPORT: Final = 60.0
"""Seconds that the child may take until its first report: pandas on a cold disk."""
BACKOFF: Final = (0.2, 30.0)
"""Seconds between a child's end and the next start: the first wait, doubled up to the last."""
STOP: Final = 1.5


class Supervisor:
    """Owns the child. One call is in the child at a time; others wait for their turn within their own deadlines."""

    def __init__(
        self,
        *,
        terminal: str,
        address: str,
        timeout: float,
        silence: float,
        on_pushed: Callable[[int, Parsed], None],
        on_trades: Callable[[ParsedTrades], None],
    ) -> None:
        self._terminal = terminal
        self._address = address
        self._timeout = timeout
        self._silence = silence
        self._on_pushed = on_pushed
        self._on_trades = on_trades
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self._numbers = itertools.count(1)
        self._pending: dict[int, Future[bytes]] = {}
        self._wanted = messages.Wanted()
        self._process: Process | None = None
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._dropped_before = 0
        self._fatal = False
        self._was_up = False
        self.report = messages.Report(False, detail="not started")
        self.state = State.DOWN
        self.restarts = 0
        self.interruptions = 0
        """How often the terminal was connected again, a subscription was made again, or trades were dropped."""
        self.time: int | None = None

    def start(self) -> None:
        """Start the child in the background. Idempotent; a closed one stays closed."""
        if self._closing.is_set():
            raise SourceUnavailable("closed")
        if self._threads:
            return
        self._become(State.STARTING, messages.Report(False, detail="starting"))
        for target, name in ((self._run, "child"), (self._watch, "watch")):
            thread = threading.Thread(target=target, name=f"qmt-{self._terminal}-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End the child and the threads. Idempotent."""
        self._closing.set()
        self._become(State.DOWN, messages.Report(False, detail="closed"))
        if process := self._process:
            process.kill("closed")
        deadline = time.monotonic() + STOP
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def closed(self) -> bool:
        """Whether it has been closed, for good."""
        return self._closing.is_set()

    @property
    def dropped(self) -> int:
        """Ticks that all children have merged away so far, and trades that they had no room for."""
        process = self._process
        return self._dropped_before + (process.dropped if process else 0)

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        process = self._process
        return process.pid if process else None

    def want(self, wanted: messages.Wanted) -> None:
        """Which pushes are wanted from now on, in this child and in each that follows."""
        with self._changed:
            self._wanted = wanted
            process = self._process
        if process is not None:
            self._send(process, wanted)

    def call(self, request: messages.Request, *, timeout: float, request_id: str) -> bytes:
        """The answer to a request, encoded. Raises a ``SourceError``; past the deadline the child is killed."""
        deadline = time.monotonic() + timeout
        if not self._turn.acquire(timeout=max(0.0, timeout)):
            # The terminal answers somebody else's call; that one has its own deadline.
            raise SourceTimeout(f"other calls took all of {timeout} s")
        try:
            process = self._ready(deadline)
            return self._ask(process, request, deadline, request_id, timeout)
        finally:
            self._turn.release()

    def _ready(self, deadline: float) -> Process:
        with self._changed:
            self._changed.wait_for(lambda: self.state != State.STARTING, max(0.0, deadline - time.monotonic()))
            if self._fatal:
                raise Unsupported(self.report.detail)
            if self.state != State.UP or self._process is None:
                raise SourceUnavailable(self.report.detail or "the terminal is not connected")
            return self._process

    def _ask(self, process: Process, request: messages.Request, deadline: float, request_id: str, timeout: float) -> bytes:
        if time.monotonic() >= deadline:
            raise SourceTimeout(f"{timeout} s had passed before the terminal could be asked")
        number, future = next(self._numbers), Future[bytes]()
        with self._changed:
            if self._process is not process:
                raise SourceUnavailable("the terminal's process has just ended")
            self._pending[number] = future
        self._send(process, messages.Call(number, request_id, request))
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            self._kill(process, f"{type(request).__name__} was not answered within {timeout} s")
            raise SourceTimeout(f"no answer from the terminal within {timeout} s") from None
        finally:
            with self._changed:
                self._pending.pop(number, None)

    def _send(self, process: Process, message: messages.ToChild) -> None:
        try:
            process.channel.send(message)
        except OSError:
            process.kill("its channel is closed")

    def _kill(self, process: Process, why: str) -> None:
        log.warning("qmt_child_killed", terminal=self._terminal, pid=process.pid, why=why)
        process.kill(why)

    def _become(self, state: State, report: messages.Report) -> None:
        with self._changed:
            if (state, report) != (self.state, self.report):
                self.state, self.report = state, report
                self._changed.notify_all()

    def _run(self) -> None:
        """The first thread: one child after the other."""
        delay = BACKOFF[0]
        while not self._closing.is_set():
            try:
                process = spawn(terminal=self._terminal, address=self._address, silence=self._silence)
            except SourceUnavailable as error:
                self._become(State.DOWN, messages.Report(False, detail=str(error)))
            else:
                delay = BACKOFF[0] if self._live(process) else delay
            if self._fatal:
                log.error("qmt_cannot_run", terminal=self._terminal, detail=self.report.detail)
                return
            if not self._closing.wait(delay):
                self.restarts += 1
                delay = min(delay * 2, BACKOFF[1])

    def _live(self, process: Process) -> bool:
        """One life of the child; whether it was connected to its terminal in it."""
        with self._changed:
            self._process = process
            wanted = self._wanted
        if self._closing.is_set():
            process.kill("closed")
        self._send(process, wanted)
        try:
            while frame := process.channel.receive():
                self._receive(process, messages.from_child.decode(frame))
        except msgspec.MsgspecError as error:
            self._kill(process, f"a message was not understood: {error}")
        code = process.reap()
        detail = process.why or ("" if self.report.up else self.report.detail) or f"the terminal's process ended with {code}"
        with self._changed:
            self._process = None
            self._dropped_before += process.dropped
            pending, self._pending = self._pending, {}
        if not self._closing.is_set():
            self._become(State.DOWN, messages.Report(False, detail=detail))
            log.warning("qmt_child_ended", terminal=self._terminal, code=code, detail=detail)
        for future in pending.values():
            future.set_exception(SourceUnavailable(detail))
        return process.was_up

    def _receive(self, process: Process, message: messages.FromChild) -> None:
        match message:
            case messages.Pushed(subscription, body):
                self._on_pushed(subscription, messages.parsed.decode(body))
            case messages.PushedTrades(body):
                self._on_trades(messages.parsed_trades.decode(body))
            case messages.Answer(number, body):
                self._resolve(number, body)
            case messages.Failure(number, unsupported, detail):
                self._resolve(number, Unsupported(detail) if unsupported else SourceUnavailable(detail))
            case messages.Pong(busy, dropped, interruptions, newest):
                process.heard, process.busy, process.dropped = time.monotonic(), busy, dropped
                self.interruptions += interruptions - process.interruptions
                process.interruptions = interruptions
                self.time = newest or self.time
            case messages.Report():
                process.reported = True
                self.interruptions += message.up and self._was_up
                self._was_up = self._was_up or message.up
                process.was_up = process.was_up or message.up
                if not self._closing.is_set():
                    state = State.UP if message.up else State.STARTING if message.starting else State.DOWN
                    self._become(state, message)
                    self._fatal = self._fatal or message.fatal

    def _resolve(self, number: int, outcome: bytes | SourceError) -> None:
        with self._changed:
            future = self._pending.pop(number, None)
        if future is None:
            return
        if isinstance(outcome, bytes):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    def _watch(self) -> None:
        """The second thread: is the child there, and does its own work (connecting, subscribing) come to an end?"""
        while not self._closing.wait(PING):
            if self._fatal:
                return
            process = self._process
            if process is None or process.why:
                continue
            self._send(process, messages.Ping())
            if time.monotonic() - process.heard > MISSING:
                self._kill(process, f"no sign of life for {MISSING} s")
            elif process.busy > (self._timeout if process.reported else max(IMPORT, self._timeout)):
                self._kill(process, f"the terminal did not answer for {process.busy:.1f} s")

    @property
    def capabilities(self) -> frozenset[Capability]:
        """As probed; empty while the terminal is not connected."""
        return frozenset(self.report.capabilities) if self.state == State.UP else frozenset()

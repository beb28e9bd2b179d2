"""The process that holds the vendor's client: the only one, and the only module, that imports ``xtquant``.

Started by ``process.py`` as ``python -m marketdata.sources.qmt.child``, one for each terminal. The vendor's module is a
singleton without a lock, prints what it likes, and may hang or crash: here it does so alone. All calls to it are made
on the main thread; a second thread reads what the parent sends.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import socket
import sys
import threading
import time
from typing import Any, Final

import msgspec

from marketdata.sources.base import Capability, SourceError, Unsupported
from marketdata.sources.qmt import childlog, messages
from marketdata.sources.qmt.limits import LimitBook
from marketdata.sources.qmt.pushes import Pushes
from marketdata.sources.qmt.service import Service
from marketdata.sources.qmt.terminal import Terminal, WrongPeer
from marketdata.sources.qmt.trades import Trades
from marketdata.types import Parsed, ParsedTrades

BEAT: Final = 0.2
"""Seconds between two looks at the connection and the pushes."""
RECONNECT: Final = 1.0
"""Seconds between two attempts to reach a terminal that is down."""
DEADMAN: Final = 60
"""Seconds without a ping after which the process ends itself, even where the vendor's code holds the interpreter."""
WRONG_PEER: Final = 3
"""Exit code."""
INSTALL: Final = "pip install -r requirements-qmt.txt"


def _import_xtdata() -> Any:
    # xtquant's __init__ asks PyPI for a newer version, with a time-out of 10 s, where it finds these two importable.
    sys.modules["pkg_resources"] = None  # type: ignore[assignment]
    import numpy  # noqa: F401 (xtdata imports both inside of calls; their absence is to be known now)
    import pandas  # noqa: F401
    from xtquant import xtdata

    return xtdata


def _missing(error: ImportError) -> str:
    name = error.name or ""
    if isinstance(error, ModuleNotFoundError) and name.partition(".")[0] in ("xtquant", "numpy", "pandas") and "." not in name:
        return f"{name} is not installed; install it with: {INSTALL}"
    return f"xtquant does not run here ({error}): its compiled part is made for Windows; run this worker there"


def _wrong_zone() -> str:
    """The vendor converts times with this process' zone: 2025-08-07 in Beijing began at 1754496000."""
    if time.mktime(time.strptime("20250807", "%Y%m%d")) == 1_754_496_000:
        return ""
    return f"TZ={os.environ.get('TZ')} is not Beijing's time on this system: install its time zone data (tzdata)"


class Worker:
    """The main thread's loop: one call at a time, and between calls the connection and the pushes."""

    def __init__(self, channel: messages.Channel, setup: messages.Setup) -> None:
        self._channel = channel
        self._setup = setup
        self._inbox: queue.Queue[messages.Call | messages.Wanted | None] = queue.Queue(64)
        self._busy_since: float | None = time.monotonic()
        self._next_attempt = 0.0
        self._time: int | None = None
        self._polled: set[str] = set()
        self._up = False
        self._pushes: Pushes | None = None
        self._trades: Trades | None = None
        self._terminal: Terminal | None = None

    def read(self) -> None:
        """The second thread: what the parent sends. When the parent is gone, so is this process."""
        while frame := self._channel.receive():
            message = messages.to_child.decode(frame)
            if isinstance(message, messages.Ping):
                faulthandler.dump_traceback_later(DEADMAN, exit=True)
                self._send(self._pong())
            else:
                self._inbox.put(message)
        os._exit(0)

    def _pong(self) -> messages.Pong:
        since = self._busy_since
        if since is not None and self._terminal is not None:
            since = max(since, self._terminal.asked)
        busy = 0.0 if since is None else time.monotonic() - since
        return messages.Pong(busy, self._dropped(), self._interruptions(), self._time)

    def _dropped(self) -> int:
        return self._pushes.merged + self._trades.dropped if self._pushes and self._trades else 0

    def _interruptions(self) -> int:
        return self._pushes.remade + self._trades.interruptions if self._pushes and self._trades else 0

    def _send(self, message: messages.FromChild) -> None:
        try:
            self._channel.send(message)
        except OSError:
            os._exit(0)

    def run(self, xtdata: Any) -> None:
        """Serve until the process ends."""
        terminal = self._terminal = Terminal(xtdata, self._setup.address, self._wake)
        limits = LimitBook(terminal)
        service = Service(terminal, limits.known)
        self._send(messages.Report(False, starting=True, detail="connecting"))
        self._pushes = Pushes(terminal, service.universe, self._deliver, limits.known, self._setup.silence)
        self._trades = Trades(terminal, service.universe, self._deliver_trades)
        interruptions = 0
        while True:
            self._busy_since = time.monotonic()
            self._keep(terminal, self._pushes, self._trades, limits)
            self._busy_since = None
            if self._interruptions() != interruptions:
                # Whoever relies on an unbroken push need not wait for the next ping.
                interruptions = self._interruptions()
                self._send(self._pong())
            try:
                message = self._inbox.get(timeout=BEAT)
            except queue.Empty:
                continue
            if isinstance(message, messages.Call):
                self._serve(service, message)
            elif isinstance(message, messages.Wanted):
                self._busy_since = time.monotonic()
                self._pushes.want(message.subscriptions)
                self._trades.want(message.trades)

    def _wake(self) -> None:
        """On the vendor's thread: the connection's status has changed."""
        # Where it is full the loop turns anyway.
        with contextlib.suppress(queue.Full):
            self._inbox.put_nowait(None)

    def _deliver(self, number: int, parsed: Parsed) -> None:
        self._saw(parsed)
        self._send(messages.Pushed(number, messages.encode(parsed)))

    def _deliver_trades(self, parsed: ParsedTrades) -> None:
        self._send(messages.PushedTrades(messages.encode(parsed)))

    def _saw(self, parsed: Parsed) -> None:
        newest = max((quote.time for quote in parsed.quotes), default=0)
        self._time = max(self._time or 0, newest) or None

    def _keep(self, terminal: Terminal, pushes: Pushes, trades: Trades, limits: LimitBook) -> None:
        if not terminal.connected:
            if self._up:
                self._report_down("the connection to the terminal was lost")
            if time.monotonic() >= self._next_attempt:
                self._connect(terminal, pushes, trades)
        if terminal.connected:
            pushes.keep()
            trades.keep()
            limits.fill(pushes.codes or self._polled, self._time or 0)

    def _connect(self, terminal: Terminal, pushes: Pushes, trades: Trades) -> None:
        try:
            terminal.connect()
            capabilities = terminal.probe()
        except WrongPeer:
            raise
        except SourceError as error:
            self._next_attempt = time.monotonic() + RECONNECT
            self._report_down(str(error))
            return
        pushes.supported = Capability.PUSH in capabilities
        trades.supported = Capability.TRADES in capabilities
        self._up = True
        version = terminal.version()
        childlog.write("info", "qmt_connected", peer=self._setup.address, version=version, capabilities=capabilities)
        self._send(messages.Report(True, version=version, capabilities=capabilities))

    def _report_down(self, detail: str) -> None:
        self._up = False
        self._send(messages.Report(False, detail=detail))

    def _serve(self, service: Service, call: messages.Call) -> None:
        function = type(call.request).__name__
        started = time.monotonic()
        outcome = "ok"
        try:
            answer = service.answer(call.request)
            if isinstance(answer, Parsed):
                self._saw(answer)
                self._polled.update(quote.symbol for quote in answer.quotes)
            self._send(messages.Answer(call.number, messages.encode(answer)))
        except WrongPeer:
            raise
        except SourceError as error:
            outcome = str(error)
            self._send(messages.Failure(call.number, isinstance(error, Unsupported), outcome))
        except Exception as error:  # noqa: BLE001 (the edge of this process: answers of the vendor may have any shape)
            outcome = f"{type(error).__name__}: {error}"
            self._send(messages.Failure(call.number, False, f"the terminal's answer was not understood: {outcome}"))
        level = "warning" if outcome != "ok" else "info" if call.request_id else "debug"
        milliseconds = round((time.monotonic() - started) * 1000, 1)
        childlog.write(level, "qmt_call", function=function, request_id=call.request_id, ms=milliseconds, outcome=outcome)


def main() -> None:
    """Call back the parent, import the vendor's client, serve."""
    # Ctrl-C is for the parent; this process ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever prints, prints to the log: the parent's protocol has its own socket.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    setup = msgspec.json.decode(sys.stdin.buffer.read(), type=messages.Setup)
    channel = messages.Channel(socket.create_connection(("127.0.0.1", setup.port), timeout=None))
    channel.send(messages.Hello(setup.secret))
    worker = Worker(channel, setup)
    threading.Thread(target=worker.read, name="parent", daemon=True).start()
    try:
        problem = _wrong_zone()
        xtdata = None if problem else _import_xtdata()
    except ImportError as error:
        problem = _missing(error)
    if problem:
        channel.send(messages.Report(False, detail=problem, fatal=True))
        return
    try:
        worker.run(xtdata)
    except WrongPeer as error:
        channel.send(messages.Report(False, detail=str(error)))
        childlog.write("error", "qmt_wrong_peer", detail=str(error))
        os._exit(WRONG_PEER)
    except Exception as error:
        channel.send(messages.Report(False, detail=f"the child failed: {type(error).__name__}: {error}"))
        childlog.write("error", "qmt_child_failed", detail=f"{type(error).__name__}: {error}")
        raise


if __name__ == "__main__":
    main()

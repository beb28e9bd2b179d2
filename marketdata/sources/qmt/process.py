"""One child process: how it is started, recognised and ended, the same way on every system.

A plain ``subprocess`` and a loopback socket, not ``multiprocessing``: nothing is forked, no guard is needed in the program
that embeds us, it may be started from any thread, and no thread ever blocks on a standard stream (which stalls imports
of compiled modules on Windows). The child ends with the socket, so it cannot outlive its parent.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

import marketdata
from marketdata.sources.base import SourceUnavailable
from marketdata.sources.qmt import messages
from marketdata.sources.qmt.forward import forward

ZONE: Final = "CST-8" if sys.platform == "win32" else "Asia/Shanghai"
"""Windows' C library reads no names of zones: "Asia/Shanghai" would be UTC there."""
CALL_BACK: Final = 30.0
"""Seconds that a child may take to call back: an interpreter's start on a busy machine."""
HANDSHAKE: Final = 5.0
EXIT: Final = 0.5
"""Seconds that a child may take to end by itself."""


class Process:
    """A running child and the channel to it. ``why`` is the reason that it was killed for."""

    def __init__(self, popen: subprocess.Popen[bytes], channel: messages.Channel) -> None:
        self._popen = popen
        self.channel = channel
        self.why = ""
        self.heard = time.monotonic()
        self.busy = 0.0
        self.dropped = 0
        self.interruptions = 0
        self.reported = False
        self.was_up = False

    @property
    def pid(self) -> int:
        """The process' id."""
        return self._popen.pid

    def kill(self, why: str) -> None:
        """End it at once; whoever receives from the channel sees its end."""
        self.why = self.why or why
        self._popen.kill()
        self.channel.hang_up()

    def reap(self) -> int:
        """Wait for its end, which the channel's end has announced; its exit code."""
        self.channel.close()
        try:
            return self._popen.wait(EXIT)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()


def _environment() -> dict[str, str]:
    """The parent's, with Beijing's time and a path on which the child finds this package."""
    root = str(Path(marketdata.__file__).resolve().parent.parent)
    path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {
        **os.environ,
        "TZ": ZONE,
        "PYTHONPATH": os.pathsep.join([*path, root]),
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        "PYTHONUNBUFFERED": "1",
    }


def spawn(*, terminal: str, address: str, silence: float) -> Process:
    """Start a child and wait until it has called back. Raises ``SourceUnavailable``."""
    secret = secrets.token_hex(32)
    with socket.create_server(("127.0.0.1", 0)) as server:
        try:
            popen = subprocess.Popen(
                # -P: a folder "xtquant" in the working directory must not stand for the package.
                [sys.executable, "-P", "-m", "marketdata.sources.qmt.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_environment(),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise SourceUnavailable(f"the terminal's process did not start: {error}") from error
        assert popen.stderr is not None
        threading.Thread(target=_forward, args=(popen, terminal), name=f"qmt-{terminal}-log", daemon=True).start()
        try:
            _tell(popen, messages.Setup(server.getsockname()[1], secret, address, silence))
            return Process(popen, _accept(server, secret, popen))
        except (OSError, SourceUnavailable) as error:
            popen.kill()
            raise SourceUnavailable(f"the terminal's process ended with {popen.wait()} before it called back") from error


def _forward(popen: subprocess.Popen[bytes], terminal: str) -> None:
    assert popen.stderr is not None
    with popen.stderr:
        forward(popen.stderr, terminal)


def _tell(popen: subprocess.Popen[bytes], setup: messages.Setup) -> None:
    """Over standard input, which no other process of the machine can read."""
    assert popen.stdin is not None
    with popen.stdin:
        popen.stdin.write(msgspec.json.encode(setup))


def _accept(server: socket.socket, secret: str, popen: subprocess.Popen[bytes]) -> messages.Channel:
    server.settimeout(0.1)
    deadline = time.monotonic() + CALL_BACK
    while time.monotonic() < deadline and popen.poll() is None:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        connection.settimeout(HANDSHAKE)
        channel = messages.Channel(connection)
        if messages.is_hello(channel.receive(), secret):
            connection.settimeout(None)
            return channel
        channel.close()
    raise SourceUnavailable("no call back")

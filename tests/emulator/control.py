"""An emulated terminal as a test sees it: started, ordered about, killed and started again on its port."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PATIENCE = 30.0


def child_environment() -> dict[str, str]:
    """What must stand in a process' environment, so that the children of its QMT sources find the stand-in."""
    inherited = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join(part for part in (str(HERE / "site"), inherited) if part)}


class EmulatedTerminal:
    """A terminal process. ``address`` is for the source; ``interval`` makes its market move by itself (seconds a step).

    ``replay`` are options that make it show a recorded session instead, see ``tests.emulator.terminal``.
    """

    def __init__(
        self, *, name: str = "emulated", symbols: int = 12, interval: float = 0.0, port: int = 0, replay: Sequence[str] = ()
    ) -> None:
        self._name, self._symbols, self._interval = name, symbols, interval
        self._replay = replay
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._modes: dict[str, Any] = {}

    def __enter__(self) -> EmulatedTerminal:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the port that it had before if it had one, in the modes that were set."""
        options = {"port": self.port, "name": self._name, "symbols": self._symbols, "interval": self._interval}
        arguments = [*(f"--{option}={value}" for option, value in options.items()), *self._replay]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.emulator.terminal", *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self.port = ports["port"]
        self._control = socket.create_connection(("127.0.0.1", ports["control"]), PATIENCE)
        if self._modes:
            self.order({"set": self._modes})

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def kill(self) -> None:
        """End it as a crash would: no farewell."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it on the same port; its market begins anew."""
        self.kill()
        self.start()

    def order(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Send one order and wait until it is obeyed."""
        assert self._control is not None, "the terminal is not running"
        self._control.sendall(json.dumps(order).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = self._control.recv(1 << 20)
            assert part, "the terminal is gone"
            answer += part
        found: dict[str, Any] = json.loads(answer)
        return found

    def set_mode(self, **modes: Any) -> None:
        """Set modes (fields of ``tests.emulator.terminal.Modes``), at once or from its next start; they outlive a restart."""
        self._modes.update(modes)
        if self._process is not None:
            self.order({"set": modes})

    def advance(self, steps: int = 1) -> None:
        """Let the market move on and push every change."""
        self.order({"advance": steps})

    def push(self, ticks: Mapping[str, Mapping[str, Any]]) -> None:
        """Push raw ticks as they are; they are also what a full tick shows from now on."""
        self.order({"push": ticks})

    def push_trades(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Push raw rows of ``l2transaction`` as they are, to whoever has subscribed their codes."""
        self.order({"trades": rows})

    def place(self, ticks: Mapping[str, Mapping[str, Any]]) -> None:
        """Make raw ticks what a full tick shows, without pushing them."""
        self.order({"place": ticks})

    def bars(self, code: str, period: str, rows: list[dict[str, Any]]) -> None:
        """Make rows all the bars of a code and a period."""
        self.order({"bars": {code: {period: rows}}})

    def go_to(self, step: int) -> None:
        """Let the market stand at a step, without pushing: 4800 is the close, a step is 3 s of trading since 09:30."""
        self.order({"step": step})

    def forget_weights(self) -> None:
        """Index weights are not there until they are downloaded."""
        self.order({"forget_weights": True})

    def drop(self) -> None:
        """Cut every client's connection; the terminal goes on."""
        self.order({"drop": True})

    def crash_clients(self) -> None:
        """Let the compiled part of every connected client abort its process."""
        self.order({"crash": True})

    def print_in_clients(self, text: str) -> None:
        """Let the compiled part of every connected client print on its process' standard output."""
        self.order({"print": text})

    def stats(self) -> dict[str, Any]:
        """``calls`` (method, codes, first, arguments), ``subscriptions`` (their sizes), ``trades`` (the codes with Level-2 ones),
        ``connections``, ``step``."""
        return self.order({"stats": True})

    def clients(self) -> dict[str, Any]:
        """``subscriptions`` and ``connections`` alone."""
        return self.order({"clients": True})

    def called(self, method: str) -> list[dict[str, Any]]:
        """The calls of one method, oldest first."""
        return [call for call in self.stats()["calls"] if call["method"] == method]

"""Argus as its users run it: real processes, real ports, spoken to from outside."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.conftest import RedisServer
from tests.environment import folder

ROOT = Path(__file__).resolve().parents[2]
CELERY_WORKER = ("-m", "celery", "-A", "argus", "worker", "-Q", "terminal.main,argus")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The condition's first true value; the test fails where it does not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    return pytest.fail(f"waited {seconds:g} s in vain for {what}")


@cache
def installation(*commands: tuple[str, ...]) -> tuple[Path, str]:
    """A data directory in which the database was made and these management commands were run, and what the last one printed.

    It is made once a session: nobody may write there.
    """
    made = Service(Path(folder("argus-installation-")))
    if not commands:
        return made.directory, made.manage("migrate", "--verbosity", "0")
    shutil.copytree(installation(*commands[:-1])[0], made.directory, dirs_exist_ok=True)
    return made.directory, made.manage(*commands[-1])


class Service:
    """The processes of one deployment, with their settings, logs and ports."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("ARGUS_")}
        self.env |= {"ARGUS_DATA_DIR": str(directory), "ARGUS_LOG_FILE": "false", "DJANGO_SETTINGS_MODULE": "argus.settings"}
        self.env |= settings
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def manage(self, *arguments: str) -> str:
        """Run a management command to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, *commands: tuple[str, ...]) -> str:
        """Make the SQLite database and run these management commands, before anything runs; what the last one printed.

        They are not run for each service: it gets a copy of what they have made.
        """
        assert "DATABASE_URL" not in self.env
        made, printed = installation(*commands)
        shutil.copytree(made, self.directory, dirs_exist_ok=True)
        return printed

    def install_with_key(self) -> str:
        """Install it with a key that may do everything, as often as it likes; the key."""
        return self.install(("create_key", "all", "--plan", "unlimited", "--scopes", "read", "operate")).strip()

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process under a name; its output goes into a log of that name."""
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=self.env, stdout=log, stderr=log)
        self.processes[name] = process
        return process

    def log(self, name: str) -> str:
        """What a process has written so far."""
        return (self.directory / f"{name}.log").read_text()

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        """End a process and wait for it; its exit code."""
        process = self.processes.pop(name)
        process.send_signal(how)
        return process.wait(20)

    def close(self) -> None:
        """End everything."""
        for process in self.processes.values():
            process.terminate()
        for name, process in self.processes.items():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
                pytest.fail(f"{name} did not end on SIGTERM:\n{self.log(name)[-3000:]}")

    def kill(self) -> None:
        """What is still there ends at once."""
        for process in self.processes.values():
            process.kill()
            process.wait(10)

    def ready(self, port: int, name: str) -> dict[str, Any]:
        """Wait until the web process says that it is ready; its health."""

        def check() -> dict[str, Any] | None:
            process = self.processes[name]
            if process.poll() is not None:
                pytest.fail(f"{name} ended with {process.returncode}:\n{self.log(name)[-3000:]}")
            status, body, _ = get(port, "/health/ready")
            return body if status == 200 else None

        return dict(wait_for(check, f"{name} to be ready; its log ends:\n{self.log(name)[-1500:]}"))


@contextlib.contextmanager
def over_terminal(
    directory: Path, address: str, *, scaled: bool, worker: Sequence[str] = CELERY_WORKER, **settings: str
) -> Iterator[Any]:
    """The service over a QMT terminal, embedded or as processes on Redis (its worker by this command), with one web process at
    ``port``, and a key for all that there is."""
    with contextlib.ExitStack() as undo:
        if scaled:
            redis_server = RedisServer(directory)
            redis_server.start()
            undo.callback(redis_server.stop)
            settings |= {"REDIS_URL": redis_server.url, "ARGUS_SOURCE": "qmt", "ARGUS_TERMINALS": f"main={address}"}
        service: Any = Service(directory, **settings)
        undo.callback(service.kill)
        service.port = free_port()
        service.key = service.install_with_key()
        if scaled:
            service.start("worker", *worker)
            service.start("beat", "-m", "celery", "-A", "argus", "beat")
            service.start("web", "manage.py", "serve", "--port", str(service.port))
        else:
            options = ("--source", "qmt", "--terminal", f"main={address}")
            service.start("web", "manage.py", "up", "--port", str(service.port), *options)
        service.ready(service.port, "web")
        yield service
        service.close()


def get(port: int, path: str, key: str | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """A GET: status (0 where nobody answers), body (parsed where it is JSON) and headers."""
    return call("GET", port, path, key, **headers)


def call(method: str, port: int, path: str, key: str | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """A request without a body."""
    if key:
        headers["X-API-Key"] = key
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status, body, got = answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        status, body, got = error.code, error.read(), error.headers
    except OSError:
        return 0, None, {}
    is_json = "json" in (got.get("Content-Type") or "")
    return status, json.loads(body) if is_json else body.decode(), {name.lower(): value for name, value in got.items()}


@contextlib.contextmanager
def stream(port: int, key: str, **subscribe: Any) -> Iterator[ClientConnection]:
    """A subscribed WebSocket client."""
    headers = {"X-API-Key": key}
    with connect(f"ws://127.0.0.1:{port}/ws/market_data", additional_headers=headers, max_size=None, max_queue=None) as client:
        assert receive(client)["type"] == "connected"
        if subscribe:
            client.send(json.dumps({"action": "subscribe", "id": "1"} | subscribe))
            answer = receive(client)
            assert answer["type"] == "subscribed", answer
        yield client


def receive(client: ClientConnection, timeout: float = 20) -> dict[str, Any]:
    """The next message."""
    return dict(json.loads(client.recv(timeout=timeout)))


def receive_data(client: ClientConnection, timeout: float = 20) -> dict[str, Any]:
    """The next data message, whatever else comes between."""
    while True:
        message = receive(client, timeout)
        if message["type"] == "data":
            return message

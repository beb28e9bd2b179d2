"""What every benchmark runs on: Redis and one web process as in production, each on its processor, with a key of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench.machine import pin
from bench.redis_server import find_redis

ROOT = Path(__file__).resolve().parent.parent
SERVER_CORE, LOAD_CORE = 0, 1


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(f"bench: {text} ...", file=sys.stderr, flush=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: list[str], env: dict[str, str], core: int, log: Path, **options: Any) -> subprocess.Popen[str]:
    """Start a process on a processor, its messages into a file."""
    with log.open("a") as file:
        process = subprocess.Popen(command, env=env, cwd=ROOT, stderr=file, text=True, **{"stdout": file, **options})
    pin(core, process.pid)
    return process


class Service:
    """Redis and one web process, as in production, with a key and a market of their own."""

    def __init__(self, directory: Path, server: str) -> None:
        self.port, redis_port = free_port(), free_port()
        self.directory = directory
        self.server_name = server
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("ARGUS_")} | {
            "ARGUS_DATA_DIR": str(directory),
            "ARGUS_LOG_LEVEL": "WARNING",
            "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "DJANGO_SETTINGS_MODULE": "argus.settings",
            # Sweeps are published by the load itself, flat out: silence between them is not staleness.
            "ARGUS_STALE_AFTER": "3600",
            # All of the load comes at once and from one address.
            "ARGUS_ADMIT_PER_SECOND": "0",
        }
        self.processes = [
            start(
                [find_redis(), "--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""],
                self.env,
                SERVER_CORE,
                directory / "redis.log",
                stdout=subprocess.DEVNULL,
            )
        ]
        self.key = self._prepare()

    def manage(self, *arguments: str) -> str:
        """Run a management command to its end; what it printed."""
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, env=self.env, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    def _prepare(self) -> str:
        self.manage("migrate", "--verbosity", "0")
        return subprocess.run(
            [sys.executable, "-m", "bench.prepare"], env=self.env, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    def publish(self) -> None:
        """One sweep of the whole market into the channel layer, and the time for it to arrive."""
        subprocess.run([sys.executable, "-m", "bench.once"], env=self.env, cwd=ROOT, check=True)

    @contextlib.contextmanager
    def web(self, port: int = 0, command: list[str] | None = None) -> Iterator[psutil.Process]:
        """A fresh web process, up and answering; at another port, or another server, where given."""
        port = port or self.port
        command = command or [sys.executable, "manage.py", "serve", "--port", str(port), "--server", self.server_name]
        process = start(command, self.env, SERVER_CORE, self.directory / "web.log")
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=1):
                        break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        sys.exit(f"bench: the server did not start:\n{(self.directory / 'web.log').read_text()}")
                    time.sleep(0.1)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(20)

    def close(self) -> None:
        """End Redis."""
        for process in self.processes:
            process.kill()
            process.wait(10)


def raise_descriptor_limit(wanted: int) -> None:
    """Let this process and its children open as many sockets as the run needs."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))

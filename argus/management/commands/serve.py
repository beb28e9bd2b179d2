"""``manage.py serve``: one web process, or several on one port. Feeds and tasks run in workers beside them."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand

from argus import checks, cli
from argus.config import ROOT, config


class Command(BaseCommand):
    """The thin shell around the two servers and the supervisor."""

    help = "Run one web process, or several (the feeds and tasks run in Celery workers)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        cli.add_serve(parser)

    def handle(self, *_args: Any, **found: Any) -> None:
        options = argparse.Namespace(**found)
        if (options.processes or options.share_port) and not config.redis_url:
            sys.exit("argus: several web processes meet in Redis; set REDIS_URL.")
        for problem in checks.archive_takes_files(None):
            sys.exit(f"argus: {problem.msg} {problem.hint}")
        try:
            if options.processes:
                sys.exit(self._supervise(options))
            ports = cli.ports_of_serve(options)
            sockets = [bound for port in ports for bound in cli.bind(options.host, port.number, share=port.share)]
        except cli.Refused as refusal:
            sys.exit(f"argus: {refusal}.")
        from marketdata.terminals import keeper

        keeper.begin_or_end()
        self._say(f"serving on http://{options.host}:{sockets[0].getsockname()[1]} with {options.server}")
        if options.server == "daphne":
            _daphne(sockets)
        else:
            _uvicorn(sockets, options.line)

    def _say(self, line: str) -> None:
        self.stdout.write(f"argus: {line}")
        self.stdout.flush()

    def _supervise(self, options: argparse.Namespace) -> int:
        from argus.supervisor import Supervisor

        # They are bound and do not listen: the port stays ours whatever becomes of the processes.
        reserved = cli.bind(options.host, options.port, share=True)
        common = [sys.executable, str(ROOT / "manage.py"), "serve", "--share-port", "--host", options.host]
        common += ["--port", str(reserved[0].getsockname()[1])]

        def command(number: int, line: int) -> list[str]:
            own = [] if options.own_port is None else ["--own-port", str(options.own_port + number - 1)]
            return [*common, *own, "--line", str(line)]

        return asyncio.run(Supervisor(command, options.processes, self._say).run())


def _uvicorn(sockets: Sequence[socket.socket], line: int | None) -> None:
    from argus import serving
    from argus.asgi import application
    from streaming import runtime
    from streaming.servers.uvicorn import uvicorn_config

    async def nothing() -> None:
        """A web process starts nothing beside its runtime."""

    async def until() -> None:
        from argus import supervisor

        assert line is not None
        await runtime.caught_up()
        await supervisor.serves(line)

    serving.run(
        uvicorn_config(application, timeout_graceful_shutdown=1),
        sockets,
        on_started=nothing,
        on_stopping=runtime.stop,
        until=None if line is None else until,
    )


def _daphne(sockets: Sequence[socket.socket]) -> None:
    from argus.asgi import application
    from argus.serving_daphne import run
    from streaming import runtime

    addresses = [bound.getsockname()[:2] for bound in sockets]
    for bound in sockets:
        bound.close()  # Daphne opens its own.
    run(application, addresses, on_stopping=runtime.stop)

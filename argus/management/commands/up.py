"""``manage.py up``: the whole service in one process: web server, hub, feeds, Celery's worker and beat."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import structlog
from django.core.management.base import BaseCommand
from django.db import OperationalError

from argus import checks, cli
from argus.config import config

if TYPE_CHECKING:
    from argus.embedded import EmbeddedCelery

log = structlog.get_logger(__name__)

CELERY_STOP = 1.5
STOP_TIMEOUT = 2.2
"""Seconds that running tasks, and all parts side by side, have to end: with what uvicorn needs it stays under three."""
READY_TIMEOUT = 20.0
"""Seconds after which a source that has said nothing is worth a line."""


class Command(BaseCommand):
    """The thin shell: it puts the parts together, starts them, and stops them side by side."""

    help = "Run the whole service in this one process."
    requires_system_checks: list[str] = []  # The embedded worker runs them at its start.

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        cli.add_up(parser)

    def handle(self, *_args: Any, host: str, port: int, **_options: Any) -> None:
        started = time.monotonic()
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # A console that cannot show Chinese must not stop us.
        try:
            sockets = cli.bind(host, port)
        except cli.Refused as refusal:
            sys.exit(f"argus: {refusal}.")
        for problem in (*checks.redis_answers(None), *checks.archive_takes_files(None)):
            sys.exit(f"argus: {problem.msg} {problem.hint}")
        if config.source != "qmt":
            _check_source("main", "")
        port = sockets[0].getsockname()[1]
        self._say(f"starting, source {config.source}, data in {config.data_dir} ...")
        from argus import first_start

        try:
            first_start.migrate()
        except OperationalError as error:
            sys.exit(f"argus: the database does not answer ({str(error).splitlines()[0]}); start it, or see DATABASE_URL.")
        _check_terminals()
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        base = f"http://{shown}:{port}"
        if words := first_start.announcement(first_start.make(), base):
            self.stdout.write(words)
        self._say("starting the web server, the Celery worker and the feed ...")
        service = Service(base=base, started=started, say=self._say)
        clean = service.run(sockets)
        self._say("stopped.")
        if not clean:
            # A task that hangs in a call must not keep the process: its thread ends with it.
            sys.stdout.flush()
            os._exit(0)

    def _say(self, line: str) -> None:
        self.stdout.write(f"argus: {line}")
        self.stdout.flush()


class Service:
    """Everything that runs, for as long as it runs."""

    def __init__(self, *, base: str, started: float, say: Any) -> None:
        from marketdata.terminals.crew import Crew
        from marketdata.terminals.keeper import Keeper

        self._base = base
        self._started = started
        self._say = say
        self._clean = False
        self._watch: asyncio.Task[None] | None = None
        self._celery: EmbeddedCelery | None = None
        self._crew = Crew(on_joined=self._joined, on_left=self._left)
        self._keeper = Keeper(self._crew)

    def run(self, sockets: Any) -> bool:
        """Serve until a signal comes; False if something had to be left hanging."""
        from argus import serving
        from argus.asgi import application
        from streaming.servers.uvicorn import uvicorn_config

        serving.run(
            uvicorn_config(application, timeout_graceful_shutdown=1), sockets, on_started=self._start, on_stopping=self._stop
        )
        return self._clean

    async def _start(self) -> None:
        from marketdata import publish
        from marketdata.terminals import roster

        publish.bind(asyncio.get_running_loop())
        await asyncio.to_thread(self._start_work)
        log.info("service_started", listen=self._base, source=config.source, terminals=list(roster.current().terminals))
        self._say(f"listening on {self._base} (Ctrl-C ends it)")
        self._watch = asyncio.create_task(self._announce_ready())

    def _start_work(self) -> None:
        from argus.celery import app, queue_of
        from argus.embedded import EmbeddedCelery
        from marketdata import feeds

        self._keeper.start()
        queues = [app.conf.task_default_queue, *(queue_of(feed.terminal) for feed in feeds.all_running())]
        celery = EmbeddedCelery(app, queues=queues, concurrency=app.conf.worker_concurrency)
        celery.start()
        self._celery = celery
        for feed in feeds.all_running():
            if queue_of(feed.terminal) not in queues:
                # It came while the worker was starting.
                celery.consume(queue_of(feed.terminal))

    def _joined(self, terminal: str) -> None:
        from argus.celery import queue_of

        if self._celery is not None:
            self._celery.consume(queue_of(terminal))

    def _left(self, terminal: str) -> None:
        from argus.celery import queue_of

        if self._celery is not None:
            self._celery.leave(queue_of(terminal))

    async def _announce_ready(self) -> None:
        """Say when the first quotes have come all the way, or that they have not come yet and where to look."""
        from marketdata import universe
        from marketdata.latest import store

        deadline = time.monotonic() + READY_TIMEOUT
        while (store.age() is None or not universe.current().symbols) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        if store.age() is None:
            self._say(f"the source has said nothing yet: {self._base}/health and the logs in {config.data_dir / 'logs'} say more")
            return
        self._say(f"ready in {time.monotonic() - self._started:.1f} s: admin {self._base}/admin/  api {self._base}/api/docs")

    async def _stop(self) -> None:
        from argus.serving import in_thread
        from marketdata import publish
        from marketdata.history import fetch
        from streaming import runtime

        self._say("stopping ...")
        fetch.ending.set()
        if self._watch is not None:
            self._watch.cancel()
        steps = {
            "celery": in_thread(self._stop_celery),
            "feeds": in_thread(self._stop_feeds),
            "keeper": in_thread(self._keeper.stop),
            "runtime": runtime.stop(),
        }
        tasks = [asyncio.create_task(step, name=name) for name, step in steps.items()]
        done, hanging = await asyncio.wait(tasks, timeout=STOP_TIMEOUT)
        for task in hanging:
            task.cancel()
            log.warning("stop_abandoned", part=task.get_name(), waited=STOP_TIMEOUT)
        for task in done:
            task.result()
        self._clean = not hanging and not (self._celery is not None and self._celery.abandoned)
        publish.unbind()
        log.info("service_stopped", clean=self._clean)

    def _stop_celery(self) -> None:
        if self._celery is not None:
            self._celery.stop(CELERY_STOP)

    def _stop_feeds(self) -> None:
        from marketdata import feeds

        self._crew.end()
        feeds.stop_all()


def _check_terminals() -> None:
    """A declaration that cannot be applied, and a terminal that lacks its address, are found before anything starts."""
    from marketdata.terminals import keeper, roster

    keeper.begin_or_end()
    for name, terminal in roster.current().terminals.items():
        if not terminal.enabled:
            continue
        _check_source(name, terminal.address)


def _check_source(terminal: str, address: str) -> None:
    """A source that cannot even be made is found before anything starts, such as a recording that nobody can read."""
    from marketdata.sources import registry

    try:
        registry.build(config, terminal, address)
    except ValueError as error:
        sys.exit(f"argus: {error}")

"""``terminal_worker NAME``: the worker of one terminal, on the host where the terminal runs."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any, Final

import structlog
from celery.signals import worker_shutting_down
from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseError

from argus import checks
from argus.access.management.examples import CommandWithExamples
from argus.config import config
from marketdata.terminals import keeper, roster, states
from marketdata.terminals.declare import DeclarationError
from marketdata.terminals.models import MOST_SLOTS
from marketdata.terminals.roster import TerminalSpec

log = structlog.get_logger(__name__)

FAILED: Final = 1
"""Exit codes: start it again."""
WRONG: Final = 2
"""Something must be set right first; to start it again as it is does not help."""
TAKEN: Final = 3
"""Another worker has the terminal."""
THREADS: Final = MOST_SLOTS + 4
"""A poll, a refresh of reference data, a look at its bars, a probe, and as many fetches as a terminal may ever be allowed; a
thread is made when it is first needed."""
STOP_TIMEOUT: Final = 8.0
"""Seconds that running tasks have to end after a stop has been asked for."""

_asked_to_stop = threading.Event()


class Command(CommandWithExamples):
    help = (
        "Run the worker of one terminal: its feed, its polls, and what is asked of it. It needs the Redis and the database of "
        "the service (REDIS_URL, DATABASE_URL). Exit codes: 0 stopped on request; 1 start it again; 2 something is set up "
        "wrong, and this says what; 3 another worker has the terminal."
    )
    examples = """\
  manage.py terminal_worker guojin
  manage.py terminal_worker guojin --check
  manage.py terminal_worker guojin --force
"""
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="the terminal, as it is called in its pool")
        parser.add_argument("--check", action="store_true", help="only say whether it could start")
        parser.add_argument("--force", action="store_true", help="start although another worker reports of the terminal")

    def handle(self, *_args: Any, name: str, check: bool, force: bool, **_options: Any) -> None:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # A console that cannot show Chinese must not stop us.
        spec = self._spec(name)
        self._check_setup(spec)
        if not force:
            self._check_alone(name)
        if check:
            self._say(f"{name} can start.")
            return
        self._run(spec)

    def _say(self, line: str) -> None:
        self.stdout.write(f"argus: {line}")
        self.stdout.flush()

    def _spec(self, name: str) -> TerminalSpec:
        if not config.redis_url:
            raise CommandError(
                "REDIS_URL is not set: a worker and the web processes meet there. Set it as the web processes have it; all in "
                "one process is: python run.py up",
                returncode=WRONG,
            )
        try:
            keeper.begin()
            roster.look()
        except DeclarationError as error:
            raise CommandError(str(error), returncode=WRONG) from None
        except DatabaseError as error:
            raise CommandError(
                f"The database does not answer or has no tables yet ({str(error).splitlines()[0]}); see DATABASE_URL, and run: "
                "manage.py migrate",
                returncode=FAILED,
            ) from None
        known = roster.current().terminals
        if name not in known:
            there = ", ".join(known) or "none"
            detail = f"There is no terminal {name[:50]!r}; there is: {there}. Add it in the admin, or see docs/terminals.md."
            raise CommandError(detail, returncode=WRONG)
        return known[name]

    def _check_setup(self, spec: TerminalSpec) -> None:
        for problem in checks.redis_answers(None):
            self._say(f"{problem.msg} It is tried again until it does.")
        if not spec.enabled:
            self._say(f"{spec.name} is disabled: this worker waits until it is enabled.")
        if config.source != "qmt":
            return
        if not spec.address:
            raise CommandError(f"{spec.name} has no address: give it HOST:PORT of the terminal.", returncode=WRONG)
        if importlib.util.find_spec("xtquant") is None:
            detail = "xtquant is not installed here; install it with: pip install -r requirements-qmt.txt"
            raise CommandError(detail, returncode=WRONG)
        host, _, port = spec.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
        except OSError as error:
            self._say(
                f"nothing answers at {spec.address} ({error}). Start the terminal, log in, and see that its port is this one; "
                "the worker connects as soon as it is there."
            )

    def _check_alone(self, name: str) -> None:
        """Two clients of one terminal take each other's subscriptions; one that has just been killed is waited for."""
        before, report = states.heard().get(name, (None, None))
        if report is None or before is None:
            return
        self._say(f"{report.process} has reported of {name}; seeing whether it still does ...")
        deadline = time.monotonic() + states.FRESH + 1
        while time.monotonic() < deadline:
            time.sleep(0.5)
            at, report = states.heard().get(name, (None, None))
            if at is None or report is None:
                return
            if at > before:
                raise CommandError(
                    f"Another worker has {name}: {report.process}. Two on one terminal disturb each other; stop that one, or "
                    "start this one with --force.",
                    returncode=TAKEN,
                )

    def _run(self, spec: TerminalSpec) -> None:
        from argus.celery import app, queue_of

        worker: Any = app.Worker(
            hostname=f"{spec.name}@{socket.gethostname()}",
            pool_cls="threads",
            concurrency=THREADS,
            prefetch_multiplier=1,
            queues=[queue_of(spec.name)],
            # Nobody watches workers over the broker: each reports of its terminal in the database.
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        worker_shutting_down.connect(_limit_the_end, weak=False)
        if hasattr(signal, "SIGBREAK"):
            # What Windows sends to a service's process group.
            signal.signal(signal.SIGBREAK, _interrupt)
        self._say(f"the worker of {spec.name} starts ({config.source} {spec.address}); Ctrl-C ends it.")
        log.info("terminal_worker_started", terminal=spec.name, source=config.source, address=spec.address)
        worker.start()
        self._say("stopped.")
        # Celery calls an end by Ctrl-C a failure.
        if worker.exitcode and not _asked_to_stop.is_set():
            raise CommandError("The worker ended by itself; its log says why.", returncode=FAILED)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


def _limit_the_end(**_: Any) -> None:
    """A task that hangs in a call must not keep the process: its thread ends with it."""
    _asked_to_stop.set()

    def end() -> None:
        log.warning("worker_abandoned", waited=STOP_TIMEOUT)
        os._exit(0)

    timer = threading.Timer(STOP_TIMEOUT, end)
    timer.daemon = True
    timer.start()

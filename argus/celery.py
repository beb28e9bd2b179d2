"""The Celery application: one queue per terminal, the schedule of polls, and the feeds that live beside a worker.

A worker that consumes ``terminal.<name>`` owns that terminal: its feed starts when the worker is ready and stops with it.
Run one such worker per terminal (``celery -A argus worker -Q terminal.main``) and one ``celery -A argus beat``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.schedules import schedule
from celery.signals import beat_init, celeryd_init, setup_logging, worker_ready, worker_shutting_down
from django_structlog.celery.steps import DjangoStructLogInitStep

if TYPE_CHECKING:
    from marketdata.terminals.keeper import Keeper

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")

from django.conf import settings

from argus.broker import survive_redis
from argus.config import config

QUEUE_PREFIX = "terminal."
CLOCK_TOLERANCE = 30.0
"""Seconds by which the clocks of beat's host and a terminal's may differ: a message expires by the reader's clock."""
RESUME_INTERVAL = 30.0
"""Seconds between two looks for backfills that nobody works on."""

RECONCILE_INTERVAL = 60.0
"""Seconds between two looks at whether the terminal's own bars are those that were built."""

_STARTED = datetime.now(UTC), time.monotonic()

survive_redis()
app = Celery("argus")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.steps["worker"].add(DjangoStructLogInitStep)
app.autodiscover_tasks(["marketdata", "marketdata.history", "marketdata.terminals"])


def queue_of(terminal: str) -> str:
    """The queue of one terminal's tasks."""
    return QUEUE_PREFIX + terminal


def steady_now() -> datetime:
    """Beat's clock: the time of day at the start, carried on by the monotonic clock. A time of day that is set back by an
    hour would stop all polls for an hour."""
    began, at = _STARTED
    return began + timedelta(seconds=time.monotonic() - at)


def poll_entry(terminal: str, interval: float) -> dict[str, Any]:
    """The schedule of one terminal's polls."""
    return entry("marketdata.tasks.poll_quotes", terminal, interval)


def entry(task: str, terminal: str, interval: float) -> dict[str, Any]:
    """The schedule of a task that one terminal's worker does."""
    return {
        "task": task,
        "schedule": schedule(interval, nowfun=steady_now),
        "args": (terminal,),
        # What is for a worker that is away does not queue up; while a poll is under way, the feed answers the next ones at once.
        "options": {"queue": queue_of(terminal), "expires": interval + CLOCK_TOLERANCE},
    }


def resume_entry() -> dict[str, Any]:
    """The schedule of the look for backfills whose worker has died, on the default queue."""
    options = {"expires": RESUME_INTERVAL + CLOCK_TOLERANCE}
    every = schedule(RESUME_INTERVAL, nowfun=steady_now)
    return {"task": "marketdata.history.tasks.resume_backfills", "schedule": every, "options": options}


def schedule_of(terminals: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Beat's entries for these terminals."""
    entries: dict[str, dict[str, Any]] = {}
    for name in terminals:
        entries[f"poll-{name}"] = poll_entry(name, config.poll_interval)
        entries[f"reconcile-{name}"] = entry("marketdata.tasks.reconcile_bars", name, RECONCILE_INTERVAL)
    return entries


app.conf.beat_schedule = {"resume-backfills": resume_entry()}


@setup_logging.connect
def _logging(**_: Any) -> None:
    """Keep Django's logging: Celery would set up its own."""
    from argus.logging import configure

    configure(settings.LOGGING)


_keeper: Keeper | None = None


@celeryd_init.connect
def _declare(**_: Any) -> None:
    """Before there is anything to end: of what a receiver raises, Celery lets nothing but an exit out."""
    from marketdata.terminals import keeper

    keeper.begin_or_end()


@beat_init.connect
def _keep_beat(**_: Any) -> None:
    from marketdata.terminals.keeper import Keeper

    if threading.current_thread() is threading.main_thread():
        # In a thread it is beside a worker, which has a keeper.
        _declare()
        Keeper().start()


@worker_ready.connect
def _start_feeds(sender: Any, **_: Any) -> None:
    from marketdata.terminals.crew import Crew
    from marketdata.terminals.keeper import Keeper

    global _keeper
    queues = [queue.name for queue in sender.task_consumer.queues]
    names = [name.removeprefix(QUEUE_PREFIX) for name in queues if name.startswith(QUEUE_PREFIX)]
    _keeper = Keeper(Crew(names))
    _keeper.start()


@worker_shutting_down.connect
def _stop_feeds(**_: Any) -> None:
    from marketdata import feeds, publish
    from marketdata.history import fetch

    # A worker waits for its tasks; a backfill goes on elsewhere, or here after the restart.
    fetch.ending.set()
    if _keeper is not None:
        _keeper.stop()
    feeds.stop_all()
    publish.unbind()

"""The Celery application: one queue per terminal, the schedule of polls, and the feeds that live beside a worker.

A worker that consumes ``terminal.<name>`` owns that terminal: its feed starts when the worker is ready and stops with it.
Run one such worker per terminal (``celery -A argus worker -Q terminal.main``) and one ``celery -A argus beat``.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from celery.schedules import schedule
from celery.signals import setup_logging, worker_ready, worker_shutting_down
from django_structlog.celery.steps import DjangoStructLogInitStep

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")

from django.conf import settings

from argus.config import config

QUEUE_PREFIX = "terminal."
CLOCK_TOLERANCE = 30.0
"""Seconds by which the clocks of beat's host and a terminal's may differ: a message expires by the reader's clock."""
RESUME_INTERVAL = 30.0
"""Seconds between two looks for backfills that nobody works on."""

RECONCILE_INTERVAL = 60.0
"""Seconds between two looks at whether the terminal's own bars are those that were built."""

_STARTED = datetime.now(UTC), time.monotonic()

app = Celery("argus")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.steps["worker"].add(DjangoStructLogInitStep)
app.autodiscover_tasks(["marketdata", "marketdata.history"])


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


app.conf.beat_schedule = {
    **{f"poll-{terminal}": poll_entry(terminal, config.poll_interval) for terminal in config.addresses},
    **{f"reconcile-{name}": entry("marketdata.tasks.reconcile_bars", name, RECONCILE_INTERVAL) for name in config.addresses},
}
app.conf.beat_schedule["resume-backfills"] = resume_entry()


@setup_logging.connect
def _logging(**_: Any) -> None:
    """Keep Django's logging: Celery would set up its own."""
    from argus.logging import configure

    configure(settings.LOGGING)


@worker_ready.connect
def _start_feeds(sender: Any, **_: Any) -> None:
    from marketdata import feeds

    for queue in sender.task_consumer.queues:
        if queue.name.startswith(QUEUE_PREFIX):
            feeds.start(queue.name.removeprefix(QUEUE_PREFIX))


@worker_shutting_down.connect
def _stop_feeds(**_: Any) -> None:
    from marketdata import feeds, publish
    from marketdata.history import fetch

    # A worker waits for its tasks; a backfill goes on elsewhere, or here after the restart.
    fetch.ending.set()
    feeds.stop_all()
    publish.unbind()

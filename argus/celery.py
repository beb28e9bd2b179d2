"""The Celery application: one queue per terminal, the schedule of polls, and the feeds that live beside a worker.

A worker that consumes ``terminal.<name>`` owns that terminal: its feed starts when the worker is ready and stops with it.
Run one such worker per terminal (``celery -A argus worker -Q terminal.main``) and one ``celery -A argus beat``.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_ready, worker_shutting_down
from django_structlog.celery.steps import DjangoStructLogInitStep

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")

from django.conf import settings

from argus.config import config

QUEUE_PREFIX = "terminal."

app = Celery("argus")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.steps["worker"].add(DjangoStructLogInitStep)
app.autodiscover_tasks(["marketdata"])


def queue_of(terminal: str) -> str:
    """The queue of one terminal's tasks."""
    return QUEUE_PREFIX + terminal


app.conf.beat_schedule = {
    f"poll-{terminal}": {
        "task": "marketdata.tasks.poll_quotes",
        "schedule": config.poll_interval,
        "args": (terminal,),
        # A poll that could not start before the next one is due is worth nothing: it expires instead of queueing up.
        "options": {"queue": queue_of(terminal), "expires": 0.9 * config.poll_interval},
    }
    for terminal in config.addresses
}


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

    feeds.stop_all()
    publish.unbind()

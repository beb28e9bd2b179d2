"""Celery inside another process: its worker and its beat in threads, without a signal handler of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from celery import Celery
from celery.beat import EmbeddedService
from celery.worker import WorkController

log = structlog.get_logger(__name__)

START_TIMEOUT = 20.0


class EmbeddedCelery:
    """One worker (threads pool) and one beat. At most one per process: Celery's worker state is global."""

    def __init__(self, app: Celery, *, queues: Sequence[str], concurrency: int) -> None:
        self.abandoned = False
        # The pool's threads ask for the current app, and a thread that nobody told has the default one.
        app.set_default()
        self._ready = threading.Event()
        # Not celery.apps.worker.Worker, which takes the process' signals. Nobody else is there to gossip with.
        self._worker: Any = WorkController(
            app=app,
            pool_cls="threads",
            concurrency=concurrency,
            queues=list(queues),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            ready_callback=lambda _consumer: self._ready.set(),
        )
        self._thread = threading.Thread(target=self._worker.start, name="celery-worker", daemon=True)
        self._beat: Any = EmbeddedService(app, thread=True, scheduler_cls=app.conf.beat_scheduler)

    def start(self) -> None:
        """Start both; returns when the worker takes tasks."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready.wait(0.1):
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the embedded Celery worker did not start; its log says why")
        self._beat.start()

    def consume(self, queue: str) -> None:
        """Take tasks from one more queue."""
        self._worker.consumer.call_soon(self._worker.consumer.add_task_queue, queue)

    def leave(self, queue: str) -> None:
        """Take none from it any more."""
        self._worker.consumer.call_soon(self._worker.consumer.cancel_task_queue, queue)

    def stop(self, timeout: float) -> None:
        """End both. A task that still runs after ``timeout`` seconds is ``abandoned``: it ends with the process."""
        # Neither loop can be woken: beat sleeps up to a second, the worker waits for a message up to two. Both are daemon
        # threads that find out by themselves and have nothing to save, so nobody waits for more than the running tasks.
        self._beat.service.stop(wait=False)
        stopper = threading.Thread(target=self._worker.stop, name="celery-stop", daemon=True)
        stopper.start()
        stopper.join(timeout)
        self.abandoned = stopper.is_alive()
        if self.abandoned:
            log.warning("celery_abandoned", waited=timeout)

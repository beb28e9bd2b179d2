"""Stopping ends in time even where something hangs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
from celery import Celery

from argus.embedded import EmbeddedCelery
from tests.runner.trees import ROOT, environment

HANGING = """
import asyncio, uvicorn
from argus import cli, serving

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for word in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{word}.complete"})

async def started():
    print("started", flush=True)

async def stopping():
    print("stopping", flush=True)
    await asyncio.sleep(600)

serving.run(uvicorn.Config(app, log_config=None), cli.bind("127.0.0.1", 0), on_started=started, on_stopping=stopping)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to a process")
def test_the_second_signal_ends_a_stop_that_hangs_at_once() -> None:
    command = [sys.executable, "-c", HANGING]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for word in ("started\n", "stopping\n"):
        assert process.stdout.readline() == word
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    process.stdout.close()


def test_a_task_that_does_not_end_is_abandoned_and_the_stop_goes_on() -> None:
    app = Celery("hanging", broker="memory://localhost", set_as_current=False)
    app.conf.beat_scheduler = "celery.beat:Scheduler"
    app.conf.update(task_default_queue="hanging", task_ignore_result=True, broker_transport_options={"polling_interval": 0.01})
    running, release = threading.Event(), threading.Event()

    @app.task(name="hanging.wait", shared=False)
    def wait() -> None:
        running.set()
        release.wait(60)

    celery = EmbeddedCelery(app, queues=["hanging"], concurrency=1)
    celery.start()
    wait.apply_async()
    assert running.wait(30)
    celery.stop(0.2)
    assert celery.abandoned
    release.set()


def test_the_schedule_runs_in_the_embedded_beat() -> None:
    app = Celery("scheduled", broker="memory://localhost", set_as_current=False)
    app.conf.update(task_default_queue="scheduled", task_ignore_result=True, broker_transport_options={"polling_interval": 0.01})
    ran = threading.Semaphore(0)

    @app.task(name="scheduled.tick", shared=False)
    def tick() -> None:
        ran.release()

    app.conf.beat_scheduler = "celery.beat:Scheduler"
    app.conf.beat_schedule = {"tick": {"task": "scheduled.tick", "schedule": 0.05}}
    celery = EmbeddedCelery(app, queues=["scheduled"], concurrency=1)
    celery.start()
    for _ in range(3):
        assert ran.acquire(timeout=30)
    celery.stop(10)
    assert not celery.abandoned

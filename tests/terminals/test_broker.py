"""Redis goes away under a worker that has taken a task: the connection is closed to its end, and the worker goes on."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from kombu import Connection, Consumer, Exchange, Message, Queue

import argus.celery  # noqa: F401 - what a worker imports, and by that its transport
from argus.broker import UNRESTORED
from tests.conftest import ROOT, RedisServer
from tests.e2e.service import wait_for

TASKS = Queue("tasks")
WORKER = """
import sys, threading
import argus.celery
from celery import Celery

app = Celery("held", broker=sys.argv[1], set_as_current=False)
app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True, task_default_queue="held", worker_pool="threads")
app.conf.broker_transport_options = {"socket_timeout": 2.0, "socket_connect_timeout": 1.0}

@app.task(name="hold")
def hold():
    print("held", flush=True)
    threading.Event().wait()

@app.task(name="answer")
def answer():
    print("answered", flush=True)

app.WorkController(app=app, pool_cls="threads", concurrency=4, without_gossip=True, without_mingle=True).start()
print("ended", flush=True)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def unrestored() -> float:
    return UNRESTORED._value.get()


def holding(server: RedisServer) -> tuple[Connection, list[Message]]:
    """A connection as a worker has it: it waits for tasks, holds one, and hears on a second channel what is said to all."""
    connection = Connection(server.url, transport_options={"socket_timeout": 2.0, "socket_connect_timeout": 1.0})
    held: list[Message] = []
    with connection.Producer() as producer:
        producer.publish({}, exchange="", routing_key=TASKS.name, declare=[TASKS])
    Consumer(connection, [TASKS], callbacks=[lambda _, message: held.append(message)]).consume()
    connection.drain_events(timeout=5)
    told = Queue("told", exchange=Exchange("all", "fanout"), auto_delete=True)
    Consumer(connection.channel(), [told], no_ack=True, callbacks=[lambda *_: None]).consume()
    with contextlib.suppress(TimeoutError):
        while True:  # What Redis says to the one who listens; then it is waited for the next task.
            connection.drain_events(timeout=0.5)
    assert connection.default_channel._in_poll
    assert len(held) == 1
    return connection, held


def test_a_broken_connection_is_closed_to_its_end(server: RedisServer) -> None:
    connection, _held = holding(server)
    channel = connection.default_channel
    before = unrestored()
    server.stop()
    with structlog.testing.capture_logs() as logs:
        # As Celery's consumer does it.
        connection.collect(socket_timeout=0.1)
        connection.close()
    assert channel.closed
    assert unrestored() == before + 1
    assert [line["count"] for line in logs if line["event"] == "tasks_unrestored"] == [1]


def test_where_only_the_connection_breaks_the_task_is_given_back(server: RedisServer) -> None:
    connection, _held = holding(server)
    before = unrestored()
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        connection.collect(socket_timeout=0.1)
        connection.close()
        assert client.llen(TASKS.name) == 1
        assert client.hlen("unacked") == 0
    assert unrestored() == before


def test_what_is_given_back_after_the_connection_was_closed_is_counted_and_no_error(server: RedisServer) -> None:
    connection, _held = holding(server)
    channel = connection.default_channel
    before = unrestored()
    connection.transport.client = None
    channel._disconnect_pools()
    channel.qos.restore_unacked_once()
    assert unrestored() == before + 1


def test_a_worker_outlives_its_redis(server: RedisServer, tmp_path: Path) -> None:
    from celery import Celery

    said = tmp_path / "worker.log"
    with said.open("wb") as output:
        worker = subprocess.Popen([sys.executable, "-c", WORKER, server.url], cwd=ROOT, stdout=output, stderr=output)
    try:
        sender = Celery("sender", broker=server.url, set_as_current=False)
        sender.send_task("hold", queue="held")
        wait_for(lambda: "held" in said.read_text(), "the task to be under way", 30)
        server.stop()
        server.start()
        sender.send_task("answer", queue="held")
        wait_for(lambda: any(word in said.read_text() for word in ("answered", "Unrecoverable")), "the worker to go on", 40)
        assert "Unrecoverable" not in said.read_text()
        assert worker.poll() is None
    finally:
        worker.kill()
        worker.wait(10)

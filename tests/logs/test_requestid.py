"""One id goes with a request, from the edge to the task that it causes and to every line in between."""

from __future__ import annotations

import queue
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from celery import Celery
from django_structlog.celery.steps import DjangoStructLogInitStep
from structlog.contextvars import bound_contextvars, clear_contextvars, get_contextvars

from argus import requestid
from argus.embedded import EmbeddedCelery
from argus.requestid import RequestIds, Scope


async def call(headers: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], dict[str, Any]]:
    """The answer's headers, and what the application below saw."""
    seen: dict[str, Any] = {}
    sent: list[MutableMapping[str, Any]] = []

    async def application(scope: Scope, receive: Any, send: Any) -> None:
        seen.update(get_contextvars(), header=dict(scope["headers"]).get(b"x-request-id"), current=requestid.current())
        assert requestid.request_id(scope) == requestid.current()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    await RequestIds(application)({"type": "http", "headers": headers}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return dict(sent[0]["headers"]), seen


async def test_a_caller_s_id_is_taken_and_given_back() -> None:
    answer, seen = await call([(b"x-request-id", b"trace:42.a_b-c")])
    assert answer[b"x-request-id"] == b"trace:42.a_b-c" and answer[b"content-type"] == b"text/plain"
    assert seen["request_id"] == seen["current"] == "trace:42.a_b-c"
    assert seen["header"] == b"trace:42.a_b-c"


@pytest.mark.parametrize("given", [b"", b"x" * 65, b"a b", b'"},{"', b"\xff\xfe", b"-leading", b"line\nbreak"])
async def test_what_cannot_be_an_id_is_replaced(given: bytes) -> None:
    answer, seen = await call([(b"x-request-id", given)])
    assert answer[b"x-request-id"] != given and len(answer[b"x-request-id"]) == 32
    assert seen["header"] == answer[b"x-request-id"] == seen["request_id"].encode()


async def test_every_request_without_one_gets_its_own() -> None:
    answers = [(await call([]))[0][b"x-request-id"] for _ in range(3)]
    assert len(set(answers)) == 3


async def test_nothing_of_one_request_is_left_for_the_next() -> None:
    structlog.contextvars.bind_contextvars(user_id=7)
    _, seen = await call([])
    assert "user_id" not in seen


async def test_a_connection_has_an_id_and_each_message_one_of_its_own() -> None:
    seen: list[str] = []

    async def application(scope: Scope, receive: Any, send: Any) -> None:
        connection = requestid.connection_id(scope)
        seen.append(connection)
        assert get_contextvars() == {"connection_id": connection}
        for message_id in ("1", None, "not an id", "1"):
            with requestid.request_scope(message_id) as request_id:
                assert requestid.current() == request_id and request_id.startswith(f"{connection}.")
                seen.append(request_id)
            assert requestid.current() == ""

    async def nothing(*_: Any) -> Any:
        return {}

    await RequestIds(application)({"type": "websocket", "headers": []}, nothing, nothing)
    connection, first, second, third, again = seen
    assert first == again == f"{connection}.1" and second != third


class Worker:
    """A Celery worker in this process, of the kind that ``up`` runs, with one task that tells what it sees."""

    def __init__(self, broker: str) -> None:
        self.seen: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        app = Celery("ids", broker=broker, set_as_current=False)
        app.conf.beat_scheduler = "celery.beat:Scheduler"
        app.conf.update(task_default_queue="ids", task_ignore_result=True, worker_hijack_root_logger=False)
        if broker.startswith("memory"):
            app.conf.broker_transport_options = {"polling_interval": 0.01}
        app.steps["worker"].add(DjangoStructLogInitStep)

        @app.task(name="ids.tell", bind=True, shared=False)
        def tell(task: Any) -> None:
            self.seen.put({**get_contextvars(), "current": requestid.current(), "task": task.request.id})

        self.task = tell
        self.celery = EmbeddedCelery(app, queues=["ids"], concurrency=1)


@pytest.fixture(params=["memory", "redis"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    """The worker, once as the embedded service has it and once behind a real Redis."""
    broker = "memory://localhost" if request.param == "memory" else request.getfixturevalue("redis_url")
    worker = Worker(broker)
    worker.celery.start()
    yield worker
    worker.celery.stop(5)
    assert not worker.celery.abandoned


def test_a_task_belongs_to_the_request_that_caused_it(worker: Worker) -> None:
    with bound_contextvars(request_id="r-17", connection_id="c-1", user_id=7, ip="203.0.113.7"):
        worker.task.apply_async()
    seen = worker.seen.get(timeout=30)
    assert seen["current"] == seen["request_id"] == "r-17" and seen["connection_id"] == "c-1"
    assert seen["task_id"] == seen["task"]
    assert "user_id" not in seen and "ip" not in seen, "only ids travel with a task"


def test_a_task_that_nobody_asked_for_is_its_own_request(worker: Worker) -> None:
    clear_contextvars()
    for _ in range(2):
        worker.task.apply_async()
        seen = worker.seen.get(timeout=30)
        assert seen["current"] == seen["task"]


def test_a_task_caused_by_a_task_keeps_the_first_request_s_id(worker: Worker) -> None:
    with bound_contextvars(request_id="r-18", task_id="t-1"):
        worker.task.apply_async()
    seen = worker.seen.get(timeout=30)
    assert seen["current"] == "r-18" and seen["parent_task_id"] == "t-1" and seen["task_id"] == seen["task"]

"""One id for everything that belongs to one request: made or taken at the edge, in every log line, handed on to Celery.

A REST call's id is the caller's ``X-Request-ID`` if that can be one, else a new one, and stands in the answer's header. A
WebSocket connection has a connection id, and each of its messages a request id of its own (``request_scope``). Celery
carries the id in the task's headers (django-structlog), and ``current()`` gives it to whoever calls a source.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, get_contextvars

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = b"x-request-id"
_VALID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_HANDED_ON = frozenset({"request_id", "connection_id", "task_id", "parent_task_id"})


def new() -> str:
    """A fresh id: unlike any other, but no secret."""
    return f"{random.getrandbits(128):032x}"


def current() -> str:
    """The id of the request that this code works for; empty outside of any."""
    return str(get_contextvars().get("request_id", ""))


def request_id(scope: Scope) -> str:
    """The id that ``RequestIds`` gave to an HTTP request's scope: ``current()`` for who has the scope at hand."""
    return str(scope["argus.request_id"])


def connection_id(scope: Scope) -> str:
    """The id that ``RequestIds`` gave to a WebSocket's scope."""
    return str(scope["argus.connection_id"])


@contextmanager
def request_scope(message_id: str | None = None) -> Iterator[str]:
    """Within it, the logs and tasks belong to one message of a connection.

    The client's own id is kept in it, so that both sides' logs can be laid beside each other.
    """
    own = message_id if message_id is not None and _VALID.fullmatch(message_id) else new()[:12]
    connection = get_contextvars().get("connection_id", "")
    request_id = f"{connection}.{own}" if connection else own
    with bound_contextvars(request_id=request_id):
        yield request_id


class RequestIds:
    """The outermost ASGI application: every scope below it has its id."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = self._http(scope, send)
        elif scope["type"] == "websocket":
            scope["argus.connection_id"] = new()
            clear_contextvars()
            bind_contextvars(connection_id=scope["argus.connection_id"])
        await self.app(scope, receive, send)

    @staticmethod
    def _http(scope: Scope, send: Send) -> Send:
        """Give a request its id; the answer carries it that goes through what is returned."""
        headers = scope["headers"]
        given = dict(headers).get(HEADER)
        if given is not None:
            headers = [pair for pair in headers if pair[0] != HEADER]
            given = text if _VALID.fullmatch(text := given.decode("latin-1")) else None
        request_id = given or new()
        field = (HEADER, request_id.encode("ascii"))
        # Django's middleware reads the header: it must find the id that the answer carries.
        scope["headers"] = [*headers, field]
        scope["argus.request_id"] = request_id
        clear_contextvars()
        bind_contextvars(request_id=request_id)

        def send_with_id(message: MutableMapping[str, Any]) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), field]
            return send(message)

        return send_with_id


def hand_on(context: dict[str, Any], **_: Any) -> None:
    """Of what is bound, only ids travel with a task (django-structlog would send everything)."""
    for name in [name for name in context if name not in _HANDED_ON]:
        del context[name]


def bind_task(task: Any, **_: Any) -> None:
    """A task that no request caused (the schedule's) is its own request."""
    if not current():
        bind_contextvars(request_id=task.request.id)


def connect() -> None:
    """Hook the two functions above into django-structlog; called once, when Django is ready."""
    from django_structlog.celery.signals import bind_extra_task_metadata, modify_context_before_task_publish

    modify_context_before_task_publish.connect(hand_on, dispatch_uid="argus.requestid")
    bind_extra_task_metadata.connect(bind_task, dispatch_uid="argus.requestid")

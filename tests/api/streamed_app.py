"""An application for a server process of its own: streamed answers that end well, break off, or never end."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator

from argus.access.principal import SCOPE_READ, Principal
from argus.asgi import dispatch
from argus.http import TEXT, answer
from argus.requestid import Receive, RequestIds, Scope, Send
from argus.streamed import Reply, beside, streamed

CHUNK = b"x" * 200_000
state = {"made": 0, "closed": 0}
release = threading.Event()
resume = threading.Event()


def whole() -> Iterator[bytes]:
    yield from (CHUNK, CHUNK)


def broken() -> Iterator[bytes]:
    yield CHUNK
    raise RuntimeError("in the middle")


def endless() -> Iterator[bytes]:
    try:
        for _ in itertools.count():
            state["made"] += 1
            yield CHUNK
    finally:
        state["closed"] += 1


def told() -> Iterator[bytes]:
    yield f"{state['made']} {state['closed']} {sys.modules[beside.__module__]._under_way}".encode()


def released() -> Iterator[bytes]:
    release.set()
    yield b""


def waiting() -> Iterator[bytes]:
    yield CHUNK
    resume.wait(60)
    yield CHUNK


def resumed() -> Iterator[bytes]:
    resume.set()
    yield b""


BODIES = {
    "/whole": whole,
    "/broken": broken,
    "/endless": endless,
    "/state": told,
    "/release": released,
    "/waiting": waiting,
    "/resume": resumed,
}
WORK = ("/slow", "/held")
LARGE = 20_000_000


async def respond(scope: Scope, principal: Principal, body: bytes) -> Reply:
    if scope["path"] == "/slow":
        await beside(lambda seconds: time.sleep(1.5), 0.2)
    if scope["path"] == "/held":
        await beside(lambda seconds: release.wait(seconds), 60)
    return Reply(status=200, headers=[("content-type", "text/plain")], chunks=BODIES[scope["path"]]())


LONGEST = 50_000
_streamed = streamed(SCOPE_READ, ("GET", "POST"), respond, longest=LONGEST)


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http" and scope["path"] in (*BODIES, *WORK):
        await _streamed(scope, receive, send)
    elif scope["type"] == "http" and scope["path"] == "/large":
        await answer(scope, send, 200, b"x" * LARGE, TEXT)
    else:
        await dispatch(scope, receive, send)


application = RequestIds(_application)

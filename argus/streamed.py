"""Answers that are made beside the event loop and sent piece by piece, as fast as the client takes them.

The guard is that of the quick answers: access check, quota, problem documents. Beyond it: whoever goes away ends the work,
whoever does not read is cut off, and an answer that cannot be finished ends without its proper end, so that nobody takes a
part of a table for the whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
from django.db import close_old_connections
from prometheus_client import Counter

from argus.access.principal import Principal
from argus.config import config
from argus.errors import DEADLINE, INTERNAL, MESSAGE_TOO_BIG, NOT_READY, ArgusError
from argus.guard import Identify, by_key, let_in
from argus.http import NOSNIFF, Problems, answer_problem
from argus.line import EXTENSION, GRACE, PIECE, Line
from argus.requestid import Application, Receive, Scope, Send

log = structlog.get_logger(__name__)
T = TypeVar("T")

THREADS: Final = 16
"""Answers that are prepared at a time; most of these threads wait for a terminal or a disk."""
WAITING: Final = 64
"""Answers that may wait for one of the threads; one more is told to come back."""
LOOK_AGAIN: Final = 0.01
"""Seconds between two looks whether a server that does not wait has sent what it holds."""

CLOSE: Final = (b"connection", b"close")

CUT = Counter("argus_answers_cut_total", "Streamed answers that were ended before their end", ["reason"])

_preparing = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="answer")
# Threads of their own: a body under way must not wait behind answers that wait for a terminal. As many of them: a body, too,
# may have to fetch again what has gone since its answer was prepared.
_writing = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="body")
_under_way = 0
_counting = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is answered. ``quick``: the chunks cost so little that they are made on the event loop."""

    status: int
    headers: Sequence[tuple[str, str]]
    chunks: Iterator[bytes]
    quick: bool = False


Respond = Callable[[Scope, Principal, bytes], Awaitable[Reply]]
"""The answer to a caller who has been let in and the request's body; raises ``ArgusError``."""


async def beside(function: Callable[[float], T], seconds: float) -> T:
    """Run a blocking function beside the event loop; it is given the seconds that are left to it when its turn comes.

    Raises NOT_READY where too many wait already, DEADLINE where it takes longer.
    """
    global _under_way
    with _counting:
        if _under_way >= THREADS + WAITING:
            raise ArgusError(NOT_READY, "Too many answers are being prepared; try again shortly.", retry_after=1)
        _under_way += 1
    end = time.monotonic() + seconds
    context = copy_context()

    def work() -> T:
        if (left := end - time.monotonic()) <= 0:
            raise ArgusError(DEADLINE)
        close_old_connections()
        try:
            return context.run(function, left)
        finally:
            close_old_connections()

    def done(_: object) -> None:
        global _under_way
        with _counting:
            _under_way -= 1

    future = _preparing.submit(work)
    future.add_done_callback(done)
    try:
        async with asyncio.timeout(seconds + GRACE):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        raise ArgusError(DEADLINE) from None


class _Chunks:
    """An iterator whose steps are taken in threads, one at a time, and which is closed in the end."""

    def __init__(self, reply: Reply) -> None:
        self._chunks = reply.chunks
        self._quick = reply.quick
        self._lock = threading.Lock()

    def _step(self) -> bytes | None:
        with self._lock:
            return next(self._chunks, None)

    async def next(self) -> bytes | None:
        """The next chunk; None at the end."""
        if self._quick:
            return self._step()
        context = copy_context()
        chunk: bytes | None = await asyncio.get_running_loop().run_in_executor(_writing, context.run, self._step)
        return chunk

    def _close(self) -> None:
        with self._lock:
            if (close := getattr(self._chunks, "close", None)) is not None:
                close()

    def close(self) -> None:
        """Let go of what is held, after the step that may be under way."""
        if self._quick:
            self._close()
        else:
            _writing.submit(self._close)


class _Cut(Exception):
    """The answer has begun and cannot be finished."""


class _Gone(Exception):
    """The client went away before the end of its request."""


def streamed(
    needs: str,
    methods: Sequence[str],
    respond: Respond,
    *,
    longest: int,
    problems: Problems = answer_problem,
    identify: Identify = by_key,
) -> Application:
    """An ASGI application that answers these methods for keys with the scope ``needs``, at one request of their quota.

    ``longest``: how many bytes a request's body may have. ``problems``: how errors are told. ``identify``: who callers are.
    """

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.Event()
        headers: list[tuple[bytes, bytes]] = []
        admit = _admit(scope, receive, needs, methods, longest, headers, identify)
        admitted = await _or_problem(scope, send, headers, problems, admit)
        if admitted is None:
            return
        work = asyncio.ensure_future(_serve(scope, send, *admitted, respond, headers, problems))
        watch = asyncio.ensure_future(_watch(receive, gone))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                CUT.labels("gone").inc()
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        except _Cut:
            line = _line(scope)
            if line is None:
                raise
            line.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await gone.wait()
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    return application


def _line(scope: Scope) -> Line | None:
    found: Line | None = scope.get("extensions", {}).get(EXTENSION)
    return found


async def _admit(
    scope: Scope,
    receive: Receive,
    needs: str,
    methods: Sequence[str],
    longest: int,
    headers: list[tuple[bytes, bytes]],
    identify: Identify,
) -> tuple[Principal, bytes]:
    """The caller, at one request of their quota, and the request's body. Raises ``ArgusError`` and ``_Gone``.

    What nobody will look at is not kept, but read to its end: a client that is cut off while it sends never reads why.
    """
    try:
        principal = await let_in(scope, needs, methods, headers, identify)
    except ArgusError:
        if await _read_body(receive, 0) is None:
            headers.append(CLOSE)
        raise
    read = await _read_body(receive, longest)
    if read is None:
        headers.append(CLOSE)
        raise ArgusError(DEADLINE, "The request's body did not come in time.")
    body, size = read
    if size > longest:
        headers.append(CLOSE)
        raise ArgusError(MESSAGE_TOO_BIG, f"A request's body has no more than {longest} bytes.", limit=longest)
    return principal, body


async def _read_body(receive: Receive, longest: int) -> tuple[bytes, int] | None:
    """The request's body, as far as it has no more than ``longest`` bytes, and how many it has; None where it does not come
    within ``ARGUS_FETCH_TIMEOUT``. Raises ``_Gone``."""
    body, size = b"", 0
    try:
        async with asyncio.timeout(config.fetch_timeout):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                part: bytes = message.get("body", b"")
                size += len(part)
                body = body + part if size <= longest else b""
                if not message.get("more_body"):
                    return body, size
    except TimeoutError:
        return None


async def _watch(receive: Receive, gone: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


async def _serve(
    scope: Scope,
    send: Send,
    principal: Principal,
    body: bytes,
    respond: Respond,
    headers: list[tuple[bytes, bytes]],
    problems: Problems,
) -> None:
    reply = await _or_problem(scope, send, headers, problems, respond(scope, principal, body))
    if reply is not None:
        await _send(scope, send, reply, headers)


async def _or_problem(
    scope: Scope, send: Send, headers: list[tuple[bytes, bytes]], problems: Problems, work: Awaitable[T]
) -> T | None:
    """What comes of it; None where there is nothing more to do: a problem has been answered, or the client is gone."""
    try:
        return await work
    except _Gone:
        pass
    except ArgusError as error:
        await problems(scope, send, error, headers)
    except Exception:
        # The edge of the process for these paths, as Django's handler is for the others.
        log.exception("request_failed", path=scope["path"])
        await problems(scope, send, ArgusError(INTERNAL), headers)
    return None


async def _send(scope: Scope, send: Send, reply: Reply, headers: list[tuple[bytes, bytes]]) -> None:
    chunks = _Chunks(reply)
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    line = _line(scope)
    unsent = line.unsent if line is not None else None
    try:
        async with asyncio.timeout(config.send_timeout):
            await send({"type": "http.response.start", "status": reply.status, "headers": [*fields, NOSNIFF, *headers]})
        if scope["method"] != "HEAD":
            while (chunk := await chunks.next()) is not None:
                for start in range(0, len(chunk), PIECE):
                    async with asyncio.timeout(config.send_timeout):
                        await send({"type": "http.response.body", "body": chunk[start : start + PIECE], "more_body": True})
                        while unsent is not None and unsent() > PIECE:
                            await asyncio.sleep(LOOK_AGAIN)
        async with asyncio.timeout(config.send_timeout):
            await send({"type": "http.response.body", "body": b""})
    except TimeoutError:
        CUT.labels("slow").inc()
        log.info("client_does_not_read", path=scope["path"])
        raise _Cut from None
    except Exception as error:
        CUT.labels("error").inc()
        log.exception("answer_broken_off", path=scope["path"])
        raise _Cut from error
    finally:
        chunks.close()

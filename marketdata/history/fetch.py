"""Asking terminals for bars: a Celery task on a terminal's own queue, waited for up to a deadline; another if one fails."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import redis
import structlog
from celery import Task
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult
from django.core.cache import cache
from kombu.exceptions import OperationalError

from argus.celery import CLOCK_TOLERANCE, queue_of
from argus.config import config
from argus.errors import DEADLINE, SOURCE_UNAVAILABLE, UNSUPPORTED, ArgusError, Problem
from marketdata import market_time
from marketdata.history import metrics, parcel, tasks
from marketdata.history.plan import Chunk
from marketdata.latest import store
from marketdata.series import Series
from marketdata.types import Dividend

log = structlog.get_logger(__name__)

AVOIDED: Final = 10.0
"""Seconds for which a terminal that failed is asked last; twice as long each time that it fails again."""
AVOIDED_AT_MOST: Final = 300.0
LEAST: Final = 0.2
"""Seconds that must be left for it to be worth asking."""

LOOK: Final = 0.5
"""Seconds between two looks whether this process ends while it waits for an answer."""

ending = threading.Event()
"""Set when this worker is told to end: it takes no more tasks, so the answer may be one that it owes itself."""
_slots: defaultdict[str, threading.BoundedSemaphore] = defaultdict(lambda: threading.BoundedSemaphore(tasks.FETCHES))
_avoided: dict[str, tuple[float, float]] = {}
"""Terminal -> until when (monotonic clock) it is asked last, and for how long that was."""


class FetchError(Exception):
    """No terminal answered: ``reason`` is unsupported, deadline or source_unavailable (names of rows of the error table).

    Where several were asked the text names each with its own reason, and ``reason`` is the one that is most likely to pass.
    """

    PROBLEMS: Final[Mapping[str, Problem]] = {p.name: p for p in (UNSUPPORTED, DEADLINE, SOURCE_UNAVAILABLE)}

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def as_error(self, **params: Any) -> ArgusError:
        """As a client is told."""
        return ArgusError(self.PROBLEMS[self.reason], str(self), **params)


@dataclass(frozen=True, slots=True)
class Fetched:
    """``now`` is the market's time (ms) before the terminal was asked; ``refused`` what its source left out, by reason."""

    bars: Mapping[str, Series]
    refused: Mapping[str, int]
    now: int
    source: str
    terminal: str


def bars(chunk: Chunk, *, deadline: float) -> Fetched:
    """The chunk's bars. ``deadline`` is on the monotonic clock. Raises ``FetchError``."""
    terminal, answer = _ask_any(
        tasks.fetch_bars, (list(chunk.symbols), chunk.period.value, chunk.start, chunk.end), deadline=deadline
    )
    return Fetched(parcel.unpack(answer["parcel"]), answer["refused"], answer["now"], answer["source"], terminal)


def dividends(symbols: Sequence[str], *, deadline: float) -> tuple[dict[str, tuple[Dividend, ...]], str]:
    """What the symbols have given, and the source that told. Raises ``FetchError``."""
    _, answer = _ask_any(tasks.fetch_dividends, (list(symbols),), deadline=deadline)
    return msgspec.msgpack.decode(answer["parcel"], type=dict[str, tuple[Dividend, ...]]), answer["source"]


def market_now(*, deadline: float) -> int:
    """The market's time in ms. A process without a stream (a worker of backfills) asks a terminal where the market's days may
    be others than today's. Raises ``FetchError``."""
    if store.feeds or config.source == "qmt":
        return market_time.now()
    _, answer = _ask_any(tasks.fetch_bars, ([], "1d", 0, 0), deadline=deadline)
    return int(answer["now"])


def choose() -> list[str]:
    """The terminals in the order in which they are asked: those that failed just now last."""
    now = time.monotonic()
    return sorted(config.addresses, key=lambda name: now < _avoided.get(name, (now, 0.0))[0])


def _ask_any(task: Task[Any, Any], args: tuple[Any, ...], *, deadline: float) -> tuple[str, dict[str, Any]]:
    terminals = choose()
    failures: list[FetchError] = []
    for number, terminal in enumerate(terminals):
        left = deadline - time.monotonic()
        if left < LEAST:
            break
        # A worker that is away says nothing: what is left of the time is shared with those who are asked after it.
        try:
            return terminal, _ask(task, terminal, args, timeout=left / (len(terminals) - number))
        except FetchError as error:
            failures.append(error)
    if len(failures) < len(terminals):
        failures.append(FetchError(DEADLINE.name, f"no time was left to ask {', '.join(terminals[len(failures) :])}"))
    reasons = {failure.reason for failure in failures}
    reason = next(name for name in (SOURCE_UNAVAILABLE.name, DEADLINE.name, UNSUPPORTED.name) if name in reasons)
    raise FetchError(reason, "; ".join(map(str, failures)))


def _ask(task: Task[Any, Any], terminal: str, args: tuple[Any, ...], *, timeout: float) -> dict[str, Any]:
    began = time.monotonic()
    slot = _slots[terminal]
    if not slot.acquire(timeout=timeout):
        raise _failed(terminal, "busy", "deadline", f"{terminal} was busy with other fetches for {timeout:.0f} s")
    try:
        answer = _run(task, terminal, args, timeout - (time.monotonic() - began))
    finally:
        slot.release()
    if failed := answer.get("failed"):
        reason = {"unsupported": "unsupported", "timeout": "deadline"}.get(failed, "source_unavailable")
        raise _failed(terminal, failed, reason, f"{terminal}: {answer['detail']}")
    metrics.FETCHES.labels(terminal, "ok").inc()
    metrics.FETCH_SECONDS.labels(terminal).observe(time.monotonic() - began)
    _avoided.pop(terminal, None)
    log.info("fetched", terminal=terminal, task=task.name, seconds=round(time.monotonic() - began, 3))
    return answer


def _run(task: Task[Any, Any], terminal: str, args: tuple[Any, ...], timeout: float) -> dict[str, Any]:
    """The task's answer with its parcel in it."""
    options: dict[str, Any] = {"queue": queue_of(terminal), "expires": timeout + CLOCK_TOLERANCE}
    try:
        result = task.apply_async(args=(terminal, *args, max(LEAST, timeout - LEAST)), **options)
        try:
            answer = _wait(result, max(LEAST, timeout))
        except CeleryTimeout:
            if ending.is_set():
                return {"failed": "down", "detail": "this worker ends"}
            return {"failed": "timeout", "detail": f"no answer within {timeout:.1f} s"}
        finally:
            result.forget()
        if not isinstance(answer, dict):
            return {"failed": "down", "detail": f"the task ended with {type(answer).__name__}"}
        if key := answer.get("key"):
            answer["parcel"] = cache.get(key)
            cache.delete(key)
            if answer["parcel"] is None:
                return {"failed": "down", "detail": "the answer was lost on its way"}
    except (OperationalError, redis.RedisError) as error:
        return {"failed": "down", "detail": f"the broker does not answer ({type(error).__name__})"}
    return answer


def _wait(result: AsyncResult[Any], timeout: float) -> Any:
    """What the task returned. Raises Celery's ``TimeoutError`` after so many seconds, or when this process ends."""
    until = time.monotonic() + timeout
    while True:
        left = until - time.monotonic()
        try:
            # Under the embedded service Celery takes every thread of the process for a task's; this one is a request's.
            return result.get(timeout=max(0.01, min(LOOK, left)), interval=0.01, propagate=False, disable_sync_subtasks=False)
        except CeleryTimeout:
            if left <= LOOK or ending.is_set():
                raise


def _failed(terminal: str, outcome: str, reason: str, detail: str) -> FetchError:
    metrics.FETCHES.labels(terminal, outcome).inc()
    if outcome != "busy":
        seconds = min(AVOIDED_AT_MOST, 2 * _avoided.get(terminal, (0.0, AVOIDED / 2))[1])
        _avoided[terminal] = time.monotonic() + seconds, seconds
    log.warning("fetch_failed", terminal=terminal, outcome=outcome, detail=detail)
    return FetchError(reason, detail)

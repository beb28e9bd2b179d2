"""What Celery does for history: fetches on a terminal's own queue, backfills on the default one; thin shells."""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import structlog
from celery import Task, shared_task
from django.core.cache import cache

from argus import requestid
from marketdata import feeds
from marketdata.history import parcel
from marketdata.sources.base import Capability, Source, SourceError, SourceTimeout, Unsupported
from marketdata.types import Period

log = structlog.get_logger(__name__)

PARCEL_TTL: Final = 60
"""Seconds that a result waits to be taken."""
FETCHES: Final = 2
"""Fetches that a terminal answers at a time: it answers polls, too, and those must not wait."""
TURN: Final = 0.1
"""Seconds after which a fetch looks again whether it is its turn."""

_turns: defaultdict[str, threading.BoundedSemaphore] = defaultdict(lambda: threading.BoundedSemaphore(FETCHES))


@shared_task(bind=True, ignore_result=False, max_retries=None)
def fetch_bars(
    self: Task[Any, Any], terminal: str, symbols: Sequence[str], period: str, start: int, end: int, timeout: float
) -> dict[str, Any]:
    """Fetch base bars with end stamps in [start, end] (ms); the answer says under which key of the cache they lie.

    ``now`` is the market's time before the fetch, ``refused`` what the source itself left out. Without symbols it only
    tells the time. ``failed``: no_feed, down, timeout or unsupported.
    """

    def fetch(source: Source) -> dict[str, Any]:
        if not symbols:
            return {"key": "", "refused": {}}
        found = source.fetch_bars(symbols, Period(period), start=start, end=end, timeout=timeout, request_id=requestid.current())
        return {"key": _leave(parcel.pack(found.series)), "refused": dict(found.refused)}

    with _turn(self, terminal):
        return _answer(terminal, Capability.BARS, fetch)


@shared_task(bind=True, ignore_result=False, max_retries=None)
def fetch_dividends(self: Task[Any, Any], terminal: str, symbols: Sequence[str], timeout: float) -> dict[str, Any]:
    """Fetch all that the symbols have given, as ``fetch_bars`` does."""

    def fetch(source: Source) -> dict[str, Any]:
        return {"key": _leave(msgspec.msgpack.encode(source.fetch_dividends(symbols, timeout=timeout)))}

    with _turn(self, terminal):
        return _answer(terminal, Capability.DIVIDENDS, fetch)


@contextmanager
def _turn(task: Task[Any, Any], terminal: str) -> Iterator[None]:
    """One of the terminal's ``FETCHES``, or the task comes again: threads that wait would be missing to the polls."""
    turn = _turns[terminal]
    if not turn.acquire(blocking=False):
        raise task.retry(countdown=TURN)
    try:
        yield
    finally:
        turn.release()


def _answer(terminal: str, capability: Capability, fetch: Callable[[Source], dict[str, Any]]) -> dict[str, Any]:
    feed = feeds.running(terminal)
    if feed is None:
        log.warning("fetch_without_feed", terminal=terminal)
        return {"failed": "no_feed", "detail": f"the worker of {terminal} has no feed"}
    status = feed.source.status()
    now = status.time or time.time_ns() // 1_000_000
    try:
        capabilities = feed.source.capabilities()
        if capabilities and capability not in capabilities:
            raise Unsupported(f"{feed.source.name} has no {capability}")
        return {**fetch(feed.source), "now": now, "source": feed.source.name}
    except SourceError as error:
        log.warning("fetch_failed", terminal=terminal, error=type(error).__name__, detail=str(error))
        failed = "unsupported" if isinstance(error, Unsupported) else "timeout" if isinstance(error, SourceTimeout) else "down"
        return {"failed": failed, "detail": str(error)}


def _leave(parcel: bytes) -> str:
    key = f"argus.parcel.{uuid.uuid4().hex}"
    cache.set(key, parcel, PARCEL_TTL)
    return key


@shared_task
def run_backfill(number: int) -> str:
    """Run or go on with a backfill; the state in which it ends."""
    from marketdata.history.backfill import run

    return run(number)


@shared_task
def resume_backfills() -> int:
    """Start those again whose worker has died; how many."""
    from marketdata.history.backfill import resume_abandoned

    return resume_abandoned()

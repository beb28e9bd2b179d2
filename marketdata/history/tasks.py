"""What Celery does for history: fetches on a terminal's own queue, backfills on the default one; thin shells."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import structlog
from celery import Task, shared_task
from django.core.cache import cache

from argus import requestid
from marketdata import feeds
from marketdata.history import parcel
from marketdata.sources.base import Capability, Source, SourceError, SourceTimeout, Unsupported
from marketdata.terminals import gate
from marketdata.terminals.slots import Priority
from marketdata.types import Period

log = structlog.get_logger(__name__)

PARCEL_TTL: Final = 60
"""Seconds that a result waits to be taken."""

Fetch = Callable[[Source, float], dict[str, Any]]
"""Asks the source, which has so many seconds."""


@shared_task(bind=True, ignore_result=False, max_retries=None)
def fetch_bars(
    self: Task[Any, Any],
    terminal: str,
    symbols: Sequence[str],
    period: str,
    start: int,
    end: int,
    timeout: float,
    priority: int = Priority.LIVE,
    until: float | None = None,
) -> dict[str, Any]:
    """Fetch base bars with end stamps in [start, end] (ms); the answer says under which key of the cache they lie.

    ``now`` is the market's time before the fetch, ``refused`` what the source itself left out. Without symbols it only
    tells the time. ``failed``: no_feed, down, timeout, busy or unsupported. ``until`` is this worker's own note of when (wall
    clock, seconds) the ``timeout`` ends, on a task that has come again because the terminal had enough to do.
    """

    def fetch(source: Source, seconds: float) -> dict[str, Any]:
        found = source.fetch_bars(symbols, Period(period), start=start, end=end, timeout=seconds, request_id=requestid.current())
        return {"key": _leave(parcel.pack(found.series)), "refused": dict(found.refused)}

    if not symbols:
        return _answer(terminal, Capability.BARS, lambda *_: {"key": "", "refused": {}}, timeout)
    return _in_turn(self, terminal, Capability.BARS, fetch, timeout, priority, until)


@shared_task(bind=True, ignore_result=False, max_retries=None)
def fetch_dividends(
    self: Task[Any, Any],
    terminal: str,
    symbols: Sequence[str],
    timeout: float,
    priority: int = Priority.LIVE,
    until: float | None = None,
) -> dict[str, Any]:
    """Fetch all that the symbols have given, as ``fetch_bars`` does."""

    def fetch(source: Source, seconds: float) -> dict[str, Any]:
        return {"key": _leave(msgspec.msgpack.encode(source.fetch_dividends(symbols, timeout=seconds)))}

    return _in_turn(self, terminal, Capability.DIVIDENDS, fetch, timeout, priority, until)


def _in_turn(
    task: Task[Any, Any],
    terminal: str,
    capability: Capability,
    fetch: Fetch,
    timeout: float,
    priority: int,
    until: float | None,
) -> dict[str, Any]:
    """What the terminal answers, or the task comes again while it has enough to do and there is time left."""
    until = until or time.time() + timeout
    try:
        with gate.turn(terminal, Priority(priority)):
            return _answer(terminal, capability, fetch, min(timeout, until - time.time()))
    except gate.NotNow as not_now:
        if time.time() + not_now.seconds >= until:
            return {"failed": "busy", "detail": f"it had too much to do for {timeout:.1f} s"}
        raise task.retry(kwargs={"priority": priority, "until": until}, countdown=not_now.seconds) from None


def _answer(terminal: str, capability: Capability, fetch: Fetch, timeout: float) -> dict[str, Any]:
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
        return {**fetch(feed.source, timeout), "now": now, "source": feed.source.name}
    except SourceError as error:
        write = log.info if feed.excused else log.warning
        write("fetch_failed", terminal=terminal, error=type(error).__name__, detail=str(error))
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

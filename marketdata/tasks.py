"""What Celery does for a terminal, on that terminal's own queue: thin shells over its feed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import structlog
from celery import Task, shared_task

from argus import requestid
from argus.celery import CLOCK_TOLERANCE, queue_of
from marketdata import feeds, metrics, reconcile
from marketdata.reference import days
from marketdata.reference import refresh as reference
from marketdata.sources.base import Capability, SourceError

log = structlog.get_logger(__name__)

REFRESH_EXPIRES = 60 + CLOCK_TOLERANCE
"""Seconds after which a refresh that nobody has begun is forgotten."""


@shared_task(bind=True)
def poll_quotes(self: Task[Any, Any], terminal: str) -> str:
    """Poll a terminal once: its quotes where it cannot push, a part of them to reconcile where it can."""
    feed = feeds.running(terminal)
    if feed is None:
        log.warning("poll_without_feed", terminal=terminal)
        return "no_feed"
    request_id = requestid.current()
    days.reload()
    outcome = feed.poll(request_id=request_id)
    if request_id != self.request.id:
        # Somebody asked for it; the schedule's polls, one a second, are in the metrics.
        log.info("polled_on_request", terminal=terminal, outcome=outcome)
    if outcome == "ok" and reference.due(feed):
        refresh_reference.apply_async(args=(terminal,), queue=queue_of(terminal), expires=REFRESH_EXPIRES)
    return outcome


@shared_task
def refresh_reference(terminal: str) -> int:
    """Store the terminal's instruments and sectors in the database; the number of instruments."""
    feed = feeds.running(terminal)
    if feed is None or not reference.due(feed):
        return 0
    feed.reference_at = time.monotonic()
    try:
        others = reference.elsewhere(feed)
        count = reference.refresh(feed, others=others)
        for name in sorted(set(others.values())):
            needs = sorted(need for need, other in others.items() if other == name)
            refresh_steps.apply_async(args=(name, needs), queue=queue_of(name), expires=REFRESH_EXPIRES)
        return count
    except SourceError as error:
        feed.reference_at = None
        log.warning("reference_failed", terminal=terminal, error=type(error).__name__, detail=str(error))
        return 0


@shared_task
def refresh_steps(terminal: str, needs: Sequence[str]) -> None:
    """Store what this terminal can tell and the publisher's cannot (capabilities)."""
    if (feed := feeds.running(terminal)) is None:
        log.warning("refresh_without_feed", terminal=terminal)
        return
    reference.refresh_steps(feed, [Capability(need) for need in needs])


@shared_task
def reconcile_bars(terminal: str) -> int:
    """Hold a terminal's closed live bars against its own; the number of those that it had."""
    feed = feeds.running(terminal)
    if feed is None or not feed.publisher.active:
        return 0
    try:
        outcomes = reconcile.run(feed, request_id=requestid.current())
    except SourceError as error:
        metrics.RECONCILIATIONS.labels(terminal, "failed").inc()
        log.warning("reconcile_failed", terminal=terminal, error=type(error).__name__, detail=str(error))
        return 0
    metrics.RECONCILIATIONS.labels(terminal, "ok").inc()
    return outcomes["equal"] + outcomes["different"]

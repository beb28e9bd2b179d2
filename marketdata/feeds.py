"""A terminal's feed in this process: its source, the loop that ingests and publishes, and the poll beside it.

Pushes and polls are one path: both put what was parsed into one bounded queue, and one thread takes it out, ingests it and
publishes. The queue's policy when full is to wait: a replay then waits too, a terminal's child merges meanwhile, a poll
gives up at its deadline.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis
import structlog
from django.core.cache import cache

from argus.config import Config, config
from marketdata import metrics, publish
from marketdata.ingest import Ingest
from marketdata.lease import lease_of
from marketdata.publish import PublishError
from marketdata.publisher import Publisher
from marketdata.sources import registry
from marketdata.sources.base import Capability, Source, SourceError, SourceTimeout, State, Subscription
from marketdata.types import Parsed, Quote

log = structlog.get_logger(__name__)

QUEUE_SIZE = 256
"""Parsed batches that may wait between the source and the publisher."""
MERGE_QUOTES = 6000
"""A message carries what waits in the queue, up to about this many quotes (one sweep of the A-share market)."""
RECONCILE_SLICES = 10
"""While pushes are fresh, a poll fetches this part of the universe only: all of it in as many polls."""
SNAPSHOT_TTL = 24 * 3600
STOP_TIMEOUT = 2.0


@dataclass(slots=True)
class _Work:
    """One parsed batch on its way; ``canary`` is the time of a poll that the source answered."""

    parsed: Parsed
    canary: int | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Feed:
    """One terminal's feed: started once, polled by Celery, stopped once."""

    def __init__(self, *, terminal: str, source: Source, publisher: Publisher, config: Config) -> None:
        self.terminal = terminal
        self.source = source
        self.publisher = publisher
        self.reference_at: float | None = None
        self.universe: tuple[str, ...] = ()
        """What is reconciled, slice by slice: as of the last refresh of the reference data."""
        self._config = config
        self._ingest = Ingest()
        self._queue: queue.Queue[_Work] = queue.Queue(QUEUE_SIZE)
        self._stopping = threading.Event()
        self._polling = threading.Lock()
        self._subscription: Subscription | None = None
        self._slice = 0
        self._pushed_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"feed-{terminal}", daemon=True)

    def start(self) -> None:
        """Start the source and the loop; returns at once."""
        self.source.start()
        self._thread.start()
        log.info("feed_started", terminal=self.terminal, source=self.source.name)

    def stop(self) -> None:
        """End the subscription, the source and the loop, within about two seconds."""
        self._stopping.set()
        self.source.close()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)
        self.publisher.resign()
        log.info("feed_stopped", terminal=self.terminal)

    def poll(self, *, request_id: str = "") -> str:
        """Ask the source once and publish what is new. The outcome: ok, overlap, stopping, down, timeout or backlog."""
        if self._stopping.is_set():
            return self._polled("stopping")
        if not self._polling.acquire(blocking=False):
            return self._polled("overlap")
        try:
            return self._polled(self._poll(request_id))
        finally:
            self._polling.release()

    def _poll(self, request_id: str) -> str:
        deadline = time.monotonic() + self._config.source_timeout
        try:
            self._subscribe()
            symbols = self._poll_symbols()
            with metrics.POLL_SECONDS.labels(self.terminal).time():
                parsed = self.source.fetch_quotes(symbols, timeout=self._config.source_timeout, request_id=request_id)
        except SourceError as error:
            log.warning("poll_failed", terminal=self.terminal, error=type(error).__name__, detail=str(error))
            return "timeout" if isinstance(error, SourceTimeout) else "down"
        work = _Work(parsed, canary=int(time.time() * 1000) if parsed.quotes else None)
        try:
            self._queue.put(work, timeout=max(0.0, deadline - time.monotonic()))
        except queue.Full:
            log.warning("poll_backlog", terminal=self.terminal, waiting=self._queue.qsize())
            return "backlog"
        work.done.wait(max(0.0, deadline - time.monotonic()))
        log.debug("polled", terminal=self.terminal, quotes=len(parsed.quotes), errors=len(parsed.errors))
        return "ok"

    def _polled(self, outcome: str) -> str:
        metrics.POLLS.labels(self.terminal, outcome).inc()
        return outcome

    def _poll_symbols(self) -> tuple[str, ...] | None:
        """None for a full sweep, or the slice to reconcile while pushes are fresh."""
        if time.monotonic() - self._pushed_at > self._config.stale_after:
            return None
        if not self.universe:
            self.universe = self.source.universe(timeout=self._config.source_timeout)
        self._slice = (self._slice + 1) % RECONCILE_SLICES
        return self.universe[self._slice :: RECONCILE_SLICES] or None

    def _subscribe(self) -> None:
        if (
            self._subscription is None
            and Capability.PUSH in self.source.capabilities()
            and self.source.status().state == State.UP
        ):
            self._subscription = self.source.subscribe(None, self._pushed)
            log.info("feed_subscribed", terminal=self.terminal)

    def _pushed(self, parsed: Parsed) -> None:
        self._pushed_at = time.monotonic()
        work = _Work(parsed)
        while not self._stopping.is_set():
            try:
                self._queue.put(work, timeout=0.2)
                return
            except queue.Full:
                continue

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                works = self._take()
                if works:
                    self._handle(works)
                metrics.ACTIVE.labels(self.publisher.feed, self.terminal).set(1 if self.publisher.active else 0)
            except Exception:
                # The edge of this thread: one bad batch must not end the feed; counted by the log's level and seen in it.
                metrics.QUOTES.labels(self.publisher.feed, "failed").inc()
                log.exception("feed_failed", terminal=self.terminal)

    def _take(self) -> list[_Work]:
        try:
            works = [self._queue.get(timeout=0.2)]
        except queue.Empty:
            return []
        quotes = len(works[0].parsed.quotes)
        while quotes < MERGE_QUOTES:
            try:
                works.append(self._queue.get_nowait())
            except queue.Empty:
                break
            quotes += len(works[-1].parsed.quotes)
        return works

    def _handle(self, works: list[_Work]) -> None:
        metrics.QUEUE_DEPTH.labels(self.terminal).set(self._queue.qsize())
        quotes: list[Quote] = []
        canary: int | None = None
        for work in works:
            quotes.extend(work.parsed.quotes)
            canary = work.canary or canary
            for error in work.parsed.errors:
                metrics.PARSE_ERRORS.labels(self.terminal, error.reason).inc()
        accepted = self._ingest.take(quotes)
        feed = self.publisher.feed
        for outcome in ("accepted", "duplicates", "late", "clock_resets"):
            if count := getattr(accepted, outcome):
                metrics.QUOTES.labels(feed, outcome).inc(count)
        if accepted.clock_resets:
            log.warning("clock_reset", terminal=self.terminal, symbols=accepted.clock_resets)
        try:
            self.publisher.publish(accepted.groups, canary)
        except PublishError as error:
            metrics.PUBLISH_FAILURES.labels(feed).inc()
            log.error("publish_failed", terminal=self.terminal, owed=self.publisher.owed, detail=str(error))
        finally:
            for work in works:
                work.done.set()


def _clock_of(source: Source, config: Config) -> Callable[[], int | None]:
    """The market's time where the source has one of its own."""
    if config.source == "replay" or (config.source == "simulated" and config.simulated_clock == "virtual"):
        return lambda: source.status().time
    return lambda: None


def _save_snapshot(feed: str, blob: bytes) -> None:
    try:
        cache.set(publish.snapshot_key(feed), blob, SNAPSHOT_TTL)
    except redis.RedisError as error:
        metrics.PUBLISH_FAILURES.labels(feed).inc()
        log.warning("snapshot_failed", feed=feed, detail=str(error))


_feeds: dict[str, Feed] = {}
# Reentrant: Celery tells of a stop inside its signal handler, which may interrupt a start on the same thread.
_lock = threading.RLock()


def start(terminal: str) -> Feed:
    """Start a terminal's feed in this process, once."""
    with _lock:
        feed = _feeds.get(terminal)
        if feed is None:
            owner = f"{terminal}@{socket.gethostname()}:{os.getpid()}"
            name = publish.feed_names()[0]
            source = registry.build(config, terminal)
            publisher = Publisher(
                feed=name,
                source=source.name,
                owner=owner,
                lease=lease_of(name),
                send=publish.bridge.send,
                save_snapshot=_save_snapshot,
                clock=_clock_of(source, config),
            )
            feed = _feeds[terminal] = Feed(terminal=terminal, source=source, publisher=publisher, config=config)
            feed.start()
        return feed


def start_all() -> None:
    """Start the feeds of every terminal in the settings."""
    for terminal in config.addresses:
        start(terminal)


def running(terminal: str) -> Feed | None:
    """The terminal's feed, if it runs in this process."""
    return _feeds.get(terminal)


def stop_all() -> None:
    """Stop every feed of this process, side by side."""
    with _lock:
        feeds = list(_feeds.values())
        _feeds.clear()
    threads = [threading.Thread(target=feed.stop, name=f"stop-{feed.terminal}") for feed in feeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * STOP_TIMEOUT)

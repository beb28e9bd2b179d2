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
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import redis
import structlog
from django.core.cache import cache

from argus.config import Config, config
from marketdata import klines, metrics, publish
from marketdata.builder import PERIODS, BarBuilder, LiveBar
from marketdata.demand import Demand
from marketdata.ingest import Group, Ingest
from marketdata.lease import lease_of
from marketdata.publish import PublishError
from marketdata.publisher import Publisher
from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.recorder import Recorder
from marketdata.reference.days import calendar_of
from marketdata.sources import registry
from marketdata.sources.base import Capability, Source, SourceError, SourceTimeout, State, Subscription
from marketdata.types import Bar, Parsed, Quote

log = structlog.get_logger(__name__)

QUEUE_SIZE = 256
"""Parsed batches that may wait between the source and the publisher."""
MERGE_QUOTES = 6000
"""A message carries what waits in the queue, up to about this many quotes (one sweep of the A-share market)."""
RECONCILE_SLICES = 10
"""While pushes are fresh, a poll fetches this part of the universe only: all of it in as many polls."""
SETTLED = 20_000
"""Bars that were settled and may wait for the loop; the oldest are dropped, and whoever subscribes anew still gets them."""
PROVISIONAL_CHUNK = 50
"""Symbols whose bars are looked through at a time, while the loop waits."""
SNAPSHOT_TTL = 24 * 3600
STOP_TIMEOUT = 2.0


@dataclass(slots=True)
class _Work:
    """One parsed batch on its way; ``canary`` is the time of a poll that the source answered.

    ``clock`` is the market's time before it was asked for (ms): nothing in a later batch can be older than that by more than
    the source's own delay, so that bars may be closed by it. None where the source had nothing to show.
    """

    parsed: Parsed
    clock: int | None
    canary: int | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Feed:
    """One terminal's feed: started once, polled by Celery, stopped once."""

    def __init__(
        self, *, terminal: str, source: Source, publisher: Publisher, config: Config, recorder: Recorder | None = None
    ) -> None:
        self.terminal = terminal
        self.source = source
        self.publisher = publisher
        self.reference_at: float | None = None
        self.universe: tuple[str, ...] = ()
        """What is reconciled, slice by slice: as of the last refresh of the reference data."""
        self.builder = BarBuilder(calendar_of)
        """The bars of the running day; of every symbol, whether somebody wants them or not. Taken under ``_building``."""
        self._config = config
        self._recorder = recorder
        self._ingest = Ingest()
        self._demand = Demand()
        self._building = threading.Lock()
        self._settled: deque[LiveBar] = deque(maxlen=SETTLED)
        self._looked_through = 0
        self._counted: dict[str, int] = {}
        self._terms = 0
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
        if self._recorder is not None:
            self._recorder.start()
        self._thread.start()
        log.info("feed_started", terminal=self.terminal, source=self.source.name)

    def stop(self) -> None:
        """End the subscription, the source and the loop, within about two seconds."""
        self._stopping.set()
        self.source.close()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)
        self.publisher.resign()
        if self._recorder is not None:
            self._recorder.close()
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
            clock = self._now()
            with metrics.POLL_SECONDS.labels(self.terminal).time():
                parsed = self.source.fetch_quotes(symbols, timeout=self._config.source_timeout, request_id=request_id)
        except SourceError as error:
            log.warning("poll_failed", terminal=self.terminal, error=type(error).__name__, detail=str(error))
            return "timeout" if isinstance(error, SourceTimeout) else "down"
        work = _Work(parsed, None)
        if parsed.quotes:
            work.clock, work.canary = clock, int(time.time() * 1000)
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
        work = _Work(parsed, self._now() if parsed.quotes else None)
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
                else:
                    self._publish([], None, self._bars([], None))
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
        clock: int | None = None
        for work in works:
            quotes.extend(work.parsed.quotes)
            canary = work.canary or canary
            clock = work.clock or clock
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
            self._publish(accepted.groups, canary, self._bars_or_none(accepted.quotes, clock))
        finally:
            for work in works:
                work.done.set()

    def _publish(self, groups: list[Group], canary: int | None, bars: klines.Group) -> None:
        try:
            self.publisher.publish(groups, canary, bars)
            if self.publisher.terms != self._terms:
                # Receivers have what another publisher said of the bars, and this one was not heard meanwhile.
                self._terms = self.publisher.terms
                with self._building:
                    current = self.builder.current(self._demand.wanted)
                self.publisher.publish([], None, klines.group(current))
        except PublishError as error:
            metrics.PUBLISH_FAILURES.labels(self.publisher.feed).inc()
            log.error("publish_failed", terminal=self.terminal, owed=self.publisher.owed, detail=str(error))

    def _bars_or_none(self, quotes: list[Quote], clock: int | None) -> klines.Group:
        try:
            return self._bars(quotes, clock)
        except Exception:
            # The quotes go out whatever becomes of the bars.
            metrics.BAR_QUOTES.labels(self.terminal, "failed").inc(len(quotes))
            log.exception("bars_failed", terminal=self.terminal, quotes=len(quotes))
            return {}

    def _bars(self, quotes: list[Quote], clock: int | None) -> klines.Group:
        """Fold quotes; what is to be said of the bars that somebody wants."""
        demand, builder = self._demand, self.builder
        before = demand.wanted
        news = demand.look()
        if demand.wanted is not before:
            self.publisher.forget_bars(demand.wanted)
            self._show_demand()
        with self._building:
            builder.take(quotes)
            self._count()
            if clock is not None:
                builder.advance(clock)
            bars = builder.drain(demand.wanted)
            if news:
                bars += builder.current(news)
            # Last, as what a terminal says of a bar counts more than what was drained of it.
            while self._settled:
                bar = self._settled.popleft()
                if klines.is_wanted(demand.wanted, bar.period, bar.symbol):
                    bars.append(bar)
        return klines.group(bars)

    def _count(self) -> None:
        """Bring the builder's counts into the metrics."""
        for reason, counted in asdict(self.builder.counts).items():
            if counted != (before := self._counted.get(reason, 0)):
                metrics.BAR_QUOTES.labels(self.terminal, reason).inc(counted - before)
                self._counted[reason] = counted

    def _show_demand(self) -> None:
        everything = len(self._ingest.symbols())
        for period in PERIODS:
            names = self._demand.wanted.get(period, frozenset())
            metrics.BARS_WANTED.labels(self.terminal, period).set(everything if names is None else len(names))

    def settle(self, bars: Iterable[Bar]) -> list[LiveBar]:
        """Put the terminal's own bars in the place of those that were built; what changed is also published. From any thread."""
        with self._building:
            found = self.builder.settle(bars)
            self._settled.extend(found)
        return found

    def provisional(self, limit: int, since: int = 0) -> list[LiveBar]:
        """Closed bars with ends from ``since`` (ms) on that wait for the terminal's own, all of a symbol's together, of up to
        about ``limit`` symbols: half of them such as somebody wants, then the others, where the last call ended. From any thread.
        """
        symbols = self._ingest.symbols()
        wanted = sorted({symbol for chosen in self._demand.wanted.values() for symbol in chosen or ()})
        with self._building:
            found = self.builder.closed(wanted[: limit // 2], since)
        taken = {bar.symbol for bar in found}
        for _ in range(0, len(symbols), PROVISIONAL_CHUNK):
            if len(taken) >= limit:
                break
            start = self._looked_through % len(symbols)
            chunk = symbols[start : start + PROVISIONAL_CHUNK]
            self._looked_through = start + len(chunk)
            with self._building:
                more = self.builder.closed([symbol for symbol in chunk if symbol not in taken], since)
            found += more
            taken.update(bar.symbol for bar in more)
        return found

    def _now(self) -> int:
        """The market's time in ms."""
        return self.publisher.clock() or time.time_ns() // 1_000_000


def _clock_of(source: Source, config: Config) -> Callable[[], int | None]:
    """The market's time where the source has one of its own."""
    if config.source == "replay" or (config.source == "simulated" and config.simulated_clock == "virtual"):
        return lambda: source.status().time
    return lambda: None


def _recorder(feed: str) -> Recorder:
    return Recorder(RecordingArchive(config.archive, config.market), feed=feed, days=config.record_days)


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
            recorder = _recorder(name) if config.record else None
            publisher = Publisher(
                feed=name,
                source=source.name,
                owner=owner,
                lease=lease_of(name),
                send=publish.bridge.send,
                save_snapshot=_save_snapshot,
                clock=_clock_of(source, config),
                record=recorder.take if recorder else None,
            )
            feed = _feeds[terminal] = Feed(
                terminal=terminal, source=source, publisher=publisher, config=config, recorder=recorder
            )
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

"""A terminal's feed: its source, the loop that ingests and publishes, and the poll beside it.

Pushes and polls are one path: both put what was parsed into one bounded queue, and one thread takes it out, ingests it and
publishes. Trades take the same way, of those symbols of which somebody wants them. The queue's policy when full is to wait: a
replay then waits too, a terminal's child keeps what it can, a poll gives up at its deadline. The same thread takes the lease and
keeps it while the terminal is well.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from argus.config import Config
from marketdata import klines, metrics
from marketdata.continuity import Continuity
from marketdata.events import Event
from marketdata.ingest import Group, Ingest
from marketdata.listen import Listener
from marketdata.live_bars import LiveBars
from marketdata.publish import PublishError
from marketdata.publisher import Publisher
from marketdata.recordings.recorder import Recorder
from marketdata.sources.base import (
    Capability,
    Source,
    SourceError,
    SourceStatus,
    SourceTimeout,
    State,
    Subscription,
    TradeSubscription,
    Unsupported,
)
from marketdata.terminals.latency import Window
from marketdata.trades import Trades
from marketdata.types import DataType, Parsed, ParsedTrades, Quote, Trade

log = structlog.get_logger(__name__)

QUEUE_SIZE = 256
"""Parsed batches that may wait between the source and the publisher."""
MERGE_QUOTES = 6000
"""A message carries what waits in the queue, up to about this many quotes and trades (one sweep of the A-share market)."""
RECONCILE_SLICES = 10
"""While pushes are fresh, a poll fetches this part of the universe only: all of it in as many polls."""
PUSHES_FIRST = 1.0
"""Seconds for which an answer waits while pushes are fresh: what it shows, and what came before, may be on its way with them."""
STOP_TIMEOUT = 2.0
LOOK = 0.2
"""Seconds between two looks at the source and the lease."""
PATIENCE = 5.0
"""Seconds without a usable answer or push after which a terminal is not well, where polls are frequent."""
MISSED_POLLS = 3
"""Polls that a terminal may leave without a usable answer where they are rare."""
RESERVE_AFTER = 0.5
"""Seconds for which a lease has been free before a reserve takes it: others go first."""
UNSOUND_AFTER = 1.0
"""The same for whoever cannot say all that was missed."""


@dataclass(slots=True)
class _Work:
    """One parsed batch on its way; ``canary`` is the time of a poll that the source answered.

    ``clock`` is the market's time before it was asked for (ms): nothing in a later batch can be older than that by more than
    the source's own delay, so that bars may be closed by it. None where the source had nothing to show.
    """

    parsed: Parsed
    clock: int | None
    canary: int | None = None
    trades: tuple[Trade, ...] = ()
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def size(self) -> int:
        """Quotes and trades."""
        return len(self.parsed.quotes) + len(self.trades)


class Feed:
    """One terminal's feed: started once, polled by Celery, stopped once.

    ``drained``: it does not publish, and gives the lease up. ``reserve``: it takes the lease where nobody else does.
    ``accepts``: whether a symbol is published here; None: whatever the terminal has. ``excused``: that it is away is expected
    now. All four may be set from any thread, and act within ``LOOK``.
    """

    def __init__(
        self,
        *,
        terminal: str,
        source: Source,
        publisher: Publisher,
        config: Config,
        recorder: Recorder | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.terminal = terminal
        self.source = source
        self.publisher = publisher
        self.drained = False
        self.reserve = False
        self.excused = False
        self.accepts: Callable[[str], bool] | None = None
        self.canary: int | None = None
        """When (wall clock, ms) the source last answered a poll with a usable quote."""
        self.quoted: int | None = None
        """The newest exchange time (ms) among its quotes."""
        self.reference_at: float | None = None
        self.universe: tuple[str, ...] = ()
        """What is reconciled, slice by slice: as of the last refresh of the reference data."""
        self.bars = LiveBars(terminal)
        self._config = config
        self._recorder = recorder
        self._listener = listener
        self._took = Window()
        self._timing = threading.Lock()
        self._ingest = Ingest()
        self._continuity = Continuity()
        self._wanted: klines.Wanted = {}
        self._terms = 0
        self._queue: queue.Queue[_Work] = queue.Queue(QUEUE_SIZE)
        self._waiting: deque[tuple[float, tuple[Quote, ...]]] = deque()
        """What polls brought beside fresh pushes, and from when on it counts."""
        self._stopping = threading.Event()
        self._polling = threading.Lock()
        self._subscription: Subscription | None = None
        self._trades = Trades()
        self._trade_subscription: TradeSubscription | None = None
        self._watched: frozenset[str] | None = frozenset()
        self._watching = threading.Lock()
        self._without_trades = False
        self._slice = 0
        self._pushed_at = 0.0
        self._answered_at = -PATIENCE * 1000
        self._look_at = 0.0
        self._free_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"feed-{terminal}", daemon=True)

    @property
    def epoch(self) -> int | None:
        """The epoch under which this feed publishes; None while it does not."""
        return self.publisher.epoch if self.publisher.active else None

    @property
    def in_step(self) -> bool:
        """Whether it could take over at this moment without a loss."""
        return self.publisher.could_recover(self._continuity.since)

    @property
    def unbroken_since(self) -> float | None:
        """Since when (monotonic clock) nothing of the terminal's own can have got lost; None while something may."""
        return self._continuity.since

    def latency(self, quantile: float) -> float | None:
        """Within how many seconds that part of the lately answered polls was; None while there were none."""
        with self._timing:
            return self._took.quantile(quantile, time.monotonic())

    def start(self) -> None:
        """Start the source and the loop; returns at once."""
        if self._listener is not None:
            self._listener.start()
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
        if self._listener is not None:
            self._listener.stop()
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
            self._subscribe_trades()
            symbols = self._poll_symbols()
            clock = self._now()
            began = time.monotonic()
            parsed = self.source.fetch_quotes(symbols, timeout=self._config.source_timeout, request_id=request_id)
            self._timed(time.monotonic() - began)
        except SourceError as error:
            write = log.info if self.excused else log.warning
            write("poll_failed", terminal=self.terminal, error=type(error).__name__, detail=str(error))
            return "timeout" if isinstance(error, SourceTimeout) else "down"
        work = _Work(parsed, None)
        # A recording of trades alone is well without a quote.
        if parsed.quotes or Capability.QUOTES not in self.source.capabilities():
            self._answered()
            work.clock, work.canary = clock if parsed.quotes else None, int(time.time() * 1000)
        try:
            self._queue.put(work, timeout=max(0.0, deadline - time.monotonic()))
        except queue.Full:
            log.warning("poll_backlog", terminal=self.terminal, waiting=self._queue.qsize())
            return "backlog"
        work.done.wait(max(0.0, deadline - time.monotonic()))
        log.debug("polled", terminal=self.terminal, quotes=len(parsed.quotes), errors=len(parsed.errors))
        return "ok"

    def _timed(self, seconds: float) -> None:
        metrics.POLL_SECONDS.labels(self.terminal).observe(seconds)
        with self._timing:
            self._took.add(seconds, time.monotonic())

    def _polled(self, outcome: str) -> str:
        metrics.POLLS.labels(self.terminal, outcome).inc()
        return outcome

    def _poll_symbols(self) -> tuple[str, ...] | None:
        """None for a full sweep, or the slice to reconcile while pushes are fresh."""
        if not self._pushes_are_fresh():
            return None
        if not self.universe:
            self.universe = self.source.universe(timeout=self._config.source_timeout)
        self._slice = (self._slice + 1) % RECONCILE_SLICES
        return self.universe[self._slice :: RECONCILE_SLICES] or None

    def _pushes_are_fresh(self) -> bool:
        return time.monotonic() - self._pushed_at <= self._config.stale_after

    def _subscribe(self) -> None:
        if (
            self._subscription is None
            and Capability.PUSH in self.source.capabilities()
            and self.source.status().state == State.UP
        ):
            self._subscription = self.source.subscribe(None, self._pushed)
            log.info("feed_subscribed", terminal=self.terminal)

    def _subscribe_trades(self) -> None:
        """Subscribe trades once somebody wants some, where the source has them."""
        wanted = self._wanted.get(DataType.TRADE, frozenset())
        if wanted == frozenset() or self._trade_subscription is not None or self.source.status().state != State.UP:
            return
        try:
            if Capability.TRADES not in self.source.capabilities():
                raise Unsupported("it has no trades")
            self._trade_subscription = self.source.subscribe_trades(self._traded)
        except SourceError as error:
            # Quotes go on without them.
            if not self._without_trades:
                self._without_trades = True
                log.warning("without_trades", terminal=self.terminal, error=type(error).__name__, detail=str(error))
            return
        self._without_trades = False
        log.info("trades_subscribed", terminal=self.terminal)
        self._watch()

    def _watch(self) -> None:
        """Tell the source whose trades are wanted, where that has changed."""
        with self._watching:
            wanted = self._wanted.get(DataType.TRADE, frozenset())
            if self._trade_subscription is not None and wanted != self._watched:
                self._trade_subscription.watch(wanted)
                self._watched = wanted

    def _traded(self, parsed: ParsedTrades) -> None:
        self._put(_Work(Parsed(errors=parsed.errors), None, trades=parsed.trades))

    def _pushed(self, parsed: Parsed) -> None:
        self._pushed_at = time.monotonic()
        if parsed.quotes:
            self._answered()
        self._put(_Work(parsed, self._now() if parsed.quotes else None))

    def _put(self, work: _Work) -> None:
        while not self._stopping.is_set():
            try:
                self._queue.put(work, timeout=0.2)
                return
            except queue.Full:
                continue

    def _answered(self) -> None:
        now = time.monotonic()
        if now - self._answered_at > PATIENCE:
            # What it says first need not wait for the next look.
            self._look_at = 0.0
        self._answered_at = now

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                works = self._take()
                self._look()
                if works:
                    self._handle(works)
                else:
                    self._publish([], None, self._bars([], None))
                self._reconcile()
            except Exception:
                # The edge of this thread: one bad batch must not end the feed; counted by the log's level and seen in it.
                metrics.QUOTES.labels(self.publisher.feed, "failed").inc()
                log.exception("feed_failed", terminal=self.terminal)

    def _take(self) -> list[_Work]:
        try:
            works = [self._queue.get(timeout=LOOK)]
        except queue.Empty:
            return []
        size = works[0].size
        while size < MERGE_QUOTES:
            try:
                works.append(self._queue.get_nowait())
            except queue.Empty:
                break
            size += works[-1].size
        return works

    def _look(self) -> None:
        """Hear what others publish; take, keep or give up the lease, as the terminal is."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        publisher = self.publisher
        publisher.listen()
        status = self.source.status()
        self._continuity.look(status, now, subscribed=self._subscription is not None)
        if self.drained or not self._well(status, now):
            self._free_since = None
            publisher.resign()
        elif publisher.active or self._turn_has_come(now):
            self._hold()
        metrics.ACTIVE.labels(publisher.feed, self.terminal).set(1 if publisher.active else 0)
        metrics.PENDING.labels(publisher.feed, self.terminal).set(publisher.ledger.pending)
        metrics.EVENTS_PENDING.labels(publisher.feed, self.terminal).set(publisher.events.pending)

    def _well(self, status: SourceStatus, now: float) -> bool:
        patience = max(PATIENCE, MISSED_POLLS * self._config.poll_interval)
        return status.state in (State.UP, State.FINISHED) and now - self._answered_at <= patience

    def _turn_has_come(self, now: float) -> bool:
        """Whether nobody who should go first has taken the lease."""
        sound = self.in_step or self.publisher.first
        patience = UNSOUND_AFTER if not sound else RESERVE_AFTER if self.reserve else 0.0
        if not patience:
            return True
        if not self.publisher.free():
            self._free_since = None
            return False
        if self._free_since is None:
            self._free_since = now
        return now - self._free_since >= patience

    def _hold(self) -> None:
        try:
            self.publisher.hold(self._continuity.since)
        except PublishError as error:
            self._refused(error)
        if self.publisher.terms != self._terms:
            # Receivers have what another publisher said of the bars, and this one was not heard meanwhile.
            self._terms = self.publisher.terms
            self._publish([], None, self.bars.forming())

    def _handle(self, works: list[_Work]) -> None:
        metrics.QUEUE_DEPTH.labels(self.terminal).set(self._queue.qsize())
        quotes: list[Quote] = []
        trades: list[Trade] = []
        canary: int | None = None
        clock: int | None = None
        for work in works:
            if work.canary is not None and self._pushes_are_fresh():
                self._waiting.append((time.monotonic() + PUSHES_FIRST, work.parsed.quotes))
            else:
                quotes.extend(work.parsed.quotes)
            trades.extend(work.trades)
            canary = work.canary or canary
            clock = work.clock or clock
            for error in work.parsed.errors:
                metrics.PARSE_ERRORS.labels(self.terminal, error.reason).inc()
        if canary is not None:
            self.canary = canary
        try:
            self._accept(quotes, canary, clock, self._new_trades(trades))
        finally:
            for work in works:
                work.done.set()

    def _reconcile(self) -> None:
        """Take of the polls beside the pushes what these have not brought."""
        while self._waiting and time.monotonic() >= self._waiting[0][0]:
            _, quotes = self._waiting.popleft()
            if found := self._ingest.ahead(quotes):
                self._accept(found, None, None)

    def _new_trades(self, trades: list[Trade]) -> list[Event]:
        if not trades:
            return []
        if (accepts := self.accepts) is not None:
            trades = [trade for trade in trades if accepts(trade.symbol)]
        found = self._trades.take(trades)
        metrics.TRADES.labels(self.publisher.feed, "accepted").inc(len(found))
        metrics.TRADES.labels(self.publisher.feed, "duplicates").inc(len(trades) - len(found))
        return found

    def _accept(self, quotes: list[Quote], canary: int | None, clock: int | None, trades: Iterable[Event] = ()) -> None:
        if (accepts := self.accepts) is not None:
            quotes = [quote for quote in quotes if accepts(quote.symbol)]
        accepted = self._ingest.take(quotes)
        if accepted.quotes:
            newest = max(quote.time for quote in accepted.quotes)
            self.quoted = newest if accepted.clock_resets or self.quoted is None else max(newest, self.quoted)
        feed = self.publisher.feed
        for outcome in ("accepted", "duplicates", "late", "clock_resets"):
            if count := getattr(accepted, outcome):
                metrics.QUOTES.labels(feed, outcome).inc(count)
        if accepted.clock_resets:
            log.warning("clock_reset", terminal=self.terminal, symbols=accepted.clock_resets)
        bars = self._bars(accepted.quotes, clock)
        self._publish(accepted.groups, canary, bars, trades, quotes=accepted.quotes)

    def _bars(self, quotes: list[Quote], clock: int | None) -> klines.Group:
        # A bar that had closed before somebody began to want it is told by whoever publishes then.
        said = self.bars.take(quotes, clock, anew=self.publisher.active)
        if self.bars.demand.wanted is not self._wanted:
            self._wanted = self.bars.demand.wanted
            self.publisher.forget_bars(self._wanted)
            self._watch()
        return said

    def _publish(
        self,
        groups: list[Group],
        canary: int | None,
        bars: klines.Group,
        trades: Iterable[Event] = (),
        quotes: list[Quote] | None = None,
    ) -> None:
        try:
            self.publisher.publish(groups, canary, bars, trades, quotes=quotes)
        except PublishError as error:
            self._refused(error)

    def _refused(self, error: PublishError) -> None:
        metrics.PUBLISH_FAILURES.labels(self.publisher.feed).inc()
        log.error("publish_failed", terminal=self.terminal, pending=self.publisher.ledger.pending, detail=str(error))

    def _now(self) -> int:
        """The market's time in ms."""
        return self.publisher.clock() or time.time_ns() // 1_000_000

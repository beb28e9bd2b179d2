"""Recorded sessions as a live market: one thread plays the timeline to all subscribers, in the files' own time.

* The clock starts with the first subscriber, so nothing is lost for whoever asked first. It then runs on like a market:
  who comes later gets the state first, and the changes from there.
* Trades are given to those who watch their symbols; the first one who watches any counts as a subscriber too.
* A subscriber that blocks is waited for; afterwards the replay catches up at once (``pace``). With several subscribers the
  slowest sets the pace. One that raises has had its rows; the error is logged and the replay goes on.
* The state that ``fetch_quotes`` answers holds what every subscriber has been given, never more: a poll cannot overtake
  the push.
* ``loop`` plays the files again with every time moved forward by as many whole days as the recording spans, so time never
  goes back for consumers; ``status`` says by how many.
* Pauses of more than two hours are skipped (``pace``). The wall clock is never read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from marketdata.exchanges import Kind
from marketdata.sources.base import (
    Bars,
    Capability,
    OnParsed,
    OnTrades,
    SourceStatus,
    SourceTimeout,
    SourceUnavailable,
    State,
    Unsupported,
)
from marketdata.sources.replay.bars import PERIODS, closed_bars
from marketdata.sources.replay.formats import open_recording
from marketdata.sources.replay.pace import Clock, MonotonicClock, Pace
from marketdata.sources.replay.recording import SOURCE, Recording, RecordingError, Span
from marketdata.sources.replay.subscriber import Subscriber, TradeSubscriber
from marketdata.sources.replay.timeline import Step, days_per_pass, steps, together
from marketdata.symbols import kind as kind_of
from marketdata.symbols import price_tick
from marketdata.types import Dividend, Instrument, Parsed, Period, Quote

log = structlog.get_logger(__name__)

JOIN_TIMEOUT = 1.8
"""Seconds that ``close`` waits for the thread, which a blocking subscriber may hold."""
OF_QUOTES = frozenset({Capability.QUOTES, Capability.PUSH, Capability.BARS})
"""What recordings of quotes can be asked for; no quote is made up where there are trades alone."""


class ReplaySource:
    """Recorded files, played ``speed`` times as fast as recorded (0: as fast as subscribers take it).

    Raises ``RecordingError`` (a ``ValueError``) for a file that is missing or of no known format. A file that turns out to
    be damaged when it is read makes the source DOWN, with the reason in ``status``.
    """

    name = SOURCE

    def __init__(
        self, *, files: Sequence[str | Path], speed: float = 1.0, loop: bool = False, clock: Clock | None = None
    ) -> None:
        if not files:
            raise ValueError("a replay needs at least one file")
        if not speed >= 0:
            raise ValueError(f"{speed!r} is not a replay speed: 0 or more")
        self._files = [Path(file) for file in files]
        self._recordings = [(path, _open(path)) for path in self._files]
        self._speed, self._loop = speed, loop
        self._clock = clock or MonotonicClock()
        self._pace = Pace(speed)
        self._state, self._detail = State.STARTING, "not started"
        self._time: int | None = None
        self._span: Span | None = None
        self._shift = 0
        self._latest: dict[str, Quote] = {}
        self._lock = threading.Lock()
        self._newcomers: list[Subscriber] = []
        self._subscribers: list[Subscriber] = []
        self._trade_subscribers: list[TradeSubscriber] = []
        self._of_quotes = not all(recording.trades for _, recording in self._recordings)
        self._of_trades = any(recording.trades for _, recording in self._recordings)
        self._opened, self._wake, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read the files; returns at once. Raises ``SourceUnavailable`` once closed."""
        if self._closing.is_set():
            raise SourceUnavailable("closed")
        if self._thread is None:
            self._detail = "reading the files"
            self._thread = threading.Thread(target=self._run, name=SOURCE, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the replay and every subscription."""
        self._closing.set()
        self._wake.set()
        self._opened.set()
        with self._lock:
            for subscriber in (*self._newcomers, *self._subscribers):
                subscriber.closed = True
            for trade_subscriber in self._trade_subscribers:
                trade_subscriber.closed = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_TIMEOUT)

    def status(self) -> SourceStatus:
        """How the replay stands; ``time`` is the last step's, before the first one the recording's beginning."""
        if self._closing.is_set():
            return SourceStatus(state=State.DOWN, detail="closed", time=self._time)
        return SourceStatus(state=self._state, detail=self._detail, time=self._time)

    def capabilities(self) -> frozenset[Capability]:
        """Quotes, their pushes and bars, or trades, as the files have them, and what the symbols tell; nothing before the files
        have been read."""
        if self.status().state not in (State.UP, State.FINISHED):
            return frozenset()
        found = {Capability.INSTRUMENTS, *([Capability.TRADES] if self._of_trades else ())}
        return OF_QUOTES | found if self._of_quotes else frozenset(found)

    def universe(self, *, timeout: float) -> tuple[str, ...]:
        """The files' symbols in order of appearance."""
        return self._read(timeout).symbols

    def fetch_quotes(self, symbols: Sequence[str] | None = None, *, timeout: float, request_id: str = "") -> Parsed:
        """The state at the replay's clock; nothing before the first step."""
        span = self._read(timeout)
        latest = self._latest
        found = (latest.get(symbol) for symbol in (span.symbols if symbols is None else symbols))
        return Parsed(tuple(quote for quote in found if quote is not None))

    def subscribe(self, symbols: Sequence[str] | None, on_parsed: OnParsed) -> Subscriber:
        """Push from now on; callbacks come from the replay's thread. The first subscriber starts the clock."""
        self._pushes(self._of_quotes, "these recordings hold no quotes")
        subscriber = Subscriber(symbols, on_parsed, self._wake.set)
        with self._lock:
            self._newcomers.append(subscriber)
        self._wake.set()
        return subscriber

    def subscribe_trades(self, on_trades: OnTrades) -> TradeSubscriber:
        """Push the trades of what is watched from now on; callbacks come from the replay's thread."""
        self._pushes(self._of_trades, "these recordings hold no trades")
        subscriber = TradeSubscriber(on_trades, self._wake.set)
        with self._lock:
            self._trade_subscribers.append(subscriber)
        return subscriber

    def _pushes(self, recorded: bool, otherwise: str) -> None:
        if self._thread is None or self.status().state == State.DOWN:
            raise SourceUnavailable(self.status().detail)
        if not recorded:
            raise Unsupported(otherwise)

    def fetch_bars(
        self,
        symbols: Sequence[str],
        period: Period,
        *,
        start: int | None = None,
        end: int | None = None,
        count: int | None = None,
        timeout: float,
        request_id: str = "",
    ) -> Bars:
        """Bars of 1m and 1d of the files' days, built from their quotes up to the replay's clock."""
        if period not in PERIODS or not self._of_quotes:
            raise Unsupported(f"a replay has bars of {', '.join(PERIODS)}, made of quotes, not {period}")
        deadline = time.monotonic() + timeout
        known = frozenset(self._read(timeout).symbols)
        chosen = [symbol for symbol in dict.fromkeys(symbols) if symbol in known]
        if not chosen or self._time is None:
            return Bars({})
        # Files of its own: those that are being played stand where they are.
        again = steps([_open(path) for path in self._files], shift_days=self._shift)
        found = closed_bars(again, chosen, period, self._time, lambda: self._closing.is_set() or time.monotonic() > deadline)
        if found is None:
            raise SourceTimeout(f"the recording was not read up to its clock within {timeout} s")
        cut = {symbol: series.between(start, end) for symbol, series in found.items()}
        if count is not None:
            cut = {symbol: series.last(count) for symbol, series in cut.items()}
        return Bars({symbol: series for symbol, series in cut.items() if len(series)})

    def fetch_dividends(self, symbols: Sequence[str], *, timeout: float) -> dict[str, tuple[Dividend, ...]]:
        """Not in these recordings."""
        raise Unsupported("a replay has no dividends")

    def fetch_codes(self, kind: Kind, *, timeout: float) -> tuple[str, ...]:
        """The files' symbols of a kind."""
        return tuple(symbol for symbol in self._read(timeout).symbols if kind_of(symbol) is kind)

    def fetch_main_contracts(self, *, timeout: float) -> dict[str, str]:
        """Not in these recordings."""
        raise Unsupported("a replay has no main contracts")

    def fetch_index_weights(self, index: str, *, timeout: float) -> dict[str, float]:
        """Not in these recordings."""
        raise Unsupported("a replay has no index weights")

    def fetch_instruments(self, symbols: Sequence[str], *, timeout: float) -> Iterable[Instrument]:
        """What the codes of the files' symbols tell."""
        known = frozenset(self._read(timeout).symbols)
        return [
            Instrument(symbol=symbol, kind=kind_of(symbol), price_tick=price_tick(symbol), source=SOURCE)
            for symbol in symbols
            if symbol in known
        ]

    def fetch_sectors(self, *, timeout: float) -> dict[str, tuple[str, ...]]:
        """Not in these recordings."""
        raise Unsupported("a replay has no sectors")

    def fetch_trading_dates(self, market: str, *, timeout: float) -> tuple[str, ...]:
        """Not in these recordings."""
        raise Unsupported("a replay has no calendar")

    def _read(self, timeout: float) -> Span:
        """What the files hold, once they have been read."""
        if self._thread is None:
            raise SourceUnavailable(self._detail)
        if not self._opened.wait(timeout):
            raise SourceTimeout("the files are still being read")
        if self._span is None or self.status().state == State.DOWN:
            raise SourceUnavailable(self.status().detail)
        return self._span

    def _run(self) -> None:
        try:
            span = self._scan()
            self._play([recording for _, recording in self._recordings], span)
            self._recordings.clear()
            while self._awake():
                self._wake.wait()
        except Exception as error:
            # The edge of this thread, beyond which nobody would notice: seen in status and in the log.
            known = isinstance(error, RecordingError | OSError)
            log.error("replay_failed", detail=str(error), exc_info=None if known else error)
            self._detail = str(error) if known else f"{type(error).__name__}: {error}"
            self._state = State.DOWN
        finally:
            self._opened.set()

    def _scan(self) -> Span:
        spans = []
        for path, recording in self._recordings:
            try:
                spans.append(recording.scan())
            except (RecordingError, OSError) as error:
                raise RecordingError(f"cannot replay {path}: {error}") from error
        span = self._span = together(spans)
        self._time = span.first
        self._state, self._detail = State.UP, "waiting for the first subscriber"
        self._opened.set()
        log.info("replay_opened", files=len(spans), rows=span.rows, symbols=len(span.symbols), speed=self._speed)
        return span

    def _play(self, recordings: list[Recording], span: Span) -> None:
        while self._awake() and not self._asked():
            self._wake.wait()
        shift, speed = 0, f"at {self._speed:g}x" if self._speed else "as fast as possible"
        while not self._closing.is_set():
            self._detail = f"playing {speed}" + (f", moved forward by {shift} days" if shift else "")
            for step in steps(recordings, shift_days=shift):
                if not self._wait_for(step.time):
                    return
                self._deliver(step)
            if not self._loop:
                self._state, self._detail = State.FINISHED, "the recording is over"
                log.info("replay_finished")
                return
            shift += days_per_pass(span)
            self._shift = shift

    def _wait_for(self, time_ms: int) -> bool:
        """Wait until a ms is due. False when the replay is to end."""
        while self._awake():
            seconds = self._pace.due_in(time_ms, self._clock.now())
            if seconds == 0:
                return True
            self._clock.wait(self._wake, seconds)
        return False

    def _asked(self) -> bool:
        """Whether somebody takes what is to be played."""
        with self._lock:
            return bool(self._subscribers) or any(subscriber.watches for subscriber in self._trade_subscribers)

    def _awake(self) -> bool:
        """Give newcomers the state and forget who left. False when the replay is to end."""
        self._wake.clear()
        with self._lock:
            newcomers, self._newcomers = self._newcomers, []
            self._subscribers = [subscriber for subscriber in (*self._subscribers, *newcomers) if not subscriber.closed]
            self._trade_subscribers = [subscriber for subscriber in self._trade_subscribers if not subscriber.closed]
        state = Parsed(tuple(self._latest.values())) if newcomers else Parsed()
        for subscriber in newcomers:
            subscriber.deliver(state)
        return not self._closing.is_set()

    def _deliver(self, step: Step) -> None:
        with self._lock:
            trade_subscribers = list(self._trade_subscribers)
        for trade_subscriber in trade_subscribers:
            trade_subscriber.deliver(step.trades)
        for subscriber in self._subscribers:
            subscriber.deliver(step.parsed)
        self._latest.update((quote.symbol, quote) for quote in step.parsed.quotes)
        self._time = step.time


def _open(path: Path) -> Recording:
    try:
        return open_recording(path)
    except RecordingError as error:
        raise RecordingError(f"cannot replay {path}: {error}") from error

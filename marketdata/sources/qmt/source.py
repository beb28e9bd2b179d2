"""A QMT terminal as a source: the protocol of ``marketdata.sources.base`` over the terminal's child process."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import structlog

from marketdata.exchanges import FUTURES, Kind
from marketdata.series import Series, join
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
from marketdata.sources.qmt import messages
from marketdata.sources.qmt.mailbox import BOUND, Mailbox
from marketdata.sources.qmt.supervisor import Supervisor
from marketdata.sources.qmt.trade_subscription import TradeSubscription
from marketdata.types import Dividend, Instrument, Parsed, ParsedTrades, ParseError, Period, Quote

log = structlog.get_logger(__name__)

SILENCE: Final = 10.0
"""Seconds without a push after which the terminal is asked whether it knows something newer (a snapshot comes each 3 s)."""
PART: Final = 99
"""Symbols or sectors in one call of the long ones, so that polls get their turn in between."""
STRETCH: Final = 31 * 86_400_000
"""Milliseconds of 1m bars that one call asks for: some 5,000 bars of each symbol."""

Answered = TypeVar("Answered")


class _Subscription:
    """A running push: what the child sends waits here for a callback that may block."""

    def __init__(self, source: QmtSource, number: int, on_parsed: OnParsed) -> None:
        self._source = source
        self._number = number
        self._on_parsed = on_parsed
        self.mailbox: Mailbox[Quote | ParseError] = Mailbox(BOUND)
        self._thread = threading.Thread(target=self._run, name=f"qmt-deliver-{number}", daemon=True)
        self._thread.start()

    def arrived(self, parsed: Parsed) -> None:
        """From the child, in the terminal's order."""
        self.mailbox.put((quote.symbol, quote) for quote in parsed.quotes)
        self.mailbox.put((f"{error.symbol} {error.reason}", error) for error in parsed.errors)

    def _run(self) -> None:
        while not self.mailbox.closed:
            waiting = self.mailbox.take()
            quotes = tuple(value for value in waiting if isinstance(value, Quote))
            errors = tuple(value for value in waiting if isinstance(value, ParseError))
            if not waiting or self.mailbox.closed:
                continue
            try:
                self._on_parsed(Parsed(quotes, errors))
            except Exception:
                # The edge of this thread: a receiver that fails once must not end the push.
                log.exception("qmt_receiver_failed", push=self._number)

    def close(self) -> None:
        """End the push."""
        self._source.drop(self._number)
        self.mailbox.close()
        if self._thread is not threading.current_thread():
            self._thread.join(2.0)


class QmtSource:
    """One terminal at ``address`` (HOST:PORT). ``name`` names the terminal in logs; values carry the source ``qmt``.

    ``timeout``: seconds that the terminal may take to connect or to subscribe before its process is started anew.
    ``silence``: seconds without a push after which the terminal is asked whether it knows something newer.
    """

    def __init__(self, *, name: str, address: str, timeout: float, silence: float = SILENCE) -> None:
        self.name: str = "qmt"
        self.refused_bars: Counter[str] = Counter()
        self._address = address
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._wanting = threading.Lock()
        self._subscriptions: dict[int, tuple[_Subscription, tuple[str, ...] | None]] = {}
        self._trade_subscriptions: list[TradeSubscription] = []
        self._dropped_before = 0
        self._overflows_before = 0
        self._supervisor = Supervisor(
            terminal=name,
            address=address,
            timeout=timeout,
            silence=silence,
            on_pushed=self._pushed,
            on_trades=self._traded,
        )

    def start(self) -> None:
        """Start the child process; returns at once."""
        self._supervisor.start()

    def close(self) -> None:
        """End subscriptions and the child process."""
        self._supervisor.close()
        with self._lock:
            subscriptions = [subscription for subscription, _ in self._subscriptions.values()]
            trade_subscriptions = list(self._trade_subscriptions)
        for subscription in subscriptions:
            subscription.close()
        for trade_subscription in trade_subscriptions:
            trade_subscription.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return self._supervisor.pid

    def status(self) -> SourceStatus:
        """How the terminal is now."""
        supervisor = self._supervisor
        with self._lock:
            backlogs = [subscription.backlog for subscription in self._trade_subscriptions]
            dropped = self._dropped_before + sum(backlog.dropped for backlog in backlogs)
            dropped += sum(subscription.mailbox.merged for subscription, _ in self._subscriptions.values())
            overflows = self._overflows_before + sum(backlog.overflows for backlog in backlogs)
        return SourceStatus(
            state=supervisor.state,
            detail=supervisor.report.detail,
            address=self._address,
            version=supervisor.report.version or None,
            time=supervisor.time,
            restarts=supervisor.restarts,
            interruptions=supervisor.interruptions + overflows,
            dropped=dropped + supervisor.dropped,
        )

    def capabilities(self) -> frozenset[Capability]:
        """As probed on this terminal."""
        return self._supervisor.capabilities

    def _ask(self, request: messages.Request, answer: type[Answered], timeout: float, request_id: str = "") -> Answered:
        body = self._supervisor.call(request, timeout=timeout, request_id=request_id)
        return msgspec.msgpack.decode(body, type=answer)

    def universe(self, *, timeout: float) -> tuple[str, ...]:
        """The A shares of the three exchanges and the core indices, as far as the terminal knows them."""
        return self._ask(messages.FetchUniverse(), tuple[str, ...], timeout)

    def fetch_quotes(self, symbols: Sequence[str] | None = None, *, timeout: float, request_id: str = "") -> Parsed:
        """The terminal's full tick of each symbol; ``{}`` of a symbol is a ``ParseError``."""
        wanted = None if symbols is None else tuple(symbols)
        return self._ask(messages.FetchQuotes(wanted), Parsed, timeout, request_id)

    def subscribe(self, symbols: Sequence[str] | None, on_parsed: OnParsed) -> _Subscription:
        """Push quotes; the subscription outlives restarts of the terminal and of its child process.

        What ``on_parsed`` has no time for waits in order; beyond ``mailbox.BOUND`` of it, it is merged to the newest per symbol
        and counted in the status' ``dropped``.
        """
        if self._supervisor.closed:
            raise SourceUnavailable("closed")
        if self._supervisor.state == State.UP and Capability.PUSH not in self.capabilities():
            raise Unsupported("this terminal does not push")
        number = next(self._numbers)
        subscription = _Subscription(self, number, on_parsed)
        with self._lock:
            self._subscriptions[number] = (subscription, None if symbols is None else tuple(symbols))
        self._want()
        return subscription

    def drop(self, number: int) -> None:
        """A subscription has ended."""
        with self._lock:
            ended = self._subscriptions.pop(number, None)
            self._dropped_before += ended[0].mailbox.merged if ended else 0
        if ended:
            self._want()

    def _want(self) -> None:
        # What was said last is what counts, so it is said in order; pushes go on meanwhile.
        with self._wanting:
            with self._lock:
                watched = [subscription.watched for subscription in self._trade_subscriptions]
                quotes = {number: symbols for number, (_, symbols) in self._subscriptions.items()}
            trades = None if None in watched else tuple(sorted(frozenset().union(*filter(None, watched))))
            self._supervisor.want(messages.Wanted(quotes, trades))

    def _pushed(self, number: int, parsed: Parsed) -> None:
        with self._lock:
            found = self._subscriptions.get(number)
        if found:
            found[0].arrived(parsed)

    def subscribe_trades(self, on_trades: OnTrades) -> TradeSubscription:
        """Push Level-2 trades; the subscription outlives restarts of the terminal and of its child process.

        Of ``trades.LIMIT`` symbols at a time; of each other one comes a ``ParseError`` with the reason ``limit``. What
        ``on_trades`` has no time for waits in order; beyond ``mailbox.BOUND`` of it trades are lost, and the status says so.
        """
        if self._supervisor.closed:
            raise SourceUnavailable("closed")
        if self._supervisor.state == State.UP and Capability.TRADES not in self.capabilities():
            raise Unsupported("this terminal has no Level 2")
        subscription = TradeSubscription(on_trades, self._want, self._drop_trades)
        with self._lock:
            self._trade_subscriptions.append(subscription)
        return subscription

    def _drop_trades(self, subscription: TradeSubscription) -> None:
        with self._lock:
            if subscription not in self._trade_subscriptions:
                return
            self._trade_subscriptions.remove(subscription)
            self._dropped_before += subscription.backlog.dropped
            self._overflows_before += subscription.backlog.overflows
        self._want()

    def _traded(self, parsed: ParsedTrades) -> None:
        with self._lock:
            subscriptions = list(self._trade_subscriptions)
        for subscription in subscriptions:
            subscription.arrived(parsed)

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
        """Bars of any period. Rows that are no trading are left out and counted, here and in ``refused_bars``.

        Asked in parts: of symbols, and of 1m in months, because longer calls time out in the terminal.
        """
        found: dict[str, list[Series]] = {}
        refused: Counter[str] = Counter()
        deadline = time.monotonic() + timeout
        for first, last in _stretches(period, start, end):
            for part, left in _parts(symbols, deadline - time.monotonic()):
                request = messages.FetchBars(part, period, first, last, count)
                answer = self._ask(request, messages.Bars, left, request_id)
                refused.update(answer.refused)
                for symbol, packed in answer.bars.items():
                    found.setdefault(symbol, []).append(messages.unpack(packed))
        self.refused_bars.update(refused)
        joined = {symbol: join(parts) for symbol, parts in found.items()}
        if count is not None:
            joined = {symbol: series.last(count) for symbol, series in joined.items()}
        return Bars(joined, refused)

    def fetch_dividends(self, symbols: Sequence[str], *, timeout: float) -> dict[str, tuple[Dividend, ...]]:
        """All that the terminal knows of, announced ones included."""
        found: dict[str, tuple[Dividend, ...]] = {}
        for part, left in _parts(symbols, timeout):
            found |= self._ask(messages.FetchDividends(part), dict[str, tuple[Dividend, ...]], left)
        return found

    def fetch_codes(self, kind: Kind, *, timeout: float) -> tuple[str, ...]:
        """By the sectors of the kind that this terminal has."""
        return self._ask(messages.FetchCodes(kind), tuple[str, ...], timeout)

    def fetch_main_contracts(self, *, timeout: float) -> dict[str, str]:
        """Of each product that the terminal knows."""
        products = [f"{product}.{market}" for market, listed in FUTURES.items() for product in listed]
        found: dict[str, str] = {}
        for part, left in _parts(products, timeout):
            found |= self._ask(messages.FetchMainContracts(part), dict[str, str], left)
        return found

    def fetch_index_weights(self, index: str, *, timeout: float) -> dict[str, float]:
        """In percent, by the terminal's own table."""
        return self._ask(messages.FetchIndexWeights(index), dict[str, float], timeout)

    def fetch_instruments(self, symbols: Sequence[str], *, timeout: float) -> Iterable[Instrument]:
        """Details of the symbols that the terminal knows."""
        found: list[Instrument] = []
        for part, left in _parts(symbols, timeout):
            found.extend(self._ask(messages.FetchInstruments(part), tuple[Instrument, ...], left))
        return found

    def fetch_sectors(self, *, timeout: float) -> dict[str, tuple[str, ...]]:
        """Every sector that the terminal lists and knows constituents of."""
        deadline = time.monotonic() + timeout
        names = self._ask(messages.FetchSectorNames(), tuple[str, ...], timeout)
        found: Mapping[str, Any] = {}
        for part, left in _parts(names, deadline - time.monotonic()):
            found = {**found, **self._ask(messages.FetchSectors(part), dict[str, tuple[str, ...]], left)}
        return {name: symbols for name, symbols in found.items() if symbols}

    def fetch_trading_dates(self, market: str, *, timeout: float) -> tuple[str, ...]:
        """ISO dates from the terminal's own list."""
        return self._ask(messages.FetchTradingDates(market), tuple[str, ...], timeout)


def _parts(items: Sequence[str], timeout: float) -> Iterable[tuple[tuple[str, ...], float]]:
    """The items in parts, each with the seconds that are left for it."""
    deadline = time.monotonic() + timeout
    for first in range(0, len(items), PART):
        left = deadline - time.monotonic()
        if left <= 0:
            raise SourceTimeout(f"{first} of {len(items)} in {timeout} s")
        yield tuple(items[first : first + PART]), left


def _stretches(period: Period, start: int | None, end: int | None) -> Iterator[tuple[int | None, int | None]]:
    """A range in the stretches that one call asks for, in ms; a range that has no beginning is asked in one."""
    if period is not Period.M1 or start is None:
        yield start, end
        return
    last = time.time_ns() // 1_000_000 if end is None else end
    for first in range(start, last + 1, STRETCH):
        open_end = first + STRETCH > last
        yield first, end if open_end else first + STRETCH - 1

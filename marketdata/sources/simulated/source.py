"""The simulated market as a source: embedded Argus' default, and what tests and benchmarks run on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import Literal

from marketdata.calendar import CHINA, day_of
from marketdata.exchanges import Kind
from marketdata.series import Series
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
from marketdata.sources.simulated import bars
from marketdata.sources.simulated.clock import Clock, LiveClock, VirtualClock
from marketdata.sources.simulated.days import HISTORY, payment, trades_on, trading_day_at, trading_day_before
from marketdata.sources.simulated.instruments import MOST, Listing, listings, sectors
from marketdata.sources.simulated.market import Interrupted, Market
from marketdata.sources.simulated.push import CLOSING, Push
from marketdata.sources.simulated.snapshot import NAME
from marketdata.sources.simulated.trades import TradePush
from marketdata.symbols import kind
from marketdata.types import Dividend, Instrument, Parsed, Period

MARKETS = ("SH", "SZ", "BJ")

PERIODS = (Period.M1, Period.D1)
"""The periods of which there are bars."""

DAYS_AT_ONCE = 25
"""Instruments whose daily bars are made together, between two looks at the deadline."""


class SimulatedSource:
    """``symbols`` instruments (1 to 5,500) that trade by the A-share rules; ``seed`` makes the market.

    ``clock`` is ``virtual`` (sessions one after the other, whatever the hour, ``speed`` times as fast as real time),
    ``live`` (the exchanges' own hours), a clock of the caller's or a function that gives one when the market begins.
    """

    name = NAME

    def __init__(
        self,
        *,
        symbols: int = MOST,
        seed: int = 1,
        clock: Literal["virtual", "live"] | Clock | Callable[[], Clock] = "virtual",
        speed: float = 1.0,
    ) -> None:
        if not 1 <= symbols <= MOST:
            raise ValueError(f"the simulated market has 1 to {MOST} symbols, not {symbols}")
        self._listings = listings(symbols)
        self._seed = seed
        self._choice = clock
        self._speed = speed
        self._clock: Clock | None = None
        self._market = Market(self._listings, seed)
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._closed = threading.Event()
        self._opening = threading.Thread(target=self._open, name="simulated-opening", daemon=True)
        self._pushes: list[Push] = []
        self._trade_pushes: list[TradePush] = []
        self._merged = 0
        self._interruptions = 0

    def start(self) -> None:
        """Begin; the market's day so far is made in a thread of its own (up to some seconds, late in a live day)."""
        with self._lock:
            if self._closed.is_set():
                raise SourceUnavailable("the simulated market was closed; make a new one")
            if self._clock is None:
                self._clock = self._new_clock()
                self._opening.start()

    def _new_clock(self) -> Clock:
        if self._choice == "live":
            return LiveClock()
        if self._choice == "virtual":
            return VirtualClock(speed=self._speed)
        return self._choice() if callable(self._choice) else self._choice

    def _open(self) -> None:
        assert self._clock is not None
        try:
            self._market.at(self._clock.now(), [], self._closed.is_set)
        except Interrupted:
            return
        self._ready.set()

    def close(self) -> None:
        """End the pushes and everything else. Callbacks that block are waited for ``CLOSING`` seconds together."""
        with self._lock:
            self._closed.set()
            pushes: list[Push | TradePush] = [*self._pushes, *self._trade_pushes]
        deadline = time.monotonic() + CLOSING
        for push in pushes:
            push.end()
        for push in pushes:
            push.close(max(0.0, deadline - time.monotonic()))
        if self._opening.ident is not None:
            self._opening.join()

    def status(self) -> SourceStatus:
        """UP once the day so far is made; the detail says when the real calendar has ended."""
        with self._lock:
            clock, merged = self._clock, self._merged + sum(push.merged for push in self._pushes)
            interruptions = self._interruptions + sum(push.interruptions for push in self._trade_pushes)
        if clock is None or self._closed.is_set():
            return SourceStatus(state=State.DOWN, interruptions=interruptions, dropped=merged)
        now = clock.now()
        return SourceStatus(
            state=State.UP if self._ready.is_set() else State.STARTING,
            detail="" if day_of(now) <= CHINA.last else f"the exchanges' calendar ends at {CHINA.last}; weekdays are traded",
            time=now,
            interruptions=interruptions,
            dropped=merged,
        )

    def capabilities(self) -> frozenset[Capability]:
        """Everything, once it is up."""
        return frozenset(Capability) if self._ready.is_set() and not self._closed.is_set() else frozenset()

    def universe(self, *, timeout: float) -> tuple[str, ...]:
        """Every symbol, sorted."""
        self._up(timeout)
        return tuple(sorted(self._market.index))

    def fetch_quotes(self, symbols: Sequence[str] | None = None, *, timeout: float, request_id: str = "") -> Parsed:
        """The newest quotes at the clock's time."""
        deadline = time.monotonic() + timeout
        clock = self._up(timeout)
        try:
            return Parsed(tuple(self._market.at(clock.now(), self._market.positions(symbols), lambda: self._over(deadline))))
        except Interrupted:
            raise SourceTimeout(f"the simulated market was not ready within {timeout} s") from None

    def subscribe(self, symbols: Sequence[str] | None, on_parsed: OnParsed) -> Push:
        """Push quotes; while the callback blocks, what changes is merged to the newest per symbol and counted."""
        clock = self._up(0)
        push = Push(self._market, clock, self._market.positions(symbols), on_parsed, self._forget)
        with self._lock:
            if self._closed.is_set():
                raise SourceUnavailable("the simulated market was closed")
            self._pushes.append(push)
            push.start()
        return push

    def _forget(self, push: Push) -> None:
        with self._lock:
            if push in self._pushes:
                self._pushes.remove(push)
                self._merged += push.merged

    def subscribe_trades(self, on_trades: OnTrades) -> TradePush:
        """Push the trades that the quotes are made of; while the callback blocks the market's trades wait, and none is lost."""
        push = TradePush(self._market, self._seed, self._up(0), on_trades, self._forget_trades)
        with self._lock:
            if self._closed.is_set():
                raise SourceUnavailable("the simulated market was closed")
            self._trade_pushes.append(push)
            push.start()
        return push

    def _forget_trades(self, push: TradePush) -> None:
        with self._lock:
            if push in self._trade_pushes:
                self._trade_pushes.remove(push)
                self._interruptions += push.interruptions

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
        """Bars of 1m and 1d since ``days.HISTORY``; other periods are for whoever builds them from these."""
        if period not in PERIODS:
            raise Unsupported(f"the simulated market has bars of {', '.join(PERIODS)}, not {period}")
        deadline = time.monotonic() + timeout
        now = self._up(timeout).now()
        chosen = [self._listings[position] for position in self._market.positions(symbols)]
        found: dict[str, Series] = {}
        at_once = DAYS_AT_ONCE if period is Period.D1 else 1
        for first in range(0, len(chosen), at_once):
            if self._over(deadline):
                raise SourceTimeout(f"bars of {first} of {len(chosen)} symbols were made before the deadline")
            some = chosen[first : first + at_once]
            if period is Period.D1:
                found |= bars.days(some, self._seed, now=now, start=start, end=end, count=count)
                continue
            made = bars.minutes(some[0], self._seed, now=now, start=start, end=end, count=count)
            if len(made):
                found[some[0].symbol] = made
        return Bars(found)

    def fetch_dividends(self, symbols: Sequence[str], *, timeout: float) -> dict[str, tuple[Dividend, ...]]:
        """One in cash each year, since ``days.HISTORY`` and up to the market's day."""
        today = trading_day_at(self._up(timeout).now())
        chosen = [self._listings[position] for position in self._market.positions(symbols)]
        found = {listing.symbol: tuple(self._dividends(listing, today)) for listing in chosen}
        return {symbol: given for symbol, given in found.items() if given}

    def _dividends(self, listing: Listing, today: date) -> Iterator[Dividend]:
        for year in range(HISTORY.year, today.year + 1):
            paid = payment(listing, self._seed, year)
            if HISTORY < paid.ex_date <= today:
                yield Dividend(
                    symbol=listing.symbol,
                    ex_date=paid.ex_date.isoformat(),
                    cash=paid.cash / 100,
                    ratio=paid.last_close / (paid.last_close - paid.cash),
                    source=NAME,
                )

    def fetch_codes(self, kind: Kind, *, timeout: float) -> tuple[str, ...]:
        """Stocks alone: there are no simulated indices, funds, futures or options."""
        return self.universe(timeout=timeout) if kind is Kind.STOCK else ()

    def fetch_main_contracts(self, *, timeout: float) -> dict[str, str]:
        """None: there are no simulated futures."""
        self._up(timeout)
        return {}

    def fetch_index_weights(self, index: str, *, timeout: float) -> dict[str, float]:
        """None: there are no simulated indices."""
        self._up(timeout)
        return {}

    def fetch_instruments(self, symbols: Sequence[str], *, timeout: float) -> Iterable[Instrument]:
        """Name, kind, price tick and the smallest order."""
        self._up(timeout)
        chosen = [self._listings[position] for position in self._market.positions(symbols)]
        return [
            Instrument(
                symbol=listing.symbol,
                name=listing.name,
                kind=kind(listing.symbol),
                price_tick=0.01,
                lot=listing.board.smallest,
                listed=HISTORY.isoformat(),
                source=NAME,
            )
            for listing in chosen
        ]

    def fetch_sectors(self, *, timeout: float) -> dict[str, tuple[str, ...]]:
        """Boards, industries and an index of the 300 most active."""
        self._up(timeout)
        return sectors(self._listings)

    def fetch_trading_dates(self, market: str, *, timeout: float) -> tuple[str, ...]:
        """The days on which the simulated exchanges have traded, and those that the real calendar announces."""
        now = self._up(timeout).now()
        if market not in MARKETS:
            return ()
        day, dates = max(CHINA.last, trading_day_at(now)), []
        if not trades_on(day):
            day = trading_day_before(day)
        while day >= HISTORY:
            dates.append(day.isoformat())
            day = trading_day_before(day)
        return tuple(reversed(dates))

    def _over(self, deadline: float) -> bool:
        return time.monotonic() > deadline or self._closed.is_set()

    def _up(self, timeout: float) -> Clock:
        """The clock, once the market is up."""
        with self._lock:
            clock = self._clock
        if clock is not None and not self._closed.is_set() and not self._ready.wait(timeout):
            raise SourceTimeout(f"the simulated market was not ready within {timeout} s")
        if clock is None or self._closed.is_set():
            raise SourceUnavailable("the simulated market is not running")
        return clock

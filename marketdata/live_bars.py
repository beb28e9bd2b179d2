"""A feed's live bars: built from all that it accepts, told where somebody wants them, settled by the terminal's own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict

import structlog

from marketdata import klines, metrics
from marketdata.builder import PERIODS, BarBuilder, LiveBar
from marketdata.demand import Demand
from marketdata.reference.days import calendar_of
from marketdata.types import Bar, Quote

log = structlog.get_logger(__name__)

SETTLED = 20_000
"""Bars that were settled and may wait for the loop; the oldest are dropped, and whoever subscribes anew still gets them."""
PROVISIONAL_CHUNK = 50
"""Symbols whose bars are looked through at a time, while the loop waits."""


class LiveBars:
    """The bars of one terminal's feed. ``take`` and ``current`` are for the feed's loop alone, the others for any thread."""

    def __init__(self, terminal: str) -> None:
        self.builder = BarBuilder(calendar_of)
        """The bars of the running day; of every symbol, whether somebody wants them or not. Taken under ``_building``."""
        self.demand = Demand()
        self._terminal = terminal
        self._building = threading.Lock()
        self._settled: deque[LiveBar] = deque(maxlen=SETTLED)
        self._symbols: dict[str, None] = {}
        self._looked_through = 0
        self._counted: dict[str, int] = {}

    def take(self, quotes: list[Quote], clock: int | None, *, anew: bool = True) -> klines.Group:
        """Fold quotes, and close bars by the market's time (ms); what is to be said of the bars that somebody wants.

        ``anew``: also how the bars stand that somebody has begun to want.
        """
        try:
            return self._take(quotes, clock, anew=anew)
        except Exception:
            # The quotes go out whatever becomes of the bars.
            metrics.BAR_QUOTES.labels(self._terminal, "failed").inc(len(quotes))
            log.exception("bars_failed", terminal=self._terminal, quotes=len(quotes))
            return klines.Group()

    def _take(self, quotes: list[Quote], clock: int | None, *, anew: bool) -> klines.Group:
        demand, builder = self.demand, self.builder
        before = demand.wanted
        news = demand.look()
        self._symbols.update(dict.fromkeys(quote.symbol for quote in quotes))
        if demand.wanted is not before:
            self._show_demand()
        with self._building:
            builder.take(quotes)
            self._count()
            if clock is not None:
                builder.advance(clock)
            bars = builder.drain(klines.by_period(demand.wanted))
            if news and anew:
                drained = set(bars)
                bars += [bar for bar in builder.current(klines.by_period(news)) if bar not in drained]
            # Last, as what a terminal says of a bar counts more than what was drained of it.
            while self._settled:
                bar = self._settled.popleft()
                if klines.is_wanted(demand.wanted, klines.KLINE_OF[bar.period], bar.symbol):
                    bars.append(bar)
        return klines.group(bars)

    def forming(self) -> klines.Group:
        """How the bars stand that somebody wants, but for those that have closed."""
        with self._building:
            bars = self.builder.current(klines.by_period(self.demand.wanted))
        return klines.group(bar for bar in bars if not bar.closed)

    def _count(self) -> None:
        """Bring the builder's counts into the metrics."""
        for reason, counted in asdict(self.builder.counts).items():
            if counted != (before := self._counted.get(reason, 0)):
                metrics.BAR_QUOTES.labels(self._terminal, reason).inc(counted - before)
                self._counted[reason] = counted

    def _show_demand(self) -> None:
        for period in PERIODS:
            names = self.demand.wanted.get(klines.KLINE_OF[period], frozenset())
            metrics.BARS_WANTED.labels(self._terminal, period).set(len(self._symbols) if names is None else len(names))

    def settle(self, bars: Iterable[Bar]) -> list[LiveBar]:
        """Put the terminal's own bars in the place of those that were built; what changed is also published."""
        with self._building:
            found = self.builder.settle(bars)
            self._settled.extend(found)
        return found

    def provisional(self, limit: int, since: int = 0) -> list[LiveBar]:
        """Closed bars with ends from ``since`` (ms) on that wait for the terminal's own, all of a symbol's together, of up to
        about ``limit`` symbols: half of them such as somebody wants, then the others, where the last call ended.
        """
        symbols = list(self._symbols)
        wanted = sorted({symbol for names in klines.by_period(self.demand.wanted).values() for symbol in names or ()})
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

"""What every source of market data answers, whatever stands behind it.

A source knows its vendor and nothing of Argus: raw records in, the types of ``marketdata.types`` out. Each one passes
``tests/sources/test_conformance.py``. All methods are synchronous and are called from worker threads; ``close`` and the
callback of ``subscribe`` may run on other threads than the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

from marketdata.exchanges import Kind
from marketdata.series import Series
from marketdata.types import Dividend, Instrument, Parsed, ParsedTrades, Period


class SourceError(Exception):
    """A source did not answer. ``retryable`` is False where asking again cannot help.

    SourceError
    +-- SourceUnavailable   down, disconnected or not started (retryable)
    +-- SourceTimeout       no answer before the deadline (retryable)
    +-- Unsupported         this source or this terminal's version does not have the function (not retryable)
    """

    retryable = True


class SourceUnavailable(SourceError):
    """The source is down, disconnected or not started."""


class SourceTimeout(SourceError):
    """No answer came before the deadline."""


class Unsupported(SourceError):
    """The source, or this terminal's version, does not have the function; asking again will not help."""

    retryable = False


class Capability(StrEnum):
    """A function that a source may have. Probed per terminal, never assumed."""

    QUOTES = "quotes"
    PUSH = "push"
    TRADES = "trades"
    BARS = "bars"
    INSTRUMENTS = "instruments"
    SECTORS = "sectors"
    TRADING_DATES = "trading_dates"
    DIVIDENDS = "dividends"
    MAIN_CONTRACTS = "main_contracts"
    INDEX_WEIGHTS = "index_weights"


class State(StrEnum):
    """Where a source stands."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    FINISHED = "finished"
    """A recording that has come to its end."""


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A source's own word on how it is. ``detail`` is for people; ``time`` is the market's clock in ms, if it has one."""

    state: State
    detail: str = ""
    address: str | None = None
    version: str | None = None
    time: int | None = None
    restarts: int = 0
    interruptions: int = 0
    """How often quotes or trades may have been missed since it started: pushes were lost and had to be made again, or trades
    were dropped."""
    dropped: int = 0
    """Quotes that the source's own bounded queue merged away since it started (newest per symbol wins), and the trades that it
    had no room for, which are lost."""


@dataclass(frozen=True, slots=True)
class Bars:
    """The answer to ``fetch_bars``. A symbol without bars is absent; ``refused`` counts, by reason, the rows that were no bars.

    Reasons are the source's own small fixed set (a terminal's: ``qmt.parse_history``); a source that refuses none has none.
    """

    series: Mapping[str, Series]
    refused: Mapping[str, int] = field(default_factory=dict)


OnParsed = Callable[[Parsed], None]
OnTrades = Callable[[ParsedTrades], None]


class Subscription(Protocol):
    """A running push of quotes."""

    def close(self) -> None:
        """End the push. Idempotent; no callback runs after it returns."""


class TradeSubscription(Protocol):
    """A running push of trades, of no symbol to begin with."""

    def watch(self, symbols: frozenset[str] | None) -> None:
        """Push these symbols' trades from now on, and no others'; None: all that the source has. Never waits."""

    def close(self) -> None:
        """End the push. Idempotent; no callback runs after it returns."""


class Source(Protocol):
    """A market-data source. Every call that may wait takes ``timeout`` in seconds and raises a ``SourceError``."""

    name: str
    """What stands in every value's ``source``: ``simulated``, ``replay`` or ``qmt``."""

    def start(self) -> None:
        """Make ready; returns at once. A source that cannot be reached yet starts all the same and says DOWN."""

    def close(self) -> None:
        """End everything the source started: threads, processes, subscriptions. Idempotent; within 2 s."""

    def status(self) -> SourceStatus:
        """How the source is now; never waits."""

    def capabilities(self) -> frozenset[Capability]:
        """What it can do, as found by probing; empty while it is not up."""

    def universe(self, *, timeout: float) -> tuple[str, ...]:
        """Every symbol that the source quotes, in canonical form and a stable order."""

    def fetch_quotes(self, symbols: Sequence[str] | None = None, *, timeout: float, request_id: str = "") -> Parsed:
        """The newest quote of each symbol (None: the whole universe). A symbol without one is simply absent."""

    def subscribe(self, symbols: Sequence[str] | None, on_parsed: OnParsed) -> Subscription:
        """Push quotes as they come: first the current state, then changes, each symbol in order of time.

        ``on_parsed`` may block; what the source does meanwhile is its own stated policy (a replay waits, a terminal keeps
        all in order up to a bound, merges to the newest per symbol beyond it, and counts what it merged).
        """

    def subscribe_trades(self, on_trades: OnTrades) -> TradeSubscription:
        """Push trades as they happen: every one, each symbol in order of time and index, none of the past. What a source cannot
        keep for an ``on_trades`` that blocks it counts in its status as ``dropped`` and as an interruption. Raises
        ``Unsupported``."""

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
        """Unadjusted bars of ``1m`` or ``1d`` (others are computed from these) with end stamps in [start, end] (ms), the last
        ``count`` of them if given. Bars that are still forming are not given; a day without a trade has none, unless the
        source says that the instrument was suspended. Stamps are those of ``marketdata.types.Bar``; 1m begins with the
        opening auction's own bar at 09:30 where the source has it."""

    def fetch_dividends(self, symbols: Sequence[str], *, timeout: float) -> dict[str, tuple[Dividend, ...]]:
        """All that each symbol has given since its listing, in order of ex-dates; a symbol without any is absent."""

    def fetch_codes(self, kind: Kind, *, timeout: float) -> tuple[str, ...]:
        """Every symbol of a kind that the source knows, quoted by it or not: indices, funds, futures, options."""

    def fetch_main_contracts(self, *, timeout: float) -> dict[str, str]:
        """Product, such as ``IF.IF`` or ``rb.SF`` -> the symbol of its main contract today."""

    def fetch_index_weights(self, index: str, *, timeout: float) -> dict[str, float]:
        """Constituent -> weight in percent; empty where the source has none of this index."""

    def fetch_instruments(self, symbols: Sequence[str], *, timeout: float) -> Iterable[Instrument]:
        """What is known of each symbol; unknown symbols are absent."""

    def fetch_sectors(self, *, timeout: float) -> dict[str, tuple[str, ...]]:
        """Sector name -> its constituents in canonical form."""

    def fetch_trading_dates(self, market: str, *, timeout: float) -> tuple[str, ...]:
        """ISO dates on which the market trades, as far as the source knows; no guess beyond."""

"""The subscribers of a replay: what each chose, and the promise that nothing reaches it after its close."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

from marketdata.sources.base import OnParsed, OnTrades
from marketdata.types import Parsed, ParsedTrades, ParseError

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT = 1.5
"""Seconds that a close waits for a callback that is running."""

Given = TypeVar("Given", Parsed, ParsedTrades)


class Receiver(ABC, Generic[Given]):
    """A running push. ``on_change`` is called where the replay is to look at it again."""

    def __init__(self, symbols: frozenset[str] | None, callback: Callable[[Given], None], on_change: Callable[[], None]) -> None:
        self._symbols = symbols
        self._callback: Callable[[Given], None] = callback
        self._on_change = on_change
        # Held while the callback runs; reentrant, so that a callback may close its own subscription.
        self._calling = threading.RLock()
        self.closed = False

    @abstractmethod
    def _part(self, given: Given) -> Given | None:
        """What of it was subscribed; None where that is nothing."""

    def deliver(self, given: Given) -> None:
        """Call back with the part that was subscribed; blocks as long as the callback does."""
        mine = self._part(given)
        if mine is None:
            return
        with self._calling:
            if self.closed:
                return
            try:
                self._callback(mine)
            except Exception:
                # The edge to a stranger's code: its mistake must not end the replay for the others.
                log.exception("subscriber_failed", subscriber=type(self).__name__)

    def close(self) -> None:
        """End the push. A callback that is running is waited for."""
        self.closed = True
        if self._calling.acquire(timeout=CLOSE_TIMEOUT):
            self._calling.release()
        self._on_change()


class Subscriber(Receiver[Parsed]):
    """Of quotes; the ``Subscription`` that ``subscribe`` returns."""

    def __init__(self, symbols: Sequence[str] | None, on_parsed: OnParsed, on_change: Callable[[], None]) -> None:
        super().__init__(None if symbols is None else frozenset(symbols), on_parsed, on_change)

    def _part(self, given: Parsed) -> Parsed | None:
        chosen = self._symbols
        if chosen is not None:
            given = Parsed(tuple(quote for quote in given.quotes if quote.symbol in chosen), _errors(given.errors, chosen))
        return given if given.quotes or given.errors else None


class TradeSubscriber(Receiver[ParsedTrades]):
    """Of trades; the ``TradeSubscription`` that ``subscribe_trades`` returns."""

    def __init__(self, on_trades: OnTrades, on_change: Callable[[], None]) -> None:
        super().__init__(frozenset(), on_trades, on_change)

    @property
    def watches(self) -> bool:
        """Whether there is anything that it wants."""
        return self._symbols is None or bool(self._symbols)

    def watch(self, symbols: frozenset[str] | None) -> None:
        """Push these symbols' trades from the next step on."""
        self._symbols = symbols
        self._on_change()

    def _part(self, given: ParsedTrades) -> ParsedTrades | None:
        chosen = self._symbols
        if chosen is not None:
            if not chosen:
                return None
            trades = tuple(trade for trade in given.trades if trade.symbol in chosen)
            given = ParsedTrades(trades, _errors(given.errors, chosen))
        return given if given.trades or given.errors else None


def _errors(errors: Sequence[ParseError], chosen: frozenset[str]) -> tuple[ParseError, ...]:
    """Those of the symbols, and those of none."""
    return tuple(error for error in errors if not error.symbol or error.symbol in chosen)

"""A running push of trades, in the parent: what the child sends waits here for a callback that may block."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from marketdata.sources.base import OnTrades
from marketdata.sources.qmt.mailbox import BOUND, Backlog
from marketdata.types import ParsedTrades, ParseError, Trade

log = structlog.get_logger(__name__)


class TradeSubscription:
    """``on_change`` is called whenever something else is watched, ``on_close`` once."""

    def __init__(self, on_trades: OnTrades, on_change: Callable[[], None], on_close: Callable[[TradeSubscription], None]) -> None:
        self._on_trades = on_trades
        self._on_change = on_change
        self._on_close = on_close
        self.backlog: Backlog[Trade | ParseError] = Backlog(BOUND)
        self.watched: frozenset[str] | None = frozenset()
        self._thread = threading.Thread(target=self._run, name="qmt-deliver-trades", daemon=True)
        self._thread.start()

    def watch(self, symbols: frozenset[str] | None) -> None:
        """Push these symbols' trades from now on."""
        if not self.backlog.closed and symbols != self.watched:
            self.watched = symbols
            self._on_change()

    def arrived(self, parsed: ParsedTrades) -> None:
        """From the child, in the terminal's order."""
        watched = self.watched
        values: list[Trade | ParseError] = [*parsed.trades, *parsed.errors]
        if watched is not None:
            values = [value for value in values if value.symbol in watched]
        if values:
            self.backlog.put(values)

    def _run(self) -> None:
        while not self.backlog.closed:
            waiting, watched = self.backlog.take(), self.watched
            told = waiting if watched is None else [value for value in waiting if value.symbol in watched]
            if not told or self.backlog.closed:
                continue
            trades = tuple(value for value in told if isinstance(value, Trade))
            errors = tuple(value for value in told if isinstance(value, ParseError))
            try:
                self._on_trades(ParsedTrades(trades, errors))
            except Exception:
                # The edge of this thread: a receiver that fails once must not end the push.
                log.exception("qmt_receiver_failed", push="trades")

    def close(self) -> None:
        """End the push."""
        self.backlog.close()
        self._on_close(self)
        if self._thread is not threading.current_thread():
            self._thread.join(2.0)

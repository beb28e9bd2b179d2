"""One subscriber of a replay: what it chose, and the promise that nothing reaches it after its close."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import structlog

from marketdata.sources.base import OnParsed
from marketdata.types import Parsed

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT = 1.5
"""Seconds that a close waits for a callback that is running."""


class Subscriber:
    """A running push; the ``Subscription`` that ``subscribe`` returns."""

    def __init__(self, symbols: Sequence[str] | None, on_parsed: OnParsed, on_close: Callable[[], None]) -> None:
        self._symbols = None if symbols is None else frozenset(symbols)
        self._on_parsed = on_parsed
        self._on_close = on_close
        # Held while the callback runs; reentrant, so that a callback may close its own subscription.
        self._calling = threading.RLock()
        self.closed = False

    def deliver(self, parsed: Parsed) -> None:
        """Call back with the part that was subscribed; blocks as long as the callback does."""
        mine = self._part(parsed)
        if not (mine.quotes or mine.errors):
            return
        with self._calling:
            if self.closed:
                return
            try:
                self._on_parsed(mine)
            except Exception:
                # The edge to a stranger's code: its mistake must not end the replay for the others.
                log.exception("subscriber_failed", quotes=len(mine.quotes), errors=len(mine.errors))

    def close(self) -> None:
        """End the push. A callback that is running is waited for."""
        self.closed = True
        if self._calling.acquire(timeout=CLOSE_TIMEOUT):
            self._calling.release()
        self._on_close()

    def _part(self, parsed: Parsed) -> Parsed:
        chosen = self._symbols
        if chosen is None:
            return parsed
        return Parsed(
            tuple(quote for quote in parsed.quotes if quote.symbol in chosen),
            tuple(error for error in parsed.errors if not error.symbol or error.symbol in chosen),
        )

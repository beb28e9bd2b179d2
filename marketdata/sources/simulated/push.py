"""A running push of the simulated market's quotes: one thread that looks at the market each second of its clock."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from marketdata.sources.base import OnParsed
from marketdata.sources.simulated.clock import Clock
from marketdata.sources.simulated.market import Interrupted, Market
from marketdata.types import Parsed

logger = logging.getLogger(__name__)

STEP = 1000
"""Milliseconds of market time between two looks."""

CLOSING = 1.5
"""Seconds for which a close waits for a callback that runs."""


class Push:
    """Gives the current state, then what has changed in each step.

    Policy while the callback blocks: the market goes on, and what comes next is the newest state of each symbol; the
    states in between are merged away and counted in ``merged``. An error in the callback is logged and counted in
    ``failures``, and the push goes on.
    """

    def __init__(
        self, market: Market, clock: Clock, positions: list[int], on_parsed: OnParsed, on_end: Callable[[Push], None]
    ) -> None:
        self.merged = 0
        self.failures = 0
        self._market = market
        self._clock = clock
        self._positions = positions
        self._on_parsed = on_parsed
        self._on_end = on_end
        self._seen: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="simulated-push", daemon=True)

    def start(self) -> None:
        """Begin to push."""
        self._thread.start()

    def end(self) -> None:
        """Let the thread end by itself, soon."""
        self._ended.set()

    def close(self, timeout: float = CLOSING) -> None:
        """End the push and wait for a callback that runs, unless called from it."""
        self.end()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        self._on_end(self)

    def _run(self) -> None:
        while not self._ended.is_set():
            now = self._clock.now()
            try:
                self._deliver(now)
            except Interrupted:
                return
            self._wait(now - now % STEP + STEP)

    def _deliver(self, now: int) -> None:
        begun, events = bool(self._seen), sum(self._seen.values())
        quotes = self._market.at(now, self._positions, self._ended.is_set, self._seen)
        if begun:
            self.merged += sum(self._seen.values()) - events - len(quotes)
        if not quotes or self._ended.is_set():
            return
        try:
            self._on_parsed(Parsed(tuple(quotes)))
        except Exception:
            self.failures += 1
            logger.exception("source_callback_failed", extra={"failures": self.failures})

    def _wait(self, until: int) -> None:
        while (delay := self._clock.delay(until)) > 0 and not self._ended.is_set():
            self._ended.wait(delay)

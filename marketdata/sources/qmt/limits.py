"""The day's price limits of every symbol, which ticks do not carry: read from the details in the child's idle moments."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from marketdata.sources.base import SourceUnavailable, Unsupported
from marketdata.sources.qmt.parse import Limits, day_of
from marketdata.sources.qmt.parse_reference import parse_limits
from marketdata.sources.qmt.terminal import Terminal, WrongPeer

AT_ONCE: Final = 0.05
"""Seconds of the terminal's one thread that are taken at a time: 5,500 details are there within a minute."""
AGAIN: Final = 600.0
"""Seconds until a symbol without limits for the market's day is asked again (the terminal turns to a new day before the open)."""


class LimitBook:
    """Symbol -> limits. Written by the thread that calls the terminal, read by those that parse."""

    def __init__(self, terminal: Terminal) -> None:
        self.known: dict[str, Limits] = {}
        self._terminal = terminal
        self._asked: dict[str, float] = {}
        self._supported = True

    def fill(self, codes: Iterable[str], market_time: int) -> None:
        """Ask for some of the codes that lack limits of the market's day."""
        until = time.monotonic() + AT_ONCE
        day = day_of(market_time)
        for code in codes:
            now = time.monotonic()
            if not self._supported or now > until:
                return
            known = self.known.get(code)
            if (known and known.day == day) or now - self._asked.get(code, -AGAIN) < AGAIN:
                continue
            self._asked[code] = now
            try:
                self._ask(code)
            except WrongPeer:
                raise
            except SourceUnavailable:
                return

    def _ask(self, code: str) -> None:
        try:
            limits = parse_limits(code, self._terminal.ask("get_instrument_detail", code))
        except Unsupported:
            self._supported = False
            return
        if limits is not None:
            self.known[code] = limits

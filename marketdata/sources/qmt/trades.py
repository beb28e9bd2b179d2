"""The trades that are wanted, in the child: a single subscription to ``l2transaction`` for each symbol, kept alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from marketdata.sources.base import SourceError
from marketdata.sources.qmt import childlog
from marketdata.sources.qmt.mailbox import BOUND, Backlog
from marketdata.sources.qmt.parse_trades import parse_trades
from marketdata.sources.qmt.terminal import SINGLE_SUBSCRIPTIONS, Terminal, WrongPeer
from marketdata.types import ParsedTrades, ParseError

LIMIT: Final = SINGLE_SUBSCRIPTIONS
"""Symbols whose trades are subscribed at a time: the most single subscriptions that the vendor recommends."""
RETRY: Final = 5.0
"""Seconds until a subscription that failed is tried again."""
SHOWN: Final = 5
"""Refused symbols that a log line names."""

RawTrade = tuple[str, Any]
"""A code and a row of its trades, as the terminal sent it."""


class _Line:
    """One subscription at the terminal."""

    def __init__(self, backlog: Backlog[RawTrade]) -> None:
        self.ended = False
        self.numbers: tuple[int, ...] = ()
        self._backlog = backlog

    def arrived(self, datas: object) -> None:
        """A push: ``{code: [row, ...]}``.

        Runs on the vendor's threads, where exceptions are swallowed: so it raises none, parses nothing and asks nothing.
        """
        if self.ended:
            return
        rows: list[RawTrade] = []
        if isinstance(datas, Mapping):
            for code, value in datas.items():
                rows += [(str(code), row) for row in (value if isinstance(value, list) else [value])]
        else:
            rows.append(("", datas))
        self._backlog.put(rows)


class Trades:
    """All of them. Everything but the vendor's callbacks and the parsing runs on the one thread that calls the terminal.

    What is wanted beyond ``LIMIT`` is refused, by a ``ParseError`` with the reason ``limit`` for each symbol (``unsupported``
    where the terminal has no Level 2), until others are no longer wanted.
    """

    def __init__(
        self, terminal: Terminal, universe: Callable[[], tuple[str, ...]], deliver: Callable[[ParsedTrades], None]
    ) -> None:
        self._terminal = terminal
        self._universe = universe
        self._deliver = deliver
        self._wanted: tuple[str, ...] | None = ()
        self._lines: dict[str, _Line] = {}
        self._refused: frozenset[str] = frozenset()
        self._settled = True
        self._generation = 0
        self._retry_at = 0.0
        self._lost = 0
        self._backlog: Backlog[RawTrade] = Backlog(BOUND)
        self.supported = True
        threading.Thread(target=self._run, name="trades", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Rows that there was no room for."""
        return self._backlog.dropped

    @property
    def interruptions(self) -> int:
        """How often trades may have been missed: subscriptions were lost with the connection, or rows were dropped."""
        return self._lost + self._backlog.overflows

    def want(self, symbols: tuple[str, ...] | None) -> None:
        """Whose trades are wanted from now on (None: the universe's); ``keep`` makes it so."""
        self._wanted = symbols
        self._settled = False

    def keep(self) -> None:
        """Subscribe what is not subscribed, and end what is no longer wanted. The terminal is connected."""
        if self._generation != self._terminal.generation:
            # Subscriptions are lost with the client that made them.
            self._generation = self._terminal.generation
            self._lost += bool(self._lines)
            for line in self._lines.values():
                line.ended = True
            self._lines, self._settled, self._retry_at = {}, False, 0.0
        if self._settled or time.monotonic() < self._retry_at:
            return
        try:
            self._settle()
            self._settled = True
        except WrongPeer:
            raise
        except SourceError as error:
            self._retry_at = time.monotonic() + RETRY
            childlog.write("warning", "qmt_trades_failed", detail=str(error))

    def _settle(self) -> None:
        wanted = self._universe() if self._wanted is None else self._wanted
        kept = [code for code in wanted if code in self._lines]
        chosen = [*kept, *(code for code in wanted if code not in self._lines)][: LIMIT if self.supported else 0]
        self._refuse(frozenset(wanted).difference(chosen))
        for code in self._lines.keys() - set(chosen):
            self._end(self._lines.pop(code))
        for code in chosen:
            if code not in self._lines:
                line = _Line(self._backlog)
                line.numbers = self._terminal.subscribe_trades(code, line.arrived)
                self._lines[code] = line

    def _refuse(self, codes: frozenset[str]) -> None:
        news, self._refused = sorted(codes - self._refused), codes
        if not news:
            return
        reason = "limit" if self.supported else "unsupported"
        detail = f"the trades of {LIMIT} symbols at most" if self.supported else "this terminal has no Level 2"
        childlog.write("warning", "qmt_trades_refused", reason=reason, limit=LIMIT, refused=len(codes), first=news[:SHOWN])
        self._deliver(ParsedTrades(errors=tuple(ParseError(symbol=code, reason=reason, detail=detail) for code in news)))

    def _end(self, line: _Line) -> None:
        line.ended = True
        try:
            self._terminal.unsubscribe(line.numbers)
        except WrongPeer:
            raise
        except SourceError as error:
            childlog.write("info", "qmt_unsubscribe_failed", detail=str(error))

    def _run(self) -> None:
        while True:
            rows: Sequence[RawTrade] = self._backlog.take()
            self._deliver(parse_trades(rows, int(time.time() * 1000)))

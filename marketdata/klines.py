"""Live bars on their way to subscribers: as JSON objects, grouped into what one message says of each symbol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from marketdata.batch import Bars
from marketdata.builder import LiveBar
from marketdata.types import Period

KEPT = 16
"""Closed bars of a symbol and period that are kept for a channel layer that refuses messages."""

Wanted = Mapping[Period, frozenset[str] | None]
"""The bars that somebody wants: period -> symbols, None for all of them."""


def is_wanted(wanted: Wanted, period: Period, symbol: str) -> bool:
    """Whether somebody wants a bar."""
    names = wanted.get(period, frozenset())
    return names is None or symbol in names


def beyond(wanted: Wanted, had: Wanted) -> Wanted:
    """What is wanted and was not had."""
    news: dict[Period, frozenset[str] | None] = {}
    for period, names in wanted.items():
        before = had.get(period, frozenset())
        if before is not None and (names is None or names - before):
            news[period] = None if names is None else names - before
    return news


class Said(NamedTuple):
    """What is to be said of one symbol's bars of one period: end stamp -> JSON object without its ``seq``."""

    closed: dict[int, bytes]
    forming: tuple[int, bytes] | None

    def fragment(self, tail: bytes) -> bytes:
        """The objects, each with ``tail`` for its closing brace, joined: the closed ones in order, then the forming one."""
        bodies = [self.closed[time] for time in sorted(self.closed)]
        if self.forming is not None:
            bodies.append(self.forming[1])
        return b",".join([body[:-1] + tail for body in bodies])

    def then(self, newer: Said) -> Said:
        """This and what came after it."""
        forming = newer.forming or self.forming
        over = forming is not None and newer.forming is None and max(newer.closed, default=0) >= forming[0]
        return Said(self.closed | newer.closed, None if over else forming)

    def newest(self) -> Said:
        """This with the newest ``KEPT`` closed bars alone."""
        return (
            self
            if len(self.closed) <= KEPT
            else Said({time: self.closed[time] for time in sorted(self.closed)[-KEPT:]}, self.forming)
        )


Group = dict[Period, dict[str, Said]]

_encode = msgspec.json.Encoder().encode


def count(group: Group) -> Iterator[tuple[Period, str, int]]:
    """How many bars of each period a group has, the closed and the forming ones."""
    for period, symbols in group.items():
        yield period, "closed", sum(len(said.closed) for said in symbols.values())
        yield period, "forming", sum(said.forming is not None for said in symbols.values())


def group(bars: Iterable[LiveBar]) -> Group:
    """Bars by period and symbol."""
    result: Group = {}
    for bar in bars:
        body = _encode(bar)
        said = Said({bar.time: body}, None) if bar.closed else Said({}, (bar.time, body))
        symbols = result.setdefault(bar.period, {})
        before = symbols.get(bar.symbol)
        symbols[bar.symbol] = said if before is None else before.then(said)
    return result


def then(older: Group, newer: Group) -> Group:
    """What both say, the newer one where both speak of a bar; of a symbol's closed bars the newest ``KEPT``."""
    result = {period: dict(symbols) for period, symbols in older.items()}
    for period, symbols in newer.items():
        here = result.setdefault(period, {})
        for symbol, said in symbols.items():
            here[symbol] = (here[symbol].then(said) if symbol in here else said).newest()
    return result


def numbered(group: Group, tail: bytes) -> Bars:
    """A group as a batch carries it, each object with ``tail`` for its closing brace."""
    return {
        period: (list(symbols), [said.fragment(tail) for said in symbols.values()])
        for period, symbols in group.items()
        if symbols
    }


def among(group: Group, wanted: Wanted) -> Group:
    """What of a group is wanted."""
    result: Group = {}
    for period, names in wanted.items():
        symbols = group.get(period, {})
        kept = symbols if names is None else {symbol: said for symbol, said in symbols.items() if symbol in names}
        if kept:
            result[period] = kept
    return result

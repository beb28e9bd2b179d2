"""Several recordings on one timeline: what happened at the same ms is one step."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import msgspec

from marketdata.sources.replay.recording import Recording, Span
from marketdata.types import Parsed, ParsedTrades, ParseError, Quote, Trade

DAY_MS = 86_400_000

_Tagged = tuple[int, bool, Quote | Trade | ParseError]
"""A row, and whether it comes from a recording of trades."""
_key = itemgetter(0)
_NO_QUOTES, _NO_TRADES = Parsed(), ParsedTrades()


class Step(NamedTuple):
    """All rows of one ms, in the order of the files and of their rows. A symbol may stand in it more than once."""

    time: int
    parsed: Parsed
    trades: ParsedTrades = _NO_TRADES


def steps(recordings: Sequence[Recording], *, shift_days: int = 0) -> Iterator[Step]:
    """Merge the recordings by time, row by row, every time moved forward by whole days."""
    shift = shift_days * DAY_MS
    for time, rows in groupby(heapq.merge(*map(_tagged, recordings), key=_key), _key):
        yield _step(time + shift, rows, shift)


def _tagged(recording: Recording) -> Iterator[_Tagged]:
    of_trades = recording.trades
    return ((time, of_trades, value) for time, value in recording.rows())


def _step(time: int, rows: Iterable[_Tagged], shift: int) -> Step:
    quotes: list[Quote] = []
    trades: list[Trade] = []
    errors: list[ParseError] = []
    trade_errors: list[ParseError] = []
    for _, of_trades, value in rows:
        if isinstance(value, ParseError):
            (trade_errors if of_trades else errors).append(value)
            continue
        if shift:
            value = msgspec.structs.replace(value, time=value.time + shift)
        if isinstance(value, Quote):
            quotes.append(value)
        else:
            trades.append(value)
    return Step(
        time,
        Parsed(tuple(quotes), tuple(errors)) if quotes or errors else _NO_QUOTES,
        ParsedTrades(tuple(trades), tuple(trade_errors)) if trades or trade_errors else _NO_TRADES,
    )


def together(spans: Sequence[Span]) -> Span:
    """What several recordings hold: their symbols in order of appearance, from the earliest to the latest ms."""
    symbols = dict.fromkeys(symbol for span in spans for symbol in span.symbols)
    return Span(
        tuple(symbols),
        min(span.first for span in spans),
        max(span.last for span in spans),
        sum(span.rows for span in spans),
    )


def days_per_pass(span: Span) -> int:
    """The whole days by which the next pass must lie ahead, so that time never goes back."""
    return (span.last - span.first) // DAY_MS + 1

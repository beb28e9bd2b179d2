"""Several recordings on one timeline: what happened at the same ms is one step."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import msgspec

from marketdata.sources.replay.recording import Recording, Row, Span
from marketdata.types import Parsed, ParseError, Quote

DAY_MS = 86_400_000

_key = itemgetter(0)


class Step(NamedTuple):
    """All rows of one ms, in the order of the files and of their rows. A symbol may stand in it more than once."""

    time: int
    parsed: Parsed


def steps(recordings: Sequence[Recording], *, shift_days: int = 0) -> Iterator[Step]:
    """Merge the recordings by time, row by row, every time moved forward by whole days."""
    shift = shift_days * DAY_MS
    for time, rows in groupby(heapq.merge(*(recording.rows() for recording in recordings), key=_key), _key):
        yield Step(time + shift, _parsed(rows, shift))


def _parsed(rows: Iterable[Row], shift: int) -> Parsed:
    quotes: list[Quote] = []
    errors: list[ParseError] = []
    for _, value in rows:
        if isinstance(value, Quote):
            quotes.append(msgspec.structs.replace(value, time=value.time + shift) if shift else value)
        else:
            errors.append(value)
    return Parsed(tuple(quotes), tuple(errors))


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

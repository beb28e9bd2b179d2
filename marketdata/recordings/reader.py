"""A recorded day as messages from a moment on, the parts of all terms of office in order.

A day may be joined while it is read: what its parts held is then in others, in which the reading goes on.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from datetime import date
from itertools import groupby
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from marketdata.batch import Events
from marketdata.calendar import day_of
from marketdata.recordings.archive import Part, PartGone, RecordingArchive
from marketdata.recordings.columns import TRADES, Layout, Message, messages
from marketdata.types import DataType

T = TypeVar("T")
Parts = tuple[tuple[Part, int], ...]
"""A day's parts as they are played: each with the last ``at`` (ms) that counts of it."""


def play(archive: RecordingArchive, start: int, symbols: Collection[str] | None = None) -> Iterator[Message]:
    """The messages of ``start``'s day (ms), and of the days recorded after it, with ``at`` not before ``start``.

    ``symbols``: what they say of these alone. Raises ``DamagedRecording`` where a part is not what was written.
    """
    for day in archive.days():
        if day >= day_of(start):
            yield from _day(archive, day, start, symbols)


def play_all(archive: RecordingArchive, start: int) -> Iterator[tuple[Message, Events]]:
    """The same of quotes with the trades of each message. Those of trades alone have no quotes."""
    parts = (play(one, start) for one in (archive, archive.of(TRADES)))
    for _, said in groupby(heapq.merge(*parts, key=_place), _place):
        first, *more = said
        if first.data_type is not DataType.QUOTE:
            first, more = first._replace(symbols=[], fragments=[], data_type=DataType.QUOTE), [first]
        yield first, {one.data_type: (one.symbols, one.fragments) for one in more}


def _place(message: Message) -> tuple[date, int, int]:
    return day_of(message.at), message.epoch, message.seq


def before(archive: RecordingArchive, start: int) -> Message | None:
    """What was published on ``start``'s day before ``start``, the state to begin with, as one message: the last fragment of each
    symbol, under the ``at``, epoch and seq of the last message. None where there was none. Raises ``DamagedRecording``.
    """
    day = day_of(start)

    def state(parts: Parts) -> Message | None:
        last: Message | None = None
        fragments: dict[str, bytes] = {}
        for part, until in parts:
            if part.first < start:
                for last in messages(archive.newest(day, part, min(start, until + 1))):
                    fragments.update(zip(last.symbols, last.fragments, strict=True))
        return last._replace(symbols=[*fragments], fragments=[*fragments.values()]) if last else None

    return _read(archive, day, state)


def symbols_of(archive: RecordingArchive, day: date) -> frozenset[str]:
    """Every symbol of which something was recorded on a day. Raises ``DamagedRecording``."""
    return _read(archive, day, lambda parts: frozenset[str]().union(*(archive.symbols(day, part) for part, _ in parts)))


def _read(archive: RecordingArchive, day: date, read: Callable[[Parts], T]) -> T:
    """What is read of a day's parts, from the beginning again where one of them goes meanwhile."""
    parts = archive.sequence(day)
    while True:
        try:
            return read(parts)
        except PartGone as gone:
            parts = _anew(archive, day, parts, gone)


def _anew(archive: RecordingArchive, day: date, parts: Parts, gone: PartGone) -> Parts:
    """The parts of a day now that one of them is gone; where nothing has come or gone besides, it is missing: raises ``gone``."""
    found = archive.sequence(day)
    if found == parts:
        raise gone
    return found


def _day(archive: RecordingArchive, day: date, start: int, symbols: Collection[str] | None) -> Iterator[Message]:
    names = None if symbols is None else pa.array(sorted(symbols), pa.string())
    parts, played = archive.sequence(day), (0, 0)
    while True:
        try:
            for part, until in parts:
                if part.last >= start:
                    for message in _messages(archive.read(day, part, start, until), names, archive.layout):
                        if (message.epoch, message.seq) > played:
                            start, played = message.at, (message.epoch, message.seq)
                            yield message
            return
        except PartGone as gone:
            parts = _anew(archive, day, parts, gone)


def _messages(batches: Iterator[pa.RecordBatch], names: pa.Array | None, layout: Layout) -> Iterator[Message]:
    held: Message | None = None
    for batch in batches:
        chosen = batch if names is None else batch.filter(pc.is_in(batch.column("symbol").dictionary_decode(), names))
        for message in messages(chosen, layout):
            # A message may straddle two batches of rows.
            if held is not None and (held.epoch, held.seq) == (message.epoch, message.seq):
                held.symbols.extend(message.symbols)
                held.fragments.extend(message.fragments)
                continue
            if held is not None:
                yield held
            held = message
    if held is not None:
        yield held

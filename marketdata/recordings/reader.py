"""A recorded day as messages from a moment on, the parts of all terms of office in order."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import date
from operator import attrgetter

from marketdata.calendar import day_of
from marketdata.recordings.archive import Part, RecordingArchive
from marketdata.recordings.columns import Message, messages


def play(archive: RecordingArchive, start: int) -> Iterator[Message]:
    """The messages of ``start``'s day (ms), and of the days recorded after it, with ``at`` not before ``start``.

    Raises ``DamagedRecording`` where a part is not what was written.
    """
    for day in archive.days():
        if day >= day_of(start):
            yield from _day(archive, day, start)


def before(archive: RecordingArchive, start: int) -> dict[str, bytes]:
    """The last fragment of each symbol that was published on ``start``'s day before ``start``: the state to begin with."""
    state: dict[str, bytes] = {}
    day = day_of(start)
    for part in archive.parts(day):
        if part.first < start:
            for message in _messages(archive, day, part):
                if message.at >= start:
                    break
                state.update(zip(message.symbols, message.fragments, strict=True))
    return state


def _day(archive: RecordingArchive, day: date, start: int) -> Iterator[Message]:
    parts = [part for part in archive.parts(day) if part.last >= start]
    # Parts of one term follow one another; two terms may overlap by what a publisher said too late.
    streams: dict[int, list[Part]] = {}
    for part in parts:
        streams.setdefault(part.epoch, []).append(part)
    term = 0
    for message in heapq.merge(*(_stream(archive, day, stream) for stream in streams.values()), key=attrgetter("at", "epoch")):
        # What a publisher said after another had taken over was dropped live, too.
        term = max(term, message.epoch)
        if message.at >= start and message.epoch == term:
            yield message


def _stream(archive: RecordingArchive, day: date, parts: list[Part]) -> Iterator[Message]:
    for part in parts:
        yield from _messages(archive, day, part)


def _messages(archive: RecordingArchive, day: date, part: Part) -> Iterator[Message]:
    held: Message | None = None
    for batch in archive.read(day, part):
        for message in messages(batch):
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

"""A recorded day as messages from a moment on, the parts of all terms of office in order."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from marketdata.calendar import day_of
from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.columns import Message, messages


def play(archive: RecordingArchive, start: int, symbols: Collection[str] | None = None) -> Iterator[Message]:
    """The messages of ``start``'s day (ms), and of the days recorded after it, with ``at`` not before ``start``.

    ``symbols``: what they say of these alone. Raises ``DamagedRecording`` where a part is not what was written.
    """
    for day in archive.days():
        if day >= day_of(start):
            yield from _day(archive, day, start, symbols)


def before(archive: RecordingArchive, start: int) -> dict[str, bytes]:
    """The last fragment of each symbol that was published on ``start``'s day before ``start``: the state to begin with."""
    state: dict[str, bytes] = {}
    day = day_of(start)
    for part, until in archive.sequence(day):
        if part.first < start:
            for message in messages(archive.newest(day, part, min(start, until + 1))):
                state.update(zip(message.symbols, message.fragments, strict=True))
    return state


def _day(archive: RecordingArchive, day: date, start: int, symbols: Collection[str] | None) -> Iterator[Message]:
    names = None if symbols is None else pa.array(sorted(symbols), pa.string())
    for part, until in archive.sequence(day):
        if part.last >= start:
            held: Message | None = None
            for batch in archive.read(day, part, start, until):
                chosen = batch if names is None else batch.filter(pc.is_in(batch.column("symbol").dictionary_decode(), names))
                for message in messages(chosen):
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

"""Single quotes and trades of the past, out of the recordings, page by page in the order in which they were published."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, NamedTuple

import structlog
from msgspec import Meta

from argus.config import config
from argus.errors import DEADLINE, INTERNAL, NO_RECORDING, ArgusError
from marketdata.calendar import day_of
from marketdata.compat import alpaca
from marketdata.compat.fragments import read_book, read_trade
from marketdata.recordings import columns
from marketdata.recordings.archive import DamagedRecording, RecordingArchive
from marketdata.recordings.reader import play, symbols_of

log = structlog.get_logger(__name__)

LATE: Final = 60_000
"""Milliseconds by which one may be published after its own time; what comes later is not looked at."""

Time = Annotated[int, Meta(ge=0, le=253_402_214_400_000)]
"""In ms, up to the last day that has a name."""
Count = Annotated[int, Meta(ge=0, lt=2**62)]


class Place(NamedTuple):
    """A row of a recording: its message, by the market's time (ms), epoch and seq, and its number in it."""

    at: Time
    epoch: Count
    seq: Count
    number: Count


Page = tuple[dict[str, list[dict[str, Any]]], Place | None]
"""Symbol -> rows, and where the next page begins."""


class Past(NamedTuple):
    """What is asked for. ``tell``: a value in Alpaca's words, None where there is nothing to tell."""

    layout: columns.Layout
    read: Callable[[bytes], Any]
    tell: Callable[[Any], dict[str, Any] | None]
    missing: str
    """What to say where it was not recorded."""
    sparse: bool
    """Whether a recorded day has it of some symbols alone."""


QUOTES: Final = Past(
    columns.QUOTES,
    read_book,
    alpaca.last_quote,
    "Quotes are kept where they are recorded (ARGUS_RECORD), and nothing was recorded on these days.",
    sparse=False,
)
TRADES: Final = Past(
    columns.TRADES,
    read_trade,
    alpaca.trade,
    "Trades are recorded (ARGUS_RECORD) of the symbols whose trades somebody takes from the stream, while they do; "
    "none of these symbols were recorded on these days.",
    sparse=True,
)


def page(
    past: Past, symbols: Sequence[str], first: int, last: int, *, limit: int, begin: Place | None, deadline_seconds: float
) -> Page:
    """At most ``limit`` rows with times in [first, last] (ms), from ``begin`` on. Blocking; reads the recordings' files.

    Raises NO_RECORDING where nothing was recorded on these days, DEADLINE, and INTERNAL where a recording is damaged.
    """
    archive = RecordingArchive(config.archive, config.market, past.layout)
    end = time.monotonic() + deadline_seconds
    found: dict[str, list[dict[str, Any]]] = {}
    left = limit
    try:
        days = [day for day in archive.days() if day_of(first) <= day <= day_of(last)]
        if not days:
            raise ArgusError(NO_RECORDING, past.missing)
        for message in play(archive, first if begin is None else begin.at, symbols):
            if message.at > last + LATE:
                break
            if begin is not None and (message.epoch, message.seq) < (begin.epoch, begin.seq):
                continue
            if time.monotonic() > end:
                raise ArgusError(DEADLINE)
            for number, fragment in enumerate(message.fragments):
                place = Place(message.at, message.epoch, message.seq, number)
                if begin is not None and place < begin:
                    continue
                value = past.read(fragment)
                told = past.tell(value) if first <= value.time <= last else None
                if told is None:
                    continue
                if not left:
                    return found, place
                left -= 1
                found.setdefault(value.symbol, []).append(told)
        # Nothing in this range is one thing, nothing recorded is another.
        unsaid = past.sparse and begin is None and not found
        if unsaid and all(symbols_of(archive, day).isdisjoint(symbols) for day in days):
            raise ArgusError(NO_RECORDING, past.missing)
    except DamagedRecording as error:
        log.error("recording_damaged", error=str(error))
        raise ArgusError(INTERNAL, "The recording of these days is damaged.") from error
    return found, None

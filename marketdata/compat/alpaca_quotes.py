"""Single quotes of the past, out of the recordings, page by page in the order in which they were published."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import structlog
from msgspec import Meta

from argus.config import config
from argus.errors import DEADLINE, INTERNAL, NO_RECORDING, ArgusError
from marketdata.calendar import day_of
from marketdata.compat.alpaca import last_quote
from marketdata.compat.fragments import read_book
from marketdata.recordings.archive import DamagedRecording, RecordingArchive
from marketdata.recordings.reader import play

log = structlog.get_logger(__name__)

LATE: Final = 60_000
"""Milliseconds by which a quote may be published after its own time; what comes later is not looked at."""


Time = Annotated[int, Meta(ge=0, le=253_402_214_400_000)]
"""In ms, up to the last day that has a name."""
Count = Annotated[int, Meta(ge=0, lt=2**62)]


class Place(NamedTuple):
    """A quote of a recording: its message, by the market's time (ms), epoch and seq, and its number in it."""

    at: Time
    epoch: Count
    seq: Count
    number: Count


Page = tuple[dict[str, list[dict[str, Any]]], Place | None]
"""Symbol -> quotes, and where the next page begins."""


def page(symbols: Sequence[str], first: int, last: int, *, limit: int, begin: Place | None, deadline_seconds: float) -> Page:
    """At most ``limit`` quotes with times in [first, last] (ms), from ``begin`` on. Blocking; reads the recordings' files.

    Raises NO_RECORDING where nothing was recorded on these days, DEADLINE, and INTERNAL where a recording is damaged.
    """
    archive = RecordingArchive(config.archive, config.market)
    end = time.monotonic() + deadline_seconds
    found: dict[str, list[dict[str, Any]]] = {}
    left = limit
    try:
        if not any(day_of(first) <= day <= day_of(last) for day in archive.days()):
            detail = "Quotes are kept where they are recorded (ARGUS_RECORD), and nothing was recorded on these days."
            raise ArgusError(NO_RECORDING, detail)
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
                book = read_book(fragment)
                told = last_quote(book) if first <= book.time <= last else None
                if told is None:
                    continue
                if not left:
                    return found, place
                left -= 1
                found.setdefault(book.symbol, []).append(told)
    except DamagedRecording as error:
        log.error("recording_damaged", error=str(error))
        raise ArgusError(INTERNAL, "The recording of these days is damaged.") from error
    return found, None

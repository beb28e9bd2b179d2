"""What of a recorded session must arrive at a client, and how what arrived differs from it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from marketdata.sources.qmt.parse import parse_tick
from marketdata.types import Quote
from tests.emulator.replay import Session

NOT_OF_THE_ROW = ("limit_up", "limit_down", "seq")
"""The day's limits are not in a tick: the source reads them when it is idle and adds them. ``seq`` is the message's."""


def identity(quote: Mapping[str, Any]) -> bytes:
    """What tells a quote of a client from all others: everything that comes from its row."""
    return msgspec.json.encode({name: value for name, value in quote.items() if name not in NOT_OF_THE_ROW}, order="sorted")


@dataclass
class Expected:
    """One code's quotes in order. ``moments`` are the times (ms) of the rows that brought them."""

    quotes: list[bytes] = field(default_factory=list)
    moments: list[int] = field(default_factory=list)


def expected(session: Session) -> dict[str, Expected]:
    """Every row by the way that a terminal's tick takes, without those that equal the one before them."""
    now = time.time_ns() // 1_000_000
    found: dict[str, Expected] = defaultdict(Expected)
    for row in session.rows:
        quote = parse_tick(row.code, row.tick(), now)
        assert isinstance(quote, Quote), quote
        of_code, body = found[quote.symbol], identity(msgspec.to_builtins(quote))
        if not of_code.quotes or of_code.quotes[-1] != body:
            of_code.quotes.append(body)
            of_code.moments.append(row.time)
    return dict(found)


@dataclass(frozen=True)
class Fault:
    """A quote that is not where it belongs. ``kind``: missing, again (it or a later one was there before) or foreign.

    ``place`` is the quote's among the expected ones, ``at`` that of the arrival (or the next arrival) among those of the code.
    """

    kind: str
    code: str
    place: int
    at: int


def faults(code: str, wanted: Expected, arrived: Sequence[bytes]) -> list[Fault]:
    """All between the first and the last arrival of a code; none where nothing is missing, twice or out of order."""
    places = {body: place for place, body in enumerate(wanted.quotes)}
    assert len(places) == len(wanted.quotes), f"two rows of {code} make the same quote"
    found: list[Fault] = []
    last: int | None = None
    for at, body in enumerate(arrived):
        place = places.get(body)
        if place is None:
            found.append(Fault("foreign", code, -1, at))
        elif last is not None and place <= last:
            found.append(Fault("again", code, place, at))
        else:
            found += _missing(code, range(place if last is None else last + 1, place), at)
            last = place
    return found


def _missing(code: str, places: Iterable[int], at: int) -> list[Fault]:
    return [Fault("missing", code, place, at) for place in places]

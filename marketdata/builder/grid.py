"""The minutes of a market's ordinary day, and to which of them a snapshot belongs."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from typing import Final, NamedTuple

from marketdata import periods
from marketdata.builder.rows import D1, MINUTE, PERIODS
from marketdata.calendar import AROUND_THE_CLOCK
from marketdata.types import Period

GRACE, SESSION_GRACE = 4_000, 30_000
"""Milliseconds of the market's clock between a bar's end and its closing without a quote: snapshots stand 3 s apart."""
AFTER_CLOSE: Final = 5 * MINUTE
"""How long after the close snapshots still show the closing auction: the fixed-price session begins then."""


class Slot(NamedTuple):
    """A minute of a market's day, all in ms since midnight.

    Quotes of ``since`` < time <= ``until`` belong to it; ``due`` is when the clock closes it. ``parts`` are begin and end of
    the longer bars that it is in. The first bar of a day begins at 0; ``auction`` is the opening auction's.
    """

    since: int
    until: int
    begin: int
    end: int
    due: int
    auction: bool
    parts: tuple[tuple[int, int], ...]


class Grid:
    """The minutes of one market's ordinary day, and to which of them a snapshot belongs: it shows the trades before it."""

    def __init__(self, market: str) -> None:
        phases = periods.phases_of(market)
        self.around_the_clock = phases is AROUND_THE_CLOCK
        self.opens = phases[0].start
        self.close = periods.close_at(market)
        stretches = periods.stretches(market)
        longer = [periods.bar_ends(market, period) for period in PERIODS[1:D1]]
        slots: list[Slot] = []
        for end in periods.bar_ends(market, Period.M1):
            stretch = next((stretch for stretch in stretches if stretch[0] < end <= stretch[1]), None)
            since, until, grace = end - MINUTE, end, GRACE
            if stretch is None:
                # The opening auction.
                since, until = self.opens - 1, end - 1
            elif self.around_the_clock:
                since, until = since - 1, until - 1
            else:
                if since == stretch[0]:
                    since -= 1
                if end == stretch[1]:
                    until = next((start - 1 for start, _ in stretches if start > end), end + AFTER_CLOSE)
                    grace = SESSION_GRACE
            parts = tuple(_around(ends, end) for ends in longer)
            slots.append(Slot(since, until, slots[-1].end if slots else 0, end, end + grace, stretch is None, parts))
        self.slots = tuple(slots)
        self._untils = [slot.until for slot in slots]
        self.by_end = {slot.end: slot for slot in slots}

    def slot(self, since_midnight: int) -> Slot | None:
        """The minute that a quote belongs to; None before the day's opening and after its last bar."""
        position = bisect_left(self._untils, since_midnight)
        return None if position == len(self.slots) or since_midnight < self.opens else self.slots[position]


def _around(ends: tuple[int, ...], minute: int) -> tuple[int, int]:
    """Begin and end of the longer bar that holds a minute."""
    position = bisect_left(ends, minute)
    return ends[position - 1] if position else 0, ends[position]


@cache
def grid_of(market: str) -> Grid | None:
    try:
        return Grid(market)
    except periods.UnknownHours:
        return None

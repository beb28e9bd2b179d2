"""A bar as it is told, a bar's numbers while it is built, and a symbol's last closed minutes."""

from __future__ import annotations

import math
from array import array
from typing import Final

import msgspec

from marketdata.types import Number, Period

PERIODS: Final = (Period.M1, Period.M5, Period.M15, Period.M30, Period.H1, Period.D1)
"""What is built, shortest first."""
MINUTE: Final = 60_000
D1: Final = len(PERIODS) - 1
HELD: Final = 70
"""Closed minutes of a symbol that are kept to be settled: an hour's, and ten for the terminal to bring them."""
MONEY_DECIMALS: Final = 3
NEVER: Final = 1 << 60


class LiveBar(msgspec.Struct, frozen=True, tag_field="type", tag="kline", kw_only=True):
    """One bar of the running day; ``time`` is its end in ms, of 1d the market's close.

    ``volume`` is None where the source's quotes have none; ``prev_close`` is that of the day's bar alone.
    """

    symbol: str
    period: Period
    time: int
    open: float
    high: float
    low: float
    close: float
    volume: Number | None
    amount: float | None = None
    prev_close: float | None = None
    open_interest: Number | None = None
    closed: bool
    provisional: bool
    source: str


class Row(msgspec.Struct, gc=False):
    """A bar's numbers. ``begin`` and ``end`` in ms."""

    begin: int
    end: int
    open: float
    high: float
    low: float
    close: float
    volume: Number | None
    amount: float | None
    interest: Number | None
    provisional: bool = True
    prev_close: float | None = None
    """Of the day's bar alone."""


def merged(first: Row | None, then: Row, begin: int, end: int) -> Row:
    """A longer bar with one more minute in it."""
    if first is None:
        return Row(
            begin, end, then.open, then.high, then.low, then.close, then.volume, then.amount, then.interest, then.provisional
        )
    return Row(
        begin,
        end,
        first.open,
        max(first.high, then.high),
        min(first.low, then.low),
        then.close,
        None if first.volume is None or then.volume is None else first.volume + then.volume,
        None if first.amount is None or then.amount is None else round(first.amount + then.amount, MONEY_DECIMALS),
        then.interest,
        first.provisional or then.provisional,
    )


class Held:
    """A symbol's last closed minutes as plain numbers, 80 bytes each: 5,500 symbols are 31 MB, as objects they were 100."""

    WIDTH = 10

    __slots__ = ("_numbers", "lost")

    def __init__(self) -> None:
        self._numbers = array("d")
        self.lost = 0
        """The end of the newest minute that is no longer here."""

    def put(self, row: Row) -> None:
        """Add a minute, or replace the one with its end."""
        numbers, width = self._numbers, self.WIDTH
        fresh = array("d", [math.nan if value is None else value for value in msgspec.structs.astuple(row)[: self.WIDTH]])
        position = len(numbers)
        while position and numbers[position - width + 1] >= row.end:
            position -= width
        same = position < len(numbers) and numbers[position + 1] == row.end
        numbers[position : position + width * same] = fresh
        if len(numbers) > HELD * width:
            self.lost = int(numbers[1])
            del numbers[:width]

    def rows(self, after: int, until: int = NEVER) -> list[Row]:
        """The minutes with ends in (after, until], in order."""
        numbers, width = self._numbers, self.WIDTH
        position = len(numbers)
        found = []
        while position and numbers[position - width + 1] > after:
            position -= width
            if numbers[position + 1] <= until:
                found.append(_row(numbers[position : position + width]))
        return found[::-1]


def _row(numbers: array[float]) -> Row:
    begin, end, opened, high, low, close, volume, amount, interest, provisional = numbers
    return Row(
        int(begin),
        int(end),
        opened,
        high,
        low,
        close,
        _number(volume),
        None if math.isnan(amount) else amount,
        _number(interest),
        bool(provisional),
    )


def _number(value: float) -> Number | None:
    return None if math.isnan(value) else int(value) if value.is_integer() else value

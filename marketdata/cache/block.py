"""What the tiers hold: the unadjusted bars of one symbol, one base period and one stretch of time, and which days they cover."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from marketdata.series import EMPTY, Series, merge
from marketdata.types import Period

ALL = "all"
"""The part that holds everything: that of daily bars."""


class BlockKey(NamedTuple):
    """``market`` keeps sources apart (``Config.market``); ``period`` is 1m or 1d; ``part`` is a month (2026-11) of
    1m and ``all`` of 1d."""

    market: str
    symbol: str
    period: Period
    part: str


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """``days`` are the days (``date.toordinal``) of which all is known, whether they have bars or not; closed days alone.

    ``fetched_at``: when the newest of it came from the source, in ms.
    """

    series: Series
    days: frozenset[int]
    fetched_at: int

    def missing(self, days: Iterable[date]) -> list[date]:
        """Those of the days of which this block knows nothing."""
        return [day for day in days if day.toordinal() not in self.days]

    def bare(self) -> Block:
        """What it covers, without its bars."""
        return Block(EMPTY, self.days, self.fetched_at)

    def with_more(self, other: Block) -> Block:
        """Both; where both have a bar the other's counts."""
        return Block(merge(self.series, other.series), self.days | other.days, max(self.fetched_at, other.fetched_at))


def part_of(period: Period, day: date) -> str:
    """The part in which a day's bars of a base period are."""
    return ALL if period is Period.D1 else f"{day.year:04d}-{day.month:02d}"

"""The trading days of a market: the built-in table, and after its end what the source has told.

Within the built-in table's days the table rules. It is the exchanges' own word and is held against recorded calendars, while
a terminal tells what it has downloaded: without its holiday data every weekday, without its history a list with holes. Where
the two differ, the days are logged, counted in ``argus_calendar_conflicts`` and named in the answers. After the table's end
the source's word counts as far as it goes. A market without a table has the source's word alone.

What the source told is kept in this process and replaced as a whole when the revision of the reference data has changed (web
processes notice with the universe, workers with their polls), so ``calendar_of`` never waits and may be called from any
thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

import structlog

from marketdata import metrics, models
from marketdata.calendar import CHINA, OutsideCalendar, TradingCalendar

log = structlog.get_logger(__name__)

MAINLAND = frozenset({"SH", "SZ", "BJ", "IF", "SF", "DF", "ZF", "GF", "INE", "SHO", "SZO", "BKZS"})
"""The markets that share the exchanges' holidays."""
CRYPTO = frozenset({"BINANCE", "BINANCEUM"})
BUILT_IN = "built-in"
"""The source of a day that stands in ``marketdata.holidays``."""


def _every_day(first: date, last: date) -> TradingCalendar:
    return TradingCalendar(first, last, tuple(first + timedelta(days=offset) for offset in range((last - first).days + 1)))


AROUND_THE_CLOCK = _every_day(date(2017, 7, 14), date(2099, 12, 31))
"""From Binance's first day; nobody there announces an end."""


class NoCalendar(OutsideCalendar):
    """A market of which nothing is known, not even on which days something might be."""

    def __init__(self, market: str) -> None:
        super().__init__(date.min, date.min, date.min)
        self.args = (f"nothing is known of the trading days of {market}",)


class Known(NamedTuple):
    """A market's trading days and whose word they are."""

    calendar: TradingCalendar
    source: str
    """``built-in``, the source's name, or both."""
    refreshed_at: datetime | None = None
    """When the source last told; None where it has not."""
    conflicts: tuple[date, ...] = ()
    """Days of the built-in table that the source tells otherwise."""


_built_in = Known(CHINA, BUILT_IN)
_around_the_clock = Known(AROUND_THE_CLOCK, BUILT_IN)
_told: Mapping[str, Known] = MappingProxyType({})
_revision: int | None = None
_looked_at = -math.inf

LOOK_EVERY = 30.0
"""Seconds between two looks of a worker at the revision."""


def calendar_of(market: str) -> TradingCalendar:
    """A market's trading days. Raises ``NoCalendar``, an ``OutsideCalendar``, for a market of which nothing is known."""
    return known_of(market).calendar


def known_of(market: str) -> Known:
    """The same with whose word it is."""
    if market in CRYPTO:
        return _around_the_clock
    known = _told.get(market) or (_built_in if market in MAINLAND else None)
    if known is None:
        raise NoCalendar(market)
    return known


def reload() -> None:
    """Load if the revision has changed, looking at most every ``LOOK_EVERY`` seconds. Raises Django's database errors."""
    global _looked_at
    if time.monotonic() - _looked_at > LOOK_EVERY:
        _looked_at = time.monotonic()
        if _stored_revision() != _revision:
            load()


def _stored_revision() -> int:
    return models.Revision.objects.filter(pk=models.Revision.ONLY).values_list("number", flat=True).first() or 0


def load() -> None:
    """Take what the sources told from the database. Raises Django's database errors."""
    global _told, _revision
    revision = _stored_revision()
    found: dict[str, Known] = {}
    for row in models.TradingDates.objects.all():
        if not row.dates or row.market in CRYPTO:
            continue
        known = found[row.market] = join(row)
        metrics.CALENDAR_CONFLICTS.labels(row.market).set(len(known.conflicts))
        if known.conflicts:
            first = [day.isoformat() for day in known.conflicts[:10]]
            log.warning("calendar_conflict", market=row.market, source=row.source, days=len(known.conflicts), first=first)
    _told, _revision = MappingProxyType(found), revision


def join(row: models.TradingDates) -> Known:
    """What a source told of a market, as it stands beside the built-in table."""
    told = TradingCalendar.from_dates(row.dates)
    if row.market not in MAINLAND:
        return Known(told, row.source, row.refreshed_at)
    conflicts = _conflicts(told)
    if told.last <= CHINA.last or told.first > CHINA.last + timedelta(days=1):
        return Known(CHINA, BUILT_IN, row.refreshed_at, conflicts)
    later = tuple(day for day in told.days if day > CHINA.last)
    joined = TradingCalendar(CHINA.first, told.last, CHINA.days + later)
    return Known(joined, f"{BUILT_IN},{row.source}", row.refreshed_at, conflicts)


def _conflicts(told: TradingCalendar) -> tuple[date, ...]:
    """The days that only one of the two calendars has, where both say something."""
    first, last = max(told.first, CHINA.first), min(told.last, CHINA.last)
    if first > last:
        return ()
    return tuple(sorted(set(told.between(first, last)) ^ set(CHINA.between(first, last))))

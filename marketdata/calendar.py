"""When the exchanges trade: the phases of a day, and the days, as far as they are known.

Phases (half-open, Beijing time):

* A shares on SSE, SZSE and BSE: SSE trading rules 2023, 2.4; SZSE trading rules 2023, 2.4; BSE trading rules (trial) 2021,
  chapter 2. The fixed-price session after hours: SSE STAR Market special trading rules 2019 and SZSE ChiNext special
  trading rules 2020.
* Stock index futures on CFFEX: CFFEX trading rules and the contract specifications of IF, IH, IC and IM (since 2016).
* Binance: around the clock.

Days: all but weekends (SSE trading rules 2023, 2.4) and the exchanges' holidays (``marketdata.holidays``). Nothing is known
outside the table, and nothing is guessed there: the answer is ``OutsideCalendar`` for a day and ``TradingStatus.UNKNOWN`` for
a phase. The phases are those of today's rules, whatever the day.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import NamedTuple

from marketdata import holidays
from marketdata.types import TradingStatus

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")
"""China has had no summer time since 1991, so the zone needs no database (Windows has none)."""

DAY = 86_400_000
"""Milliseconds."""


def _at(text: str) -> int:
    hours, minutes = map(int, text.split(":"))
    return (hours * 60 + minutes) * 60_000


class Phase(NamedTuple):
    """A part of a trading day: ``start`` and ``end`` in ms since midnight, the end excluded."""

    start: int
    end: int
    status: TradingStatus


def _phases(*rows: tuple[str, str, TradingStatus]) -> tuple[Phase, ...]:
    return tuple(Phase(_at(start), _at(end), status) for start, end, status in rows)


A_SHARES = _phases(
    ("09:15", "09:25", TradingStatus.OPENING_AUCTION),
    ("09:25", "09:30", TradingStatus.BREAK),
    ("09:30", "11:30", TradingStatus.CONTINUOUS),
    ("11:30", "13:00", TradingStatus.BREAK),
    ("13:00", "14:57", TradingStatus.CONTINUOUS),
    ("14:57", "15:00", TradingStatus.CLOSING_AUCTION),
)
AFTER_HOURS = _phases(("15:00", "15:05", TradingStatus.BREAK), ("15:05", "15:30", TradingStatus.AFTER_HOURS))
INDEX_FUTURES = _phases(
    ("09:25", "09:30", TradingStatus.OPENING_AUCTION),
    ("09:30", "11:30", TradingStatus.CONTINUOUS),
    ("11:30", "13:00", TradingStatus.BREAK),
    ("13:00", "15:00", TradingStatus.CONTINUOUS),
)
AROUND_THE_CLOCK = (Phase(0, DAY, TradingStatus.CONTINUOUS),)

PHASES: dict[str, tuple[Phase, ...]] = {
    "SH": A_SHARES,
    "SZ": A_SHARES,
    "BJ": A_SHARES,
    "IF": INDEX_FUTURES,
    "BINANCE": AROUND_THE_CLOCK,
    "BINANCEUM": AROUND_THE_CLOCK,
}
"""Market -> the phases of its trading day."""

SINCE: dict[str, date] = {
    "SH": date(2018, 8, 20),
    "SZ": date(2006, 7, 1),
    "BJ": date(2021, 11, 15),
    "IF": date(2016, 1, 1),
}
"""Market -> a phase's first day: the closing auctions of Shanghai and Shenzhen, Beijing's opening, CFFEX's hours of today."""


class OutsideCalendar(LookupError):
    """A day of which the calendar knows nothing. ``first`` and ``last`` are the days that it covers."""

    def __init__(self, day: date, first: date, last: date) -> None:
        super().__init__(f"{day} lies outside the trading calendar, which covers {first} to {last}")
        self.day = day
        self.first = first
        self.last = last


@dataclass(frozen=True)
class TradingCalendar:
    """The trading days of ``first`` to ``last``, in order."""

    first: date
    last: date
    days: tuple[date, ...]

    @classmethod
    def from_dates(cls, dates: Iterable[str]) -> TradingCalendar:
        """The calendar of a source that tells its trading dates (ISO); it covers the first of them to the last."""
        days = tuple(sorted({date.fromisoformat(text) for text in dates}))
        if not days:
            raise ValueError("a calendar needs at least one trading date")
        return cls(days[0], days[-1], days)

    def _inside(self, day: date) -> date:
        if not self.first <= day <= self.last:
            raise OutsideCalendar(day, self.first, self.last)
        return day

    def is_trading_day(self, day: date) -> bool:
        """Raises ``OutsideCalendar``, as all methods do where they would have to guess."""
        position = bisect_left(self.days, self._inside(day))
        return position < len(self.days) and self.days[position] == day

    def next_day(self, day: date) -> date:
        """The first trading day after a day."""
        position = bisect_right(self.days, self._inside(day))
        if position == len(self.days):
            raise OutsideCalendar(self.last + timedelta(days=1), self.first, self.last)
        return self.days[position]

    def previous_day(self, day: date) -> date:
        """The last trading day before a day."""
        position = bisect_left(self.days, self._inside(day))
        if position == 0:
            raise OutsideCalendar(self.first - timedelta(days=1), self.first, self.last)
        return self.days[position - 1]

    def between(self, start: date, end: date) -> tuple[date, ...]:
        """The trading days from ``start`` to ``end``, both included."""
        return self.days[bisect_left(self.days, self._inside(start)) : bisect_right(self.days, self._inside(end))]


def _china() -> TradingCalendar:
    closed = frozenset(holidays.closed_weekdays())
    days = (holidays.FIRST + timedelta(days=offset) for offset in range((holidays.LAST - holidays.FIRST).days + 1))
    return TradingCalendar(holidays.FIRST, holidays.LAST, tuple(day for day in days if day.weekday() < 5 and day not in closed))


CHINA = _china()
"""The mainland's exchanges, which share their holidays, from Shanghai's first session to the last day announced."""


def day_of(ms: int) -> date:
    """The day in Beijing of a time in ms since the epoch."""
    return datetime.fromtimestamp(ms // 1000, SHANGHAI).date()


def midnight(day: date) -> int:
    """The beginning of a day in Beijing, in ms since the epoch."""
    return int(datetime.combine(day, time(), SHANGHAI).timestamp()) * 1000


def phases_of(market: str, *, after_hours: bool = False) -> tuple[Phase, ...]:
    """The phases of a market's trading day; none where its hours are not known.

    ``after_hours`` is for instruments with the fixed-price session after the close (STAR Market, ChiNext).
    """
    phases = PHASES.get(market, ())
    return phases + AFTER_HOURS if after_hours and phases is A_SHARES else phases


def phase(market: str, ms: int, *, calendar: TradingCalendar = CHINA, after_hours: bool = False) -> TradingStatus:
    """The phase that a market is in at a time, by its rules alone (a halt is the instrument's own affair)."""
    phases = phases_of(market, after_hours=after_hours)
    if not phases:
        return TradingStatus.UNKNOWN
    if phases is AROUND_THE_CLOCK:
        return TradingStatus.CONTINUOUS
    day = day_of(ms)
    try:
        if not calendar.is_trading_day(day):
            return TradingStatus.CLOSED
    except OutsideCalendar:
        return TradingStatus.UNKNOWN
    return phase_at(phases, ms - midnight(day))


def phase_at(phases: tuple[Phase, ...], since_midnight: int) -> TradingStatus:
    """The phase of a trading day at a time of day in ms."""
    if since_midnight < phases[0].start:
        return TradingStatus.PRE_OPEN
    for _, end, status in phases:
        if since_midnight < end:
            return status
    return TradingStatus.CLOSED


class Session(NamedTuple):
    """A stretch of trading: ``start`` and ``end`` in ms since the epoch, the end excluded."""

    start: int
    end: int
    status: TradingStatus


def sessions(market: str, day: date, *, calendar: TradingCalendar = CHINA, after_hours: bool = False) -> tuple[Session, ...]:
    """A day's stretches of trading, pauses left out; none on a day without. Raises ``OutsideCalendar``."""
    phases = phases_of(market, after_hours=after_hours)
    if phases is not AROUND_THE_CLOCK and not calendar.is_trading_day(day):
        return ()
    base = midnight(day)
    return tuple(Session(base + start, base + end, status) for start, end, status in phases if status is not TradingStatus.BREAK)


def next_session(market: str, ms: int, *, calendar: TradingCalendar = CHINA, after_hours: bool = False) -> Session | None:
    """The first stretch of trading that begins after a time; None for a market whose hours are not known.

    Raises ``OutsideCalendar`` where the calendar ends before it.
    """
    if not phases_of(market, after_hours=after_hours):
        return None
    day = day_of(ms)
    while True:
        for session in sessions(market, day, calendar=calendar, after_hours=after_hours):
            if session.start > ms:
                return session
        day += timedelta(days=1)

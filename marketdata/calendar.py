"""When the exchanges trade: the phases of a day, and the days, as far as they are known.

Phases (half-open, Beijing time):

* A shares on SSE, SZSE and BSE: SSE trading rules 2023, 2.4; SZSE trading rules 2023, 2.4; BSE trading rules (trial) 2021,
  chapter 2. The fixed-price session after hours: SSE STAR Market special trading rules 2019 and SZSE ChiNext special
  trading rules 2020.
* Stock index futures on CFFEX: CFFEX trading rules and the contract specifications of IF, IH, IC and IM (since 2016).
* Binance: around the clock.

Days: the State Council's yearly holiday notices as the exchanges published them; the exchanges never trade at a weekend,
worked or not (SSE trading rules 2023, 2.4). Nothing is known outside the table, and nothing is guessed there: the answer
is ``OutsideCalendar`` for a day and ``TradingStatus.UNKNOWN`` for a phase.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import NamedTuple

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

FIRST, LAST = "2020-01-01", "2026-12-31"
"""The days that the table of holidays covers."""

HOLIDAYS = """
2020-01-01 2020-01-24:2020-01-31 2020-04-06 2020-05-01:2020-05-05 2020-06-25:2020-06-26 2020-10-01:2020-10-08
2021-01-01 2021-02-11:2021-02-17 2021-04-05 2021-05-03:2021-05-05 2021-06-14 2021-09-20:2021-09-21 2021-10-01:2021-10-07
2022-01-03 2022-01-31:2022-02-04 2022-04-04:2022-04-05 2022-05-02:2022-05-04 2022-06-03 2022-09-12 2022-10-03:2022-10-07
2023-01-02 2023-01-23:2023-01-27 2023-04-05 2023-05-01:2023-05-03 2023-06-22:2023-06-23 2023-09-29:2023-10-06
2024-01-01 2024-02-09:2024-02-16 2024-04-04:2024-04-05 2024-05-01:2024-05-03 2024-06-10 2024-09-16:2024-09-17
2024-10-01:2024-10-07
2025-01-01 2025-01-28:2025-02-04 2025-04-04 2025-05-01:2025-05-05 2025-06-02 2025-10-01:2025-10-08
2026-01-01:2026-01-02 2026-02-16:2026-02-23 2026-04-06 2026-05-01:2026-05-05 2026-06-19 2026-09-25 2026-10-01:2026-10-07
"""
"""Weekdays on which the mainland's exchanges do not trade, the first and the last day of each holiday."""


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


def _holidays() -> set[date]:
    days: set[date] = set()
    for word in HOLIDAYS.split():
        first, _, last = word.partition(":")
        start, end = date.fromisoformat(first), date.fromisoformat(last or first)
        days.update(start + timedelta(days=offset) for offset in range((end - start).days + 1))
    return days


def _china() -> TradingCalendar:
    first, last, holidays = date.fromisoformat(FIRST), date.fromisoformat(LAST), _holidays()
    days = (first + timedelta(days=offset) for offset in range((last - first).days + 1))
    return TradingCalendar(first, last, tuple(day for day in days if day.weekday() < 5 and day not in holidays))


CHINA = _china()
"""The mainland's exchanges, as far as they have announced it."""


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

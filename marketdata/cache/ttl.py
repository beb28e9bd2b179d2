"""How long what is held stays good: rules, all by the trading calendar and by how a key is used.

| what                              | L1                              | L2                                       | L3      |
|-----------------------------------|---------------------------------|------------------------------------------|---------|
| closed days                       | until memory is short           | 10 minutes, fourfold with each further   | for good|
|                                   |                                 | use, at most 7 days                      |         |
| the forming bar                   | 1 second                        | 1 second                                 | never   |
| closed bars of the open day       | until the next bar ends, at most 60 s outside the sessions | the same      | never   |
| "the source has none"             | 30 s, then as L2 says           | 30 s; between sessions fourfold with     | never   |
|                                   |                                 | each further such answer, at most until  |         |
|                                   |                                 | the next session                         |         |

The last grows instead of lasting until the morning at once, because sources go on delivering a day for some hours after it.
A minute that has just ended counts as forming for some seconds (``loader.SETTLING``), while its last trades are on their way.
"""

from __future__ import annotations

from typing import Final

from marketdata.calendar import (
    AROUND_THE_CLOCK,
    CHINA,
    OutsideCalendar,
    TradingCalendar,
    day_of,
    midnight,
    next_session,
    sessions,
)
from marketdata.calendar import phases_of as _phases_of
from marketdata.types import Period

FORMING: Final = 1.0
"""Seconds of a forming bar."""

SHARED_FIRST: Final = 600.0
SHARED_LONGEST: Final = 7 * 86_400.0
NOTHING: Final = 30.0
NOTHING_LONGEST: Final = 7 * 86_400.0
GROWTH: Final = 4
BETWEEN_SESSIONS: Final = 60.0

_MINUTES: Final = {Period.M1: 1, Period.M5: 5, Period.M15: 15, Period.M30: 30, Period.H1: 30}
"""The grid that bars of a period end on, in minutes since midnight. Hours end at 10:30, 11:30, 14:00, 15:00."""


def closed_days(uses: int) -> float:
    """Seconds that a block of closed days stays in the shared tier; each use sets them anew."""
    return float(min(SHARED_FIRST * GROWTH ** (min(max(uses, 1), 10) - 1), SHARED_LONGEST))


def open_day(market: str, period: Period, now: int, *, calendar: TradingCalendar = CHINA) -> float:
    """Seconds that the closed bars of the open day stay good: until the next one ends. ``now`` in ms."""
    minutes = _MINUTES.get(period)
    if minutes is None:
        return FORMING  # a day, a week or a month is one forming bar
    if not in_session(market, now, calendar=calendar):
        return min(BETWEEN_SESSIONS, _until_next(market, now, calendar) or BETWEEN_SESSIONS)
    grid = minutes * 60_000
    since = now - midnight(day_of(now))
    return max(FORMING, (grid - since % grid) / 1000)


def nothing(market: str, now: int, *, times: int = 1, calendar: TradingCalendar = CHINA) -> float:
    """Seconds for which "the source has none" is believed when it was said so many ``times`` in a row. ``now`` in ms."""
    if in_session(market, now, calendar=calendar):
        return NOTHING
    grown = NOTHING * GROWTH ** (min(max(times, 1), 10) - 1)
    ahead = _until_next(market, now, calendar)
    return NOTHING if ahead is None else max(FORMING, min(grown, ahead, NOTHING_LONGEST))


def in_session(market: str, now: int, *, calendar: TradingCalendar = CHINA) -> bool:
    """Whether the market trades; where that is not known it may, so nothing is held for long."""
    phases = _phases_of(market)
    if not phases or phases is AROUND_THE_CLOCK:
        return True
    try:
        today = sessions(market, day_of(now), calendar=calendar)
    except OutsideCalendar:
        return True
    return any(session.start <= now < session.end for session in today)


def _until_next(market: str, now: int, calendar: TradingCalendar) -> float | None:
    """Seconds to the next session; None where the calendar ends before it."""
    try:
        session = next_session(market, now, calendar=calendar)
    except OutsideCalendar:
        return None
    return None if session is None else (session.start - now) / 1000

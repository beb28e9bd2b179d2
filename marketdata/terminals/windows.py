"""Maintenance windows as operators write them: ``daily 05:00-05:40; sat-sun 00:00-24:00; mon,wed 22:30-01:00``.

    windows = [ window { ";" window } ]
    window  = days  time "-" time
    days    = "daily" | days of the week (mon tue wed thu fri sat sun) and ranges of them (mon-fri, fri-mon), with commas
    time    = HH:MM in Shanghai; an end of 24:00 is midnight

The start is within, the end is not. One that ends before it starts goes on over midnight and belongs to the day it begins:
``fri 22:30-01:00`` ends on Saturday. No text, no windows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.utils.translation import gettext as _

from marketdata.calendar import day_of, midnight

EXAMPLE = "daily 05:00-05:40; sat-sun 00:00-24:00; mon,wed 22:30-01:00"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60

_WINDOW = re.compile(r"(?P<days>[^0-9:]*[^0-9:\s])\s+(?P<start>[0-9:]+)\s*-\s*(?P<end>[0-9:]+)")
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})")


@dataclass(frozen=True, slots=True)
class Window:
    """On ``days`` (Monday is 0, ascending) from ``start`` to ``end``, in minutes since the midnight that begins the day.

    ``end`` is larger than ``start``, and over 24 hours where the window goes on over midnight. Raises ``ValueError`` where
    that does not hold, or where one day's window would run into the next one's.
    """

    days: tuple[int, ...]
    start: int
    end: int

    def __post_init__(self) -> None:
        if not self.days or list(self.days) != sorted(set(self.days)) or not set(self.days) <= set(range(7)):
            raise ValueError("days must be 0 to 6, ascending, each once, and at least one")
        if not (0 <= self.start < DAY_MINUTES and self.start < self.end <= max(DAY_MINUTES, self.start + DAY_MINUTES - 1)):
            raise ValueError("a window starts within its day and ends after that, before it would start again")


def parse(text: str) -> tuple[Window, ...]:
    """The windows that a text names, in its order. Raises ``ValueError`` that says what is wrong, with an example."""
    return tuple(_window(part.strip().lower()) for part in text.split(";") if part.strip())


def format(windows: Iterable[Window]) -> str:
    """The canonical text of windows, which ``parse`` reads as the same ones."""
    return "; ".join(f"{_days_text(window.days)} {_clock(window.start)}-{_clock(window.end)}" for window in windows)


def inside(windows: Iterable[Window], when_ms: int) -> Window | None:
    """The first of the windows that holds a time (ms since the epoch), None where none does."""
    return next((window for window in windows if _end(window, when_ms) is not None), None)


def ends(window: Window, when_ms: int) -> int:
    """When the window that holds a time ends on that occasion, both in ms since the epoch. ``ValueError`` outside of it."""
    end = _end(window, when_ms)
    if end is None:
        raise ValueError(f"{when_ms} is not within {format([window])}")
    return end


def begins(windows: Iterable[Window], when_ms: int) -> int | None:
    """When the next of the windows begins after a time, both in ms since the epoch; None where there is none."""
    today = day_of(when_ms)
    found = (
        midnight(day) + window.start * 60_000
        for window in windows
        for day in (today + timedelta(days=ahead) for ahead in range(8))
        if day.weekday() in window.days
    )
    return min((begin for begin in found if begin > when_ms), default=None)


def _end(window: Window, when_ms: int) -> int | None:
    today = day_of(when_ms)
    for day in (today, today - timedelta(days=1)):
        begin = midnight(day)
        if day.weekday() in window.days and begin + window.start * 60_000 <= when_ms < begin + window.end * 60_000:
            return begin + window.end * 60_000
    return None


def _window(text: str) -> Window:
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise _wrong(text, _("a window is days and two times, and ; separates windows"))
    start, end = _minutes(text, match["start"]), _minutes(text, match["end"])
    if start == DAY_MINUTES:
        raise _wrong(text, _("24:00 can only be an end"))
    if start == end:
        raise _wrong(text, _("it ends when it starts; a whole day is 00:00-24:00"))
    return Window(_days(text, match["days"]), start, end if end > start else end + DAY_MINUTES)


def _days(text: str, names: str) -> tuple[int, ...]:
    if names == "daily":
        return tuple(range(7))
    days: set[int] = set()
    for item in names.split(","):
        first, dash, last = (name.strip() for name in item.partition("-"))
        for name in (first, last) if dash else (first,):
            if name not in DAYS:
                known = ", ".join(("daily", *DAYS))
                raise _wrong(text, _("%(name)s is not a day; days are %(known)s") % {"name": repr(name), "known": known})
        begin, end = DAYS.index(first), DAYS.index(last if dash else first)
        days.update(day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))
    return tuple(sorted(days))


def _minutes(text: str, clock: str) -> int:
    match = _TIME.fullmatch(clock)
    minutes = int(match[1]) * 60 + int(match[2]) if match and int(match[2]) < 60 else DAY_MINUTES + 1
    if minutes > DAY_MINUTES:
        raise _wrong(text, _("%(time)s is not a time from 00:00 to 24:00") % {"time": repr(clock)})
    return minutes


def _wrong(text: str, why: str) -> ValueError:
    return ValueError(_("%(text)s: %(why)s. Example: %(example)s") % {"text": repr(text), "why": why, "example": EXAMPLE})


def _days_text(days: tuple[int, ...]) -> str:
    if len(days) == 7:
        return "daily"
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(DAYS[run[0]] if len(run) == 1 else f"{DAYS[run[0]]}-{DAYS[run[-1]]}" for run in runs)


def _clock(minutes: int) -> str:
    minutes = minutes if minutes <= DAY_MINUTES else minutes - DAY_MINUTES
    return f"{minutes // 60:02d}:{minutes % 60:02d}"

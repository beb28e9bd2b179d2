"""What is asked of history: one frozen value, made from a request's words, each refused under the name of its parameter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeVar

import msgspec

from argus.errors import INVALID_ARGUMENT, OUTSIDE_CALENDAR, ArgusError
from marketdata.calendar import DAY, SHANGHAI, TradingCalendar, day_of, midnight
from marketdata.series import COLUMNS
from marketdata.types import Adjust, Period

Choice = TypeVar("Choice", Period, Adjust)

MAX_COUNT: Final = 1_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
POINT_IN_TIME: Final = frozenset({Adjust.FRONT, Adjust.FRONT_RATIO})
"""Adjustments that look back from a day, so that a later dividend changes all that came before it."""

_DAY = re.compile(r"\d{8}|\d{4}-\d{2}-\d{2}")
# A plus sign in an address is a space by the time that it is read.
_MOMENT = re.compile(
    r"(\d{8}|\d{4}-\d{2}-\d{2})[T ]?(\d{2}):?(\d{2})(?::?(\d{2})(?:[.,](\d{1,6}))?)?(Z|[+ -]\d{2}(?::?\d{2})?)?", re.IGNORECASE
)


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Bars with end stamps in [start, end] (ms; ``end`` None: up to now), the last ``count`` of them per symbol if given.

    ``symbols`` are canonical and in the order of the answer; ``fields`` are columns of ``marketdata.series``.
    ``as_of`` is the last day whose dividends a front adjustment knows; None: the market's today.
    """

    symbols: tuple[str, ...]
    period: Period
    start: int | None = None
    end: int | None = None
    count: int | None = None
    adjust: Adjust = Adjust.NONE
    as_of: date | None = None
    fields: tuple[str, ...] = COLUMNS

    def canonical(self) -> bytes:
        """The same bytes for the same question."""
        return msgspec.json.encode(self)


def make(
    *,
    symbols: Sequence[str],
    period: str,
    start: str | None = None,
    end: str | None = None,
    count: str | int | None = None,
    adjust: str | None = None,
    as_of: str | None = None,
    fields: Sequence[str] = (),
    calendar: TradingCalendar,
) -> HistoryQuery:
    """The query of a request's words; ``symbols`` have been resolved, ``fields`` empty means all.

    A day alone (2026-01-05 or 20260105) means the whole of it, as a start and as an end; a moment is 2026-01-05T09:31 or
    20260105093100, in Beijing time where no offset says otherwise (Z, +08:00), or ms since the epoch. Raises ``ArgusError``
    that names the parameter.
    """
    if not symbols:
        raise ArgusError(INVALID_ARGUMENT, "Name at least one symbol: symbols=000001.SZ,600000.SH", parameter="symbols")
    wanted = _one_of(Period, period, "period")
    method = Adjust.NONE if adjust is None else _one_of(Adjust, adjust, "adjust")
    first = None if start is None else read_time(start, "start", is_end=False)
    last = None if end is None else read_time(end, "end", is_end=True)
    number = None if count is None else _count(count)
    if first is None and number is None:
        raise ArgusError(INVALID_ARGUMENT, "Give a start (start=2026-01-05) or how many bars (count=20).", parameter="start")
    if first is not None and last is not None and first > last:
        raise ArgusError(INVALID_ARGUMENT, f"The start, {start}, is after the end, {end}.", parameter="start")
    if first is not None:
        _on_calendar(first, "start", calendar)
    if last is not None:
        _on_calendar(last, "end", calendar)
    known_until = None if as_of is None else _as_of(as_of, method, calendar)
    if known_until is not None and first is not None and first >= midnight(known_until) + DAY:
        detail = f"The start, {start}, is after {known_until}, and after as_of there are no bars."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="as_of")
    return HistoryQuery(
        symbols=tuple(dict.fromkeys(symbols)),
        period=wanted,
        start=first,
        end=last,
        count=number,
        adjust=method,
        as_of=known_until,
        fields=_fields(fields),
    )


def read_time(text: str, parameter: str, *, is_end: bool) -> int:
    """A day or a moment in ms since the epoch; of a day the first ms, or with ``is_end`` the last one."""
    word = text.strip()
    try:
        if _DAY.fullmatch(word):
            day = midnight(date.fromisoformat(word))
            return day + DAY - 1 if is_end else day
        if found := _MOMENT.fullmatch(word):
            return _moment(*found.groups())
    except (ValueError, OverflowError):
        pass
    # Twelve digits that are no date and time are a time before 2001-09-09.
    if word.isascii() and word.isdigit() and len(word) in (12, 13):
        return int(word)
    detail = (
        f"{word[:40]!r} is not a time: write 2026-01-05, 2026-01-05T09:31 (Beijing time), 2026-01-05T01:31Z or milliseconds "
        "since the epoch."
    )
    raise ArgusError(INVALID_ARGUMENT, detail, parameter=parameter)


def _moment(on: str, hours: str, minutes: str, seconds: str | None, fraction: str | None, offset: str | None) -> int:
    """The parts of a moment in ms since the epoch. Raises ValueError or OverflowError where there is no such moment."""
    zone = "" if offset is None else offset.upper().replace(" ", "+")
    text = f"{date.fromisoformat(on)}T{hours}:{minutes}:{seconds or '00'}.{(fraction or '').ljust(6, '0')}{zone}"
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=SHANGHAI)
    return (moment.astimezone(SHANGHAI) - EPOCH) // timedelta(milliseconds=1)


def read_day(text: str, parameter: str) -> date:
    """A day, as 2026-01-05 or 20260105."""
    word = text.strip()
    try:
        if _DAY.fullmatch(word):
            return date.fromisoformat(word)
    except ValueError:
        pass
    raise ArgusError(INVALID_ARGUMENT, f"{word[:40]!r} is not a day: write 2026-01-05.", parameter=parameter)


def _one_of(choices: type[Choice], word: str, parameter: str) -> Choice:
    try:
        return choices(word.strip())
    except ValueError:
        detail = f"There is no {parameter} {word[:40]!r}; there is {', '.join(choices)}."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter=parameter) from None


def _count(count: str | int) -> int:
    text = str(count).strip()
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 7 and 1 <= int(text) <= MAX_COUNT):
        raise ArgusError(INVALID_ARGUMENT, f"{text[:40]!r} bars cannot be given: 1 to {MAX_COUNT:,} can.", parameter="count")
    return int(text)


def _on_calendar(ms: int, parameter: str, calendar: TradingCalendar) -> None:
    day = day_of(ms)
    if not calendar.first <= day <= calendar.last:
        detail = f"{day} lies outside the trading calendar, which covers {calendar.first} to {calendar.last}."
        raise ArgusError(
            OUTSIDE_CALENDAR, detail, parameter=parameter, first=calendar.first.isoformat(), last=calendar.last.isoformat()
        )


def _as_of(text: str, method: Adjust, calendar: TradingCalendar) -> date:
    if method not in POINT_IN_TIME:
        detail = f"as_of belongs to adjust={' or adjust='.join(sorted(POINT_IN_TIME))}; here adjust is {method}."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="as_of")
    day = read_day(text, "as_of")
    _on_calendar(midnight(day), "as_of", calendar)
    return day


def _fields(names: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        detail = f"There is no field {unknown[0][:40]!r}; there is {', '.join(COLUMNS)}."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="fields")
    return tuple(dict.fromkeys(names)) or COLUMNS

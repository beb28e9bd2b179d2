"""What must be there for a query, day by day, and what must be fetched for it, chunk by chunk: pure rules over a calendar.

A day is closed once the market's clock has passed ``periods.closed_after``; until then it is the open day, of which there
are only the bars that have ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import groupby
from typing import Final, NamedTuple

from marketdata import periods
from marketdata.cache.block import BlockKey, part_of
from marketdata.calendar import DAY, OutsideCalendar, TradingCalendar, day_of, midnight
from marketdata.types import Period

CHUNK_SYMBOLS: Final = 100
"""Terminals time out at calls for some 500 symbols."""
CHUNK_DAYS: Final = 500
"""Trading days of 1d in a chunk, two years; of 1m a chunk ends with its month, as a block does."""
DAYS_IN: Final[Mapping[Period, int]] = {Period.D1: 1, Period.W1: 5, Period.MON1: 23}
"""Trading days that a bar may take."""


class Need(NamedTuple):
    """Closed days in order, and the open day if it is asked for and may have bars."""

    days: tuple[date, ...]
    open_day: date | None

    @property
    def first(self) -> date | None:
        """The first day of all."""
        return self.days[0] if self.days else self.open_day

    @property
    def last(self) -> date | None:
        """The last day of all."""
        return self.open_day or (self.days[-1] if self.days else None)


class Chunk(NamedTuple):
    """One call to a terminal: the days ``first`` to ``last`` of up to ``CHUNK_SYMBOLS`` symbols, within one block each."""

    symbols: tuple[str, ...]
    period: Period
    first: date
    last: date

    @property
    def part(self) -> str:
        """The part of the block in which its days are."""
        return part_of(self.period, self.first)

    @property
    def start(self) -> int:
        """The first stamp that a bar of it can have, in ms."""
        return midnight(self.first) + 1

    @property
    def end(self) -> int:
        """The last one."""
        return midnight(self.last) + DAY


def is_closed(market: str, day: date, now: int) -> bool:
    """Whether nothing of the day can change any more, by the market's clock. The fixed-price session after hours is waited
    for on every board: the half hour costs less than telling them apart."""
    return now >= periods.closed_after(market, day, True)


def days_for(count: int, market: str, period: Period) -> int:
    """Trading days that ``count`` bars are expected to take, generously: days without trading do happen."""
    if period in DAYS_IN:
        return (count + 1) * DAYS_IN[period] + count * DAYS_IN[period] // 10 + 2
    return -(-count // max(1, len(periods.bar_ends(market, period)))) + 2


def need(
    *,
    market: str,
    period: Period,
    start: int | None,
    end: int | None,
    count: int | None,
    now: int,
    calendar: TradingCalendar,
    widen: int = 1,
) -> Need:
    """The days whose base bars the answer is made of. Weeks and months are taken whole, as far as they have come.

    Without a start it goes back as many days as ``count`` bars should take, ``widen`` times; never before the calendar.
    Raises ``OutsideCalendar`` where it would have to go on after the calendar's end.
    """
    # A bar that ends at midnight is of the day before.
    until = day_of((now if end is None else min(end, now)) - 1)
    if until > calendar.last:
        raise OutsideCalendar(until, calendar.first, calendar.last)
    if until < calendar.first:
        return Need((), None)
    if period in (Period.W1, Period.MON1):
        until = min(span_of(period, until, calendar)[1], day_of(now), calendar.last)
    if start is not None:
        since = max(day_of(start), calendar.first)
    else:
        known = calendar.between(calendar.first, until)
        back = known[-days_for(count or 1, market, period) * widen :]
        since = back[0] if back else until
    if period in (Period.W1, Period.MON1) and since <= calendar.last:
        since = span_of(period, since, calendar)[0]
    if since > until:
        return Need((), None)
    days = calendar.between(since, until)
    closed = tuple(day for day in days if is_closed(market, day, now)) if days and _recent(days[-1], now) else days
    rest = days[len(closed) :]
    open_day = rest[0] if rest else None
    if open_day is not None and periods.base_of(period) is Period.D1 and now < periods.close_of(market, open_day):
        open_day = None
    return Need(closed, open_day)


def _recent(day: date, now: int) -> bool:
    return day >= day_of(now) - timedelta(days=7)


def span_of(period: Period, day: date, calendar: TradingCalendar) -> tuple[date, date]:
    """``periods.span_of``, and of a day beyond the calendar the day alone."""
    try:
        return periods.span_of(period, day, calendar)
    except OutsideCalendar:
        return day, day


def keys_of(market: str, symbol: str, base: Period, days: Sequence[date]) -> dict[BlockKey, tuple[date, ...]]:
    """The blocks in which the days are, each with its days."""
    if base is Period.D1:
        groups = [tuple(days)] if days else []
    else:
        groups = [tuple(group) for _, group in groupby(days, lambda day: (day.year, day.month))]
    return {BlockKey(market, symbol, base, part_of(base, group[0])): group for group in groups}


def chunks(missing: Mapping[BlockKey, Sequence[date]], days: Sequence[date]) -> Iterator[Chunk]:
    """The fewest calls that bring what is missing and nothing else; ``days`` are all trading days around it, in order."""
    position = {day: number for number, day in enumerate(days)}
    wanted: dict[tuple[Period, date, date], list[str]] = {}
    for key, lacking in missing.items():
        for first, last in _runs(lacking, position, CHUNK_DAYS):
            wanted.setdefault((key.period, first, last), []).append(key.symbol)
    for (period, first, last), symbols in sorted(wanted.items(), key=lambda item: item[0][1], reverse=True):
        for begin in range(0, len(symbols), CHUNK_SYMBOLS):
            yield Chunk(tuple(symbols[begin : begin + CHUNK_SYMBOLS]), period, first, last)


def _runs(days: Iterable[date], position: Mapping[date, int], longest: int) -> Iterator[tuple[date, date]]:
    """Stretches of days that follow each other, none longer than ``longest``."""
    run: list[date] = []
    for day in days:
        if run and (position[day] != position[run[-1]] + 1 or len(run) == longest):
            yield run[0], run[-1]
            run = []
        run.append(day)
    if run:
        yield run[0], run[-1]

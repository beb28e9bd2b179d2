"""Bars for other vendors' clients: the same symbols, limits and service as the native address, asked by where bars begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from argus.access.principal import Principal
from argus.config import config
from argus.errors import INVALID_ARGUMENT, NOT_READY, OUTSIDE_CALENDAR, ArgusError
from argus.streamed import Reply, beside
from marketdata import market_time
from marketdata.api.history import QUICK, QUICK_SYMBOLS
from marketdata.api.query import allow_symbols, calendar_for, refuse_if_nothing
from marketdata.calendar import day_of
from marketdata.compat.begins import ends_within
from marketdata.history.query import HistoryQuery
from marketdata.history.service import Prepared, estimate, prepare, prepare_now
from marketdata.history.words import resolve, resolve_now
from marketdata.types import Adjust, Period
from marketdata.universe import Resolution

Build = Callable[[tuple[str, ...]], HistoryQuery]
"""The query for symbols; raises ``ArgusError``."""
Finish = Callable[[Prepared], Reply]
"""The answer with what has been prepared; may take a moment."""


async def answer(
    words: Sequence[str], principal: Principal, *, parameter: str, build: Build, finish: Finish, request_id: str
) -> Reply:
    """The answer of the bars of what the words stand for, at once where all is in memory, else made beside the event loop.

    ``parameter`` is what the dialect calls the symbols. Raises ``ArgusError``.
    """
    allow_symbols(principal, len(words), parameter)
    known = resolve_now(words)
    if known is not None:
        query = build(_allowed(known, principal, parameter))
        if len(query.symbols) <= QUICK_SYMBOLS and estimate(query, market_time.now()) <= QUICK:
            prepared = prepare_now(query)
            if prepared is not None:
                return finish(prepared)

    def work(seconds: float) -> Reply:
        found = known or resolve(words)
        query = build(_allowed(found, principal, parameter))
        return finish(prepare(query, deadline_seconds=seconds, request_id=request_id))

    return await beside(work, config.fetch_timeout)


def _allowed(resolution: Resolution, principal: Principal, parameter: str) -> tuple[str, ...]:
    refuse_if_nothing(resolution, parameter)
    allow_symbols(principal, len(resolution.symbols), parameter)
    if not resolution.symbols:
        detail = "The source has not told its symbols yet; try again shortly, or name them one by one."
        raise ArgusError(NOT_READY, detail, parameter=parameter, retry_after=2)
    return resolution.symbols


def between(
    symbols: tuple[str, ...],
    period: Period,
    first: int,
    last: int,
    *,
    parameters: tuple[str, str],
    adjust: Adjust = Adjust.NONE,
    count: int | None = None,
) -> HistoryQuery:
    """The query for all bars that reach into [first, last] (ms), or the last ``count`` of them.

    What is later than now is not asked for. ``parameters`` are what the dialect calls the two ends. Raises INVALID_ARGUMENT
    and OUTSIDE_CALENDAR.
    """
    if first > last:
        raise ArgusError(INVALID_ARGUMENT, f"{parameters[0]} is after {parameters[1]}.", parameter=parameters[0])
    calendar = calendar_for(symbols)
    now = market_time.now()
    for ms, parameter in zip((first, last), parameters, strict=True):
        if not calendar.first <= (day := day_of(min(ms, now))) <= calendar.last:
            detail = f"{parameter}: {day} lies outside the trading calendar, which covers {calendar.first} to {calendar.last}."
            raise ArgusError(OUTSIDE_CALENDAR, detail, parameter=parameter)
    # A range that begins later than now has nothing in it.
    start, end = ends_within(period, first, max(first, min(last, now)))
    return HistoryQuery(symbols=symbols, period=period, start=start, end=end, count=count, adjust=adjust)

"""The bars of a chart: TradingView asks for some before a moment, or between two, and where there are none for where to go on.

Blocking. All bars come from the history service; the day that is going on is made of the newest quote.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from argus.errors import BY_NAME, INVALID_ARGUMENT, OUTSIDE_CALENDAR, UNSUPPORTED, ArgusError
from marketdata import market_time, periods
from marketdata.api.query import Query
from marketdata.calendar import day_of, midnight
from marketdata.compat import udf_quotes
from marketdata.compat.udf_symbols import one, resolve
from marketdata.compat.udf_times import RESOLUTIONS, SECONDS, as_udf, first_end, last_end, seconds_of
from marketdata.history.query import HistoryQuery
from marketdata.history.service import estimate, prepare
from marketdata.periods import MINUTE, MINUTES
from marketdata.reference.days import NoCalendar, calendar_of
from marketdata.series import EMPTY, Series, from_bars, join
from marketdata.symbols import market_of
from marketdata.types import Bar, Period

MOST: Final = 10_000
"""Bars of an answer; of more the last ones are given."""
LONGEST_NUMBER: Final = 11
"""Digits of a time in seconds."""
FEWEST: Final = 16
"""Bars that are looked at at least, ..."""
ROUNDS: Final = 5
"""... and how often four times as many are: days without a trade are no bars, and of those there may be years."""


class Asked(NamedTuple):
    """A request, read: bars at or after ``since`` and before ``before`` (UDF's seconds), or the last ``countback`` before it."""

    symbol: str
    period: Period
    since: int
    before: int
    countback: int | None


def history(query: Query, request_id: str, seconds: float) -> dict[str, Any]:
    """The answer to /history. Raises ``ArgusError``."""
    asked = _read(query)
    bars = Bars(asked.symbol, asked.period, request_id, time.monotonic() + seconds)
    if asked.countback is None:
        found = bars.between(asked.since, asked.before)
        begin = min(asked.since, asked.before)
    else:
        found = bars.last(asked.before, asked.countback)
        begin = asked.before
    if len(found):
        return _table(found)
    earlier = bars.newest_before(begin)
    return {"s": "no_data"} if earlier is None else {"s": "no_data", "nextTime": earlier}


def _read(query: Query) -> Asked:
    word = one(query, "resolution")
    # TradingView writes D and 1D, and so on.
    period = RESOLUTIONS.get(word) or RESOLUTIONS.get(f"1{word}")
    if period is None:
        detail = f"There is no resolution {word[:20]!r}; there is {', '.join(RESOLUTIONS)}."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="resolution")
    before = _number(query, "to")
    countback = None
    if "countback" in query:
        # It goes before ``from``.
        countback = min(_number(query, "countback"), MOST)
        if countback < 1:
            raise ArgusError(INVALID_ARGUMENT, "Fewer bars than one cannot be given.", parameter="countback")
    since = 0 if countback is not None else _number(query, "from")
    return Asked(resolve(one(query, "symbol")), period, since, before, countback)


def _number(query: Query, parameter: str) -> int:
    text = one(query, parameter)
    whole = text.removeprefix("-")
    if not (whole.isascii() and whole.isdigit() and len(whole) <= LONGEST_NUMBER):
        raise ArgusError(INVALID_ARGUMENT, f"{text[:40]!r} is not a whole number.", parameter=parameter)
    # What lies before 1970 has no bars here.
    return max(0, int(text))


def _table(series: Series) -> dict[str, Any]:
    columns: Sequence[tuple[str, Any]] = (
        ("t", series.time),
        ("o", series.open),
        ("h", series.high),
        ("l", series.low),
        ("c", series.close),
        ("v", series.volume),
    )
    return {"s": "ok", **{name: column.tolist() for name, column in columns}}


class Bars:
    """One symbol's bars of one period with UDF's times. ``deadline`` is on the monotonic clock. Raises ``ArgusError``."""

    def __init__(self, symbol: str, period: Period, request_id: str, deadline: float) -> None:
        self._symbol = symbol
        self._period = period
        self._request_id = request_id
        self._deadline = deadline
        self._hours = periods.hours_of(symbol)
        self._now = market_time.now()
        try:
            self._calendar = calendar_of(market_of(symbol))
            periods.bar_ends(self._hours, period)
        except NoCalendar as error:
            raise ArgusError(OUTSIDE_CALENDAR, f"{error}.", parameter="symbol") from None
        except periods.UnknownHours as error:
            raise ArgusError(UNSUPPORTED, f"{error}.", parameter="resolution") from None
        self._first = midnight(self._calendar.first)

    def between(self, since: int, before: int) -> Series:
        """The bars from ``since`` on and before ``before``, the last ``MOST`` of them."""
        end = self._end(before)
        start = max(self._first, first_end(since, self._period))
        if start > end:
            return EMPTY
        query = HistoryQuery(symbols=(self._symbol,), period=self._period, start=start, end=end)
        if estimate(query, self._now) > MOST:
            return self.last(before, MOST).between(since, None)
        return self._told(self._with_today(self._ask(query), end)).between(since, before - 1)

    def last(self, before: int, count: int) -> Series:
        """The last ``count`` bars before a moment, or as many as are within reach."""
        end = self._end(before)
        native = found = EMPTY
        for number in range(ROUNDS):
            if end <= self._first:
                break
            wanted = max(count - len(found), FEWEST * 4**number)
            older = self._newest(end, wanted)
            native = join((older, native)) if number else self._with_today(older, end)
            found = self._told(native)
            if len(found) >= count or len(older) < wanted:
                break
            end = int(older.time[0]) - 1
        return found.last(count)

    def newest_before(self, before: int) -> int | None:
        """The time of the newest bar before a moment; None where none is known. Of minutes, however long nothing was traded:
        the days tell when it last was."""
        found = self.last(before, 1)
        if not len(found) and self._period in MINUTES:
            days = Bars(self._symbol, Period.D1, self._request_id, self._deadline)
            traded = days.last(seconds_of(day_of(before * 1000)), 1)
            if len(traded):
                # Midnight in Beijing after that day.
                found = self.last(int(traded.time[-1]) + SECONDS - 8 * 3600, 1)
        return int(found.time[-1]) if len(found) else None

    def _end(self, before: int) -> int:
        # Nothing begins later than now; a calendar need not go on to whatever a chart asks for.
        return last_end(min(before, self._now // 1000 + 1), self._period, self._hours, self._calendar)

    def _told(self, native: Series) -> Series:
        return as_udf(native, self._period, self._hours, self._calendar)

    def _newest(self, end: int, count: int) -> Series:
        """The last bars up to an end stamp, at least ``count`` if there are so many: never the first minute without the auction
        before it, as both are one bar to UDF."""
        found = self._ask(HistoryQuery(symbols=(self._symbol,), period=self._period, end=end, count=count))
        if self._period is not Period.M1 or not len(found):
            return found
        first = int(found.time[0])
        day = midnight(day_of(first - 1))
        if first != day + periods.stretches(self._hours)[0][0] + MINUTE:
            return found
        auction = HistoryQuery(symbols=(self._symbol,), period=self._period, start=day + 1, end=first - 1)
        return join((self._ask(auction), found))

    def _ask(self, query: HistoryQuery) -> Series:
        """The bars of the history service. Where it has none because it could not get them, that is an error, not their end."""
        left = max(0.0, self._deadline - time.monotonic())
        prepared = prepare(query, deadline_seconds=left, request_id=self._request_id)
        for _, series in prepared.parts():
            return series
        problem = BY_NAME.get(prepared.missing.get(self._symbol, ""))
        if problem is not None:
            raise ArgusError(problem)
        return EMPTY

    def _with_today(self, native: Series, end: int) -> Series:
        """With the day that goes on, which the history service gives when it has ended, as the newest quote has it."""
        quote = udf_quotes.newest(self._symbol)
        if self._period in MINUTES or quote is None or not quote.volume:
            return native
        prices = (quote.open, quote.high, quote.low, quote.price)
        stamp = periods.close_of(self._hours, day_of(quote.time))
        known_until = int(native.time[-1]) if len(native) else 0
        if None in prices or not known_until < stamp <= end:
            return native
        names = dict(zip(("open", "high", "low", "close"), prices, strict=True))
        bar: Any = {"symbol": self._symbol, "period": Period.D1, "time": stamp, "volume": quote.volume, **names}
        return join((native, from_bars([Bar(**bar, source=quote.source)])))

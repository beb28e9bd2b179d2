"""The frame of an instrument's day: last close, open, close, limits, halt; and which days the simulated exchanges trade.

Each instrument pays a cash dividend once a year, 1 to 4 % of its price, on an ex-date of its own in June or July. That day
begins at the reference price, the last close less the dividend (SSE and SZSE trading rules 2023, 4.3.2), which is also what
its price limits are made of. Over the year between two ex-dates the price gains what it will lose at the next.
"""

from __future__ import annotations

import math
from datetime import date, timedelta
from functools import lru_cache
from typing import NamedTuple

from marketdata.calendar import CHINA, day_of, midnight
from marketdata.sources.simulated.chance import noise, unit
from marketdata.sources.simulated.instruments import Listing

HISTORY = date(2025, 1, 2)
"""The first day of which there are bars."""

DAY_BEGINS = 9 * 3600
"""Seconds since midnight at which quotes turn to the new day."""

HALTED = 0.004
"""The chance that an instrument is halted for a day."""

SCALE = {10: 1.0, 20: 1.8, 30: 2.5}
"""Price limit in percent -> how much more such instruments move.

A close is ``base * exp(x)``. Over 8 weekdays (the longest holiday and a halted day) x moves by at most
2 * 0.026 + 8 * 2 * 0.45 / 256 = 0.081 times the scale, and by 0.002 towards the next dividend, which is within the limit on
every board.
"""

YIELD = (0.01, 0.04)
"""The least and the most that a dividend is of the price before it."""


def trades_on(day: date) -> bool:
    """The real calendar where it is known; outside of it the simulated exchanges trade on every weekday."""
    if CHINA.first <= day <= CHINA.last:
        return CHINA.is_trading_day(day)
    return day.weekday() < 5


@lru_cache(maxsize=4096)
def trading_day_before(day: date) -> date:
    """The last trading day before a day."""
    day -= timedelta(days=1)
    while not trades_on(day):
        day -= timedelta(days=1)
    return day


def trading_day_at(ms: int) -> date:
    """The trading day whose quotes stand at a time: today's from 09:00 on, else those of the last one."""
    day = day_of(ms)
    if trades_on(day) and ms - midnight(day) >= DAY_BEGINS * 1000:
        return day
    return trading_day_before(day)


class Frame(NamedTuple):
    """What is settled of a day before it begins. Prices in 0.01 yuan; ``swing`` is a wave that the day rides on."""

    prev_close: int
    open: int
    close: int
    limit_up: int
    limit_down: int
    halted: bool
    swing: int

    def within_limits(self, price: int) -> int:
        """The price, or the limit beyond which it lies."""
        if price > self.limit_up:
            return self.limit_up
        return price if price > self.limit_down else self.limit_down


def limits(prev_close: int, percent: int) -> tuple[int, int]:
    """Lowest and highest price of the day, rounded half up to 0.01 yuan (SSE and SZSE trading rules 2023, 3.3)."""
    return (prev_close * (100 - percent) + 50) // 100, (prev_close * (100 + percent) + 50) // 100


def _weekday_number(day: date) -> int:
    weeks, weekday = divmod(day.toordinal() - 1, 7)
    return weeks * 5 + min(weekday, 4)


@lru_cache(maxsize=4096)
def _level(key: int, percent: int, day: date) -> int:
    """The close that an instrument is drawn to on a day."""
    number = _weekday_number(day)
    base = min(1500.0, 6 / math.sqrt(unit(key, 1)))
    moved = 0.026 * (2 * unit(key, 2, number) - 1) + 0.45 * noise(key, number, 256)
    return round(base * math.exp(SCALE[percent] * moved + _gained(key, day)) * 100)


def is_halted(key: int, day: date) -> bool:
    """Halts last a day: an instrument that was to be halted the day before trades."""
    return unit(key, 3, day.toordinal()) < HALTED and unit(key, 3, trading_day_before(day).toordinal()) >= HALTED


def _last_trading_day(key: int, day: date) -> date:
    """The last day before a day on which an instrument has traded."""
    before = trading_day_before(day)
    return trading_day_before(before) if is_halted(key, before) else before


@lru_cache(maxsize=32768)
def _ex_date(key: int, year: int) -> date:
    """The year's ex-date: a trading day in June or July on which the instrument trades."""
    day = date(year, 6, 1) + timedelta(days=int(58 * unit(key, 8, year)))
    while not trades_on(day) or is_halted(key, day):
        day += timedelta(days=1)
    return day


def _yield(key: int, year: int) -> float:
    return YIELD[0] + (YIELD[1] - YIELD[0]) * unit(key, 9, year)


def _gained(key: int, day: date) -> float:
    """What the price has gained (a logarithm) towards the next dividend."""
    ex_date = _ex_date(key, day.year)
    before, after = (ex_date, _ex_date(key, day.year + 1)) if day >= ex_date else (_ex_date(key, day.year - 1), ex_date)
    return -math.log1p(-_yield(key, after.year)) * ((day - before) / (after - before))


class Payment(NamedTuple):
    """A cash dividend per share, and the last close before it; in 0.01 yuan."""

    ex_date: date
    cash: int
    last_close: int


def _key(listing: Listing, seed: int) -> int:
    return listing.key ^ seed * 0x9E3779B97F4A7C15


def payment(listing: Listing, seed: int, year: int) -> Payment:
    """The dividend of a year."""
    return _payment(_key(listing, seed), listing.board.limit, year)


def _payment(key: int, percent: int, year: int) -> Payment:
    ex_date = _ex_date(key, year)
    last_close = _level(key, percent, _last_trading_day(key, ex_date))
    return Payment(ex_date, max(1, round(last_close * _yield(key, year))), last_close)


def frame(listing: Listing, seed: int, day: date) -> Frame:
    """The frame of a trading day."""
    key, percent = _key(listing, seed), listing.board.limit
    halted = is_halted(key, day)
    prev_close = _level(key, percent, _last_trading_day(key, day))
    if day == _ex_date(key, day.year):
        prev_close -= _payment(key, percent, day.year).cash
    low, high = limits(prev_close, percent)
    close = prev_close if halted else _level(key, percent, day)
    gap = 0.25 * (close - prev_close) + 0.01 * SCALE[percent] * prev_close * (2 * unit(key, 4, day.toordinal()) - 1)
    return Frame(
        prev_close=prev_close,
        open=min(high, max(low, prev_close + round(gap))),
        close=close,
        limit_up=high,
        limit_down=low,
        halted=halted,
        swing=_swing(key, prev_close * percent // 100, day),
    )


def _swing(key: int, limit: int, day: date) -> int:
    """One instrument in 40 swings far enough to stand at its limit for a part of the day."""
    chance = unit(key, 5, day.toordinal())
    if chance < 0.018:
        return round(limit * 1.4)
    if chance < 0.025:
        return round(limit * -1.4)
    return round(limit * 0.6 * (chance - 0.5))

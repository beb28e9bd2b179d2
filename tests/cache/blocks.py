"""Blocks to keep: a month of a symbol's bars with plausible numbers."""

from __future__ import annotations

from datetime import date

import numpy as np

from marketdata.cache.block import ALL, Block, BlockKey
from marketdata.calendar import CHINA, midnight
from marketdata.series import Series, join
from marketdata.types import Period

MINUTES = [*range(570, 691), *range(781, 901)]
"""The end stamps of an A share's 1m bars, in minutes since midnight: 09:30 is the opening auction's own bar."""


def month_key(symbol: str = "600000.SH", part: str = "2026-01") -> BlockKey:
    return BlockKey("test", symbol, Period.M1, part)


def day_key(symbol: str = "600000.SH") -> BlockKey:
    return BlockKey("test", symbol, Period.D1, ALL)


def series(times: list[int], seed: int = 1) -> Series:
    count = len(times)
    numbers = np.random.default_rng(seed)
    close = np.round(10 + np.cumsum(numbers.integers(-2, 3, count)) * 0.01, 2)
    volume = numbers.integers(1, 5000, count) * 100
    unknown = np.full(count, np.nan)
    return Series(
        np.array(times, np.int64),
        close,
        close + 0.02,
        close - 0.02,
        close,
        volume,
        np.round(close * volume, 2),
        unknown,
        unknown,
        np.zeros(count, np.bool_),
    )


def minutes(days: list[date], seed: int = 1) -> Series:
    return series([midnight(day) + minute * 60_000 for day in days for minute in MINUTES], seed)


def month(part: str = "2026-01", *, seed: int = 1, days: int | None = None) -> Block:
    year, number = map(int, part.split("-"))
    covered = [day for day in CHINA.days if (day.year, day.month) == (year, number)][:days]
    return Block(minutes(covered, seed), frozenset(day.toordinal() for day in covered), 1767225600000 + seed)


def year(number: int, *, seed: int = 1) -> dict[str, Block]:
    return {part: month(part, seed=seed + index) for index, part in enumerate(f"{number}-{m:02d}" for m in range(1, 13))}


def daily(count: int = 250, *, seed: int = 1) -> Block:
    days = CHINA.days[:count]
    bars = series([midnight(day) + 15 * 3_600_000 for day in days], seed)
    return Block(bars, frozenset(day.toordinal() for day in days), 1767225600000)


def same(one: Block | None, other: Block | None) -> bool:
    assert one is not None
    assert other is not None
    return one.series.equals(other.series) and one.days == other.days and one.fetched_at == other.fetched_at


def whole(blocks: dict[str, Block]) -> Series:
    return join(block.series for _part, block in sorted(blocks.items()))

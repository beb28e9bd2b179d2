"""Bars for the benchmark: a year of minutes of one symbol and a year of days of 500, put into the archive as a fetch would.

``python -m bench.bars`` fills the archive of the settings in the environment.
"""

from __future__ import annotations

import os
from datetime import date

import numpy as np

from marketdata.calendar import CHINA, midnight
from marketdata.series import Series

YEAR = date(2025, 1, 1), date(2025, 12, 31)
DAYS = CHINA.between(*YEAR)
MINUTES = (570, *range(571, 691), *range(781, 901))
"""The ends of the 241 bars of a day, the opening auction's first, in minutes since midnight."""
LONG = "600519.SH"
WIDE = 500
"""How many symbols have daily bars."""


def _series(times: list[int], seed: int) -> Series:
    rng = np.random.default_rng(seed)
    count = len(times)
    close = np.round(20 + np.cumsum(rng.normal(0, 0.01, count)), 2)
    opened = np.round(close + rng.normal(0, 0.01, count), 2)
    volume = rng.integers(1, 10_000, count) * 100
    return Series(
        time=np.array(times, np.int64),
        open=opened,
        high=np.maximum(opened, close) + 0.01,
        low=np.minimum(opened, close) - 0.01,
        close=close,
        volume=volume,
        amount=np.round(close * volume, 2),
        prev_close=np.concatenate([close[:1], close[:-1]]),
        open_interest=np.full(count, np.nan),
        suspended=np.zeros(count, bool),
    )


def minutes(days: tuple[date, ...] = DAYS, seed: int = 1) -> Series:
    """Every minute of some days, 241 a day."""
    return _series([midnight(day) + minute * 60_000 for day in days for minute in MINUTES], seed)


def daily(days: tuple[date, ...] = DAYS, seed: int = 1) -> Series:
    """A bar a day."""
    return _series([midnight(day) + 15 * 3_600_000 for day in days], seed)


def fill() -> None:
    """Write both into the archive."""
    from bench.market import SYMBOLS
    from marketdata.cache.block import ALL, Block, BlockKey, part_of
    from marketdata.cache.tiers import tiers
    from marketdata.types import Period

    held = tiers()
    months: dict[str, list[date]] = {}
    for day in DAYS:
        months.setdefault(part_of(Period.M1, day), []).append(day)
    blocks = {
        BlockKey(held.market, LONG, Period.M1, month): Block(
            minutes(tuple(days)), frozenset(day.toordinal() for day in days), midnight(days[-1])
        )
        for month, days in months.items()
    }
    known = frozenset(day.toordinal() for day in DAYS)
    for number, symbol in enumerate((LONG, *(name for name in SYMBOLS if name != LONG))):
        if number == WIDE:
            break
        blocks[BlockKey(held.market, symbol, Period.D1, ALL)] = Block(daily(seed=number), known, midnight(DAYS[-1]))
    held.put_many(blocks)
    held.close()


if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    django.setup()
    fill()

"""Bars made by hand, and an answer of them that is prepared without any cache or terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np

from marketdata.cache.tiers import Tier
from marketdata.calendar import midnight
from marketdata.history.query import HistoryQuery
from marketdata.history.service import Prepared
from marketdata.series import EMPTY, Series

FIRST = date(2026, 1, 5)
CLOSE = 15 * 3_600_000


def daily(count: int, first: date = FIRST, base: float = 10.0) -> Series:
    """So many daily bars on consecutive days; the volume counts up from 100, amount of every third is not known."""
    days = [midnight(first + timedelta(days=number)) + CLOSE for number in range(count)]
    close = np.round(base + np.arange(count) * 0.01, 2)
    amount = np.where(np.arange(count) % 3 == 2, np.nan, close * 1000)
    unknown = np.full(count, np.nan)
    return Series(
        time=np.array(days, np.int64),
        open=close,
        high=close + 0.5,
        low=close - 0.5,
        close=close,
        volume=np.arange(count, dtype=np.int64) + 100,
        amount=amount,
        prev_close=unknown,
        open_interest=unknown,
        suspended=np.zeros(count, np.bool_),
    )


def cut(query: HistoryQuery, held: dict[str, Series]) -> Iterator[tuple[str, Series]]:
    """What a query asks for, of a dict of series."""
    for symbol in query.symbols:
        series = held.get(symbol, EMPTY).between(query.start, query.end)
        if query.count is not None:
            series = series.last(query.count)
        if len(series):
            yield symbol, series


def prepared(query: HistoryQuery, held: dict[str, Series], **changes: Any) -> Prepared:
    """The answer to a query."""
    about: dict[str, Any] = {
        "query": query,
        "source": "simulated",
        "as_of": midnight(date(2026, 11, 20)) + CLOSE,
        "tiers": Counter({Tier.L1: len(query.symbols)}),
        "tier_of": dict.fromkeys(query.symbols, Tier.L1),
        "missing": {symbol: "no bars" for symbol in query.symbols if symbol not in held},
        "stale": False,
        "age": None,
        "forming_from": None,
        "adjustment": None,
        "etag": str(sum(int(series.volume.sum()) for series in held.values())),
        "closed": True,
        "rows": sum(len(series) for _, series in cut(query, held)),
        "_read": lambda: cut(query, held),
    }
    return Prepared(**(about | changes))

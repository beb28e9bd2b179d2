"""The access pattern of strategies, replayed against the tiers: who asks for which bars how often, and what is found.

Four kinds of request, as strategy engines make them: ``get_price(symbol, count=20, frequency="1m")`` of 300 watched symbols every
minute, daily bars of a year for screening, a chart's month of minutes, and a sweep over the whole market once a day. Symbols are
drawn from Zipf's law. What no tier has is put as a fetch would, and counted as a miss. ``python -m bench.pattern`` prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import date

import numpy as np

from bench.bars import DAYS, daily, minutes
from bench.market import SYMBOLS

REQUESTS = 30_000
WATCHED = 300
SHARES = {"watch": 0.80, "screen": 0.14, "chart": 0.05}
"""The rest is the sweep: symbols one after the other, each once."""


def main() -> None:
    """Replay the pattern with a memory that holds a part of it only."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    django.setup()
    from marketdata.cache.block import ALL, Block, BlockKey, part_of
    from marketdata.cache.tiers import tiers
    from marketdata.types import Period

    held = tiers()
    rng = np.random.default_rng(5)
    month = [day for day in DAYS if day.month == 12]
    last = month[-1]
    minute_bars = minutes(tuple(month))
    day_bars = daily()
    kinds = rng.choice([*SHARES, "sweep"], REQUESTS, p=[*SHARES.values(), 1 - sum(SHARES.values())])
    ranks = np.minimum(rng.zipf(1.2, REQUESTS) - 1, len(SYMBOLS) - 1)
    fetched = swept = 0
    latencies = []
    for kind, rank in zip(kinds, ranks, strict=True):
        if kind == "sweep":
            symbol, swept = SYMBOLS[swept % len(SYMBOLS)], swept + 1
        else:
            symbol = SYMBOLS[int(rank) % WATCHED] if kind == "watch" else SYMBOLS[int(rank)]
        period, days = (Period.D1, DAYS) if kind in ("screen", "sweep") else (Period.M1, [last] if kind == "watch" else month)
        key = BlockKey(held.market, symbol, period, ALL if period is Period.D1 else part_of(period, date(2025, 12, 1)))
        began = time.perf_counter()
        found = held.get(key).block
        latencies.append(time.perf_counter() - began)
        if found is None or (missing := found.missing(days)):
            fetched += 1
            wanted = days if found is None else missing
            series = day_bars if period is Period.D1 else minute_bars
            held.put(key, Block(series, frozenset(day.toordinal() for day in wanted), 0))
    stats = held.stats()
    ranked = sorted(latencies)
    result = {
        "requests": REQUESTS,
        "fetched": fetched,
        "hit_rate": 1 - fetched / REQUESTS,
        "tiers": {name: {"hits": tier.events.hits, "bytes": tier.bytes} for name, tier in stats.tiers.items()},
        "p50_us": ranked[len(ranked) // 2] * 1e6,
        "p99_us": ranked[int(len(ranked) * 0.99)] * 1e6,
    }
    held.close()
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()

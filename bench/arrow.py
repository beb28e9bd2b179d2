"""A symbol-year of minutes as an Arrow stream from the archive, against pyarrow reading the same Parquet file alone.

``python -m bench.arrow`` prints JSON; ``bench.bars`` has filled the archive before. Each round begins with cold tiers.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

ROUNDS = 15


def main() -> None:
    """Take turns, and compare the medians."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    django.setup()
    import pyarrow.parquet as pq

    from argus.config import config
    from bench.bars import LONG, YEAR
    from marketdata.api.formats import arrow
    from marketdata.cache.tiers import Tier, tiers
    from marketdata.calendar import midnight
    from marketdata.history.query import HistoryQuery
    from marketdata.history.service import prepare
    from marketdata.series import COLUMNS
    from marketdata.types import Adjust, Period

    held = tiers()
    path = next(Path(config.archive).rglob("2025.parquet"))
    query = HistoryQuery(
        symbols=(LONG,),
        period=Period.M1,
        start=midnight(YEAR[0]),
        end=midnight(YEAR[1]) + 86_399_999,
        count=None,
        adjust=Adjust.NONE,
        as_of=None,
        fields=COLUMNS,
    )
    alone: list[float] = []
    ours: list[float] = []
    rows = size = 0
    for _ in range(ROUNDS):
        # First: it also waits until nothing is on its way into Redis.
        held.clear(tiers={Tier.L1, Tier.L2})
        began = time.perf_counter()
        rows = pq.read_table(path).num_rows
        alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        prepared = prepare(query, deadline_seconds=10, request_id="bench")
        size = sum(len(chunk) for chunk in arrow.write(prepared.parts(), [LONG], COLUMNS, b"{}"))
        ours.append(time.perf_counter() - began)
        assert set(prepared.tiers) == {Tier.L3}, prepared.tiers
    held.close()
    result = {
        "rows": rows,
        "bytes": size,
        "pyarrow_ms": statistics.median(alone) * 1000,
        "argus_ms": statistics.median(ours) * 1000,
        "times": statistics.median(ours) / statistics.median(alone),
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()

"""Built bars held against the terminal's own: what is equal is no longer provisional, what differs is replaced and noted.

Two numbers are equal where they say the same to the unit that both can tell: prices to the tick, amounts to one unit of
currency (terminals send them as sums of floats), volumes to the share, and of stocks and funds to half a lot where the
terminal's is a whole number of lots, as QMT counts K-lines in lots. An equal bar keeps the numbers that were built from
quotes, which are the finer ones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter as Metric

from argus.config import config
from marketdata import symbols
from marketdata.builder import HELD, LiveBar
from marketdata.exchanges import Kind
from marketdata.feed import Feed
from marketdata.models import BarDifference
from marketdata.sources.base import Capability
from marketdata.terminals import gate
from marketdata.terminals.slots import Priority
from marketdata.types import Bar, Period

log = structlog.get_logger(__name__)

RECONCILED = Metric("argus_bars_reconciled_total", "Built bars by how the terminal's own compare", ["outcome"])

MINUTE: Final = 60_000
SETTLED_AFTER: Final = MINUTE
"""Milliseconds after its end from which a terminal's own bar is taken for its last word."""
LOOK_BACK: Final = HELD * MINUTE
"""Milliseconds after its end from which on a bar is no longer asked for: the builder has let it go."""
SYMBOLS_AT_ONCE: Final = 200
"""What one run asks a terminal for, about; those that somebody wants come first (``Feed.provisional``)."""
KEPT: Final = 10_000
"""Differences in the database; the oldest go first."""
LOT: Final = 100
IN_LOTS: Final = frozenset({Kind.STOCK, Kind.FUND})
FIELDS: Final = ("open", "high", "low", "close", "volume", "amount")

Key = tuple[str, Period, int]


class Difference(msgspec.Struct, frozen=True):
    """One number of one bar that the terminal says otherwise."""

    symbol: str
    period: Period
    time: int
    field: str
    built: float | None
    terminal: float | None


def compare(built: Iterable[LiveBar], terminal: Mapping[str, Iterable[Bar]]) -> list[Difference]:
    """Every number in which the terminal's bars differ; a bar that it does not have is no difference."""
    own = by_key(terminal)
    return [difference for bar in built if (other := own.get(key_of(bar))) is not None for difference in _between(bar, other)]


def by_key(terminal: Mapping[str, Iterable[Bar]]) -> dict[Key, Bar]:
    """The terminal's bars by what they are of; bars without prices (zero-filled ones) are none."""
    return {key_of(bar): bar for bars in terminal.values() for bar in bars if bar.low > 0}


def key_of(bar: Bar | LiveBar) -> Key:
    """What a bar is of."""
    return bar.symbol, bar.period, bar.time


def _between(bar: LiveBar, other: Bar) -> list[Difference]:
    found = []
    for field in FIELDS:
        ours, theirs = getattr(bar, field), getattr(other, field)
        if ours is not None and theirs is not None and abs(ours - theirs) > _tolerance(bar.symbol, field, theirs):
            found.append(Difference(bar.symbol, bar.period, bar.time, field, float(ours), float(theirs)))
    return found


def _tolerance(symbol: str, field: str, value: float) -> float:
    if field == "amount":
        return 1.0
    if field == "volume":
        return LOT / 2 if value % LOT == 0 and symbols.kind(symbol) in IN_LOTS else 0
    return (symbols.price_tick(symbol) or 1e-6) / 2


def run(feed: Feed, *, request_id: str = "") -> Counter[str]:
    """Fetch the terminal's own bars of what has closed and is provisional, settle them and store the differences.

    How many bars were equal, different and absent at the terminal. Raises ``SourceError``.
    """
    if Capability.BARS not in feed.source.capabilities():
        return Counter()
    built = _waiting(feed)
    outcomes: Counter[str] = Counter()
    differences: list[Difference] = []
    source = gate.in_turns(feed.source, feed.terminal, Priority.BULK)
    for period in (Period.M1, Period.D1):
        bars = [bar for bar in built if bar.period is period]
        if not bars:
            continue
        answer = source.fetch_bars(
            list(dict.fromkeys(bar.symbol for bar in bars)),
            period,
            start=min(bar.time for bar in bars),
            end=max(bar.time for bar in bars),
            timeout=config.fetch_timeout,
            request_id=request_id,
        )
        terminal = {symbol: series.bars(symbol, period, feed.source.name) for symbol, series in answer.series.items()}
        found = compare(bars, terminal)
        feed.bars.settle(_settled(bars, terminal, {(one.symbol, one.period, one.time) for one in found}, outcomes))
        differences += found
    store(differences)
    for outcome, count in outcomes.items():
        RECONCILED.labels(outcome).inc(count)
    if outcomes:
        log.info("bars_reconciled", terminal=feed.terminal, **outcomes)
    if differences:
        first = differences[0]
        log.warning("bars_differ", terminal=feed.terminal, differences=len(differences), first=msgspec.to_builtins(first))
    return outcomes


def _waiting(feed: Feed) -> list[LiveBar]:
    """Provisional bars that closed long enough ago."""
    now = feed.publisher.clock() or time.time_ns() // 1_000_000
    return [bar for bar in feed.bars.provisional(SYMBOLS_AT_ONCE, now - LOOK_BACK) if bar.time <= now - SETTLED_AFTER]


def _settled(
    built: list[LiveBar], terminal: Mapping[str, Iterable[Bar]], different: set[Key], outcomes: Counter[str]
) -> list[Bar]:
    """What the builder is to hold from now on: ours where it is equal, the terminal's where it differs or we have none."""
    own = by_key(terminal)
    settled = []
    for bar in built:
        key = key_of(bar)
        other = own.pop(key, None)
        if other is None:
            outcomes["absent"] += 1
        elif key in different:
            outcomes["different"] += 1
            settled.append(other)
        else:
            outcomes["equal"] += 1
            ours = {field: value for field in FIELDS if (value := getattr(bar, field)) is not None}
            settled.append(msgspec.structs.replace(other, **ours))
    # Where we have no bar, one of the terminal's without volume only says that nothing was traded.
    return settled + [bar for bar in own.values() if bar.volume]


def store(differences: Iterable[Difference]) -> None:
    """Keep differences, each number of a bar once, the newest ``KEPT`` of them."""
    rows = [
        BarDifference(
            symbol=one.symbol,
            period=one.period.value,
            time=datetime.fromtimestamp(one.time / 1000, UTC),
            field=one.field,
            built=one.built,
            terminal=one.terminal,
        )
        for one in differences
    ]
    if not rows:
        return
    BarDifference.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["symbol", "period", "time", "field"],
        update_fields=["built", "terminal", "found_at"],
    )
    oldest = BarDifference.objects.order_by("-pk").values_list("pk", flat=True)[KEPT - 1 : KEPT].first()
    if oldest is not None:
        BarDifference.objects.filter(pk__lt=oldest).delete()

"""Bars of a recording: its quotes run again through the builder that makes live bars, up to the replay's clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from marketdata.builder import BarBuilder, LiveBar
from marketdata.calendar import DAY
from marketdata.series import Series, from_bars
from marketdata.sources.replay.timeline import Step
from marketdata.types import Bar, Period

PERIODS = (Period.M1, Period.D1)
"""The periods of which there are bars."""


def closed_bars(
    steps: Iterable[Step], symbols: Sequence[str], period: Period, until: int, given_up: Callable[[], bool]
) -> dict[str, Series] | None:
    """The bars of symbols that are closed at a time (ms); None where ``given_up`` says so before that.

    At the end of a recording nothing more can come, so what has ended by its clock is closed, a day with trading after hours
    included. Recordings without volumes (those of Binance's book ticker) have no bars.
    """
    builder, chosen = BarBuilder(), frozenset(symbols)
    found: dict[str, list[Bar]] = defaultdict(list)

    def keep(bars: Iterable[LiveBar]) -> None:
        for bar in bars:
            if bar.closed and bar.volume is not None and bar.time <= until:
                found[bar.symbol].append(_bar(bar))

    for step in steps:
        if step.time > until:
            break
        if given_up():
            return None
        builder.take(quote for quote in step.parsed.quotes if quote.symbol in chosen)
        builder.advance(step.time)
        keep(builder.drain({period: None}))
    else:
        builder.advance(until + DAY)
        keep(builder.drain({period: None}))
    return {symbol: from_bars(list({bar.time: bar for bar in bars}.values())) for symbol, bars in found.items()}


def _bar(bar: LiveBar) -> Bar:
    return Bar(
        symbol=bar.symbol,
        period=bar.period,
        time=bar.time,
        open=bar.open,
        high=bar.high,
        low=bar.low,
        close=bar.close,
        volume=bar.volume or 0,
        amount=bar.amount,
        prev_close=bar.prev_close,
        open_interest=bar.open_interest,
        source=bar.source,
    )

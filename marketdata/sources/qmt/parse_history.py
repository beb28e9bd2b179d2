"""K-line rows as a QMT terminal sends them become bars; rows that are no trading are refused and counted, never padded.

Reasons, all of them: ``missing`` (NaN prices: the terminal aligned times and had no bar), ``zero`` (prices of 0: a row
that the terminal filled), ``date`` (not a trading date of the market, as the terminal knows them), ``time`` (implausible),
``price`` (negative, or a low above the high), ``volume`` (negative, or of a unit that the amount contradicts), ``shape``.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from marketdata import symbols
from marketdata.exchanges import Kind
from marketdata.sources.qmt import parse
from marketdata.types import Bar, Number, Period

DOWNLOADED: Final[Mapping[Period, str]] = {
    Period.M1: "1m",
    Period.M5: "5m",
    Period.M15: "5m",
    Period.M30: "5m",
    Period.H1: "5m",
    Period.D1: "1d",
    Period.W1: "1d",
    Period.MON1: "1d",
}
"""Which period is downloaded for which: the terminal stores three and makes the others of them."""
TRADED_KINDS: Final = frozenset({Kind.STOCK, Kind.B_SHARE, Kind.FUND, Kind.CONVERTIBLE, Kind.BOND})
"""Whose amount is the sum of price times shares, so that it tells the unit of the volume."""
TOLERANCE: Final = 0.001


def beijing_date(time: int) -> str:
    """The ISO date of a time (ms) in Beijing, whatever this process' zone is."""
    return _iso(parse.day_of(time))


def beijing_text(time: int) -> str:
    """``YYYYMMDDHHMMSS`` of a time (ms) in Beijing, as the terminal reads times."""
    days, milliseconds = divmod(time + parse.BEIJING, parse.DAY)
    seconds = milliseconds // 1000
    return f"{_iso(days).replace('-', '')}{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"


def _iso(days: int) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=days)).isoformat()


def _price(row: Mapping[str, Any], field: str, tick: float | None) -> float:
    value = parse.number(row.get(field))
    if value is None or math.isnan(value):
        raise parse.Refused("missing")
    found = parse.price(value, tick)
    if found is None:
        raise parse.Refused("zero")
    return found


def _volume(row: Mapping[str, Any], kind: Kind | None, low: float, high: float) -> Number:
    value = parse.volume(parse.number(row.get("volume")))
    if value is None:
        raise parse.Refused("volume")
    if not value or kind not in TRADED_KINDS:
        return value
    amount = parse.volume(parse.number(row.get("amount"))) or 0
    for size in parse.LOT_SIZES:
        # A volume in lots is rounded: half a lot either way.
        slack = 0.5 if size > 1 else 0.0
        least, most = low * (value - slack) * size, high * (value + slack) * size
        if least * (1 - TOLERANCE) <= amount <= most * (1 + TOLERANCE):
            return value * size
    raise parse.Refused("volume")


def _bar(symbol: str, period: Period, row: Mapping[str, Any], dates: Collection[str] | None, now: int) -> Bar:
    kind, tick = symbols.kind(symbol), symbols.price_tick(symbol)
    opened, high, low, close = (_price(row, field, tick) for field in ("open", "high", "low", "close"))
    if not low <= min(opened, close) <= max(opened, close) <= high:
        raise parse.Refused("price")
    time = parse.plausible(parse.number(row.get("time")), now)
    if dates is not None and period not in (Period.W1, Period.MON1) and beijing_date(time) not in dates:
        raise parse.Refused("date")
    amount = parse.volume(parse.number(row.get("amount")))
    return Bar(
        symbol=symbol,
        period=period,
        time=time,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=_volume(row, kind, low, high),
        amount=None if amount is None else round(float(amount), 4),
        prev_close=parse.price(parse.number(row.get("preClose")), tick),
        open_interest=parse.volume(parse.number(row.get("openInterest"))) if kind in parse.FUTURE_KINDS else None,
        suspended=parse.number(row.get("suspendFlag")) == 1,
        source=parse.SOURCE,
    )


def parse_bars(
    code: str, period: Period, rows: Iterable[Mapping[str, Any]], *, dates: Collection[str] | None, now: int
) -> tuple[tuple[Bar, ...], Counter[str]]:
    """One symbol's rows, and how many of them were refused by reason. ``dates``: the market's trading dates, if known.

    Volumes come out in shares where the amount tells the unit; those of indices stay as the terminal counts them.
    """
    bars: list[Bar] = []
    refused: Counter[str] = Counter()
    try:
        symbol = parse.canonical(code)
    except parse.Refused:
        return (), Counter(shape=sum(1 for _ in rows))
    for row in rows:
        try:
            bars.append(_bar(symbol, period, row, dates, now))
        except parse.Refused as error:
            refused[error.reason] += 1
    return tuple(bars), refused

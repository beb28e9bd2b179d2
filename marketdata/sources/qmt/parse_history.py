"""K-line columns as a QMT terminal sends them become a series; rows that are no trading are refused and counted.

A terminal stamps a day, a week and a month with a Beijing midnight; here they are stamped with the close of that day, as
everywhere in Argus (``marketdata.periods``). Intraday rows are stamped at their end by the terminal already, the opening
auction's at 09:30.

Reasons, all of them: ``missing`` (NaN prices: the terminal aligned times and had no bar), ``zero`` (prices of 0: a row
that the terminal filled), ``date`` (not a trading date of the market, as the terminal knows them), ``time`` (implausible, or
twice), ``price`` (negative, or a low above the high), ``volume`` (negative, or of a unit that the amount contradicts),
``hours`` (the market's close is not known), ``shape``.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np

from marketdata import periods, symbols
from marketdata.exchanges import Kind
from marketdata.series import EMPTY, Flags, Floats, Ints, Series
from marketdata.sources.qmt import parse
from marketdata.types import Period
from marketdata.verify import INDEX_SLACK

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
FIELDS: Final = ("time", "open", "high", "low", "close", "volume", "amount", "openInterest", "preClose", "suspendFlag")
NEEDED: Final = FIELDS[:6]
TRADED_KINDS: Final = frozenset({Kind.STOCK, Kind.B_SHARE, Kind.FUND, Kind.CONVERTIBLE, Kind.BOND})
"""Whose amount is the sum of price times shares, so that it tells the unit of the volume."""
TOLERANCE: Final = 0.001
LARGEST: Final = float(2**53)
EPOCH: Final = datetime.date(1970, 1, 1)


def beijing_date(time: int) -> str:
    """The ISO date of a time (ms) in Beijing, whatever this process' zone is."""
    return _iso(parse.day_of(time))


def beijing_text(time: int, period: Period | None = None) -> str:
    """A time (ms) in Beijing as the terminal reads times: ``YYYYMMDDHHMMSS``, of daily and longer bars ``YYYYMMDD``."""
    days, milliseconds = divmod(time + parse.BEIJING, parse.DAY)
    day = _iso(days).replace("-", "")
    if period in (Period.D1, Period.W1, Period.MON1):
        return day
    seconds = milliseconds // 1000
    return f"{day}{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"


def _iso(days: int) -> str:
    return (EPOCH + datetime.timedelta(days=days)).isoformat()


class _Rows:
    """One symbol's columns, and which of the rows are still bars. The first reason against a row is the one that counts."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        length = len(columns["time"])
        self.columns = {name: _floats(columns[name]) if name in columns else np.full(length, np.nan) for name in FIELDS}
        self.good: Flags = np.ones(length, np.bool_)
        self.refused: Counter[str] = Counter()

    def refuse(self, reason: str, bad: Any) -> None:
        """Refuse rows for a reason."""
        fresh = bad & self.good
        if count := int(np.count_nonzero(fresh)):
            self.refused[reason] += count
            self.good &= ~fresh


def _floats(column: Any) -> Floats:
    """A column as numbers; what the terminal means by "not set" is NaN. Raises ``ValueError`` or ``TypeError``."""
    found = np.array(column, dtype=np.float64)
    found[(found == parse.UNSET[1]) | (np.abs(found) >= parse.UNSET[0])] = np.nan
    return found


def _prices(values: Floats, tick: float | None) -> Floats:
    """Prices on their grid, each different one rounded where all prices are; 0 and less are NaN."""
    distinct, where = np.unique(values, return_inverse=True)
    rounded = [symbols.round_price(value, tick) if value > 0 else 0.0 for value in distinct.tolist()]
    found = np.array(rounded, dtype=np.float64)[where] if len(distinct) else values
    return np.where(found > 0, found, np.nan)


def _check_prices(rows: _Rows, kind: Kind | None, tick: float | None) -> None:
    columns = rows.columns
    four = np.stack([columns[name] for name in ("open", "high", "low", "close")])
    rows.refuse("missing", np.isnan(four).any(axis=0))
    rows.refuse("price", (four < 0).any(axis=0))
    rows.refuse("zero", (four == 0).any(axis=0))
    for name in ("open", "high", "low", "close", "preClose"):
        columns[name] = _prices(columns[name], tick)
    # Less than half a tick is rounded to nothing.
    rows.refuse("zero", np.isnan(np.stack([columns[name] for name in ("open", "high", "low", "close")])).any(axis=0))
    lowest, highest = (pick(columns["open"], columns["close"]) for pick in (np.fmin, np.fmax))
    slack = INDEX_SLACK if kind is Kind.INDEX else 0.0
    inside = (columns["low"] * (1 - slack) <= lowest) & (highest <= columns["high"] * (1 + slack))
    rows.refuse("price", ~(inside & (columns["low"] <= columns["high"])))


def _check_times(rows: _Rows, symbol: str, period: Period, dates: Collection[str] | None, now: int) -> Ints:
    """The end stamps."""
    raw = rows.columns["time"]
    rows.refuse("time", ~((raw >= parse.EARLIEST) & (raw <= now + parse.DAY)))
    times = np.where(rows.good, raw, 0).astype(np.int64)
    days = (times + parse.BEIJING) // parse.DAY
    if dates is not None and period not in (Period.W1, Period.MON1):
        known = np.array([(datetime.date.fromisoformat(date) - EPOCH).days for date in dates], dtype=np.int64)
        rows.refuse("date", ~np.isin(days, known))
    if period in (Period.D1, Period.W1, Period.MON1):
        try:
            close = periods.close_at(periods.hours_of(symbol))
        except periods.UnknownHours:
            rows.refuse("hours", np.ones(len(times), np.bool_))
        else:
            times = days * parse.DAY - parse.BEIJING + close
    return times


def _volumes(rows: _Rows, kind: Kind | None) -> Ints:
    """Volumes in shares where the amount tells the unit; others stay as the terminal counts them."""
    columns = rows.columns
    volume = columns["volume"]
    rows.refuse("volume", ~((volume >= 0) & (volume < LARGEST)) | (columns["amount"] < 0))
    found = np.where(rows.good, volume, 0.0)
    if kind in TRADED_KINDS:
        amount = np.nan_to_num(columns["amount"])
        open_ = rows.good & (found > 0)
        for size in parse.LOT_SIZES:
            # A volume in lots is rounded: half a lot either way.
            slack = 0.5 if size > 1 else 0.0
            least = columns["low"] * (found - slack) * size * (1 - TOLERANCE)
            most = columns["high"] * (found + slack) * size * (1 + TOLERANCE)
            fits = open_ & (least <= amount) & (amount <= most)
            found[fits] *= size
            open_ &= ~fits
        rows.refuse("volume", open_)
    return found.astype(np.int64)


def parse_bars(
    code: str, period: Period, columns: Mapping[str, Any], *, dates: Collection[str] | None, now: int
) -> tuple[Series, Counter[str]]:
    """One symbol's columns by name (arrays of one length), and how many rows were refused by reason.

    ``dates``: the market's trading dates, if known. ``now``: this machine's clock in ms.
    """
    lengths = {len(columns[name]) for name in FIELDS if name in columns}
    count = max(lengths, default=0)
    try:
        symbol = parse.canonical(code)
        if not count or len(lengths) > 1 or any(name not in columns for name in NEEDED):
            raise parse.Refused("shape")
        rows = _Rows(columns)
    except (parse.Refused, ValueError, TypeError):
        return EMPTY, Counter(shape=count) if count else Counter()
    kind = symbols.kind(symbol)
    with np.errstate(invalid="ignore"):
        _check_prices(rows, symbols.kind(symbol), symbols.price_tick(symbol))
        times = _check_times(rows, symbol, period, dates, now)
        volumes = _volumes(rows, kind)
        series = _series(rows, times, volumes, kind)
    rows.refused.update(_twice(series))
    return _in_order(series), rows.refused


def _series(rows: _Rows, times: Ints, volumes: Ints, kind: Kind | None) -> Series:
    columns, good = rows.columns, rows.good
    unknown = np.full(int(np.count_nonzero(good)), np.nan)
    return Series(
        time=times[good],
        open=columns["open"][good],
        high=columns["high"][good],
        low=columns["low"][good],
        close=columns["close"][good],
        volume=volumes[good],
        amount=np.round(columns["amount"][good], 4),
        prev_close=columns["preClose"][good],
        open_interest=columns["openInterest"][good] if kind in parse.FUTURE_KINDS else unknown,
        suspended=columns["suspendFlag"][good] == 1,
    )


def _twice(series: Series) -> Counter[str]:
    again = len(series) - len(np.unique(series.time))
    return Counter(time=again) if again else Counter()


def _in_order(series: Series) -> Series:
    """In order of time; of two bars of one time the last one sent."""
    if len(series) < 2 or bool(np.all(np.diff(series.time) > 0)):
        return series
    ordered = series.pick(np.argsort(series.time, kind="stable"))
    return ordered.pick(np.append(np.diff(ordered.time) > 0, True))

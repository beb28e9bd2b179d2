"""The bars, dividends and weights of the emulated market: two years of days, the last twenty of them in minutes.

Independent of the code under test: its own calendar, its own random walk, its own aggregation by the terminal's rules. All
prices are whole price ticks, and a day is exactly the sum of its minutes. Today's bars are what the ticks showed so far.
Everything of a code is made when it is first asked for.
"""

from __future__ import annotations

import datetime
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np

TODAY: Final = datetime.date(2025, 8, 8)
MIDNIGHT: Final = 1_754_582_400_000
"""Today's, in Beijing."""
DAY: Final = 86_400_000
HOLIDAYS: Final = {
    *(["2023-09-29", "2023-10-02", "2023-10-03", "2023-10-04", "2023-10-05", "2023-10-06", "2024-01-01"]),
    *(["2024-02-09", "2024-02-12", "2024-02-13", "2024-02-14", "2024-02-15", "2024-02-16", "2024-04-04", "2024-04-05"]),
    *(["2024-05-01", "2024-05-02", "2024-05-03", "2024-06-10", "2024-09-16", "2024-09-17"]),
    *(["2024-10-01", "2024-10-02", "2024-10-03", "2024-10-04", "2024-10-07", "2025-01-01"]),
    *(["2025-01-28", "2025-01-29", "2025-01-30", "2025-01-31", "2025-02-03", "2025-02-04", "2025-04-04"]),
    *(["2025-05-01", "2025-05-02", "2025-05-05", "2025-06-02"]),
}
DAYS: Final = [
    day
    for back in range(730, -1, -1)
    if (day := TODAY - datetime.timedelta(days=back)).weekday() < 5 and day.isoformat() not in HOLIDAYS
]
"""Trading dates, today's the last."""
MINUTE_DAYS: Final = 20
"""How many of them there are minutes of."""
COARSE: Final = 25
"""Of how many steps the days before those are made."""
ENDS: Final = np.array([570, *range(571, 691), *range(781, 901)])
"""The minutes of a day at which 1m bars end: the opening auction's at 09:30, then every one of trading."""
LENGTHS: Final = {"5m": 5, "15m": 15, "30m": 30, "1h": 60}
STEPS_A_MINUTE: Final = 20
LAST_STEP: Final = 240 * STEPS_A_MINUTE
"""The step at which trading ends; ticks after it show the close."""

HALTED: Final = {"000003.SZ": ("2025-07-30", "2025-07-31")}
"""Code -> days on which it was halted: its days are flat and say so, and have no minutes."""

DIVIDENDS: Final[dict[str, dict[str, dict[str, float]]]] = {
    "600000.SH": {"2024-07-18": {"interest": 0.321}, "2025-07-16": {"interest": 0.41}},
    "600001.SH": {"2025-06-12": {"interest": 0.1, "stockBonus": 0.2, "stockGift": 0.3}},
    "000001.SZ": {"2024-06-14": {"interest": 0.719}, "2025-06-12": {"interest": 0.362}},
    "000002.SZ": {"2025-03-20": {"allotNum": 0.3, "allotPrice": 7.5}},
}
"""What a share gives on an ex-date, with the vendor's names."""

FIELDS: Final = (
    *("time", "open", "high", "low", "close", "volume", "amount", "settelementPrice", "openInterest", "preClose"),
    "suspendFlag",
)
INTEGERS: Final = frozenset({"time", "volume", "openInterest", "suspendFlag"})

Columns = dict[str, Any]
"""Field -> array, and ``stime`` -> the row's time as a whole number, YYYYMMDDHHMMSS."""


def milliseconds(moment: datetime.datetime) -> int:
    """A moment of Beijing's clock."""
    return int(moment.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=8))).timestamp() * 1000)


def base(code: str) -> float:
    """Today's open."""
    if code.endswith(".IF"):
        return 4000.0
    if code.endswith(".SF"):
        return 3200.0
    return 10.0 + int("".join(filter(str.isdigit, code))[-4:] or 0) % 50


def grid(code: str) -> float:
    """What the prices of a code are multiples of."""
    return 0.2 if code.endswith(".IF") else 1.0 if code.endswith(".SF") else 0.01


def _midnights(days: list[datetime.date]) -> Any:
    return np.array([MIDNIGHT - (TODAY - day).days * DAY for day in days], dtype=np.int64)


def reference(last_close: float, given: dict[str, float]) -> float:
    """The ex-date's reference price before rounding, by the exchanges' formula."""
    rights = given.get("allotNum", 0.0)
    shares = 1 + given.get("stockBonus", 0.0) + given.get("stockGift", 0.0) + rights
    return (last_close - given.get("interest", 0.0) + rights * given.get("allotPrice", 0.0)) / shares


class _Past:
    """The days before today, from the last one backwards. Prices in ticks, volumes in lots."""

    def __init__(self, code: str) -> None:
        random = np.random.default_rng(zlib.crc32(code.encode()))
        self.days = DAYS[:-1]
        count, tick = len(self.days), grid(code)
        moves = np.clip(random.normal(0, 0.012, count), -0.04, 0.04).tolist()
        gaps = np.clip(random.normal(0, 0.004, count), -0.02, 0.02).tolist()
        given = DIVIDENDS.get(code, {})
        prev, opens, closes = [0] * count, [0] * count, [0] * count
        close = round(base(code) / tick) - (3 if tick == 0.01 else 1)
        for index in range(count - 1, -1, -1):
            before = max(100, round(close / (1 + moves[index])))
            last = before
            if paid := given.get(self.days[index].isoformat()):
                # Back from the reference price to a last close, and forth again by the formula.
                low = before * tick
                rights = paid.get("allotNum", 0.0)
                shares = 1 + paid.get("stockBonus", 0.0) + paid.get("stockGift", 0.0) + rights
                last = round((low * shares + paid.get("interest", 0.0) - rights * paid.get("allotPrice", 0.0)) / tick)
                before = int(reference(last * tick, paid) / tick + 0.5)
            halted = self.days[index].isoformat() in HALTED.get(code, ())
            closes[index], prev[index] = close, close if halted else before
            opens[index] = close if halted else max(1, round(before * (1 + gaps[index])))
            close = close if halted else last
        self.prev, self.open, self.close = (np.array(values) for values in (prev, opens, closes))
        self.halted = np.array([day.isoformat() in HALTED.get(code, ()) for day in self.days])
        fine = count - (MINUTE_DAYS - 1)
        self.coarse = _Walk(random, self.open[:fine], self.close[:fine], COARSE)
        self.fine = _Walk(random, self.open[fine:], self.close[fine:], len(ENDS))

    def daily(self, of: Callable[[_Walk], Any]) -> Any:
        """A number of each day."""
        return np.concatenate([of(self.coarse), of(self.fine)])


class _Walk:
    """The way from the opens of some days to their closes in a number of steps; the first step is the auction."""

    def __init__(self, random: Any, opens: Any, closes: Any, steps: int) -> None:
        count = len(opens)
        share = np.linspace(0, 1, steps)
        noise = np.cumsum(random.normal(0, 1, (count, steps)), axis=1)
        noise -= noise[:, :1] + (noise[:, -1:] - noise[:, :1]) * share
        scale = opens[:, None] * 0.01 / steps**0.5
        path = np.rint(opens[:, None] + (closes - opens)[:, None] * share + noise * scale).astype(np.int64)
        path = np.maximum(path, 1)
        path[:, 0], path[:, -1] = opens, closes
        self.first = np.hstack([path[:, :1], path[:, :-1]])
        self.path = path
        more = random.integers(0, 3, (2, count, steps))
        more[:, :, 0] = 0
        self.high = np.maximum(self.first, path) + more[0]
        self.low = np.maximum(np.minimum(self.first, path) - more[1], 1)
        self.lots = random.integers(1, 400 * len(ENDS) // steps, (count, steps))
        self.lots[:, 0] *= 5

    def amounts(self, unit: float) -> Any:
        """What was paid in each step; ``unit``: for a lot at a price of one tick."""
        return self.lots * unit * (self.first + self.path) / 2


def _stime(times: Any) -> Any:
    days, rest = np.divmod(times + 8 * 3_600_000, DAY)
    distinct, where = np.unique(days, return_inverse=True)
    names = [(datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).strftime("%Y%m%d") for day in distinct.tolist()]
    dates = np.array([int(name) for name in names], dtype=np.int64)[where]
    seconds = rest // 1000
    return dates * 1_000_000 + seconds // 3600 * 10_000 + seconds // 60 % 60 * 100 + seconds % 60


def _columns(code: str, times: Any, **values: Any) -> Columns:
    """Columns in the vendor's types, prices as raw doubles (11.370000000000001)."""
    tick = grid(code)
    found: Columns = {"stime": _stime(times), "time": times}
    for name in FIELDS[1:]:
        value = values.get(name, np.zeros(len(times)))
        if name in ("open", "high", "low", "close", "preClose"):
            value = value * tick
        found[name] = np.asarray(value, dtype="<i8" if name in INTEGERS else "<f8")
    found["suspendFlag"] = found["suspendFlag"].astype("<i4")
    return found


def _shares(code: str) -> int:
    return 100 if grid(code) == 0.01 else {"IF": 300, "SF": 10}[code.rpartition(".")[2]]


def _interest(code: str, count: int) -> Any:
    return np.full(count, 212_345 if code.endswith((".IF", ".SF")) else 0)


@lru_cache(maxsize=4096)
def _past(code: str) -> tuple[Columns, Columns]:
    """The days and the minutes before today."""
    past, unit = _Past(code), _shares(code) * grid(code)
    flat = past.halted
    daily = _columns(
        code,
        _midnights(past.days),
        open=past.open,
        high=np.where(flat, past.close, past.daily(lambda walk: walk.high.max(axis=1))),
        low=np.where(flat, past.close, past.daily(lambda walk: walk.low.min(axis=1))),
        close=past.close,
        volume=np.where(flat, 0, past.daily(lambda walk: walk.lots.sum(axis=1))),
        amount=np.where(flat, 0.0, past.daily(lambda walk: walk.amounts(unit).sum(axis=1))),
        preClose=past.prev,
        suspendFlag=flat,
        openInterest=_interest(code, len(past.days)),
    )
    fine, before = past.fine, past.fine.first.copy()
    days, traded = past.days[-len(before) :], ~flat[-len(before) :]
    before[:, 0] = past.prev[-len(before) :]
    times = (_midnights(days)[traded][:, None] + ENDS[None, :] * 60_000).ravel()
    cut = {"open": fine.first, "high": fine.high, "low": fine.low, "close": fine.path, "volume": fine.lots, "preClose": before}
    minutes = _columns(
        code,
        times,
        **{name: value[traded].ravel() for name, value in {**cut, "amount": fine.amounts(unit)}.items()},
        openInterest=_interest(code, len(times)),
    )
    return daily, minutes


def since_open(step: int) -> int:
    """Milliseconds since 09:30 at which a step's ticks stand; trading steps over lunch."""
    return step * 3000 + (5_400_000 if step > LAST_STEP // 2 else 0)


def price_of(code: str, step: int) -> int:
    """What the tick of a step shows, in price ticks."""
    return round(base(code) / grid(code)) + min(step, LAST_STEP) * 7 % 20


def shares_of(step: int) -> int:
    """What a stock's tick of a step shows, in shares."""
    return 1_000_000 + 12_300 * min(step, LAST_STEP) + 84


def _today(code: str, step: int) -> Columns:
    """Today's minutes up to a step, the forming one included."""
    at = min(step, LAST_STEP)
    opened = price_of(code, 0)
    steps = np.arange(1, at + 1)
    prices, first = opened + steps * 7 % 20, np.arange(0, at, STEPS_A_MINUTE)
    last = np.minimum(first + STEPS_A_MINUTE, at) - 1
    traded = np.array([shares_of(step) for step in (last + 1).tolist()]) - [shares_of(step) for step in first.tolist()]
    rows = [
        (ENDS[0], opened, opened, opened, opened, shares_of(0), base(code) * shares_of(0)),
        *zip(
            *(ENDS[1 : len(first) + 1], prices[first], np.maximum.reduceat(prices, first), np.minimum.reduceat(prices, first)),
            *(prices[last], traded, base(code) * traded + 100 * (last - first + 1)),
            strict=True,
        ),
    ]
    ends, opens, highs, lows, closes, shares, amounts = (np.array(column) for column in zip(*rows, strict=True))
    before = round(base(code) / grid(code)) - (3 if grid(code) == 0.01 else 1)
    stock = grid(code) == 0.01
    return _columns(
        code,
        MIDNIGHT + ends * 60_000,
        open=opens,
        high=highs,
        low=lows,
        close=closes,
        volume=np.rint(shares / 100) if stock else shares // 100,
        amount=amounts if stock else shares // 100 * _shares(code) * closes * grid(code),
        preClose=np.array([before, *closes[:-1]]),
        openInterest=_interest(code, len(rows)),
    )


def _groups(columns: Columns, keys: Any, times: Any) -> Columns:
    """The rows with the same key as one; ``times`` are those of the groups."""
    starts = np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1])
    ends = np.append(starts[1:], len(keys)) - 1
    found: Columns = {"stime": _stime(times), "time": times}
    found["open"], found["preClose"] = columns["open"][starts], columns["preClose"][starts]
    found["high"] = np.maximum.reduceat(columns["high"], starts)
    found["low"] = np.minimum.reduceat(columns["low"], starts)
    found["volume"], found["amount"] = (np.add.reduceat(columns[name], starts) for name in ("volume", "amount"))
    for name in ("close", "openInterest", "settelementPrice"):
        found[name] = columns[name][ends]
    found["suspendFlag"] = np.minimum.reduceat(columns["suspendFlag"], starts)
    return {name: found[name] for name in ("stime", *FIELDS)}


def _joined(first: Columns, then: Columns) -> Columns:
    return {name: np.concatenate([first[name], then[name]]) for name in first}


def _calendar_keys(times: Any, period: str) -> Any:
    days = [datetime.date(1970, 1, 1) + datetime.timedelta(days=int((time + 8 * 3_600_000) // DAY)) for time in times]
    if period == "1w":
        return np.array([day.isocalendar()[0] * 100 + day.isocalendar()[1] for day in days])
    return np.array([day.year * 100 + day.month for day in days])


def columns(code: str, period: str, step: int) -> Columns:
    """All bars of a code up to a step."""
    daily, minutes = _past(code)
    if period == "1m":
        return _joined(minutes, _today(code, step))
    if period in LENGTHS:
        length, every = LENGTHS[period], columns(code, "1m", step)
        midnights = (every["time"] + 8 * 3_600_000) // DAY * DAY - 8 * 3_600_000
        # Minutes of trading since the open, both halves of the day in a row; the auction is in the first bar.
        of_day = (every["time"] - midnights) // 60_000
        traded = np.maximum(np.where(of_day <= 690, of_day - 570, of_day - 660), 1)
        last = -(-traded // length) * length
        return _unique(every, midnights + np.where(last <= 120, last + 570, last + 660) * 60_000)
    now = _today(code, step)
    days = _joined(daily, _groups(now, np.zeros(len(now["time"])), np.array([MIDNIGHT])))
    if period == "1d":
        return days
    keys = _calendar_keys(days["time"], period)
    return _groups(days, keys, days["time"][np.append(np.flatnonzero(keys[1:] != keys[:-1]), len(keys) - 1)])


def _unique(every: Columns, stamps: Any) -> Columns:
    return _groups(every, stamps, np.unique(stamps))


def rows(code: str, period: str, step: int = LAST_STEP) -> list[dict[str, Any]]:
    """The bars as rows, up to the close if no step is given."""
    found = columns(code, period, step)
    times = [str(value) for value in found["stime"].tolist()]
    lists = {name: found[name].tolist() for name in FIELDS}
    return [{"stime": time, **{name: lists[name][index] for name in FIELDS}} for index, time in enumerate(times)]


def from_rows(given: list[dict[str, Any]]) -> Columns:
    """Rows that a test made, as columns; a column in which a number is missing (NaN) is one of floats."""
    found: Columns = {"stime": np.array([int(row["stime"]) for row in given], dtype=np.int64)}
    for name in FIELDS:
        values = [row[name] for row in given]
        holes = any(isinstance(value, float) and value != value for value in values)
        found[name] = np.array(values, dtype="<i8" if name in INTEGERS and not holes else "<f8")
    return found


def zero_filled(found: Columns) -> Columns:
    """As a terminal fills what it does not have: zeros but for the last row before today."""
    last = int(np.searchsorted(found["time"], MIDNIGHT)) - 1
    keep = np.arange(len(found["time"])) == last
    untouched = ("stime", "time")
    return {
        name: column if name in untouched else np.where(keep, column, 0).astype(column.dtype) for name, column in found.items()
    }


def padded(found: Columns) -> Columns:
    """With flat rows without volume appended on the days before today that are no trading dates."""
    days = {row.date() for row in map(_moment, found["time"].tolist())}
    span = range(min(days).toordinal(), TODAY.toordinal())
    closed = [day for day in map(datetime.date.fromordinal, span) if day not in DAYS]
    times = _midnights(closed)
    more: Columns = {"stime": _stime(times), "time": times}
    for name, column in found.items():
        if name not in more:
            price = name in ("open", "high", "low", "close", "preClose")
            more[name] = np.full(len(times), found["close"][-1] if price else 0, column.dtype)
    return _joined(found, more)


def _moment(time: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time / 1000, datetime.timezone(datetime.timedelta(hours=8)))


def dividends(code: str) -> dict[str, dict[str, float]]:
    """The vendor's table: name of the row -> its columns, the factor among them."""
    found = {}
    closes = _past(code)[0]
    for day, given in DIVIDENDS.get(code, {}).items():
        midnight = MIDNIGHT - (TODAY - datetime.date.fromisoformat(day)).days * DAY
        last_close = float(closes["close"][int(np.searchsorted(closes["time"], midnight)) - 1])
        row = dict.fromkeys(("interest", "stockBonus", "stockGift", "allotNum", "allotPrice", "gugai"), 0.0) | given
        found[day.replace("-", "")] = {"time": float(midnight), **row, "dr": last_close / reference(last_close, given)}
    return found

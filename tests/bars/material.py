"""Bars for tests: made by hand, by hypothesis, and read from the recorded files, each in the units of ``Series``."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from marketdata.calendar import SHANGHAI, midnight
from marketdata.series import Series

MINUTE = 60_000


def at(text: str) -> int:
    """``2024-05-06 09:31`` in Beijing as ms since the epoch."""
    return int(datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).timestamp() * 1000)


def series(time: Any, **columns: Any) -> Series:
    """Flat bars at 10 with a volume of 100 and an amount of 1000, but for the columns given; ``close`` alone moves all four."""
    count = len(time)
    close = np.broadcast_to(np.asarray(columns.get("close", 10.0), dtype=np.float64), count)
    known: dict[str, Any] = {
        "open": close,
        "high": close,
        "low": close,
        "close": close,
        "volume": 100,
        "amount": 1000.0,
        "prev_close": np.nan,
        "open_interest": np.nan,
        "suspended": False,
        **columns,
    }
    kinds = {"volume": np.int64, "suspended": np.bool_}
    full = {
        name: np.array(np.broadcast_to(np.asarray(value), count), dtype=kinds.get(name, np.float64))
        for name, value in known.items()
    }
    return Series(time=np.array(time, dtype=np.int64), **full)


def minutes(day: date, ends: Any, **columns: Any) -> Series:
    """Bars of a day that end at ``ends`` (ms since midnight)."""
    return series([midnight(day) + end for end in ends], **columns)


def qlib(data: Path) -> dict[str, dict[str, Any]]:
    """Symbol -> ``days`` and float64 columns of the back-adjusted file; divided by ``factor`` its prices are those traded."""
    found: dict[str, dict[str, Any]] = {}
    days: list[date] = []
    raw: dict[str, dict[str, Any]] = {}
    with tarfile.open(data / "ashare_daily/qlib_ashare_subset_dev.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None:
                continue
            *_, folder, name = member.name.split("/")
            if name == "day.txt":
                days = [date.fromisoformat(line) for line in file.read().decode().split()]
            elif name.endswith(".day.bin"):
                raw.setdefault(f"{folder[2:]}.{folder[:2]}", {})[name.split(".")[0]] = np.frombuffer(file.read(), "<f4")
    for symbol, columns in raw.items():
        first = int(columns["close"][0])
        values = {name: column[1:].astype(np.float64) for name, column in columns.items()}
        found[symbol] = {"days": days[first : first + len(values["close"])], **values}
    return found


def qbot(data: Path) -> Iterator[tuple[str, list[date], Series]]:
    """Symbol, days and unadjusted daily bars; ``prev_close`` is the exchange's, on an ex-date the reference price."""
    with tarfile.open(data / "ashare_daily/qbot_thoudsand_stocks_dev.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None or not member.name.endswith(".csv"):
                continue
            rows = list(csv.DictReader(io.TextIOWrapper(file, "utf-8")))
            days = [date(int(row["trade_date"][:4]), int(row["trade_date"][4:6]), int(row["trade_date"][6:])) for row in rows]
            columns: dict[str, Any] = {name: [float(row[name]) for row in rows] for name in ("open", "high", "low", "close")}
            columns["prev_close"] = [float(row["pre_close"]) for row in rows]
            columns["volume"] = [round(float(row["vol"]) * 100) for row in rows]
            columns["amount"] = [float(row["amount"]) * 1000 for row in rows]
            yield Path(member.name).stem, days, daily(days, **columns)


def daily(days: list[date], **columns: Any) -> Series:
    """Bars of days, stamped at 15:00."""
    return series([midnight(day) + 15 * 60 * MINUTE for day in days], **columns)


def hdf(path: Path) -> dict[str, Any]:
    """Symbol -> records of one of the ``.h5.gz`` files; prices are in 1/1000 of the currency, times YYYYMMDDhhmm."""
    with gzip.open(path) as packed, h5py.File(io.BytesIO(packed.read())) as file:
        return {f"{name[2:]}.{name[:2]}": dataset[:] for name, dataset in file["data"].items()}


def hdf_days(records: Any) -> list[date]:
    """The days of daily records."""
    return [date(int(t) // 10**8, int(t) // 10**6 % 100, int(t) // 10**4 % 100) for t in records["datetime"]]


def index_minutes(data: Path) -> Series:
    """SSE composite, 1m, 2017-03-03 to 07-31, stamped at the end; each day begins at 09:31 and lacks one minute but one."""
    with gzip.open(data / "ashare_minute/test_min_data.csv.gz", "rt") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)][1:]
    times = [int(datetime.strptime(f"{row[0]} +0800", "%Y-%m-%d %H:%M:%S %z").timestamp() * 1000) for row in rows]
    opened, high, low, close, _, volume = np.array([row[1:7] for row in rows], dtype=np.float64).T
    order = np.argsort(times, kind="stable")
    whole = series(times, open=opened, high=high, low=low, close=close, volume=volume.astype(np.int64), amount=np.nan)
    return whole.pick(order)

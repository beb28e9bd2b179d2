"""The bars of one symbol and one period as columns: what is stored, merged, aggregated, adjusted and written out.

``Bar`` is one bar as a value; a ``Series`` is many of them as arrays, some 70 bytes a bar. A number that is not known is NaN
in a ``Series`` and null in a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa

from marketdata.types import Bar, Period

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Column = np.ndarray[Any, np.dtype[Any]]

TYPES: Final[dict[str, Any]] = {
    "time": np.int64,
    "open": np.float64,
    "high": np.float64,
    "low": np.float64,
    "close": np.float64,
    "volume": np.int64,
    "amount": np.float64,
    "prev_close": np.float64,
    "open_interest": np.float64,
    "suspended": np.bool_,
}
"""Column -> type of its array, in the order in which columns are written."""

COLUMNS: Final = tuple(TYPES)
OPTIONAL: Final = frozenset({"amount", "prev_close", "open_interest"})
"""Columns that may hold a number that is not known."""

SCHEMA: Final = pa.schema([pa.field(name, pa.from_numpy_dtype(np.dtype(kind)), name in OPTIONAL) for name, kind in TYPES.items()])


@dataclass(frozen=True, eq=False, slots=True)
class Series:
    """Bars in strictly ascending order of ``time``, the end stamp in ms. The arrays must not be written to."""

    time: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Ints
    amount: Floats
    prev_close: Floats
    open_interest: Floats
    suspended: Flags

    def __len__(self) -> int:
        return len(self.time)

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return sum(getattr(self, name).nbytes for name in COLUMNS)

    def pick(self, chosen: Any) -> Series:
        """The bars of a slice (a view), a mask or positions (copies)."""
        return Series(*(getattr(self, name)[chosen] for name in COLUMNS))

    def between(self, start: int | None, end: int | None) -> Series:
        """The bars with end stamps in [start, end]; a view."""
        first = 0 if start is None else int(np.searchsorted(self.time, start, "left"))
        last = len(self) if end is None else int(np.searchsorted(self.time, end, "right"))
        return self if (first, last) == (0, len(self)) else self.pick(slice(first, max(first, last)))

    def last(self, count: int) -> Series:
        """The last ``count`` bars; a view."""
        return self if count >= len(self) else self.pick(slice(len(self) - count, len(self)))

    def replace(self, **columns: Any) -> Series:
        """With other columns."""
        return replace(self, **columns)

    def bars(self, symbol: str, period: Period, source: str) -> tuple[Bar, ...]:
        """The bars as values."""
        columns = {name: getattr(self, name).tolist() for name in COLUMNS}
        for name in OPTIONAL:
            columns[name] = [None if value != value else value for value in columns[name]]
        rows = zip(*columns.values(), strict=True)
        return tuple(Bar(symbol=symbol, period=period, source=source, **dict(zip(COLUMNS, row, strict=True))) for row in rows)

    def equals(self, other: Series) -> bool:
        """Whether both hold the same bars, unknown numbers included."""
        return len(self) == len(other) and all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=name in OPTIONAL) for name in COLUMNS
        )

    def table(self) -> pa.Table:
        """The columns as an Arrow table with ``SCHEMA``; shares memory where nothing is unknown."""
        return pa.Table.from_arrays(
            [pa.array(getattr(self, name), from_pandas=name in OPTIONAL) for name in COLUMNS], schema=SCHEMA
        )


def from_table(table: pa.Table) -> Series:
    """The series of an Arrow table with ``SCHEMA``. Raises ``ValueError`` where its columns are others."""
    if not table.schema.equals(SCHEMA, check_metadata=False):
        raise ValueError(f"the columns are {table.schema.names}, not {list(COLUMNS)}")
    columns = {}
    for name, kind in TYPES.items():
        column = table.column(name)
        joined = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        columns[name] = np.asarray(joined.to_numpy(zero_copy_only=False), dtype=kind)
    return Series(**columns)


def from_bars(bars: Sequence[Bar]) -> Series:
    """The series of one symbol's bars. Raises ``ValueError`` where they are not in strictly ascending order."""
    columns: dict[str, Any] = {}
    for name, kind in TYPES.items():
        values = [getattr(bar, name) for bar in bars]
        if name in OPTIONAL:
            values = [np.nan if value is None else value for value in values]
        columns[name] = np.array(values, dtype=kind)
    if len(bars) > 1 and not bool(np.all(np.diff(columns["time"]) > 0)):
        raise ValueError("bars must be in strictly ascending order of time")
    return Series(**columns)


def join(parts: Iterable[Series]) -> Series:
    """Series one after the other; each must begin after the one before has ended."""
    held = [part for part in parts if len(part)]
    if len(held) <= 1:
        return held[0] if held else EMPTY
    if any(before.time[-1] >= after.time[0] for before, after in pairwise(held)):
        raise ValueError("series overlap")
    return Series(*(_joined([getattr(part, name) for part in held]) for name in COLUMNS))


def _joined(columns: Sequence[Column]) -> Column:
    """The columns one after the other; a view where they were cut from one array and lie so in memory already."""
    base = columns[0].base
    if isinstance(base, np.ndarray) and base.flags.c_contiguous and all(column.base is base for column in columns):
        begins = [(_address(column) - _address(base)) // base.itemsize for column in columns]
        if all(begin + len(column) == then for begin, column, then in zip(begins, columns, begins[1:], strict=False)):
            return base.reshape(-1)[begins[0] : begins[-1] + len(columns[-1])]
    return np.concatenate(columns)


def _address(column: Column) -> int:
    address: int = column.__array_interface__["data"][0]
    return address


def merge(old: Series, new: Series) -> Series:
    """Both, in order; at a time that both have the new bar counts."""
    if not len(old) or not len(new):
        return new if len(new) else old
    if old.time[-1] < new.time[0]:
        return join((old, new))
    kept = old.pick(~np.isin(old.time, new.time))
    both = Series(*(np.concatenate([getattr(kept, name), getattr(new, name)]) for name in COLUMNS))
    return both.pick(np.argsort(both.time, kind="stable"))


EMPTY: Final = Series(*(np.empty(0, kind) for kind in TYPES.values()))
"""No bars."""

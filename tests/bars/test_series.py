"""Series: bars, tables and back, cuts, joins and merges."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata.series import COLUMNS, EMPTY, OPTIONAL, SCHEMA, Series, from_bars, from_table, join, merge
from marketdata.types import Bar, Period
from tests.bars.material import series

TIMES = st.lists(st.integers(0, 300), unique=True, max_size=40).map(sorted)
NUMBERS = st.floats(0.01, 1e6)


@st.composite
def any_series(draw: st.DrawFn) -> Series:
    times = draw(TIMES)
    unknown = st.one_of(NUMBERS, st.just(float("nan")))
    columns = {name: [draw(unknown if name in OPTIONAL else NUMBERS) for _ in times] for name in ("close", *sorted(OPTIONAL))}
    volume = [draw(st.integers(0, 2**62)) for _ in times]
    return series(times, **columns, volume=volume, suspended=[draw(st.booleans()) for _ in times])


@settings(deadline=None)
@given(any_series())
def test_a_series_comes_back_from_its_bars_and_from_its_table(held: Series) -> None:
    bars = held.bars("600000.SH", Period.D1, "test")
    assert all(isinstance(bar, Bar) for bar in bars)
    assert from_bars(bars).equals(held)
    assert held.table().schema.equals(SCHEMA)
    assert from_table(held.table()).equals(held)


def test_what_is_not_known_is_null_in_a_table_and_none_in_a_bar_and_never_zero() -> None:
    held = series([1, 2], amount=[np.nan, 0.0])
    assert held.table().column("amount").to_pylist() == [None, 0.0]
    assert [bar.amount for bar in held.bars("600000.SH", Period.D1, "test")] == [None, 0.0]


@settings(deadline=None)
@given(any_series(), st.integers(0, 300), st.integers(0, 300))
def test_a_cut_has_the_bars_that_end_within_it(held: Series, start: int, end: int) -> None:
    assert held.between(start, end).time.tolist() == [time for time in held.time.tolist() if start <= time <= end]
    assert held.between(start, None).time.tolist() == [time for time in held.time.tolist() if start <= time]
    assert held.between(None, None) is held


@settings(deadline=None)
@given(any_series(), st.integers(0, 50))
def test_the_last_bars_are_the_last(held: Series, count: int) -> None:
    assert held.last(count).time.tolist() == held.time.tolist()[max(0, len(held) - count) :]


@settings(deadline=None)
@given(any_series(), any_series())
def test_a_merge_has_every_bar_once_and_the_new_one_where_both_have_it(old: Series, new: Series) -> None:
    merged = merge(old, new)
    expected = {bar.time: bar for bar in (*old.bars("x", Period.D1, "test"), *new.bars("x", Period.D1, "test"))}
    assert merged.time.tolist() == sorted(expected)
    assert merged.equals(from_bars([expected[time] for time in sorted(expected)]))


@settings(deadline=None)
@given(any_series(), st.integers(0, 300))
def test_parts_joined_are_the_whole(held: Series, cut: int) -> None:
    assert join([EMPTY, held.between(None, cut), EMPTY, held.between(cut + 1, None)]).equals(held)


def test_what_was_cut_from_one_series_is_joined_without_a_copy_and_never_across_a_hole() -> None:
    held = series(list(range(1, 11)))
    first, middle, last = held.pick(slice(1, 3)), held.pick(slice(3, 6)), held.pick(slice(8, 10))
    whole = join([first, middle])
    assert whole.equals(held.pick(slice(1, 6)))
    assert all(np.shares_memory(getattr(whole, name), getattr(held, name)) for name in COLUMNS)
    assert join([middle, last]).equals(held.pick([3, 4, 5, 8, 9]))
    # Of one array, but another column of the second part is not what follows.
    shifted = middle.replace(close=held.close[4:7])
    assert join([first, shifted]).close.tolist() == [*first.close.tolist(), *shifted.close.tolist()]


def test_parts_that_overlap_are_not_joined() -> None:
    with pytest.raises(ValueError, match="overlap"):
        join([series([1, 2]), series([2, 3])])


def test_bars_out_of_order_are_no_series() -> None:
    bars = series([1, 2]).bars("x", Period.D1, "test")
    with pytest.raises(ValueError, match="ascending"):
        from_bars(bars[::-1])
    with pytest.raises(ValueError, match="ascending"):
        from_bars((bars[0], bars[0]))


def test_a_table_of_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="columns"):
        from_table(pa.table({"time": [1]}))
    assert from_table(SCHEMA.empty_table()).equals(EMPTY)


def test_a_table_in_several_chunks_is_read_whole() -> None:
    parts = [series([1, 2], amount=np.nan).table(), series([3], open_interest=7).table()]
    assert from_table(pa.concat_tables(parts)).time.tolist() == [1, 2, 3]


def test_series_of_other_lengths_or_values_are_not_equal() -> None:
    held = series([1, 2])
    assert not held.equals(series([1]))
    assert all(
        not held.equals(held.replace(**{name: ~getattr(held, name) if name == "suspended" else getattr(held, name) + 1}))
        for name in COLUMNS
        if name not in ("prev_close", "open_interest")
    )
    assert held.nbytes == 2 * (9 * 8 + 1)

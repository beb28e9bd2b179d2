"""The window of durations, against sorted lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.terminals.latency import Window

durations = st.floats(0, 1000, allow_nan=False)


def test_without_durations_there_is_no_quantile() -> None:
    assert Window().quantile(0.5, 0.0) is None
    assert Window().count(0.0) == 0


def test_what_is_too_old_is_dropped() -> None:
    window = Window(size=10, age=60.0)
    window.add(5.0, now=0.0)
    window.add(1.0, now=30.0)
    assert (window.count(60.0), window.quantile(1.0, 60.0)) == (2, 5.0)
    assert (window.count(60.1), window.quantile(1.0, 60.1)) == (1, 1.0)
    assert window.quantile(1.0, 90.1) is None


def test_where_there_is_no_room_the_oldest_goes() -> None:
    window = Window(size=3)
    for took in (9.0, 1.0, 2.0, 3.0):
        window.add(took, now=0.0)
    assert (window.count(0.0), window.quantile(1.0, 0.0)) == (3, 3.0)


@pytest.mark.parametrize(("q", "value"), [(0.0, 1), (0.07, 7), (0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100)])
def test_a_quantile_is_a_duration_that_was_measured(q: float, value: int) -> None:
    window = Window()
    for took in range(100, 0, -1):
        window.add(float(took), now=0.0)
    assert window.quantile(q, 0.0) == value


@given(st.lists(durations, min_size=1, max_size=60), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_quantiles_are_numpys(values: list[float], q: float) -> None:
    window = Window()
    for took in values:
        window.add(took, now=0.0)
    assert window.quantile(q, 0.0) == np.quantile(values, q, method="inverted_cdf")


@given(
    st.integers(1, 12),
    st.floats(0.5, 50),
    st.lists(st.tuples(st.floats(0, 20), durations), max_size=60),
    st.floats(0, 1),
    st.floats(0, 60),
)
def test_it_holds_the_newest_that_are_young_enough(
    size: int, age: float, entries: list[tuple[float, float]], q: float, later: float
) -> None:
    window = Window(size=size, age=age)
    kept: list[tuple[float, float]] = []
    now = 0.0
    for passed, took in entries:
        now += passed
        window.add(took, now)
        kept = [*kept, (now, took)][-size:]
    now += later
    young = sorted(took for at, took in kept if at >= now - age)
    assert window.count(now) == len(young)
    expected = next((value for rank, value in enumerate(young, 1) if rank >= q * len(young) - 1e-9), None)
    assert window.quantile(q, now) == expected

"""Load and level on a clock of the test's own: any curve of the load moves the level as the policy says, and no faster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.overload import (
    BUSY,
    FALL,
    LAG,
    LATE,
    LONGEST_FALL,
    LOW,
    RISE,
    SHED_LEAST,
    SHED_SHARE,
    WINDOW,
    Gauge,
    Level,
    Load,
    Overload,
)

TICK = 0.05
CALM = Load(busy=0.1, late=0.0, lag=0.0)
BETWEEN = Load(busy=0.0, late=LATE * (1 + LOW) / 2, lag=0.0)
TOO_LATE = Load(busy=0.5, late=LATE, lag=0.0)
TOO_BUSY = Load(busy=BUSY, late=0.0, lag=0.0)
TOO_FAR_BEHIND = Load(busy=0.5, late=0.0, lag=LAG)


class Course:
    """An overload that time passes for."""

    def __init__(self) -> None:
        self.overload = Overload()
        self.now = 0.0
        self.levels: list[Level] = []
        self.shed: list[int] = []

    def go(self, load: Load | Callable[[Level], Load], seconds: float, *, low: int = 0) -> Level:
        """So much time under a load, which may depend on the level."""
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            self.levels.append(self.overload.step(self.now, load(self.overload.level) if callable(load) else load))
            self.shed.append(self.overload.shed(self.now, low))
        return self.overload.level

    @property
    def changes(self) -> int:
        return sum(before is not after for before, after in itertools.pairwise([Level.CALM, *self.levels]))


@pytest.mark.parametrize("load", [TOO_LATE, TOO_FAR_BEHIND])
def test_too_much_load_raises_the_level_step_by_step(load: Load) -> None:
    course = Course()
    assert course.go(load, RISE) is Level.CALM
    assert course.go(load, RISE) is Level.MERGE_LOW
    assert course.go(load, RISE) is Level.MERGE_NORMAL
    assert course.go(load, 60) is Level.SHED_LOW
    assert course.changes == 3


def test_a_hub_that_is_busy_but_in_time_merges_low_priority_and_does_no_more() -> None:
    course = Course()
    assert course.go(TOO_BUSY, 60, low=1000) is Level.MERGE_LOW
    assert sum(course.shed) == 0


def test_a_peak_shorter_than_a_second_changes_nothing() -> None:
    course = Course()
    for _ in range(20):
        course.go(TOO_LATE, RISE - 2 * TICK)
        course.go(CALM, 0.5)
    assert course.changes == 0


def test_low_load_lowers_the_level_step_by_step_and_more_slowly_than_it_rose() -> None:
    course = Course()
    course.go(TOO_LATE, 5)
    assert course.go(CALM, FALL - 2 * TICK) is Level.SHED_LOW
    assert course.go(CALM, FALL) is Level.MERGE_NORMAL
    assert course.go(CALM, FALL) is Level.MERGE_LOW
    assert course.go(CALM, FALL) is Level.CALM


def test_between_the_marks_the_level_stays() -> None:
    course = Course()
    assert course.go(BETWEEN, 60) is Level.CALM
    course.go(TOO_LATE, 2.5)
    assert course.go(BETWEEN, 60) is Level.MERGE_NORMAL


def test_a_load_that_goes_down_only_because_of_the_level_makes_it_change_less_and_less() -> None:
    course = Course()
    course.go(lambda level: CALM if level >= Level.MERGE_LOW else TOO_LATE, 600)
    first = course.changes
    course.go(lambda level: CALM if level >= Level.MERGE_LOW else TOO_LATE, 600)
    assert course.changes - first <= 2 * (600 / LONGEST_FALL) + 2
    assert first <= 2 * (600 / LONGEST_FALL) + 12


def test_what_a_relapse_has_taught_is_forgotten_when_all_has_been_well_for_a_while() -> None:
    course = Course()
    course.go(lambda level: CALM if level >= Level.MERGE_LOW else TOO_LATE, 300)
    course.go(CALM, 2 * LONGEST_FALL)
    course.go(TOO_LATE, 1.5)
    assert course.overload.level is Level.MERGE_LOW
    assert course.go(CALM, FALL + 1) is Level.CALM


def test_connections_are_shed_a_bounded_number_per_second_as_long_as_it_hurts() -> None:
    course = Course()
    course.go(TOO_LATE, 3 * RISE - TICK, low=1000)
    assert sum(course.shed) == 0
    course.go(TOO_LATE, 1, low=1000)
    assert course.overload.level is Level.SHED_LOW
    course.shed.clear()
    course.go(TOO_LATE, 10, low=1000)
    assert 9 * SHED_SHARE * 1000 <= sum(course.shed) <= 11 * SHED_SHARE * 1000
    course.shed.clear()
    course.go(BETWEEN, 10, low=1000)
    assert course.overload.level is Level.SHED_LOW
    assert sum(course.shed) == 0


def test_few_are_shed_as_well_and_nobody_where_there_is_nobody() -> None:
    course = Course()
    course.go(TOO_LATE, 10, low=0)
    assert sum(course.shed) == 0
    course.shed.clear()
    course.go(TOO_LATE, 10, low=20)
    assert 9 * SHED_LEAST <= sum(course.shed) <= 11 * SHED_LEAST


loads = st.builds(Load, busy=st.floats(0, 1), late=st.floats(0, 2), lag=st.floats(0, 5))


@given(st.lists(st.tuples(loads, st.floats(0.05, 20)), max_size=12), st.integers(0, 500))
def test_any_curve_moves_the_level_one_step_at_a_time_and_sheds_no_faster_than_it_may(
    curve: list[tuple[Load, float]], low: int
) -> None:
    course = Course()
    seen: list[Load] = []
    for load, seconds in curve:
        before = len(course.levels)
        course.go(load, seconds, low=low)
        seen += [load] * (len(course.levels) - before)
    changed = [0]
    for index, (before, after) in enumerate(itertools.pairwise([Level.CALM, *course.levels])):
        if before is after:
            continue
        assert abs(after - before) == 1
        wait = round((RISE if after > before else FALL) / TICK)
        assert index - changed[-1] >= wait - 2
        if after > before:
            assert all(load.pressure >= 1 for load in seen[index - wait + 2 : index + 1])
        else:
            assert all(load.pressure < LOW for load in seen[index - wait + 2 : index + 1])
        changed.append(index)
    per_second = round(1 / TICK)
    for start in range(0, len(course.shed), per_second):
        assert sum(course.shed[start : start + per_second]) <= 2 * max(SHED_LEAST, SHED_SHARE * low)
    for count, load, level in zip(course.shed, seen, course.levels, strict=True):
        assert not count or (load.pain >= 1 and level is Level.SHED_LOW)


# What the load is made of


def looks(gauge: Gauge, steps: Iterable[tuple[float, float, int, float]]) -> Load:
    """Steps of (seconds since the last look, seconds of them in fan-out, messages, their lag); a look is due each ``TICK``."""
    now = fan_out = 0.0
    messages, load = 0, CALM
    for seconds, busy, count, lag in steps:
        due, now = now + TICK, now + seconds
        fan_out, messages = fan_out + busy, messages + count
        load = gauge.look(now, due=due, fan_out=fan_out, messages=messages, lag=lag)
    return load


def test_a_hub_with_nothing_to_do_has_no_load() -> None:
    load = looks(Gauge(), [(TICK, 0.0, 0, 0.0)] * 100)
    assert load.pressure == pytest.approx(0, abs=1e-6)


def test_busy_is_the_share_of_the_time_in_fan_out() -> None:
    load = looks(Gauge(), [(TICK, 0.03, 1, 0.0)] * 100)
    assert load.busy == pytest.approx(0.6)
    assert load.late == pytest.approx(0, abs=1e-6)


def test_a_loop_that_is_late_each_time_is_late() -> None:
    assert looks(Gauge(), [(0.4, 0.0, 0, 0.0)] * 30).late == pytest.approx(0.35)


def test_one_long_message_per_sweep_is_no_lateness() -> None:
    sweep = [(1.0, 0.9, 1, 0.0), *[(TICK, 0.0, 0, 0.0)] * 40]
    assert looks(Gauge(), sweep * 5).pressure < LOW


def test_a_machine_that_was_suspended_is_not_overloaded() -> None:
    gauge, overload = Gauge(), Overload()
    now = 0.0
    for _ in range(100):
        now += TICK
        overload.step(now, gauge.look(now, due=now, fan_out=0.0, messages=0, lag=0.0))
    now += 3600
    overload.step(now, gauge.look(now, due=now - 3600, fan_out=0.0, messages=0, lag=0.0))
    for _ in range(100):
        now += TICK
        overload.step(now, gauge.look(now, due=now, fan_out=0.0, messages=0, lag=0.0))
        assert overload.level is Level.CALM


def test_the_quickest_message_of_late_says_how_far_the_hub_lags_behind() -> None:
    steps = [(TICK, 0.0, 1, lag) for lag in (3.0, 2.0, 4.0) * 10]
    assert looks(Gauge(), steps).lag == 2.0


def test_a_lag_of_which_nothing_is_heard_any_more_is_forgotten() -> None:
    steps = [(TICK, 0.0, 1, 9.0)] * 10 + [(TICK, 0.0, 0, 9.0)] * round(WINDOW / TICK + 2)
    assert looks(Gauge(), steps).lag == 0.0

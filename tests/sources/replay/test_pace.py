"""When a replay's rows are due."""

from __future__ import annotations

import threading
import time

import pytest

from marketdata.sources.replay.pace import SKIPPED_PAUSE_MS, MonotonicClock, Pace

START = 1_654_046_100_000


@pytest.mark.parametrize("speed", [1.0, 2.5, 10.0, 1000.0])
def test_rows_are_due_at_a_fixed_distance_from_the_first(speed: float) -> None:
    pace = Pace(speed)
    assert pace.due_in(START, 50.0) == 0
    assert pace.due_in(START + 3000, 50.0) == pytest.approx(3 / speed)
    assert pace.due_in(START + 6000, 50.0 + 3 / speed) == pytest.approx(3 / speed)


def test_errors_of_single_sleeps_do_not_add_up() -> None:
    pace, now = Pace(1.0), 100.0
    pace.due_in(START, now)
    for step in range(1, 1001):
        now += pace.due_in(START + step * 3000, now) + 0.01
    assert now == pytest.approx(100 + 3000 + 0.01)


def test_as_fast_as_possible_never_waits() -> None:
    pace = Pace(0)
    assert [pace.due_in(START + ms, 0.0) for ms in (0, 1, 10**12)] == [0, 0, 0]


def test_held_up_it_catches_up_and_then_keeps_its_pace() -> None:
    pace = Pace(1.0)
    pace.due_in(START, 0.0)
    assert [pace.due_in(START + 1000 * second, 60.0) for second in (1, 30, 60)] == [0, 0, 0]
    assert pace.due_in(START + 61_000, 60.0) == pytest.approx(1.0)


def test_a_night_is_skipped_and_lunch_is_not() -> None:
    pace = Pace(1.0)
    pace.due_in(START, 0.0)
    lunch = START + 90 * 60 * 1000
    assert pace.due_in(lunch, 0.0) == pytest.approx(5400)
    morning = lunch + SKIPPED_PAUSE_MS + 1
    assert pace.due_in(morning, 5400.0) == 0
    assert pace.due_in(morning + 3000, 5400.0) == pytest.approx(3)
    assert pace.due_in(morning + 3000, 5401.0) == pytest.approx(2)


def test_the_machines_clock_is_woken_from_a_wait_of_weeks() -> None:
    wake, clock, woken = threading.Event(), MonotonicClock(), threading.Event()

    def sleep() -> None:
        clock.wait(wake, 1e9)
        woken.set()

    threading.Thread(target=sleep, daemon=True).start()
    wake.set()
    assert woken.wait(10)


def test_the_wall_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MonotonicClock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= clock.now() - before < 60

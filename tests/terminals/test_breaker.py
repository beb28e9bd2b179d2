"""The circuit breaker: its rule by example, and every course of events against a plain model."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from marketdata.terminals.breaker import Breaker, State


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(now)
    return breaker


def test_it_opens_at_the_fifth_failure_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.failed(0.0)
    breaker.succeeded(0.0)
    for _ in range(4):
        breaker.failed(0.0)
    assert breaker.state is State.CLOSED
    breaker.failed(0.0)
    assert breaker.state is State.OPEN
    assert not breaker.allow(9.9)


def test_it_opens_where_half_of_the_verdicts_are_failures() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.succeeded(0.0)
        breaker.failed(0.0)
    breaker.succeeded(0.0)
    assert breaker.state is State.CLOSED, "nine verdicts say too little"
    breaker.failed(0.0)
    assert breaker.state is State.OPEN


def test_verdicts_older_than_a_minute_are_not_counted() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.succeeded(0.0)
        breaker.failed(0.0)
    breaker.succeeded(0.0)
    breaker.failed(60.1)
    assert breaker.state is State.CLOSED


def test_after_its_time_exactly_one_probe_passes() -> None:
    breaker = opened()
    assert [breaker.allow(now) for now in (0.0, 9.9, 10.0, 10.0, 500.0)] == [False, False, True, False, False]
    assert breaker.state is State.HALF_OPEN


def test_asking_whether_it_is_ready_does_not_take_the_probes_place() -> None:
    breaker = opened()
    assert not breaker.ready(9.9)
    assert breaker.ready(10.0)
    assert breaker.state is State.OPEN
    assert breaker.allow(10.0)
    assert not breaker.ready(10.0)


def test_a_probe_that_succeeds_closes_it_and_all_is_forgotten() -> None:
    breaker = opened()
    assert breaker.allow(10.0)
    breaker.succeeded(10.5)
    assert (breaker.state, breaker.until) == (State.CLOSED, None)
    for _ in range(4):
        breaker.failed(11.0)
    assert breaker.state is State.CLOSED


def test_the_time_doubles_with_each_failed_probe_up_to_a_bound() -> None:
    breaker = opened()
    now, waits = 0.0, []
    for _ in range(7):
        assert breaker.until is not None
        waits.append(breaker.until - now)
        now = breaker.until
        assert breaker.allow(now)
        breaker.failed(now)
    assert waits == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


def test_a_probe_without_a_verdict_makes_room_for_another() -> None:
    breaker = opened()
    assert breaker.allow(10.0)
    breaker.cancelled(10.1)
    assert breaker.allow(10.1)
    assert not breaker.allow(10.2)


@pytest.mark.parametrize("verdict", ["succeeded", "failed", "cancelled"])
def test_what_was_let_through_before_it_opened_changes_nothing_while_it_is_open(verdict: str) -> None:
    breaker = opened()
    getattr(breaker, verdict)(5.0)
    assert (breaker.state, breaker.until) == (State.OPEN, 10.0)


class AgainstModel(RuleBasedStateMachine):
    """The model keeps the whole history and reads the rule off it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = State.CLOSED
        self.verdicts: list[tuple[float, bool]] = []
        self.openings: list[float] = []
        self.probes = 0

    @initialize(first=st.sampled_from([1.0, 10.0]), longest=st.sampled_from([5.0, 300.0]))
    def begin(self, first: float, longest: float) -> None:
        self.first, self.longest = first, longest
        self.breaker = Breaker(first=first, longest=longest)

    def until(self) -> float:
        return self.openings[-1] + min(self.first * 2 ** (len(self.openings) - 1), self.longest)

    def open(self) -> None:
        self.state, self.probes = State.OPEN, 0
        self.openings.append(self.now)

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 10.0, 40.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        expected = self.state is State.CLOSED or (self.probes == 0 and self.now >= self.until())
        assert self.breaker.ready(self.now) is expected
        assert self.breaker.allow(self.now) is expected
        if expected and self.state is not State.CLOSED:
            self.state, self.probes = State.HALF_OPEN, 1

    @rule(times=st.integers(1, 4))
    def succeed(self, times: int) -> None:
        for _ in range(times):
            self.breaker.succeeded(self.now)
            if self.state is State.HALF_OPEN:
                self.state, self.verdicts, self.openings, self.probes = State.CLOSED, [], [], 0
            elif self.state is State.CLOSED:
                self.verdicts.append((self.now, True))

    @rule(times=st.integers(1, 4))
    def fail(self, times: int) -> None:
        for _ in range(times):
            self.breaker.failed(self.now)
            if self.state is State.HALF_OPEN:
                self.open()
            elif self.state is State.CLOSED:
                self.verdicts.append((self.now, False))
                recent = [good for at, good in self.verdicts[-20:] if self.now - at <= 60]
                in_a_row = len(self.verdicts) >= 5 and not any(good for _, good in self.verdicts[-5:])
                if in_a_row or (len(recent) >= 10 and recent.count(False) * 2 >= len(recent)):
                    self.open()

    @rule()
    def cancel(self) -> None:
        self.breaker.cancelled(self.now)
        self.probes = 0

    @invariant()
    def they_agree(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.state is self.state
            assert self.breaker.until == (None if self.state is State.CLOSED else self.until())


AgainstModel.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAgainstModel = AgainstModel.TestCase

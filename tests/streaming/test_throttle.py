"""A connection's messages: what is let through, what is told to wait, and when patience ends; on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.errors import MESSAGE_LIMIT, RATE_LIMITED, ArgusError
from streaming.throttle import BURST, PATIENCE, Throttle


def outcomes(throttle: Throttle, count: int, now: float, per_second: int) -> list[str]:
    names = []
    for _ in range(count):
        try:
            throttle.take(now, per_second)
        except ArgusError as error:
            names.append(error.problem.name)
        else:
            names.append("let through")
    return names


def test_some_seconds_worth_may_come_at_once_and_then_what_the_plan_says() -> None:
    throttle = Throttle(0.0)
    assert outcomes(throttle, BURST * 4 + 1, 0.0, 4) == ["let through"] * BURST * 4 + ["rate_limited"]
    assert outcomes(throttle, 5, 1.0, 4) == ["let through"] * 4 + ["rate_limited"]


def test_a_refusal_says_how_many_are_allowed_and_when_to_come_again() -> None:
    throttle = Throttle(0.0)
    outcomes(throttle, BURST * 4, 0.0, 4)
    with pytest.raises(ArgusError) as caught:
        throttle.take(0.0, 4)
    assert caught.value.problem is RATE_LIMITED
    assert caught.value.params == {"retry_after": 1, "parameter": "messages_per_second", "limit": 4}
    assert "4 messages per second" in caught.value.reply(None)["message"]
    throttle.take(1.0, 4)


def test_who_goes_on_all_the_same_is_closed() -> None:
    throttle = Throttle(0.0)
    names = outcomes(throttle, BURST * 4 + PATIENCE * 4 + 1, 0.0, 4)
    assert names.count("rate_limited") == PATIENCE * 4
    assert names[-1] == "message_limit"
    assert MESSAGE_LIMIT.close is not None


def test_refusals_are_forgiven_when_the_client_pauses() -> None:
    throttle = Throttle(0.0)
    for minute in range(10):
        names = outcomes(throttle, (BURST + PATIENCE) * 4, minute * 60.0, 4)
        assert "message_limit" not in names


def test_an_edited_plan_counts_from_the_next_message() -> None:
    throttle = Throttle(0.0)
    outcomes(throttle, BURST * 4, 0.0, 4)
    assert outcomes(throttle, 9, 1.0, 8) == ["let through"] * 8 + ["rate_limited"]
    assert outcomes(throttle, BURST * 1 + 1, 1000.0, 1)[-1] == "rate_limited"


@given(st.integers(1, 50), st.lists(st.floats(0, 2), max_size=300))
def test_no_pattern_lets_more_through_than_the_burst_and_the_rate(per_second: int, pauses: list[float]) -> None:
    throttle, now, let_through = Throttle(0.0), 0.0, 0
    for pause in pauses:
        now += pause
        let_through += outcomes(throttle, 1, now, per_second) == ["let through"]
        assert let_through <= (BURST + now) * per_second + 0.001


@given(st.integers(1, 50), st.integers(1, 300))
def test_who_keeps_to_the_rate_is_never_refused(per_second: int, count: int) -> None:
    throttle = Throttle(0.0)
    assert all(outcomes(throttle, 1, number / per_second, per_second) == ["let through"] for number in range(count))

"""What a terminal stands, whoever asks."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.exchanges import Kind
from marketdata.sources.base import SourceTimeout
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.terminals import gate, roster
from marketdata.terminals.gate import STANDS_BACK, TURN, Gate, NotNow
from marketdata.terminals.roster import PoolSpec, Roster, TerminalSpec
from marketdata.terminals.slots import PATIENCE, Priority

LIVE, BULK = Priority.LIVE, Priority.BULK


class Clock:
    """Goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Gate:
    return Gate(clock)


def wait(door: Gate, priority: Priority, concurrent: int = 8, per_second: int | None = None) -> float:
    """Seconds after which to come again; 0: a turn."""
    try:
        door.enter(priority, concurrent, per_second)
    except NotNow as not_now:
        return not_now.seconds
    return 0.0


def test_no_more_are_inside_than_the_terminal_stands(door: Gate) -> None:
    assert [wait(door, LIVE, 2) for _ in range(3)] == [0, 0, TURN]
    door.leave(LIVE)
    assert (wait(door, LIVE, 2), door.inside) == (0, 2)
    assert wait(door, LIVE, 3) == 0, "another limit acts at once"


def test_bulk_leaves_the_last_turn_to_live(door: Gate) -> None:
    assert [wait(door, BULK, 3) for _ in range(3)] == [0, 0, TURN]
    assert wait(door, LIVE, 3) == 0
    assert wait(Gate(), BULK, 1) == 0, "unless there is but one"


def test_bulk_stands_back_while_live_comes_again(door: Gate, clock: Clock) -> None:
    assert (wait(door, BULK, 1), wait(door, LIVE, 1)) == (0, TURN)
    door.leave(BULK)
    assert wait(door, BULK, 1) == TURN, "the turn is for the one that was refused"
    assert wait(door, LIVE, 1) == 0
    door.leave(LIVE)
    clock.now += 1.01 * STANDS_BACK
    assert wait(door, BULK, 1) == 0


def test_bulk_is_let_in_now_and_then_however_much_live_there_is(door: Gate, clock: Clock) -> None:
    door.enter(LIVE, 1, None)
    entered, inside = [], LIVE
    for _ in range(int(3 * PATIENCE / TURN)):
        clock.now += TURN
        wait(door, LIVE, 1)
        door.leave(inside)
        bulk = wait(door, BULK, 1) == 0
        entered.append(bulk)
        inside = BULK if bulk else LIVE
        if not bulk:
            door.enter(LIVE, 1, None)
    assert sum(entered) == 2


def test_bulk_that_came_in_vain_for_long_gets_the_last_free_turn_but_never_all_of_them(door: Gate, clock: Clock) -> None:
    door.enter(LIVE, 2, None)
    assert wait(door, BULK, 2) == TURN, "the last one"
    clock.now += PATIENCE
    assert wait(door, BULK, 2) == 0
    door.leave(LIVE)
    assert wait(door, BULK, 2) == TURN
    clock.now += 6 * PATIENCE
    assert wait(door, BULK, 2) == TURN, "the other one is LIVE's, however long the first is kept"
    assert wait(door, LIVE, 2) == 0
    door.leave(BULK)
    assert wait(door, BULK, 2) == 0


def test_where_the_terminal_stands_less_than_before_bulk_is_not_let_in_until_it_has_less(door: Gate, clock: Clock) -> None:
    assert [wait(door, BULK, 4) for _ in range(4)] == [0, 0, 0, TURN]
    door.leave(BULK)
    door.leave(BULK)
    clock.now += PATIENCE
    assert wait(door, BULK, 2) == TURN
    door.leave(BULK)
    assert wait(door, BULK, 2) == 0


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 2 * PATIENCE), st.sampled_from(["come", "go"]), st.sampled_from(Priority), st.integers(1, 4)),
        max_size=60,
    )
)
def test_bulk_never_has_all_of_several_turns(steps: list[tuple[float, str, Priority, int]]) -> None:
    clock = Clock()
    door = Gate(clock)
    inside = dict.fromkeys(Priority, 0)
    for pause, step, priority, concurrent in steps:
        clock.now += pause
        if step == "come" and wait(door, priority, concurrent) == 0:
            inside[priority] += 1
            assert sum(inside.values()) <= concurrent
            assert priority is LIVE or inside[BULK] <= max(1, concurrent - 1)
        elif step == "come" and priority is LIVE:
            assert sum(inside.values()) >= concurrent
        elif step == "go" and inside[priority]:
            door.leave(priority)
            inside[priority] -= 1
        assert door.inside == sum(inside.values())


def test_a_start_that_must_wait_is_told_when_its_second_is_over(door: Gate, clock: Clock) -> None:
    assert [wait(door, LIVE, per_second=2) for _ in range(2)] == [0, 0]
    clock.now += 0.4
    assert wait(door, LIVE, per_second=2) == pytest.approx(0.6)
    assert wait(door, LIVE, per_second=3) == 0
    clock.now += 0.6
    assert wait(door, BULK, per_second=2) == pytest.approx(0.4), "one of the two is left to LIVE"
    assert wait(door, LIVE, per_second=2) == 0


def test_bulk_that_came_in_vain_for_long_takes_the_last_start_of_a_second(door: Gate, clock: Clock) -> None:
    door.enter(LIVE, 8, 2)
    assert wait(door, BULK, per_second=2) == pytest.approx(1.0)
    clock.now += PATIENCE
    door.enter(LIVE, 8, 2)
    assert wait(door, BULK, per_second=2) == 0
    assert wait(door, BULK, per_second=2) > 0


@given(
    per_second=st.integers(1, 5),
    steps=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(Priority)), max_size=60),
)
def test_within_any_second_no_more_begin_than_are_allowed(per_second: int, steps: list[tuple[float, Priority]]) -> None:
    clock = Clock()
    door = Gate(clock)
    begun: list[float] = []
    for pause, priority in steps:
        clock.now += pause
        if (seconds := wait(door, priority, 1000, per_second)) == 0:
            begun.append(clock.now)
        else:
            assert 0 < seconds <= 1
    for first, beyond in zip(begun, begun[per_second:], strict=False):
        assert beyond - first >= 1.0


def test_a_turn_is_as_the_roster_says_and_is_given_back_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TerminalSpec("gated", "p", concurrent=1)
    monkeypatch.setattr(roster, "_current", Roster({"p": PoolSpec("p", terminals=(spec,))}))
    with pytest.raises(ZeroDivisionError), gate.turn("gated", LIVE):
        assert gate.inside("gated") == 1
        with pytest.raises(NotNow), gate.turn("gated", LIVE):
            pass
        raise ZeroDivisionError
    assert gate.inside("gated") == 0
    with gate.turn("nobody's", LIVE), gate.turn("nobody's", LIVE):
        assert gate.inside("nobody's") == 2


def test_what_waits_in_its_thread_asks_in_turns_within_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TerminalSpec("in turns", "p", concurrent=1)
    monkeypatch.setattr(roster, "_current", Roster({"p": PoolSpec("p", terminals=(spec,))}))
    inside: list[int] = []

    class Asked(SimulatedSource):
        def fetch_codes(self, kind: Kind, *, timeout: float) -> tuple[str, ...]:
            assert 0 < timeout <= 60
            inside.append(gate.inside("in turns"))
            return ("510050.SH",)

    source = gate.in_turns(Asked(symbols=1), "in turns", BULK)
    with gate.turn("in turns", LIVE), pytest.raises(SourceTimeout):
        source.fetch_codes(Kind.FUND, timeout=0.05)
    assert source.name == "simulated", "what is no call is as it was"
    assert source.fetch_codes(Kind.FUND, timeout=60) == ("510050.SH",)
    gate._gates["in turns"].enter(LIVE, 1, None)
    threading.Timer(0.05, gate._gates["in turns"].leave, [LIVE]).start()
    assert source.fetch_codes(Kind.FUND, timeout=60) == ("510050.SH",)
    assert inside == [1, 1]

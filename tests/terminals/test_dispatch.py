"""A request's way: who is asked, who after that, who beside, and what is said where nobody answers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from django.db import OperationalError

from marketdata.calendar import SHANGHAI
from marketdata.sources.base import Capability
from marketdata.terminals import dispatch, hands, line, roster, states, windows
from marketdata.terminals.dispatch import Dispatcher, Failure, NoAnswer
from marketdata.terminals.hands import Hands
from marketdata.terminals.line import SAMPLES
from marketdata.terminals.models import Role
from marketdata.terminals.roster import PoolSpec, Roster, TerminalSpec
from marketdata.terminals.slots import Priority
from marketdata.terminals.states import TerminalReport

BARS = Capability.BARS


def pool(*terminals: TerminalSpec | str, **changed: Any) -> PoolSpec:
    specs = tuple(TerminalSpec(one, "p", concurrent=8) if isinstance(one, str) else one for one in terminals)
    return PoolSpec(**{"name": "p", "strategy": "round_robin", "hedge": False, "terminals": specs} | changed)


def terminal(name: str, **changed: Any) -> TerminalSpec:
    return TerminalSpec(**{"name": name, "pool": "p", "concurrent": 8} | changed)


class Fleet:
    """Terminals that do what a test says: nothing said, they answer with their own name."""

    def __init__(self) -> None:
        self.reports: dict[str, TerminalReport] = {}
        self.dispatcher = Dispatcher(lambda: self.reports)
        self.does: dict[str, Callable[[float], Any]] = {}
        self.asked: list[str] = []
        self.given: dict[str, float] = {}

    def call(self, name: str, timeout: float) -> str:
        self.asked.append(name)
        self.given[name] = timeout
        return str(self.does.get(name, lambda _: name)(timeout))

    def ask(
        self, pool: PoolSpec, seconds: float = 10.0, priority: Priority = Priority.LIVE, what: Capability | None = BARS
    ) -> str:
        deadline = dispatch.time.monotonic() + seconds
        name, answer = self.dispatcher.ask(pool, what, self.call, priority=priority, deadline=deadline)
        assert name == answer
        return name

    def fails(self, name: str, outcome: str = "down", detail: str = "gone") -> None:
        def fail(_: float) -> None:
            raise Failure(outcome, f"{name}: {detail}")

        self.does[name] = fail

    def refusal(self, pool: PoolSpec, seconds: float = 10.0) -> NoAnswer:
        with pytest.raises(NoAnswer) as refused:
            self.ask(pool, seconds)
        return refused.value

    def slots(self, pool: PoolSpec) -> dict[str, tuple[int, int]]:
        """Terminal -> slots and requests in flight."""
        view = self.dispatcher.view(pool, dispatch.time.monotonic())
        return {one.spec.name: (one.line.slots.size, one.line.slots.in_flight) for one in view.standings}


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which the test sets."""
    now = [1000.0]
    fake = SimpleNamespace(monotonic=lambda: now[0], time_ns=time.time_ns)
    monkeypatch.setattr(dispatch, "time", fake)
    monkeypatch.setattr(line, "time", fake)
    return now


class Held:
    """A call that does not come back before the test lets it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun = threading.Semaphore(0)
        self.over = threading.Event()

    def __call__(self, _: float) -> str:
        self.begun.release()
        assert self.over.wait(60)
        return self.name


@pytest.fixture
def held() -> Iterator[Callable[[str], Held]]:
    made: list[Held] = []

    def make(name: str) -> Held:
        made.append(Held(name))
        return made[-1]

    yield make
    for one in made:
        one.over.set()


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_the_next_one_answers_where_one_is_killed_and_is_asked_first_from_then_on(fleet: Fleet) -> None:
    two = pool("a", "b")
    fleet.fails("a")
    assert [fleet.ask(two) for _ in range(4)] == ["b"] * 4
    assert fleet.asked == ["a", "b", "b", "b", "b"]


def test_one_that_fails_again_and_again_is_tried_less_and_less_often(fleet: Fleet, clock: list[float]) -> None:
    """Else every tenth second a request would wait for a worker that is gone."""
    two = pool("a", "b")
    fleet.fails("a")
    tried: list[float] = []
    for _ in range(100):
        before = fleet.asked.count("a")
        # Two at a time, so that each has its turn.
        assert {fleet.ask(two), fleet.ask(two)} == {"b"}
        tried += [clock[0] - 1000] * (fleet.asked.count("a") - before)
        clock[0] += 10
    assert tried == [0, 10, 20, 30, 40, 50, 70, 110, 190, 350, 650, 950]
    fleet.does.clear()
    clock[0] += 300
    assert {fleet.ask(two), fleet.ask(two)} == {"a", "b"}


def test_who_is_asked_first_has_half_of_the_time_and_the_last_one_all_of_it(fleet: Fleet, clock: list[float]) -> None:
    def hang(timeout: float) -> None:
        clock[0] += timeout
        raise Failure("timeout", "late")

    fleet.does |= dict.fromkeys(("a", "b"), hang)
    assert fleet.ask(pool("a", "b", "c"), seconds=16.0) == "c"
    assert fleet.given == {"a": 8.0, "b": 4.0, "c": 4.0}


def test_one_that_is_known_to_be_away_costs_the_others_nothing(fleet: Fleet, clock: list[float]) -> None:
    report = TerminalReport(pool="p", process="w", source="qmt", state="down", detail="no login")
    fleet.reports = {"a": report, "b": report.__class__(pool="p", process="w", source="qmt", state="up")}
    two = pool("a", "b", "without a worker")
    assert [fleet.ask(two, 16.0) for _ in range(3)] == ["b"] * 3
    assert fleet.given == {"b": 16.0}
    fleet.fails("b")
    assert fleet.ask(two, 16.0) == "a", "nobody is refused while one might answer"
    assert fleet.given["a"] == 4.0


def test_reports_that_cannot_be_read_say_nothing(fleet: Fleet) -> None:
    def away() -> dict[str, TerminalReport]:
        raise OperationalError("no database")

    fleet.dispatcher = Dispatcher(away)
    assert {fleet.ask(pool("a", "b")) for _ in range(4)} == {"a", "b"}


def test_no_request_reads_what_somebody_here_has_handed_over() -> None:
    fleet = Fleet()
    fleet.dispatcher = Dispatcher(lambda: pytest.fail("a request has read"))
    states = {"a": "down", "b": "up"}
    fleet.dispatcher.tell(
        {name: TerminalReport(pool="main", process="x", source="qmt", state=state) for name, state in states.items()}
    )
    assert {fleet.ask(pool("a", "b")) for _ in range(4)} == {"b"}


def test_all_of_them_are_named_with_their_own_reasons(fleet: Fleet) -> None:
    without = terminal("d", capabilities=frozenset({Capability.QUOTES}))
    specs = [terminal("c", drained=True), without, terminal("e", enabled=False)]
    fleet.fails("a", "unsupported", "no bars of that kind")
    fleet.fails("b", "timeout", "no answer within 5.0 s")
    refusal = fleet.refusal(pool("a", "b", *specs))
    assert str(refusal) == (
        "a: no bars of that kind; b: no answer within 5.0 s; c was not asked: it is drained; "
        "d was not asked: it has no bars; e was not asked: it is switched off"
    )
    assert refusal.reason == "source_unavailable", "the one that may come back"
    assert fleet.refusal(pool("a", without)).reason == "unsupported"
    assert fleet.refusal(pool("a", "b")).reason == "deadline"
    assert str(fleet.refusal(pool())) == "the pool p has no terminals"


def test_those_for_whom_no_time_is_left_are_named_too(fleet: Fleet, clock: list[float]) -> None:
    def hang(timeout: float) -> None:
        clock[0] += timeout + 0.1
        raise Failure("timeout", "a: late")

    fleet.does["a"] = hang
    refusal = fleet.refusal(pool("a", "b"), 0.4)
    assert str(refusal) == "a: late; b was not asked: no time was left"
    assert refusal.reason == "deadline"
    assert fleet.asked == ["a"]


def test_a_worker_that_ends_asks_nobody_else(fleet: Fleet) -> None:
    fleet.fails("a", "ending")
    fleet.refusal(pool("a", "b"))
    assert fleet.asked == ["a"]


def test_what_one_does_not_have_goes_to_another_until_it_is_probed_again(fleet: Fleet) -> None:
    two = pool("a", "b")
    fleet.fails("a", "unsupported")
    assert [fleet.ask(two) for _ in range(4)] == ["b"] * 4
    assert fleet.asked.count("a") == 1
    assert {fleet.ask(two, what=Capability.DIVIDENDS) for _ in range(2)} == {"b"}
    assert fleet.asked.count("a") == 2, "what it has of something else is another question"
    fleet.does.clear()
    probed = pool(terminal("a", version="2", capabilities=frozenset({BARS})), "b")
    assert {fleet.ask(probed) for _ in range(2)} == {"a", "b"}


def test_what_none_has_is_asked_of_those_that_said_so_all_the_same(fleet: Fleet) -> None:
    fleet.fails("a", "unsupported")
    fleet.refusal(pool("a"))
    fleet.does.clear()
    assert fleet.ask(pool("a")) == "a"


def test_a_drained_one_is_asked_nothing_from_the_next_request_on(fleet: Fleet) -> None:
    assert {fleet.ask(pool("a", "b")) for _ in range(2)} == {"a", "b"}
    assert {fleet.ask(pool(terminal("a", drained=True), "b")) for _ in range(4)} == {"b"}
    assert {fleet.ask(pool("a", "b")) for _ in range(2)} == {"a", "b"}


def test_a_standby_is_asked_where_no_active_one_answers(fleet: Fleet) -> None:
    two = pool(terminal("a", role=Role.STANDBY), "b")
    assert {fleet.ask(two) for _ in range(4)} == {"b"}
    fleet.fails("b")
    assert fleet.ask(two) == "a"


def test_one_in_maintenance_is_asked_last(fleet: Fleet) -> None:
    now = datetime.now(SHANGHAI)
    text = f"daily {now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    two = pool(terminal("a", maintenance=windows.parse(text)), "b")
    assert {fleet.ask(two) for _ in range(4)} == {"b"}
    assert fleet.ask(pool(two.terminals[0])) == "a"


def test_failures_in_a_maintenance_window_are_expected_and_held_against_nobody(fleet: Fleet) -> None:
    now = datetime.now(SHANGHAI)
    text = f"daily {now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    away = pool(terminal("a", maintenance=windows.parse(text)))
    fleet.fails("a")
    with structlog.testing.capture_logs() as lines:
        for _ in range(10):
            assert str(fleet.refusal(away)) == "a: gone"
    assert {line["log_level"] for line in lines if line["event"] == "terminal_failed"} == {"info"}
    fleet.does.clear()
    back = pool(terminal("a"), "b")
    assert {fleet.ask(back) for _ in range(2)} == {"a", "b"}
    fleet.fails("a")
    with structlog.testing.capture_logs() as lines:
        fleet.ask(back)
        fleet.ask(back)
    assert {line["log_level"] for line in lines if line["event"] == "terminal_failed"} == {"warning"}


def test_strategy_and_weights_change_while_it_runs(fleet: Fleet) -> None:
    def shares(of: PoolSpec) -> Counter[str]:
        return Counter(fleet.ask(of) for _ in range(12))

    assert shares(pool("a", "b")) == {"a": 6, "b": 6}
    heavy = terminal("a", weight=3)
    assert shares(pool(heavy, "b", strategy="weighted_round_robin")) == {"a": 9, "b": 3}
    assert shares(pool(heavy, terminal("b", weight=3), strategy="weighted_round_robin")) == {"a": 6, "b": 6}
    assert shares(pool(heavy, "b")) == {"a": 6, "b": 6}


def test_slots_lie_between_the_pools_sizes_and_never_over_what_the_terminal_stands(fleet: Fleet) -> None:
    specs = terminal("a", concurrent=3), terminal("b", concurrent=8)
    for changed, sizes in (
        ({"min_size": 2, "max_size": 6}, (2, 2)),
        ({"min_size": 5, "max_size": 6}, (3, 5)),
        ({"min_size": 1, "max_size": 6, "size": 6}, (3, 6)),
        ({"min_size": 1, "max_size": 1}, (1, 1)),
        ({"min_size": 1, "max_size": 4}, (1, 1)),
        ({}, (2, 2)),
    ):
        now = pool(*specs, **changed)
        fleet.ask(now)
        assert tuple(size for size, _ in fleet.slots(now).values()) == sizes, changed


def test_a_backfill_leaves_room_for_who_waits_for_an_answer(fleet: Fleet, held: Callable[[str], Held]) -> None:
    one = pool("a")
    fleet.does["a"] = stuck = held("a")
    backfill = [threading.Thread(target=fleet.ask, args=(one, 60.0, Priority.BULK), daemon=True) for _ in range(5)]
    for thread in backfill:
        thread.start()
    assert stuck.begun.acquire(timeout=30)
    wait_until(lambda: fleet.dispatcher._line("a").slots.waiting == 4)
    fleet.does["a"] = lambda _: "a"
    assert fleet.ask(one, 5.0) == "a"
    stuck.over.set()
    for thread in backfill:
        thread.join(30)
    assert fleet.slots(one) == {"a": (2, 0)}


def test_a_slot_of_one_that_somebody_else_tries_just_now_is_given_back(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([False, True])
    monkeypatch.setattr(fleet.dispatcher._line("a").breaker, "allow", lambda _: next(answers))
    one = pool("a")
    assert fleet.ask(one, priority=Priority.BULK) == "a"
    assert fleet.slots(one) == {"a": (2, 0)}


def test_who_finds_all_slots_taken_until_its_deadline_is_told_so(fleet: Fleet, held: Callable[[str], Held]) -> None:
    one = pool("a", size=1)
    fleet.does["a"] = stuck = held("a")
    thread = threading.Thread(target=fleet.ask, args=(one, 60.0), daemon=True)
    thread.start()
    assert stuck.begun.acquire(timeout=30)
    refusal = fleet.refusal(one, 0.3)
    assert (str(refusal), refusal.reason) == ("a was busy with other requests for 0.1 s", "deadline")
    assert fleet.ask(pool("a", "b", size=1), 5.0) == "b", "who has a free slot goes first"
    stuck.over.set()
    thread.join(30)
    assert fleet.ask(one) == "a", "busy is no failure"


@pytest.fixture
def known(fleet: Fleet) -> PoolSpec:
    """Two terminals of which it is known how long they take, a's turn."""
    both = pool("a", "b", hedge=True)
    for _ in range(2 * SAMPLES):
        fleet.ask(both)
    fleet.asked.clear()
    return both


def test_a_second_one_is_asked_where_the_first_takes_longer_than_nearly_always(
    fleet: Fleet, known: PoolSpec, held: Callable[[str], Held]
) -> None:
    fleet.does["a"] = stuck = held("a")
    assert fleet.ask(known) == "b"
    assert fleet.asked == ["a", "b"]
    assert fleet.slots(known)["a"] == (2, 1), "it is being asked still"
    stuck.over.set()
    wait_until(lambda: fleet.slots(known)["a"] == (2, 0))
    report = dict(reports_of(fleet, known))["p"].terminals["b"]
    assert (report.hedged, report.answered) == (1, SAMPLES + 1)


def reports_of(fleet: Fleet, pool: PoolSpec) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roster, "_current", Roster({pool.name: pool}))
        yield from fleet.dispatcher.reports()


def test_the_first_ones_answer_counts_where_the_second_fails(fleet: Fleet, known: PoolSpec, held: Callable[[str], Held]) -> None:
    fleet.does["a"] = stuck = held("a")

    def fail(_: float) -> None:
        stuck.over.set()
        raise Failure("down", "b: gone")

    fleet.does["b"] = fail
    assert fleet.ask(known) == "a"


def test_the_deadline_holds_though_a_call_does_not_come_back(fleet: Fleet, known: PoolSpec, held: Callable[[str], Held]) -> None:
    fleet.does |= {"a": held("a"), "b": held("b")}
    refusal = fleet.refusal(known, 0.5)
    assert refusal.reason == "deadline"
    assert str(refusal) == "a: no answer before the deadline; b: no answer before the deadline"


def test_a_third_one_is_asked_where_neither_of_two_answers(fleet: Fleet, held: Callable[[str], Held]) -> None:
    """The second one, asked for the first being late, may not take all the time that is left either."""
    three = pool("a", "b", "c", hedge=True)
    for _ in range(3 * SAMPLES):
        fleet.ask(three)
    fleet.asked.clear()

    def hang(timeout: float) -> None:
        time.sleep(timeout)
        raise Failure("timeout", "late")

    fleet.does |= {"a": hang, "b": hang}
    assert fleet.ask(three, 2.0) == "c"
    assert fleet.asked == ["a", "b", "c"]


def test_nothing_is_spent_on_a_second_one_that_is_not_asked(
    fleet: Fleet, known: PoolSpec, held: Callable[[str], Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Hands(1)
    monkeypatch.setattr(hands, "spare", one)
    monkeypatch.setattr(fleet.dispatcher, "_saved", {"p": 1.0})
    fleet.does["a"] = stuck = held("a")
    asking = threading.Thread(target=fleet.ask, args=(known, 60.0), daemon=True)
    asking.start()
    assert stuck.begun.acquire(timeout=30)
    asking.join(5 * dispatch.SOONEST)
    assert fleet.dispatcher._saved["p"] > 1.0, "no thread was free for it"
    stuck.over.set()
    asking.join(30)
    assert fleet.asked == ["a"]


@pytest.mark.parametrize("why", ["bulk", "switched off", "no free slot", "drained", "all alone"])
def test_no_second_one_is_asked(fleet: Fleet, known: PoolSpec, held: Callable[[str], Held], why: str) -> None:
    now, priority = known, Priority.BULK if why == "bulk" else Priority.LIVE
    a, b = known.terminals
    if why == "switched off":
        now = replace(known, hedge=False)
    elif why == "no free slot":
        now = replace(known, terminals=(a, replace(b, concurrent=1)))
        fleet.does["b"] = other = held("b")
        threading.Thread(target=fleet.ask, args=(replace(now, terminals=now.terminals[1:]), 60.0), daemon=True).start()
        assert other.begun.acquire(timeout=30)
        fleet.asked.clear()
    elif why != "bulk":
        now = replace(known, terminals=(a, replace(b, drained=True)) if why == "drained" else (a,))

    def slow(_: float) -> str:
        time.sleep(3 * dispatch.SOONEST)
        return "a"

    fleet.does["a"] = slow
    assert fleet.ask(now, priority=priority) == "a"
    assert fleet.asked == ["a"]


def test_at_most_every_twentieth_request_is_asked_twice(fleet: Fleet, known: PoolSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "SOONEST", 0.002)
    over = threading.Event()

    def slow(_: float) -> str:
        over.wait(0.05)
        return "a"

    fleet.does["a"] = slow
    only_a_first = replace(known, terminals=(known.terminals[0], replace(known.terminals[1], role=Role.STANDBY)))
    for _ in range(60):
        fleet.ask(only_a_first)
    over.set()
    # What had been saved before (two of forty, and one to begin with), and every twentieth of these.
    assert fleet.asked.count("a") == 60
    assert 1 <= fleet.asked.count("b") <= 1 + (2 * SAMPLES + 60) * dispatch.HEDGED


def test_one_that_is_tried_again_does_not_keep_the_request_waiting(
    fleet: Fleet, known: PoolSpec, held: Callable[[str], Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A breaker that has been open long enough lets one request through: that one must not pay for it."""
    breaker = fleet.dispatcher._line("a").breaker
    for _ in range(5):
        breaker.failed(dispatch.time.monotonic() - 11)
    monkeypatch.setattr(fleet.dispatcher, "_saved", {"p": -100.0})
    fleet.does["a"] = stuck = held("a")
    assert fleet.ask(known) == "b"
    assert fleet.asked == ["a", "b"], "tried, though nothing was saved for a second one"
    assert [fleet.ask(known) for _ in range(3)] == ["b"] * 3
    stuck.over.set()
    wait_until(lambda: breaker.state == "closed")
    assert {fleet.ask(known) for _ in range(2)} == {"a", "b"}


def test_what_a_call_breaks_with_is_raised_and_its_slot_is_free_again(fleet: Fleet, known: PoolSpec) -> None:
    def broken(_: float) -> None:
        raise ZeroDivisionError

    fleet.does["a"] = broken
    for now in (known, replace(known, hedge=False)):
        with pytest.raises(ZeroDivisionError):
            fleet.ask(replace(now, terminals=now.terminals[:1] if not now.hedge else now.terminals))
        wait_until(lambda: fleet.slots(known)["a"][1] == 0)


def test_what_is_reported_and_that_a_terminal_that_has_gone_is_not(fleet: Fleet) -> None:
    two = pool("a", "b")
    assert list(reports_of(fleet, two)) == [], "nothing has been asked"
    fleet.fails("a")
    for _ in range(3):
        fleet.ask(two)
    [(name, report)] = reports_of(fleet, two)
    assert (name, report.process, report.strategy) == ("p", states.PROCESS, "round_robin")
    told = {
        name: (slots.size, slots.in_flight, slots.breaker, slots.answered, slots.failed)
        for name, slots in report.terminals.items()
    }
    assert told == {"a": (2, 0, "closed", 0, 1), "b": (2, 0, "closed", 3, 0)}
    assert report.terminals["b"].p50 is not None
    [(_, report)] = reports_of(fleet, pool("b"))
    assert list(report.terminals) == ["b"]
    assert list(fleet.dispatcher._lines) == ["b"]


def test_as_many_are_able_as_are_the_best_choice(fleet: Fleet) -> None:
    specs = terminal("a"), terminal("b"), terminal("c", role=Role.STANDBY), terminal("d", drained=True)
    assert fleet.dispatcher.able(pool(*specs), BARS) == 2
    assert fleet.dispatcher.able(pool(*specs[2:]), BARS) == 1
    assert fleet.dispatcher.able(pool(specs[3]), BARS) == 0

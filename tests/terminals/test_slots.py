"""Request slots: who is next, in all courses of events; and that threads get what the rule says."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from marketdata.terminals.slots import Priority, Queue, Slots, SlotsFull, Waiter

LIVE, BULK = Priority.LIVE, Priority.BULK
LONG = 60.0


class Request(threading.Thread):
    """A thread that acquires a slot and keeps it until it is told to go."""

    def __init__(self, slots: Slots, priority: Priority, served: list[str], name: str) -> None:
        super().__init__(daemon=True)
        self.slots, self.priority, self.order, self.label = slots, priority, served, name
        self.served = threading.Event()
        self.may_go = threading.Event()
        self.start()

    def run(self) -> None:
        assert self.slots.acquire(self.priority, LONG) is not None
        self.order.append(self.label)
        self.served.set()
        self.may_go.wait(LONG)
        self.slots.release(self.priority)

    def finish(self) -> None:
        self.may_go.set()
        self.join(LONG)
        assert not self.is_alive()


class Crew:
    """Threads at one terminal's slots, in a known order of arrival."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.order: list[str] = []
        self.requests: list[Request] = []

    def send(self, priority: Priority, name: str) -> Request:
        """A request that has its slot, or stands in the queue, when this returns."""
        waiting = self.slots.waiting
        request = Request(self.slots, priority, self.order, name)
        self.requests.append(request)
        until(lambda: request.served.is_set() or self.slots.waiting == waiting + 1)
        return request

    def finish(self) -> list[str]:
        """Let all go, each when it has been served: the order in which they were."""
        for request in self.requests:
            request.may_go.set()
        for request in self.requests:
            request.finish()
        return self.order


def until(condition: Callable[[], bool]) -> None:
    """Wait for it; the test's own timeout is the bound."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.001)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(slots: Slots, priority: Priority = LIVE) -> bool:
    return slots.acquire(priority, 0) is not None


def test_a_free_slot_is_had_without_waiting() -> None:
    slots = Slots(2)
    assert slots.acquire(LIVE, LONG) == 0.0
    assert (slots.in_flight, slots.waiting) == (1, 0)


def test_without_a_free_slot_the_timeout_ends_the_wait() -> None:
    slots = Slots(1)
    assert taken(slots)
    assert slots.acquire(LIVE, 0.01) is None
    assert (slots.in_flight, slots.waiting) == (1, 0)


def test_a_slot_given_back_goes_to_the_one_that_waits_and_says_how_long_it_did() -> None:
    clock = Clock()
    slots = Slots(1, clock=clock)
    assert taken(slots)
    waits: list[float | None] = []
    thread = threading.Thread(target=lambda: waits.append(slots.acquire(LIVE, LONG)), daemon=True)
    thread.start()
    until(lambda: slots.waiting == 1)
    clock.now = 3.5
    slots.release(LIVE)
    thread.join(LONG)
    assert waits == [3.5]
    assert (slots.in_flight, slots.waiting) == (1, 0)


def test_releasing_what_nobody_of_the_class_holds_is_an_error() -> None:
    slots = Slots(2)
    assert taken(slots, LIVE)
    with pytest.raises(RuntimeError, match="a BULK slot was released that nobody had acquired"):
        slots.release(BULK)
    slots.release(LIVE)
    with pytest.raises(RuntimeError, match="a LIVE slot was released that nobody had acquired"):
        slots.release(LIVE)


@pytest.mark.parametrize("make", [lambda: Slots(-1), lambda: Slots(1).resize(-1)])
def test_there_are_no_negative_slots(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="-1 slots"):
        make()


def test_one_slot_is_kept_for_live() -> None:
    slots = Slots(3)
    assert [taken(slots, BULK) for _ in range(4)] == [True, True, False, False]
    assert taken(slots, LIVE)
    assert not taken(slots, LIVE)


def test_the_only_slot_may_be_had_by_bulk() -> None:
    slots = Slots(1)
    assert taken(slots, BULK)


def test_live_goes_before_bulk_and_each_in_the_order_of_arrival() -> None:
    slots = Slots(1, patience=LONG)
    crew = Crew(slots)
    crew.send(LIVE, "first")
    for priority, name in [(BULK, "bulk 1"), (LIVE, "live 1"), (BULK, "bulk 2"), (LIVE, "live 2")]:
        crew.send(priority, name)
    assert crew.finish() == ["first", "live 1", "live 2", "bulk 1", "bulk 2"]
    assert (slots.in_flight, slots.waiting) == (0, 0)


def test_bulk_that_waited_long_goes_before_younger_live_but_not_the_whole_backlog() -> None:
    clock = Clock()
    slots = Slots(1, patience=10.0, clock=clock)
    crew = Crew(slots)
    crew.send(LIVE, "first")
    crew.send(BULK, "bulk 1")
    crew.send(BULK, "bulk 2")
    clock.now = 20.0
    crew.send(LIVE, "live 1")
    assert crew.finish() == ["first", "bulk 1", "live 1", "bulk 2"]


def test_bulk_that_waited_long_gets_the_kept_slot_by_itself() -> None:
    slots = Slots(2, patience=0.05)
    assert taken(slots)
    assert not taken(slots, BULK)
    waited = slots.acquire(BULK, LONG)
    assert waited is not None
    assert waited >= 0.05


def test_the_next_of_bulk_has_its_turn_with_the_kept_slot_too() -> None:
    slots = Slots(2, patience=0.05)
    assert taken(slots)
    crew = Crew(slots)
    for number in range(3):
        crew.send(BULK, str(number))
    assert crew.finish() == ["0", "1", "2"]


def test_bulk_that_waited_long_does_not_get_the_last_slot_that_bulk_leaves() -> None:
    """Its calls may take a minute each: with one more every ten seconds it would soon hold all."""
    clock = Clock()
    slots = Slots(3, patience=10.0, clock=clock)
    assert taken(slots, BULK)
    assert taken(slots, BULK)
    clock.now = 60.0
    crew = Crew(slots)
    crew.send(BULK, "bulk")
    clock.now = 120.0
    assert not taken(slots, BULK)
    assert taken(slots, LIVE)
    slots.release(LIVE)
    assert slots.waiting == 1
    slots.release(BULK)
    assert crew.finish() == ["bulk"]


def test_of_two_slots_of_which_live_holds_one_all_the_time_bulk_gets_the_other_now_and_then() -> None:
    clock = Clock()
    slots = Slots(2, patience=10.0, clock=clock)
    assert taken(slots, LIVE)
    crew = Crew(slots)
    requests = [crew.send(BULK, str(number)) for number in range(3)]
    for request in requests:
        clock.now += 10.0
        assert not request.served.is_set()
        assert not taken(slots, LIVE), "the one that waited long goes first"
        assert request.served.wait(LONG)
        request.finish()
    assert crew.order == ["0", "1", "2"]


def test_after_a_resize_to_fewer_bulk_gets_none_until_it_holds_less_than_one_below_all() -> None:
    clock = Clock()
    slots = Slots(4, patience=10.0, clock=clock)
    assert all(taken(slots, BULK) for _ in range(3))
    slots.resize(2)
    crew = Crew(slots)
    crew.send(BULK, "bulk")
    clock.now = 60.0
    slots.release(BULK)
    slots.release(BULK)
    assert taken(slots, LIVE), "one of the two is free, and not for BULK"
    slots.release(LIVE)
    assert slots.waiting == 1
    slots.release(BULK)
    assert crew.finish() == ["bulk"]


def test_more_slots_are_handed_out_at_once() -> None:
    slots = Slots(1)
    crew = Crew(slots)
    requests = [crew.send(LIVE, str(number)) for number in range(4)]
    slots.resize(3)
    assert all(request.served.wait(LONG) for request in requests[:3])
    assert (slots.size, slots.in_flight, slots.waiting) == (3, 3, 1)
    crew.finish()


def test_fewer_slots_interrupt_nobody_and_serve_nobody_until_enough_are_back() -> None:
    slots = Slots(3)
    assert all(taken(slots) for _ in range(3))
    slots.resize(1)
    assert slots.in_flight == 3
    slots.release(LIVE)
    slots.release(LIVE)
    assert not taken(slots)
    slots.release(LIVE)
    assert taken(slots)


def test_without_slots_nobody_is_served() -> None:
    slots = Slots(0)
    assert not taken(slots)
    slots.resize(1)
    assert taken(slots)


def test_the_queue_of_a_class_is_bounded_and_a_backlog_leaves_live_its_own() -> None:
    slots = Slots(1, waiters=2)
    crew = Crew(slots)
    crew.send(LIVE, "first")
    crew.send(BULK, "bulk 1")
    crew.send(BULK, "bulk 2")
    with pytest.raises(SlotsFull, match="2 requests wait"):
        slots.acquire(BULK, LONG)
    crew.send(LIVE, "live")
    assert crew.finish() == ["first", "live", "bulk 1", "bulk 2"]


def test_under_many_threads_no_slot_is_lost_or_given_twice() -> None:
    slots = Slots(3)
    lock = threading.Lock()
    inside, most, ends = 0, 0, Counter[str]()

    def work(number: int) -> None:
        nonlocal inside, most
        priority = BULK if number % 3 == 0 else LIVE
        for turn in range(40):
            got = slots.acquire(priority, 0.0 if turn % 5 == 0 else 0.002 if turn % 5 == 1 else LONG)
            with lock:
                ends["served" if got is not None else "not"] += 1
                inside += got is not None
                most = max(most, inside)
            if got is not None:
                with lock:
                    inside -= 1
                slots.release(priority)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads)
    assert ends.total() == 12 * 40
    assert ends["served"] >= 12 * 24, "all that waited for long were served"
    assert most <= 3
    assert (slots.in_flight, slots.waiting) == (0, 0)


class AgainstModel(RuleBasedStateMachine):
    """The model is a plain list of those that wait, in the order of arrival, from which the rule picks one after the other."""

    PATIENCE = 10.0

    @initialize(size=st.integers(0, 4))
    def begin(self, size: int) -> None:
        self.queue = Queue(size, waiters=5, patience=self.PATIENCE)
        self.size, self.now, self.bulk_served = size, 0.0, -1e9
        self.held: list[Priority] = []
        self.waiting: list[Waiter] = []

    def serve(self) -> None:
        """One after the other, as the rule's sentences say."""
        expected = []
        while len(self.held) < self.size:
            live = [waiter for waiter in self.waiting if waiter.priority is LIVE]
            may = self.size == 1 or self.held.count(BULK) < self.size - 1
            bulk = [waiter for waiter in self.waiting if may and waiter.priority is BULK]
            aged = [
                waiter
                for waiter in bulk[:1]
                if self.now - waiter.arrived >= self.PATIENCE and self.now - self.bulk_served >= self.PATIENCE
            ]
            room = self.size == 1 or self.size - len(self.held) >= 2
            entitled = sorted(live + aged, key=self.waiting.index) or (bulk if room else [])
            if not entitled:
                break
            self.waiting.remove(entitled[0])
            expected.append(entitled[0])
            self.held.append(entitled[0].priority)
            if entitled[0].priority is BULK:
                self.bulk_served = self.now
        assert self.queue.serve(self.now) == expected
        assert all(waiter.served == self.now for waiter in expected)

    @rule(priority=st.sampled_from(Priority))
    def come(self, priority: Priority) -> None:
        if sum(waiter.priority is priority for waiter in self.waiting) == 5:
            with pytest.raises(SlotsFull):
                self.queue.join(priority, self.now)
        else:
            self.waiting.append(self.queue.join(priority, self.now))
        self.serve()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(waiter)
        self.queue.leave(waiter)
        self.serve()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        priority = data.draw(st.sampled_from(self.held))
        self.held.remove(priority)
        self.queue.release(priority)
        self.serve()

    @rule(size=st.integers(0, 4))
    def resize(self, size: int) -> None:
        self.size = self.queue.size = size
        self.serve()

    @rule(seconds=st.sampled_from([4.0, 6.0, 10.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.serve()

    @invariant()
    def they_agree_and_none_waits_for_what_it_could_have(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert self.queue.in_flight == len(self.held)
        assert self.queue.waiting == len(self.waiting)
        if any(waiter.priority is LIVE for waiter in self.waiting):
            assert len(self.held) >= self.size


AgainstModel.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestAgainstModel = AgainstModel.TestCase

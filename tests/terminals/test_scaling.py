"""How many slots a terminal gets: the rule, against a simulated terminal that serves so many calls in parallel."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.terminals.scaling import Scaler


class Simulation:
    """A terminal that serves ``parallel`` calls at a time, behind the slots that a scaler sizes.

    Events in the order of their time; the scaler is asked every half second. Calls beyond ``parallel`` wait inside the
    terminal, where nobody sees them but by the latency.
    """

    def __init__(self, scaler: Scaler, parallel: int, latency: Callable[[], float]) -> None:
        self.scaler = scaler
        self.parallel = parallel
        self.latency = latency
        self.now = 0.0
        self.sizes: list[tuple[float, int]] = [(0.0, scaler.decide(0.0))]
        self.served = 0
        self.clients = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._asking = 0
        self._queue: deque[float] = deque()
        self._inside: deque[tuple[float, float]] = deque()
        self._held = 0
        self._busy = 0
        self.at(0.5, self._decide)

    @property
    def size(self) -> int:
        return self.sizes[-1][1]

    def changes(self, since: float) -> int:
        return sum(at >= since for at, _ in self.sizes[1:])

    def at(self, when: float, event: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (when, self._serial, event))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until

    def keep_busy(self, clients: int) -> None:
        """So many clients ask from now on, each again as soon as it is answered."""
        self.clients = clients
        while self._asking < clients:
            self._asking += 1
            self.ask()

    def arrive(self, rng: random.Random, rate: float, until: float) -> None:
        """Requests come at random, ``rate`` a second on average."""

        def come() -> None:
            if self.now < until:
                self.ask()
                self.at(self.now + rng.expovariate(rate), come)

        self.at(self.now, come)

    def ask(self) -> None:
        self._queue.append(self.now)
        self._pump()

    def _decide(self) -> None:
        size = self.scaler.decide(self.now)
        if size != self.size:
            self.sizes.append((self.now, size))
            self._pump()
        self.at(self.now + 0.5, self._decide)

    def _pump(self) -> None:
        while self._queue and self._held < self.size:
            self._held += 1
            self._inside.append((self._queue.popleft(), self.now))
        while self._inside and self._busy < self.parallel:
            self._busy += 1
            came, begun = self._inside.popleft()
            self.at(self.now + self.latency(), lambda came=came, begun=begun: self._answer(came, begun))

    def _answer(self, came: float, begun: float) -> None:
        self._busy -= 1
        self._held -= 1
        self.served += 1
        self.scaler.observe(begun - came, self.now - begun, self.now)
        if self._asking > self.clients:
            self._asking -= 1
        elif self._asking:
            self._queue.append(self.now)
        self._pump()


def fixed(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def about(parallel: int) -> range:
    """The terminal's own parallelism, and what raises the latency by less than a fifth."""
    return range(parallel, parallel + 2)


@pytest.mark.parametrize("parallel", range(1, 9))
def test_a_terminal_under_load_gets_as_many_slots_as_it_serves_at_a_time(parallel: int) -> None:
    simulation = Simulation(Scaler(1, 16), parallel, fixed(0.2))
    simulation.keep_busy(40)
    simulation.run(240)
    assert simulation.size in range(parallel, parallel + 3), "where it is just trying one more"
    simulation.run(1200)
    assert simulation.size in about(parallel)
    assert simulation.changes(since=240) <= 8, "a try every quarter of an hour in the end"
    assert {size for at, size in simulation.sizes if at >= 240} <= set(range(parallel, parallel + 3))
    before = simulation.served
    simulation.run(60)
    assert simulation.served - before >= 0.95 * 60 / 0.2 * parallel


@pytest.mark.parametrize("parallel", [1, 2, 4, 8])
def test_latencies_that_scatter_do_not_lead_it_astray(parallel: int) -> None:
    rng = random.Random(parallel)
    simulation = Simulation(Scaler(1, 16), parallel, lambda: rng.lognormvariate(-1.6, 0.5))
    simulation.keep_busy(40)
    simulation.run(1400)
    assert simulation.changes(since=400) <= 12
    assert parallel - 1 <= simulation.size <= parallel + 3


@pytest.mark.parametrize(("parallel", "rate"), [(4, 2.0), (4, 6.0), (4, 12.0), (1, 2.0), (8, 30.0)])
def test_under_a_steady_light_load_the_size_does_not_swing(parallel: int, rate: float) -> None:
    simulation = Simulation(Scaler(1, 16), parallel, fixed(0.2))
    simulation.arrive(random.Random(7), rate, until=2000)
    simulation.run(2000)
    assert simulation.changes(since=400) <= 6


def test_it_shrinks_when_the_load_ends_and_grows_when_it_comes_back() -> None:
    simulation = Simulation(Scaler(1, 16), 4, fixed(0.2))
    simulation.keep_busy(40)
    simulation.run(200)
    assert simulation.size in about(4)
    simulation.keep_busy(0)
    simulation.run(400)
    assert simulation.size == 1
    simulation.keep_busy(40)
    simulation.run(200)
    assert simulation.size in about(4)


def test_it_follows_a_load_that_becomes_lighter() -> None:
    simulation = Simulation(Scaler(1, 16), 8, fixed(0.2))
    simulation.keep_busy(40)
    simulation.run(200)
    assert simulation.size in about(8)
    simulation.keep_busy(3)
    simulation.run(600)
    assert simulation.size == 3
    assert simulation.changes(since=500) == 0


def test_a_terminal_that_has_become_slower_at_the_same_load_gets_fewer() -> None:
    simulation = Simulation(Scaler(1, 16), 8, fixed(0.2))
    simulation.keep_busy(40)
    simulation.run(200)
    simulation.parallel = 2
    simulation.run(300)
    assert simulation.size <= 5, "the latency is about twice what it was"


def test_requests_that_all_take_longer_do_not_keep_it_small() -> None:
    simulation = Simulation(Scaler(1, 16), 6, fixed(0.1))
    simulation.keep_busy(40)
    simulation.run(200)
    simulation.latency = fixed(0.5)
    simulation.run(1500)
    assert simulation.size in about(6)


def test_slow_calls_are_not_taken_for_idleness() -> None:
    simulation = Simulation(Scaler(1, 8), 4, fixed(20.0))
    simulation.keep_busy(20)
    simulation.run(20_000)
    assert simulation.size in about(4)


def test_a_size_on_trial_stays_within_bounds_that_come_meanwhile() -> None:
    scaler = Scaler(1, 16)
    simulation = Simulation(scaler, 1, fixed(0.2))
    simulation.keep_busy(40)
    while simulation.size == 1:
        simulation.run(0.5)
    scaler.bounds(2, 16)
    simulation.run(60)
    assert min(size for _, size in simulation.sizes[1:]) == 2


def test_one_that_has_room_again_is_found_to_have_it() -> None:
    simulation = Simulation(Scaler(1, 16), 2, fixed(0.2))
    simulation.keep_busy(40)
    simulation.run(600)
    assert simulation.size in about(2)
    simulation.parallel = 6
    simulation.run(1800)
    assert simulation.size in about(6)


def test_between_changes_there_is_time() -> None:
    simulation = Simulation(Scaler(1, 16), 8, fixed(0.2))
    simulation.keep_busy(40)
    simulation.run(400)
    moments = [at for at, _ in simulation.sizes[1:]]
    assert len(moments) >= 7
    assert all(later - earlier >= 10 for earlier, later in pairwise(moments))


def test_a_size_set_by_hand_is_the_size_whatever_is_measured() -> None:
    scaler = Scaler(2, 6, 10)
    simulation = Simulation(scaler, 1, fixed(0.2))
    simulation.keep_busy(40)
    scaler.fixed = 8
    simulation.run(300)
    assert simulation.size == 8
    assert simulation.changes(since=1.0) == 0
    scaler.fixed = 50
    assert scaler.decide(simulation.now) == 10, "never more than the terminal stands"
    scaler.fixed = 0
    assert scaler.decide(simulation.now) == 1
    scaler.fixed = None
    assert scaler.decide(simulation.now) == 2, "the bounds hold again"


def test_new_bounds_act_at_once() -> None:
    scaler = Scaler(1, 16)
    simulation = Simulation(scaler, 8, fixed(0.2))
    simulation.keep_busy(40)
    simulation.run(200)
    scaler.bounds(1, 3)
    assert scaler.decide(simulation.now) == 3
    scaler.bounds(5, 9)
    assert scaler.decide(simulation.now) == 5
    scaler.bounds(5, 9, 2)
    assert scaler.decide(simulation.now) == 2, "the terminal's own limit wins over the smallest size"


@pytest.mark.parametrize("bounds", [(0, 3, None), (4, 3, None), (1, 3, 0)])
def test_bounds_that_no_size_meets_are_refused(bounds: tuple[int, int, int | None]) -> None:
    with pytest.raises(ValueError, match="no size is"):
        Scaler(*bounds)


seconds = st.floats(0, 200, allow_nan=False)
bounds = st.tuples(st.integers(1, 8), st.integers(0, 8), st.none() | st.integers(1, 12))
steps = st.one_of(
    st.tuples(st.just("observe"), seconds, seconds, st.integers(1, 30)),
    st.tuples(st.just("bounds"), bounds),
    st.tuples(st.just("fixed"), st.none() | st.integers(-3, 40)),
)


@given(bounds, st.lists(st.tuples(seconds, steps), max_size=60))
def test_it_never_leaves_its_bounds(first: tuple[int, int, int | None], course: list) -> None:
    low, more, limit = first
    scaler = Scaler(low, low + more, limit)
    now = 0.0
    for passed, (kind, *values) in course:
        now += passed
        if kind == "observe":
            waited, took, times = values
            for _ in range(times):
                scaler.observe(waited, took, now)
        elif kind == "bounds":
            low, more, limit = values[0]
            scaler.bounds(low, low + more, limit)
        else:
            scaler.fixed = values[0]
        size = scaler.decide(now)
        most = limit or 10**6
        if scaler.fixed is None:
            assert min(low, most) <= size <= min(low + more, most)
        else:
            assert size == min(max(scaler.fixed, 1), most)

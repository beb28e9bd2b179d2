"""The strategies: that each is fair in its way, whoever comes and goes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.terminals.balance import (
    KEPT,
    STRATEGIES,
    Candidate,
    LeastConnections,
    Random,
    RoundRobin,
    Strategy,
    WeightedRoundRobin,
)

NAMES = "abcdefgh"
weights = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def idle(*weights: int) -> list[Candidate]:
    return [Candidate(name, weight, 0) for name, weight in zip(NAMES, weights, strict=False)]


def picks(strategy: Strategy, candidates: Sequence[Candidate], times: int) -> list[str]:
    return [strategy.pick(candidates) for _ in range(times)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_nobody_to_pick_from_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="no candidates"):
        STRATEGIES[name]().pick([])


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_only_one_is_picked(name: str) -> None:
    assert set(picks(STRATEGIES[name](), [Candidate("a", 3, 7)], 10)) == {"a"}


def test_a_weight_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="weight of a"):
        Candidate("a", 0, 0)


@given(st.integers(1, 8), st.integers(0, 60), st.integers(1, 60))
def test_round_robin_differs_by_one_at_most_over_any_window(count: int, before: int, window: int) -> None:
    candidates = idle(*[1] * count)
    strategy = RoundRobin()
    picks(strategy, candidates, before)
    counts = Counter({candidate.name: 0 for candidate in candidates})
    counts.update(picks(strategy, candidates, window))
    assert max(counts.values()) - min(counts.values()) <= 1


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(1, 40))
def test_least_connections_never_picks_one_with_more_in_flight(loads: list[int], times: int) -> None:
    load = dict(zip(NAMES, loads, strict=False))
    strategy = LeastConnections()
    for _ in range(times):
        chosen = strategy.pick([Candidate(name, 1, in_flight) for name, in_flight in load.items()])
        assert load[chosen] == min(load.values())
        load[chosen] += 1


@given(st.integers(1, 8), st.integers(1, 60))
def test_least_connections_goes_round_where_all_have_as_many(count: int, times: int) -> None:
    counts = Counter({name: 0 for name in NAMES[:count]})
    counts.update(picks(LeastConnections(), idle(*[5] * count), times))
    assert max(counts.values()) - min(counts.values()) <= 1


def smooth(weights: list[int], times: int) -> list[str]:
    """Nginx's algorithm in its own integers (ngx_http_upstream_round_robin.c)."""
    current = [0] * len(weights)
    chosen = []
    for _ in range(times):
        current = [value + weight for value, weight in zip(current, weights, strict=True)]
        best = current.index(max(current))
        current[best] -= sum(weights)
        chosen.append(NAMES[best])
    return chosen


@given(weights)
def test_weighted_picks_are_those_of_nginx(weights: list[int]) -> None:
    times = 2 * sum(weights) + 3
    assert picks(WeightedRoundRobin(), idle(*weights), times) == smooth(weights, times)


@given(weights, st.integers(0, 100))
def test_weighted_gives_everybody_exactly_its_weight_in_any_round(weights: list[int], before: int) -> None:
    candidates = idle(*weights)
    strategy = WeightedRoundRobin()
    picks(strategy, candidates, before)
    counts = Counter(picks(strategy, candidates, sum(weights)))
    assert counts == {candidate.name: candidate.weight for candidate in candidates}


@given(weights)
def test_weighted_is_spread_smoothly(weights: list[int]) -> None:
    strategy = WeightedRoundRobin()
    candidates = idle(*weights)
    counts: Counter[str] = Counter()
    for done in range(1, 2 * sum(weights) + 1):
        counts[strategy.pick(candidates)] += 1
        for candidate in candidates:
            ahead = counts[candidate.name] - done * candidate.weight / sum(weights)
            assert ahead < 1, "never a whole pick ahead of its share"
            assert -ahead < max(len(weights) - 1, 1), "and behind by no more than the others can be ahead"


def test_five_to_one_to_one_is_not_five_in_a_row() -> None:
    assert "".join(picks(WeightedRoundRobin(), idle(5, 1, 1), 7)) == "aabacaa"


def test_after_a_change_of_weights_nobody_waits_for_what_it_had() -> None:
    strategy = WeightedRoundRobin()
    picks(strategy, idle(1000, 1), 501)
    counts = Counter(picks(strategy, idle(1, 1), 100))
    assert abs(counts["a"] - counts["b"]) <= 4


def test_random_gives_everybody_about_as_much() -> None:
    counts = Counter(picks(Random(random.Random(2024)), idle(1, 9, 1, 9), 8000))
    expected = 2000
    chi_square = sum((counts[name] - expected) ** 2 / expected for name in "abcd")
    assert chi_square < 16.3, "three degrees of freedom, one in a thousand"


def test_random_is_its_generators() -> None:
    assert picks(Random(random.Random(5)), idle(1, 1, 1), 50) == picks(Random(random.Random(5)), idle(1, 1, 1), 50)


@given(
    st.sampled_from(["round_robin", "least_connections", "weighted_round_robin"]),
    st.lists(st.sets(st.sampled_from(NAMES[1:])), min_size=1, max_size=8),
)
def test_whoever_comes_and_goes_starves_nobody(name: str, courses: list[set[str]]) -> None:
    strategy = STRATEGIES[name]()
    since = 0
    for others in courses * 30:
        present = [Candidate(other, 3, 0) for other in sorted(others)] + [Candidate("a", 3, 0)]
        since = 0 if strategy.pick(present) == "a" else since + 1
        assert since <= 3 * len(NAMES)


@pytest.mark.parametrize("name", ["round_robin", "least_connections", "weighted_round_robin"])
def test_a_new_one_at_each_pick_starves_nobody(name: str) -> None:
    strategy = STRATEGIES[name]()
    chosen = [strategy.pick([Candidate(f"new{number}", 2, 0), Candidate("a", 1, 0)]) for number in range(600)]
    assert chosen.count("a") >= 100
    assert max(map(len, "".join("a" if name == "a" else "." for name in chosen).split("a"))) <= 10


@pytest.mark.parametrize("name", ["round_robin", "weighted_round_robin"])
def test_one_that_is_absent_now_and_then_gets_its_turns(name: str) -> None:
    strategy = STRATEGIES[name]()
    counts = Counter(strategy.pick(idle(2, 2, 1) if number % 2 else idle(2, 2)) for number in range(600))
    assert counts["c"] >= 50


@pytest.mark.parametrize("name", ["round_robin", "least_connections", "weighted_round_robin"])
def test_of_those_gone_for_good_few_are_remembered(name: str) -> None:
    strategy = STRATEGIES[name]()
    for number in range(1000):
        strategy.pick([Candidate(f"t{number}", 1, 0), Candidate("a", 1, 0)])
    held = getattr(strategy, "_credits", None) or strategy._turns._queue
    assert len(held) <= KEPT + 2

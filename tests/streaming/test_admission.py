"""The door on a clock of the test's own: the rate holds, everybody gets in in the end, and nobody takes it from the others."""

from __future__ import annotations

import heapq
from collections import defaultdict

from streaming.admission import ADDRESSES, BURST, LONGEST, Admission


def crowd(door: Admission, addresses: list[str]) -> dict[int, float]:
    """Everybody comes within a tenth of a second and comes again when told; client -> the moment at which it was let in."""
    waiting = [(index / len(addresses) / 10, index) for index in range(len(addresses))]
    heapq.heapify(waiting)
    inside: dict[int, float] = {}
    while waiting:
        now, index = heapq.heappop(waiting)
        assert now < 3600, "they do not get in"
        retry_after = door.admit(addresses[index], now)
        if retry_after:
            assert 1 <= retry_after <= LONGEST
            heapq.heappush(waiting, (now + retry_after, index))
        else:
            inside[index] = now
    return inside


def holds(moments: list[float], rate: float) -> bool:
    """Whether no stretch of time has more than the burst and the rate."""
    moments = sorted(moments)
    return all(
        late - first + 1 <= BURST * rate + (moments[late] - moments[first]) * rate + 1
        for first in range(0, len(moments), 7)
        for late in range(first, len(moments))
    )


def test_a_storm_from_one_address_is_let_in_at_the_rate_and_all_of_it_in_the_end() -> None:
    inside = crowd(Admission(50, 0.0), ["a"] * 500)
    assert len(inside) == 500
    assert holds(list(inside.values()), 50)
    assert max(inside.values()) < 2 * 500 / 50


def test_a_storm_from_everywhere_is_let_in_at_the_rate_and_all_of_it_in_the_end() -> None:
    inside = crowd(Admission(50, 0.0), [f"address {number}" for number in range(500)])
    assert len(inside) == 500
    assert holds(list(inside.values()), 50)
    assert max(inside.values()) < 2 * 500 / 50


def test_those_who_are_turned_away_are_told_to_come_one_after_the_other() -> None:
    door = Admission(10, 0.0)
    told = [door.admit(f"address {number}", 0.0) for number in range(100)]
    refused = [seconds for seconds in told if seconds]
    assert told.count(0) == BURST * 10
    assert refused == sorted(refused)
    assert all(refused.count(second) <= 10 for second in set(refused))


def test_an_address_that_crowds_does_not_keep_others_out() -> None:
    door, now, others = Admission(20, 0.0), 0.0, 0
    for step in range(20_000):
        now = step / 1000
        door.admit("crowd", now)
        if step % 100 == 0:  # ten a second, each from somewhere else
            others += 1
            assert door.admit(f"other {others}", now) == 0, now
    assert others == 200


def test_an_address_alone_has_the_whole_rate() -> None:
    door = Admission(20, 0.0)
    admitted = sum(door.admit("crowd", step / 1000) == 0 for step in range(10_000))
    assert 10 * 20 <= admitted <= (10 + BURST) * 20


def test_of_addresses_that_crowd_each_has_about_the_same_however_hard_it_tries() -> None:
    door = Admission(30, 0.0)
    admitted: defaultdict[str, int] = defaultdict(int)
    for step in range(30_000):
        for address, every in (("hard", 1), ("harder", 1), ("soft", 20)):
            if step % every == 0 and door.admit(address, step / 1000) == 0:
                admitted[address] += 1
    assert min(admitted.values()) > max(admitted.values()) / 2


def test_a_door_of_less_than_one_a_second_opens_too() -> None:
    door = Admission(0.2, 0.0)
    inside = crowd(door, ["a", "b", "a", "c"])
    assert len(inside) == 4
    assert holds(list(inside.values()), 0.2)


def test_a_clock_that_stands_still_lets_in_no_more_than_the_burst() -> None:
    door = Admission(10, 5.0)
    assert sum(door.admit(f"address {number}", 5.0) == 0 for number in range(100)) == BURST * 10


def test_no_number_of_addresses_fills_the_memory() -> None:
    door = Admission(100_000, 0.0)
    for number in range(3 * ADDRESSES):
        door.admit(f"address {number}", 0.0)
    assert len(door) == ADDRESSES

"""Single flight: the work is done once, and everybody keeps their own deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from marketdata.cache.flight import TRY_EVERY, DeadlineExceeded, Flight
from marketdata.cache.shared import Shared


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_many_who_ask_at_once_cost_one_call() -> None:
    flight: Flight[int] = Flight()
    go, calls = threading.Event(), []

    def work() -> int:
        calls.append(1)
        go.wait(10)
        return 42

    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(flight.run, "key", work, seconds=10) for _ in range(20)]
        until(lambda: pool._work_queue.empty() and bool(calls))
        time.sleep(0.05)
        go.set()
        assert [future.result() for future in asked] == [42] * 20
    assert len(calls) == 1
    assert len(flight) == 0


def test_an_error_is_everybody_s_and_the_next_one_tries_again() -> None:
    flight: Flight[int] = Flight()
    go, calls = threading.Event(), []

    def work() -> int:
        calls.append(1)
        go.wait(10)
        raise LookupError("no terminal")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flight.run, "key", work, seconds=10)
        until(lambda: bool(calls))
        second = pool.submit(flight.run, "key", work, seconds=10)
        time.sleep(0.05)
        go.set()
        for future in (first, second):
            with pytest.raises(LookupError, match="no terminal"):
                future.result()
    assert len(calls) == 1
    assert flight.run("key", lambda: 7, seconds=1) == 7


def test_different_keys_do_not_wait_for_each_other() -> None:
    flight: Flight[str] = Flight()
    go, started = threading.Event(), threading.Event()

    def slow() -> str:
        started.set()
        go.wait(10)
        return "slow"

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(flight.run, "a", slow, seconds=10)
        started.wait(10)
        assert flight.run("b", lambda: "b", seconds=1) == "b"
        go.set()
        assert waiting.result() == "slow"


def test_a_follower_s_deadline_is_its_own() -> None:
    flight: Flight[int] = Flight()
    go, started = threading.Event(), threading.Event()

    def work() -> int:
        started.set()
        go.wait(10)
        return 1

    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(flight.run, "key", work, seconds=10)
        started.wait(10)
        with pytest.raises(DeadlineExceeded):
            flight.run("key", work, seconds=0.05)
        go.set()
        assert leader.result() == 1


def test_a_follower_with_time_left_takes_over_from_a_leader_without() -> None:
    flight: Flight[str] = Flight()
    go, started = threading.Event(), threading.Event()

    def short() -> str:
        started.set()
        go.wait(10)
        raise DeadlineExceeded

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(flight.run, "key", short, seconds=0.1)
        started.wait(10)
        follower = pool.submit(flight.run, "key", lambda: "mine", seconds=10)
        time.sleep(0.05)
        go.set()
        with pytest.raises(DeadlineExceeded):
            leader.result()
        assert follower.result() == "mine"


def test_across_processes_one_works_and_the_other_finds_what_came_of_it(redis_url: str) -> None:
    one: Flight[int] = Flight(Shared(redis_url))
    other: Flight[int] = Flight(Shared(redis_url))
    go, started, stored = threading.Event(), threading.Event(), []

    def work() -> int:
        started.set()
        go.wait(10)
        stored.append(5)
        return 5

    def never() -> int:
        raise AssertionError("done twice")

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(one.run, "key", work, seconds=10, look=lambda: None)
        started.wait(10)
        follower = pool.submit(other.run, "key", never, seconds=10, look=lambda: stored[0] if stored else None)
        time.sleep(0.1)
        go.set()
        assert leader.result() == follower.result() == 5


def test_who_waits_for_another_process_looks_once_when_that_has_ended(redis_url: str) -> None:
    release = Shared(redis_url).lock("key", 10)
    assert release is not None
    looks: list[bool] = []
    ended = threading.Event()

    def look() -> int:
        looks.append(ended.is_set())
        return 5

    with ThreadPoolExecutor(1) as pool:
        follower = pool.submit(Flight(Shared(redis_url)).run, "key", lambda: 6, seconds=10, look=look)
        time.sleep(5 * TRY_EVERY)
        ended.set()
        release()
        assert follower.result() == 5
    assert looks == [True]


def test_the_work_of_a_process_that_died_is_done_by_another(redis_url: str) -> None:
    dead = Shared(redis_url)
    assert dead.lock("key", 0.3) is not None
    flight: Flight[int] = Flight(Shared(redis_url))
    assert flight.run("key", lambda: 9, seconds=10, look=lambda: None) == 9


def test_a_lock_that_another_took_over_is_not_given_back_by_the_first(redis_url: str) -> None:
    shared = Shared(redis_url)
    release = shared.lock("key", 0.05)
    assert release is not None
    time.sleep(0.1)
    assert shared.lock("key", 10) is not None
    release()
    assert shared.lock("key", 10) is None

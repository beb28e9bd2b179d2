"""One holder of a lease at a time, and a larger token for each: in memory and in Redis alike."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from marketdata.lease import TTL, Lease, MemoryLease, RedisLease

Make = Callable[[], Lease]


class Clock:
    """The holders' clock and Redis' own, of which a test can let pass what it wants."""

    def __init__(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._redis = redis.Redis.from_url(redis_url, protocol=2)
        self._monkeypatch = monkeypatch
        self._passed = 0.0
        self._real = time.monotonic

    def let_run_out(self) -> None:
        """Let a lease run out."""
        self._passed += 1.1 * TTL
        self._monkeypatch.setattr("marketdata.lease.time.monotonic", lambda: self._real() + self._passed)
        self._redis.delete("argus:feed:main:lease")


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest, redis_url: str) -> Make:
    """Makes a lease as another process has it."""
    shared = MemoryLease()
    return (lambda: RedisLease(redis_url, "main")) if request.param == "redis" else lambda: shared


@pytest.fixture
def clock(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(redis_url, monkeypatch)


def taken(token: int | None) -> int:
    assert token is not None
    return token


def test_one_holds_it_and_the_other_gets_a_larger_token_once_it_is_given_up(make: Make) -> None:
    first, second = make(), make()
    assert first.free()
    token = taken(first.hold("a"))
    assert first.hold("a") == token
    assert second.hold("b") is None
    assert not second.free()
    second.release("b")
    assert second.hold("b") is None, "nobody can give up what another holds"
    first.release("a")
    assert second.free()
    assert taken(second.hold("b")) > token
    assert make().hold("a") is None


def test_who_lets_it_run_out_and_takes_it_again_has_its_token_again(make: Make, clock: Clock) -> None:
    lease = make()
    token = taken(lease.hold("a"))
    clock.let_run_out()
    assert lease.free()
    assert lease.hold("a") == token


def test_whose_lease_another_had_meanwhile_gets_a_new_token(make: Make, clock: Clock) -> None:
    first, second = make(), make()
    token = taken(first.hold("a"))
    clock.let_run_out()
    between = taken(second.hold("b"))
    assert first.hold("a") is None
    clock.let_run_out()
    assert taken(first.hold("a")) > between > token


def test_who_gave_it_up_gets_a_new_token(make: Make) -> None:
    lease = make()
    token = taken(lease.hold("a"))
    lease.release("a")
    assert taken(lease.hold("a")) > token


def test_tokens_start_above_the_wall_clock_and_above_what_was_heard(make: Make) -> None:
    before = int(time.time() * 1000)
    lease = make()
    assert taken(lease.hold("a")) >= before
    lease.release("a")
    heard = before + 10**9
    assert taken(lease.hold("b", above=heard)) == heard + 1


def test_a_wall_clock_that_is_set_back_ends_no_term_and_makes_no_token_smaller(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = make()
    token = taken(lease.hold("a"))
    monkeypatch.setattr("marketdata.lease.time.time", lambda: 1.0)
    assert lease.hold("a") == token
    lease.release("a")
    assert taken(lease.hold("b")) > token


def test_a_holder_keeps_its_token_through_a_short_absence_of_redis_and_not_longer(redis_server, monkeypatch) -> None:
    lease = RedisLease(redis_server.url, "main")
    token = lease.hold("a")
    redis_server.stop()
    clock = time.monotonic()
    monkeypatch.setattr("marketdata.lease.time.monotonic", lambda: clock + TTL * 0.9)
    assert lease.hold("a") == token
    assert not lease.free(), "nobody can tell"
    monkeypatch.setattr("marketdata.lease.time.monotonic", lambda: clock + TTL * 1.1)
    assert lease.hold("a") is None

"""One suite over both limiters: what a plan allows is the same in memory and in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis

from argus.access.limits import Limiter, MemoryLimiter, Quota, RedisLimiter
from argus.access.limits.windows import Windows
from argus.errors import ADDRESS_LIMIT, CONNECTION_LIMIT, RATE_LIMITED, SUBSCRIPTION_LIMIT, ArgusError
from tests.access.factory import make_principal
from tests.conftest import RedisServer

Make = Callable[..., Limiter]


@pytest.fixture(params=["memory", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes limiters of a kind; all of one test's count together."""
    made: list[Limiter] = []
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None

    def make(**options: float) -> Limiter:
        if url is not None or not made:
            made.append(RedisLimiter(url, **options) if url is not None else MemoryLimiter(**options))
        return made[-1]

    yield make
    for limiter in made:
        await limiter.close()


async def refused(limiter: Limiter, principal: object, cost: int = 1) -> ArgusError:
    with pytest.raises(ArgusError) as caught:
        await limiter.spend(principal, cost)  # type: ignore[arg-type]
    assert caught.value.problem is RATE_LIMITED
    return caught.value


async def test_requests_are_counted_down_to_the_refusal_that_says_when_to_come_back(make: Make) -> None:
    limiter, principal = make(), make_principal(requests_per_minute=3)
    assert [(await limiter.spend(principal)).remaining for _ in range(3)] == [2, 1, 0]
    error = await refused(limiter, principal)
    assert error.params["limit"] == 3
    assert error.params["remaining"] == 0
    assert 1 <= error.params["retry_after"] <= 60
    assert "3 requests per minute" in error.reply(None)["message"]


async def test_a_quota_says_limit_remaining_and_the_seconds_until_it_is_whole_again(make: Make) -> None:
    quota = await make().spend(make_principal(requests_per_minute=10), 4)
    assert quota == Quota(10, 6, 60)


async def test_looking_costs_nothing(make: Make) -> None:
    limiter, principal = make(), make_principal(requests_per_minute=1)
    assert await limiter.spend(principal, 0) == Quota(1, 1, 0)
    await limiter.spend(principal)
    assert (await limiter.spend(principal, 0)).remaining == 0


async def test_a_refused_request_costs_nothing(make: Make) -> None:
    limiter, principal = make(), make_principal(requests_per_minute=5)
    await limiter.spend(principal, 3)
    assert (await refused(limiter, principal, 3)).params["remaining"] == 2
    assert (await limiter.spend(principal, 2)).remaining == 0


async def test_what_costs_more_than_the_limit_is_always_refused_and_begins_no_window(make: Make) -> None:
    limiter, principal = make(), make_principal(requests_per_minute=5)
    await refused(limiter, principal, 6)
    assert await limiter.spend(principal, 0) == Quota(5, 5, 0)


async def test_keys_do_not_share_a_budget(make: Make) -> None:
    limiter = make()
    await limiter.spend(make_principal(1, requests_per_minute=1))
    await limiter.spend(make_principal(2, requests_per_minute=1))
    await refused(limiter, make_principal(1, requests_per_minute=1))


async def test_an_edited_plan_counts_from_the_next_request_on(make: Make) -> None:
    limiter = make()
    await limiter.spend(make_principal(requests_per_minute=10), 4)
    assert (await refused(limiter, make_principal(requests_per_minute=4))).params["remaining"] == 0
    assert (await refused(limiter, make_principal(requests_per_minute=2))).params["remaining"] == 0
    assert (await limiter.spend(make_principal(requests_per_minute=20))).remaining == 15


async def test_the_budget_is_whole_again_when_its_window_has_ended(make: Make) -> None:
    limiter, principal = make(window=0.3), make_principal(requests_per_minute=2)
    await limiter.spend(principal, 2)
    while True:
        try:
            quota = await limiter.spend(principal)
        except ArgusError:
            await asyncio.sleep(0.01)
        else:
            break
    assert quota.remaining == 1


async def test_the_sync_variant_spends_the_same_budget(make: Make) -> None:
    limiter, principal = make(), make_principal(requests_per_minute=3)
    await limiter.spend(principal)
    assert limiter.spend_sync(principal).remaining == 1
    assert (await limiter.spend(principal)).remaining == 0
    with pytest.raises(ArgusError) as caught:
        limiter.spend_sync(principal)
    assert caught.value.problem is RATE_LIMITED


async def test_no_number_of_threads_and_tasks_gets_more_than_the_limit(make: Make) -> None:
    limiter, principal = make(), make_principal(requests_per_minute=150)
    allowed: list[int] = []

    def spend_in_thread() -> None:
        for _ in range(50):
            with contextlib.suppress(ArgusError):
                allowed.append(limiter.spend_sync(principal).remaining)

    async def spend_in_task() -> None:
        with contextlib.suppress(ArgusError):
            allowed.append((await limiter.spend(principal)).remaining)

    threads = [threading.Thread(target=spend_in_thread) for _ in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(spend_in_task() for _ in range(200)))
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    # Every remainder was given out exactly once.
    assert sorted(allowed) == list(range(150))


async def test_processes_share_a_budget(make: Make) -> None:
    here, there = make(), make()
    principal = make_principal(requests_per_minute=2)
    await here.spend(principal)
    await there.spend(principal)
    await refused(here, principal)


async def test_a_key_has_as_many_connections_as_its_plan_allows(make: Make) -> None:
    limiter, principal = make(), make_principal(connections=2)
    await limiter.open_connection(principal, "a")
    await limiter.open_connection(principal, "b")
    with pytest.raises(ArgusError) as caught:
        await limiter.open_connection(principal, "c")
    assert caught.value.problem is CONNECTION_LIMIT
    assert caught.value.params["limit"] == 2
    await limiter.open_connection(make_principal(2, connections=1), "d")
    await limiter.close_connection(principal, "a")
    await limiter.open_connection(principal, "c")


async def test_opening_and_closing_twice_counts_once(make: Make) -> None:
    limiter, principal = make(), make_principal(connections=1)
    await limiter.open_connection(principal, "a")
    await limiter.open_connection(principal, "a")
    await limiter.close_connection(principal, "a")
    await limiter.close_connection(principal, "a")
    await limiter.open_connection(principal, "b")
    with pytest.raises(ArgusError):
        await limiter.open_connection(principal, "a")


async def test_a_plan_without_connections_has_none(make: Make) -> None:
    with pytest.raises(ArgusError):
        await make().open_connection(make_principal(connections=0), "a")


async def test_connections_are_never_more_than_allowed_however_many_are_opened_at_once(make: Make) -> None:
    limiter, principal = make(), make_principal(connections=7)
    answers = await asyncio.gather(
        *(limiter.open_connection(principal, str(number)) for number in range(60)), return_exceptions=True
    )
    assert answers.count(None) == 7
    assert all(isinstance(answer, ArgusError) for answer in answers if answer is not None)


async def test_an_address_has_as_many_connections_as_it_may_whoever_they_belong_to(make: Make) -> None:
    limiter = make()
    await limiter.open_from("192.0.2.7", "a", 2)
    await limiter.open_from("192.0.2.7", "a", 2)
    await limiter.open_from("192.0.2.7", "b", 2)
    with pytest.raises(ArgusError) as caught:
        await limiter.open_from("192.0.2.7", "c", 2)
    assert (caught.value.problem, caught.value.params["limit"]) == (ADDRESS_LIMIT, 2)
    await limiter.open_from("192.0.2.8", "d", 2)
    await limiter.close_from("192.0.2.7", "a")
    await limiter.close_from("192.0.2.7", "a")
    await limiter.open_from("192.0.2.7", "c", 2)


async def test_addresses_that_one_machine_may_have_all_of_count_as_one(make: Make) -> None:
    limiter = make()
    await limiter.open_from("2001:db8::1", "a", 1)
    with pytest.raises(ArgusError):
        await limiter.open_from("2001:db8::ffff:2", "b", 1)
    await limiter.open_from("2001:db8:0:1::1", "c", 1)


async def test_processes_share_what_an_address_may_have(make: Make) -> None:
    await make().open_from("192.0.2.7", "a", 1)
    with pytest.raises(ArgusError):
        await make().open_from("192.0.2.7", "b", 1)


async def test_a_connection_counts_for_its_key_and_for_its_address_and_is_given_back_to_each(make: Make) -> None:
    limiter, principal = make(), make_principal(connections=1)
    await limiter.open_from("192.0.2.7", "a", 1)
    await limiter.open_connection(principal, "a")
    await limiter.close_connection(principal, "a")
    with pytest.raises(ArgusError):
        await limiter.open_from("192.0.2.7", "b", 1)
    await limiter.open_connection(principal, "b")


async def no_more_subscriptions(limiter: Limiter, principal: object, connection_id: str, count: int) -> None:
    with pytest.raises(ArgusError) as caught:
        await limiter.hold_subscriptions(principal, connection_id, count)  # type: ignore[arg-type]
    assert (caught.value.problem, caught.value.params["limit"]) == (SUBSCRIPTION_LIMIT, 5)


async def test_a_key_has_as_many_subscriptions_as_its_plan_allows_over_all_connections(make: Make) -> None:
    here, there = make(), make()
    principal = make_principal(connections=3, subscriptions=5)
    await here.open_connection(principal, "a")
    await there.open_connection(principal, "b")
    await here.hold_subscriptions(principal, "a", 3)
    await there.hold_subscriptions(principal, "b", 2)
    await no_more_subscriptions(here, principal, "a", 4)
    await no_more_subscriptions(there, principal, "b", 3)
    await here.hold_subscriptions(make_principal(2, subscriptions=5), "c", 5)
    await here.hold_subscriptions(principal, "a", 1)
    await there.hold_subscriptions(principal, "b", 4)
    await no_more_subscriptions(here, principal, "a", 2)


async def test_the_subscriptions_of_a_closed_connection_count_no_more(make: Make) -> None:
    limiter, principal = make(), make_principal(connections=2, subscriptions=5)
    for _ in range(3):
        await limiter.open_connection(principal, "a")
        await limiter.hold_subscriptions(principal, "a", 5)
        await limiter.close_connection(principal, "a")
        await limiter.close_connection(principal, "a")
    await limiter.open_connection(principal, "b")
    await limiter.hold_subscriptions(principal, "b", 5)


async def test_who_is_above_a_lowered_limit_may_have_fewer_subscriptions_but_not_more(make: Make) -> None:
    limiter = make()
    await limiter.open_connection(make_principal(), "a")
    await limiter.hold_subscriptions(make_principal(subscriptions=9), "a", 9)
    lowered = make_principal(subscriptions=5)
    await limiter.hold_subscriptions(lowered, "a", 8)
    await limiter.hold_subscriptions(lowered, "a", 8)
    await no_more_subscriptions(limiter, lowered, "a", 9)


async def opens_in_the_end(limiter: Limiter, principal: object, connection_id: str) -> None:
    while True:
        try:
            return await limiter.open_connection(principal, connection_id)  # type: ignore[arg-type]
        except ArgusError:
            await asyncio.sleep(0.01)


async def test_the_connections_of_a_dead_process_stop_counting(make: Make) -> None:
    dead = make(lease=0.3)
    principal = make_principal(connections=1)
    await dead.open_connection(principal, "a")
    await opens_in_the_end(make(lease=0.3), principal, "b")


async def test_a_renewed_connection_goes_on_counting_when_others_have_lapsed(make: Make) -> None:
    limiter, principal = make(lease=0.4), make_principal(connections=2)
    await limiter.open_connection(principal, "kept")
    await limiter.open_connection(principal, "lapses")

    async def renew() -> None:
        while True:
            await limiter.renew(["kept", "never opened here"])
            await asyncio.sleep(0.05)

    renewing = asyncio.create_task(renew())
    try:
        await opens_in_the_end(limiter, principal, "new")
        with pytest.raises(ArgusError):
            await limiter.open_connection(principal, "one more")
    finally:
        renewing.cancel()


async def test_the_subscriptions_of_a_dead_process_stop_counting_and_those_of_a_live_one_do_not(make: Make) -> None:
    dead, alive = make(lease=0.3), make(lease=0.3)
    principal = make_principal(connections=3, subscriptions=5)
    await dead.open_connection(principal, "dead")
    await dead.hold_subscriptions(principal, "dead", 2)
    await alive.open_connection(principal, "alive")
    await alive.hold_subscriptions(principal, "alive", 2)
    while True:
        await alive.renew(["alive"])
        try:
            await alive.hold_subscriptions(principal, "alive", 4)
        except ArgusError:
            await asyncio.sleep(0.01)
        else:
            break
    await alive.renew(["alive"])
    await no_more_subscriptions(alive, principal, "other", 2)


class TestRedisAway:
    """Redis dies and returns."""

    async def test_each_process_counts_for_itself_while_redis_is_away(self, redis_server: RedisServer) -> None:
        limiter, principal = RedisLimiter(redis_server.url), make_principal(requests_per_minute=3, connections=2, subscriptions=5)
        await limiter.spend(principal)
        await limiter.open_connection(principal, "a")
        redis_server.stop()
        assert [(await limiter.spend(principal)).remaining, limiter.spend_sync(principal).remaining] == [2, 1]
        await limiter.open_connection(principal, "b")
        with pytest.raises(ArgusError):
            await limiter.open_connection(principal, "c")
        await limiter.hold_subscriptions(principal, "b", 5)
        await no_more_subscriptions(limiter, principal, "a", 1)
        await limiter.open_from("192.0.2.7", "b", 1)
        with pytest.raises(ArgusError):
            await limiter.open_from("192.0.2.7", "a", 1)
        await limiter.close_connection(principal, "b")
        await limiter.renew(["a"])
        await limiter.close()

    async def test_a_renewal_that_was_under_way_does_not_bring_old_subscriptions_back(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limiter, principal = RedisLimiter(redis_url), make_principal(connections=2, subscriptions=5)
        await limiter.open_connection(principal, "a")
        await limiter.hold_subscriptions(principal, "a", 5)
        ask = limiter._ask

        async def late(step: Callable[..., Awaitable[Any]]) -> Any:
            monkeypatch.setattr(limiter, "_ask", ask)
            await limiter.hold_subscriptions(principal, "a", 0)
            return await ask(step)

        monkeypatch.setattr(limiter, "_ask", late)
        await limiter.renew(["a"])
        await limiter.hold_subscriptions(principal, "b", 5)
        await limiter.close()

    async def test_budgets_and_connections_are_shared_again_when_redis_is_back(self, redis_server: RedisServer) -> None:
        limiter, principal = RedisLimiter(redis_server.url), make_principal(connections=1, subscriptions=5)
        await limiter.open_connection(principal, "a")
        await limiter.open_from("192.0.2.7", "a", 1)
        await limiter.hold_subscriptions(principal, "a", 4)
        redis_server.stop()
        await limiter.spend(principal)
        redis_server.start()
        with redis_server.client() as client:
            while not client.keys("argus:quota:*"):
                await limiter.spend(principal)
                await asyncio.sleep(0.01)
            await limiter.renew(["a"])
            assert client.zrange("argus:connections:1", 0, -1) == [b"a"]
        other = RedisLimiter(redis_server.url)
        with pytest.raises(ArgusError):
            await other.open_connection(principal, "b")
        with pytest.raises(ArgusError):
            await other.open_from("192.0.2.7", "b", 1)
        await no_more_subscriptions(other, principal, "b", 2)
        await other.close()
        await limiter.close()

    async def test_what_is_closed_while_others_are_renewed_counts_no_more(self, redis_url: str) -> None:
        limiter, principal = RedisLimiter(redis_url), make_principal(connections=600)
        names = [f"{number}" for number in range(600)]
        await asyncio.gather(*(limiter.open_connection(principal, name) for name in names))
        with redis.Redis.from_url(redis_url, protocol=2) as client:
            # Some of the batch that is being renewed and some of the next; Redis answers them before the renewal or after it.
            renewing = asyncio.create_task(limiter.renew(names))
            await asyncio.sleep(0)
            closed = [*names[:20], *names[550:]]
            await asyncio.gather(*(limiter.close_connection(principal, name) for name in closed))
            await renewing
            assert client.zcard("argus:connections:1") == 530
            assert client.zmscore("argus:connections:1", closed) == [None] * 70
        await limiter.close()

    async def test_what_is_closed_before_its_renewal_arrives_counts_no_more(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limiter, principal = RedisLimiter(redis_url), make_principal(connections=2)
        await limiter.open_connection(principal, "kept")
        await limiter.open_connection(principal, "closed")
        ask = limiter._ask

        async def late(step: Callable[..., Awaitable[Any]]) -> Any:
            monkeypatch.setattr(limiter, "_ask", ask)
            await limiter.close_connection(principal, "closed")
            return await ask(step)

        monkeypatch.setattr(limiter, "_ask", late)
        await limiter.renew(["kept", "closed"])
        await limiter.open_connection(principal, "new")
        await limiter.close()

    async def test_nothing_of_a_limiter_stays_in_redis_for_ever(self, redis_url: str) -> None:
        limiter, principal = RedisLimiter(redis_url), make_principal()
        await limiter.spend(principal)
        await limiter.open_connection(principal, "a")
        await limiter.hold_subscriptions(principal, "a", 1)
        await limiter.open_from("192.0.2.7", "a", 1)
        with redis.Redis.from_url(redis_url, protocol=2) as client:
            names = client.keys()
            assert len(names) == 4
            assert all(0 < client.pttl(name) <= 60_000 for name in names)
        await limiter.close()


class TestWindows:
    """The table behind the memory limiter."""

    def test_a_window_ends_exactly_when_it_says(self) -> None:
        now = 0.0
        windows = Windows(60, clock=lambda: now)
        assert windows.spend("a", 1, 1) == (True, 1, 60)
        now = 59.999
        assert windows.spend("a", 1, 1) == (False, 1, 1)
        now = 60.0
        assert windows.spend("a", 1, 1) == (True, 1, 60)

    @pytest.mark.parametrize("start", [0.1, 12345.678, 1e9 + 0.3])
    def test_the_seconds_left_are_whole_rounded_up_and_at_most_the_window(self, start: float) -> None:
        now = start
        windows = Windows(60, clock=lambda: now)
        assert windows.spend("a", 1, 9).left == 60
        now = start + 0.5
        assert windows.spend("a", 1, 9).left == 60
        now = start + 59.9999
        assert windows.spend("a", 1, 9).left == 1

    def test_ended_windows_are_forgotten(self) -> None:
        now = 0.0
        windows = Windows(60, clock=lambda: now)
        for second in range(1000):
            now = float(second)
            windows.spend(second, 1, 1)
        assert len(windows) == 60

    def test_at_its_capacity_the_oldest_window_gives_way(self) -> None:
        windows = Windows(60, capacity=10, clock=lambda: 0.0)
        for number in range(100):
            windows.spend(number, 1, 1)
        assert len(windows) == 10
        assert not windows.spend(99, 1, 1).allowed

"""Budgets taken in blocks: fewer questions to Redis, never more requests than the plan allows."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from argus.access.limits import Quota, RedisLimiter
from argus.access.limits.blocks import SHARE, Blocks
from argus.errors import RATE_LIMITED, ArgusError
from tests.access.factory import make_principal
from tests.conftest import RedisServer

Make = Callable[..., RedisLimiter]


@pytest.fixture
async def make(redis_url: str) -> AsyncIterator[Make]:
    """Makes limiters, each as another process has it."""
    made: list[RedisLimiter] = []

    def make(**options: float) -> RedisLimiter:
        made.append(RedisLimiter(redis_url, **options))
        return made[-1]

    yield make
    for limiter in made:
        await limiter.close()


def questions(url: str) -> int:
    """How many scripts Redis has run."""
    with redis.Redis.from_url(url, protocol=2) as client:
        stats = client.info("commandstats")
    return sum(int(stats[name]["calls"]) for name in ("cmdstat_eval", "cmdstat_evalsha") if name in stats)


async def spend_all(limiter: RedisLimiter, principal: object) -> int:
    spent = 0
    with contextlib.suppress(ArgusError):
        while True:
            await limiter.spend(principal)  # type: ignore[arg-type]
            spent += 1
    return spent


async def test_most_requests_of_a_large_plan_ask_nobody(make: Make, redis_url: str) -> None:
    limiter, principal = make(), make_principal(requests_per_minute=100_000)
    before = questions(redis_url)
    remaining = [(await limiter.spend(principal)).remaining for _ in range(1000)]
    assert remaining == list(range(99_999, 98_999, -1))
    # A block is 499 requests and less with each; a script that Redis does not know yet is sent twice.
    assert questions(redis_url) - before <= 5


async def test_requests_at_the_same_time_take_one_block_together(make: Make, redis_url: str) -> None:
    limiter, principal = make(), make_principal(requests_per_minute=100_000)
    await asyncio.gather(*(limiter.spend(principal) for _ in range(50)))
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        assert int(client.get("argus:quota:1")) <= 50 + 2 * 100_000 // SHARE


@pytest.mark.parametrize("limit", [150, SHARE, 1000, 3000])
async def test_all_processes_together_allow_what_the_plan_does_and_not_one_more(make: Make, limit: int) -> None:
    limiters = [make() for _ in range(3)]
    principal = make_principal(requests_per_minute=limit)
    spent = 0
    for _ in range(limit // 10):
        for limiter in limiters:
            with contextlib.suppress(ArgusError):
                await limiter.spend(principal)
                spent += 1
    # What a process holds, it can still use when the others have nothing any more.
    for limiter in limiters:
        spent += await spend_all(limiter, principal)
    assert spent == limit


async def test_what_one_process_holds_and_does_not_use_is_a_small_part(make: Make) -> None:
    idle, busy = make(), make()
    principal = make_principal(requests_per_minute=2000)
    await idle.spend(principal)
    assert 2000 - 1 - 2000 // SHARE <= await spend_all(busy, principal) <= 2000 - 1


async def test_a_small_plan_is_counted_one_by_one(make: Make) -> None:
    here, there = make(), make()
    principal = make_principal(requests_per_minute=SHARE)
    remaining = [(await limiter.spend(principal)).remaining for _ in range(50) for limiter in (here, there)]
    assert remaining == list(range(SHARE - 1, SHARE - 101, -1))


async def test_threads_share_the_block_and_take_none_themselves(make: Make) -> None:
    limiter, other = make(), make()
    principal = make_principal(requests_per_minute=2000)
    assert limiter.spend_sync(principal).remaining == 1999
    # Had a block been taken, another process would find less.
    assert (await other.spend(principal, 0)).remaining == 1999
    await limiter.spend(principal)
    allowed: list[int] = []

    def spend() -> None:
        with contextlib.suppress(ArgusError):
            while True:
                allowed.append(limiter.spend_sync(principal).remaining)

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    allowed += [(await limiter.spend(principal)).remaining for _ in range(100)]
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    assert len(allowed) == 1998
    assert min(allowed) == 0


async def test_a_smaller_plan_counts_from_the_next_request_on(make: Make) -> None:
    limiter = make()
    await limiter.spend(make_principal(requests_per_minute=10_000))
    smaller = make_principal(requests_per_minute=10)
    with pytest.raises(ArgusError) as caught:
        await limiter.spend(smaller)
    assert caught.value.problem is RATE_LIMITED
    assert caught.value.params["remaining"] == 0


async def test_a_block_ends_with_its_window(make: Make) -> None:
    limiter, principal = make(window=0.3), make_principal(requests_per_minute=10_000)
    first = await limiter.spend(principal)
    assert (first.remaining, first.reset_seconds) == (9999, 1)
    await limiter.spend(principal)
    while (quota := await limiter.spend(principal)).remaining != 9999:
        await asyncio.sleep(0.02)
    assert quota.reset_seconds == 1


async def test_a_block_at_hand_is_used_while_redis_is_away_and_then_the_process_counts_for_itself(
    redis_server: RedisServer,
) -> None:
    limiter, principal = RedisLimiter(redis_server.url), make_principal(requests_per_minute=1000)
    await limiter.spend(principal)
    redis_server.stop()
    held = (1000 - 1) // SHARE
    assert [(await limiter.spend(principal)).remaining for _ in range(held)] == [998 - number for number in range(held)]
    assert (await limiter.spend(principal)).remaining == 999
    await limiter.close()


class TestBlocks:
    """The table itself."""

    def test_a_block_is_spent_to_its_end_and_says_what_is_left_of_the_budget(self) -> None:
        blocks = Blocks(clock=lambda: 100.0)
        assert blocks.add(1, 1000, 13, 3, 159.5) == 10
        assert blocks.spend(1, 2, 1000) == Quota(1000, 988, 60)
        assert blocks.spend(1, 2, 1000) is None
        assert blocks.spend(1, 0, 1000) == Quota(1000, 988, 60)
        assert blocks.spend(1, 1, 1000) == Quota(1000, 987, 60)
        assert blocks.spend(1, 0, 1000) is None

    def test_what_is_added_joins_what_is_there_whichever_answer_came_first(self) -> None:
        blocks = Blocks(clock=lambda: 0.0)
        blocks.add(1, 1000, 20, 4, 60.0)
        assert blocks.add(1, 1000, 15, 4, 60.0) == 12
        assert blocks.spend(1, 8, 1000) == Quota(1000, 980, 60)

    def test_nothing_is_kept_where_nothing_was_taken_ahead(self) -> None:
        blocks = Blocks(clock=lambda: 0.0)
        assert blocks.add(1, 1000, 7, 0, 60.0) == 7
        assert len(blocks) == 0

    def test_a_block_of_another_limit_or_of_an_ended_window_is_none(self) -> None:
        now = 0.0
        blocks = Blocks(clock=lambda: now)
        blocks.add(1, 1000, 10, 9, 60.0)
        assert blocks.spend(1, 1, 900) is None
        now = 60.0
        assert blocks.spend(1, 1, 1000) is None
        assert blocks.add(1, 1000, 5, 4, 120.0) == 1

    def test_ended_blocks_are_forgotten(self) -> None:
        now = 0.0
        blocks = Blocks(clock=lambda: now)
        for second in range(1000):
            now = float(second)
            blocks.add(second, 1000, 5, 4, now + 60)
        assert len(blocks) == 60

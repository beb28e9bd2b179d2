"""The limiter of a service that is several processes: Redis counts, each step one atomic script on Redis' own clock.

A process takes requests out of a budget in blocks (``argus.access.limits.blocks``): all processes together never allow more
than the limit, and what one holds and does not use in the window, at most two blocks, the others do not have.
While Redis is away each process counts for itself, so that the service goes on and no key gets more than its plan's share
from any one process. Leases are written again when Redis is back.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar
from weakref import WeakKeyDictionary

import structlog
from redis.exceptions import RedisError

from argus.access.limits import scripts
from argus.access.limits.base import LEASE, WINDOW, Quota, no_connection_left, quota_or_refusal
from argus.access.limits.blocks import Blocks
from argus.access.limits.memory import MemoryLimiter
from argus.access.limits.scripts import LoopRedis
from argus.access.principal import Principal

T = TypeVar("T")
log = structlog.get_logger(__name__)

AWAY = 1.0
"""Seconds without a further try once Redis is away, so that requests do not queue up behind the deadline."""
BATCH = 500
"""Leases in one script."""


class RedisLimiter:
    """Counts in Redis, for all processes that use it."""

    def __init__(self, url: str, *, window: float = WINDOW, lease: float = LEASE) -> None:
        self._url = url
        self._window = round(window * 1000)
        self._lease = round(lease * 1000)
        self._local = MemoryLimiter(window=window, lease=lease)
        self._blocks = Blocks()
        self._away_until = float("-inf")
        self._redis = scripts.connect(url)
        self._spend_script = self._redis.register_script(scripts.SPEND)
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopRedis] = WeakKeyDictionary()

    def spend_sync(self, principal: Principal, cost: int = 1) -> Quota:
        limit = principal.limits.requests_per_minute
        if (quota := self._blocks.spend(principal.key_id, cost, limit)) is not None:
            return quota
        if self._is_away():
            return self._local.spend_sync(principal, cost)
        asked = time.monotonic()
        try:
            # Nothing ahead: a view beside the event loop is slow anyhow, and two blocks at most are what is promised.
            [answer] = self._spend_script(keys=[_budget(principal)], args=[self._window, 0, cost, limit])
        except RedisError as error:
            self._went_away(error)
            return self._local.spend_sync(principal, cost)
        self._came_back()
        return self._quota(principal, asked, answer)

    async def spend(self, principal: Principal, cost: int = 1) -> Quota:
        limit = principal.limits.requests_per_minute
        if (quota := self._blocks.spend(principal.key_id, cost, limit)) is not None:
            return quota
        asked = time.monotonic()
        answer = await self._ask(lambda redis: redis.spend(_budget(principal), cost, limit))
        if answer is None:
            return self._local.spend_sync(principal, cost)
        return self._quota(principal, asked, answer)

    def _quota(self, principal: Principal, asked: float, answer: list[int]) -> Quota:
        """What the script answered; what it took ahead is kept. The window ends no earlier than the moment computed here."""
        allowed, used, left, ahead = answer
        if allowed:
            used = self._blocks.add(principal.key_id, principal.limits.requests_per_minute, used, ahead, asked + left / 1000)
        return quota_or_refusal(principal, bool(allowed), used, math.ceil(left / 1000))

    async def open_connection(self, principal: Principal, connection_id: str) -> None:
        keys = [_connections(principal.key_id)]
        args: list[int | str] = [self._lease, connection_id, principal.limits.connections]
        allowed = await self._ask(lambda redis: redis.open(keys=keys, args=args))
        if allowed is None:
            await self._local.open_connection(principal, connection_id)
        elif allowed:
            self._local.hold(principal.key_id, connection_id)
        else:
            raise no_connection_left(principal)

    async def close_connection(self, principal: Principal, connection_id: str) -> None:
        await self._local.close_connection(principal, connection_id)
        await self._give_back(principal.key_id, connection_id)

    async def renew(self, connection_ids: Collection[str]) -> None:
        await self._local.renew(connection_ids)
        named = list(connection_ids)
        for start in range(0, len(named), BATCH):
            # Asked batch by batch: some are closed while the one before is renewed.
            if held := self._local.owners(named[start : start + BATCH]):
                await self._renew(held)

    async def _renew(self, held: list[tuple[str, int]]) -> None:
        keys = [_connections(key_id) for _, key_id in held]
        args: list[int | str] = [self._lease, *(connection_id for connection_id, _ in held)]
        await self._ask(lambda redis: redis.renew(keys=keys, args=args))
        # One that was closed meanwhile may have been given back before it was renewed.
        still = {connection_id for connection_id, _ in self._local.owners([connection_id for connection_id, _ in held])}
        for connection_id, key_id in held:
            if connection_id not in still:
                await self._give_back(key_id, connection_id)

    async def _give_back(self, key_id: int, connection_id: str) -> None:
        await self._ask(lambda redis: redis.client.zrem(_connections(key_id), connection_id))

    async def close(self) -> None:
        redis = self._by_loop.pop(asyncio.get_running_loop(), None)
        if redis is not None:
            await redis.client.aclose()
        self._redis.close()

    async def _ask(self, step: Callable[[LoopRedis], Awaitable[T]]) -> T | None:
        """What Redis answers, or None while it is away."""
        if self._is_away():
            return None
        running = asyncio.get_running_loop()
        redis = self._by_loop.get(running)
        if redis is None:
            redis = self._by_loop[running] = LoopRedis(self._url, self._window)
        try:
            answer = await step(redis)
        except RedisError as error:
            self._went_away(error)
            return None
        self._came_back()
        return answer

    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def _went_away(self, error: RedisError) -> None:
        if self._away_until == float("-inf"):
            log.warning("limits_redis_away", error=type(error).__name__)
        self._away_until = time.monotonic() + AWAY

    def _came_back(self) -> None:
        if self._away_until != float("-inf"):
            self._away_until = float("-inf")
            log.info("limits_redis_back")


def _budget(principal: Principal) -> str:
    return f"argus:quota:{principal.key_id}"


def _connections(key_id: int) -> str:
    return f"argus:connections:{key_id}"

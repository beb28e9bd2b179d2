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
from argus.access.limits.base import (
    LEASE,
    WINDOW,
    Quota,
    address_owner,
    key_owner,
    no_connection_left,
    no_subscription_left,
    quota_or_refusal,
    too_many_from_address,
)
from argus.access.limits.blocks import Blocks
from argus.access.limits.leases import Held
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
        self._leases = self._local.leases
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
        if not await self._open(key_owner(principal), connection_id, principal.limits.connections):
            raise no_connection_left(principal)

    async def close_connection(self, principal: Principal, connection_id: str) -> None:
        await self._close(key_owner(principal), connection_id)

    async def open_from(self, address: str, connection_id: str, limit: int) -> None:
        if not await self._open(address_owner(address), connection_id, limit):
            raise too_many_from_address(limit)

    async def close_from(self, address: str, connection_id: str) -> None:
        await self._close(address_owner(address), connection_id)

    async def hold_subscriptions(self, principal: Principal, connection_id: str, count: int) -> None:
        owner, limit = key_owner(principal), principal.limits.subscriptions
        args: list[int | str] = [self._lease, connection_id, count, limit]
        allowed = await self._ask(lambda redis: redis.count(keys=_keys(owner), args=args))
        if allowed is None:
            allowed = self._leases.count(owner, connection_id, count, limit)
        elif allowed:
            self._leases.count(owner, connection_id, count, None)
        if not allowed:
            raise no_subscription_left(principal)

    async def renew(self, connection_ids: Collection[str]) -> None:
        self._leases.renew(connection_ids)
        named = list(connection_ids)
        for start in range(0, len(named), BATCH):
            # Asked batch by batch: some are closed while the one before is renewed.
            if held := self._leases.held(named[start : start + BATCH]):
                await self._renew(held)

    async def _open(self, owner: str, connection_id: str, limit: int) -> bool:
        args: list[int | str] = [self._lease, connection_id, limit]
        allowed = await self._ask(lambda redis: redis.open(keys=_keys(owner), args=args))
        if allowed is None:
            return self._leases.open(owner, connection_id, limit)
        return bool(allowed) and self._leases.open(owner, connection_id, None)

    async def _close(self, owner: str, connection_id: str) -> None:
        self._leases.close(owner, connection_id)
        await self._give_back(owner, connection_id)

    async def _renew(self, held: list[Held]) -> None:
        keys = [key for place in held for key in _keys(place.owner)]
        args: list[int | str] = [self._lease]
        for place in held:
            args += (place.connection_id, place.subscriptions)
        await self._ask(lambda redis: redis.renew(keys=keys, args=args))
        # One that was closed meanwhile may have been given back before it was renewed.
        still = {place[:2] for place in self._leases.held([place.connection_id for place in held])}
        for owner, connection_id, _ in held:
            if (owner, connection_id) not in still:
                await self._give_back(owner, connection_id)

    async def _give_back(self, owner: str, connection_id: str) -> None:
        await self._ask(lambda redis: redis.give_back(keys=_keys(owner), args=[connection_id]))

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


def _keys(owner: str) -> list[str]:
    """Where an owner's leases are, and what each connection holds."""
    return [owner, f"{owner}:subscriptions"]

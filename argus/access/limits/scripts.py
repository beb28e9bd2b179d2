"""The limiter's steps in Redis, and the connections on which they run."""

from __future__ import annotations

import asyncio
from typing import Any

from redis import BlockingConnectionPool, Redis
from redis.asyncio import BlockingConnectionPool as AsyncBlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from argus.access.limits.blocks import SHARE

DEADLINE = 1.0
"""Seconds that a step may take; then Redis counts as away."""
BATCH = 256
"""Spendings in one script."""
PENDING = 10_000
"""Spendings that may wait for Redis; one beyond them fails at once."""

# KEYS: a budget per spending. ARGV: the window in ms; the part of what is left (1 / ARGV[2]; 0: none) that the first allowed
# spending of a budget takes ahead; then cost and limit of each. Time stands still within a script.
SPEND = """
local answer, led, share = {}, {}, tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
  local cost, limit = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local used, left, ahead = 0, redis.call('PTTL', key), 0
  if left > 0 then used = tonumber(redis.call('GET', key)) else left = 0 end
  local allowed = cost == 0 or used + cost <= limit
  if allowed and cost > 0 then
    if share > 0 and not led[key] then ahead = math.floor((limit - used - cost) / share) end
    led[key] = true
    used = used + cost + ahead
    if left > 0 then
      redis.call('INCRBY', key, cost + ahead)
    else
      left = tonumber(ARGV[1])
      redis.call('SET', key, used, 'PX', left)
    end
  end
  answer[i] = {allowed and 1 or 0, used, left, ahead}
end
return answer
"""
# Of an owner's two keys the first has the connections by their leases' ends, the second their subscriptions and the total.
_LEASES = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function hold(leases, held, connection, lease)
  redis.call('ZADD', leases, now + lease, connection)
  redis.call('PEXPIRE', leases, lease)
  redis.call('PEXPIRE', held, lease)
end
local function count(held, connection, number)
  local before = tonumber(redis.call('HGET', held, connection) or 0)
  redis.call('HSET', held, connection, number)
  redis.call('HINCRBY', held, 'total', number - before)
end
local function give_back(leases, held, connection)
  redis.call('ZREM', leases, connection)
  if redis.call('HEXISTS', held, connection) == 1 then
    count(held, connection, 0)
    redis.call('HDEL', held, connection)
  end
end
local function lapse(leases, held)
  for _, connection in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now)) do give_back(leases, held, connection) end
end
"""
# KEYS: an owner's two. ARGV: the lease in ms, the connection, the limit.
OPEN = f"""{_LEASES}
lapse(KEYS[1], KEYS[2])
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
hold(KEYS[1], KEYS[2], ARGV[2], ARGV[1])
return 1
"""
# KEYS: an owner's two. ARGV: the lease in ms, the connection, its subscriptions, the limit of all.
COUNT = f"""{_LEASES}
lapse(KEYS[1], KEYS[2])
local number, before = tonumber(ARGV[3]), tonumber(redis.call('HGET', KEYS[2], ARGV[2]) or 0)
local total = tonumber(redis.call('HGET', KEYS[2], 'total') or 0)
if number > before and total - before + number > tonumber(ARGV[4]) then return 0 end
count(KEYS[2], ARGV[2], number)
hold(KEYS[1], KEYS[2], ARGV[2], ARGV[1])
return 1
"""
# KEYS: two for each connection. ARGV: the lease in ms, then each connection and its subscriptions, which are written only where
# they have been lost: what is known here may be newer than what the process knew when it asked.
RENEW = f"""{_LEASES}
for i = 1, #KEYS / 2 do
  local leases, held, connection, number = KEYS[2 * i - 1], KEYS[2 * i], ARGV[2 * i], tonumber(ARGV[2 * i + 1])
  if number > 0 and redis.call('HEXISTS', held, connection) == 0 then count(held, connection, number) end
  hold(leases, held, connection, ARGV[1])
end
return #KEYS
"""
# KEYS: an owner's two. ARGV: the connection.
GIVE_BACK = f"""{_LEASES}
give_back(KEYS[1], KEYS[2], ARGV[1])
return 1
"""

# Nothing is tried twice: a spending whose answer was lost may have been counted.
_OPTIONS: dict[str, Any] = {
    "protocol": 2,
    "timeout": DEADLINE,
    "max_connections": 16,
    "socket_timeout": DEADLINE,
    "socket_connect_timeout": DEADLINE,
}


def connect(url: str) -> Redis:
    """A client for threads."""
    return Redis.from_pool(BlockingConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), **_OPTIONS))


class LoopRedis:
    """The scripts on one event loop. Spendings that come while one is under way go together in the next."""

    def __init__(self, url: str, window_ms: int) -> None:
        pool = AsyncBlockingConnectionPool.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **_OPTIONS)
        self.client = AsyncRedis.from_pool(pool)
        self.open = self.client.register_script(OPEN)
        self.count = self.client.register_script(COUNT)
        self.renew = self.client.register_script(RENEW)
        self.give_back = self.client.register_script(GIVE_BACK)
        self._spend = self.client.register_script(SPEND)
        self._window_ms = window_ms
        self._pending: list[tuple[str, int, int, asyncio.Future[list[int]]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def spend(self, key: str, cost: int, limit: int) -> list[int]:
        """The script's answer to this spending."""
        if len(self._pending) >= PENDING:
            raise RedisError("too many spendings wait for Redis")
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._pending.append((key, cost, limit, future))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        return await future

    async def _send(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
            args = [self._window_ms, SHARE]
            for _, cost, limit, _ in batch:
                args += (cost, limit)
            try:
                answers = await self._spend(keys=[key for key, _, _, _ in batch], args=args)
            except RedisError as error:
                # The rest would wait as long only to fail as well.
                batch, self._pending = batch + self._pending, []
                for _, _, _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                return
            for (_, _, _, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

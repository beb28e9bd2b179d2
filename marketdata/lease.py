"""One active publisher per feed: a lease whose token fences off whoever held it before.

The token is the feed's epoch. It is never smaller than the wall clock in milliseconds, larger than the token before it and than
any epoch that its taker has heard of, so a new run of an embedded service and a Redis that lost its data both start above
everything clients have seen. Who lets its lease run out and takes it again, with nobody in between, has its token again.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

import redis

from argus.config import config

TTL = 2.0
"""Seconds after which a publisher that has gone silent loses its feed."""


class Lease(Protocol):
    """The right to publish a feed. ``ttl``: seconds for which it is held."""

    ttl: float

    def hold(self, owner: str, above: int = 0) -> int | None:
        """Take or renew the lease: the token while ``owner`` holds it, None while another does. A new one is larger than
        ``above``."""

    def free(self) -> bool:
        """Whether nobody holds it, as far as can be told."""

    def release(self, owner: str) -> None:
        """Give it up at once, so that a standby need not wait for the end of it."""


class MemoryLease:
    """A lease among the publishers of one process."""

    def __init__(self, ttl: float = TTL) -> None:
        self.ttl = ttl
        self._lock = threading.Lock()
        self._owner = ""
        self._token = 0
        self._until = 0.0

    def hold(self, owner: str, above: int = 0) -> int | None:
        """See ``Lease``."""
        with self._lock:
            now = time.monotonic()
            if owner != self._owner:
                if self._owner and now < self._until:
                    return None
                self._owner = owner
                self._token = max(self._token + 1, above + 1, int(time.time() * 1000))
            self._until = now + self.ttl
            return self._token

    def free(self) -> bool:
        """See ``Lease``."""
        with self._lock:
            return not self._owner or time.monotonic() >= self._until

    def release(self, owner: str) -> None:
        """See ``Lease``."""
        with self._lock:
            if owner == self._owner:
                self._owner = ""


# The lease itself ends by itself; the last token and who had it outlast it.
_HOLD = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return false end
local last = redis.call('HMGET', KEYS[2], 'token', 'owner')
local token = tonumber(last[1] or '0')
if last[2] ~= ARGV[1] then
  token = math.max(token + 1, tonumber(ARGV[4]) + 1, tonumber(ARGV[2]))
  redis.call('HSET', KEYS[2], 'token', string.format('%d', token), 'owner', ARGV[1])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return token
"""
_RELEASE = """
if redis.call('HGET', KEYS[2], 'owner') == ARGV[1] then redis.call('HDEL', KEYS[2], 'owner') end
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class RedisLease:
    """A lease among processes. Asked of Redis at most three times per ``ttl`` while it is held; in between the token is known
    to be good.

    Where Redis does not answer, the holder keeps its token until the lease's end by its own clock and then stops.
    """

    def __init__(self, url: str, feed: str, ttl: float = TTL) -> None:
        self.ttl = ttl
        self._client: Any = redis.Redis.from_url(url, protocol=2, socket_timeout=ttl / 4, socket_connect_timeout=ttl / 4)
        self._hold = self._client.register_script(_HOLD)
        self._release = self._client.register_script(_RELEASE)
        self._keys = [f"argus:feed:{feed}:lease", f"argus:feed:{feed}:term"]
        self._token: int | None = None
        self._owner = ""
        self._renew_at = 0.0
        self._until = 0.0

    def hold(self, owner: str, above: int = 0) -> int | None:
        """See ``Lease``."""
        now = time.monotonic()
        if owner == self._owner and now < self._renew_at:
            return self._token
        try:
            token = self._hold(keys=self._keys, args=[owner, int(time.time() * 1000), int(self.ttl * 1000), above])
        except redis.RedisError:
            return self._token if owner == self._owner and now < self._until else None
        self._owner, self._token = owner, None if token is None else int(token)
        self._renew_at = now + (self.ttl / 3 if self._token is not None else 0.0)
        self._until = now + self.ttl
        return self._token

    def free(self) -> bool:
        """See ``Lease``."""
        try:
            return not self._client.exists(self._keys[0])
        except redis.RedisError:
            return False

    def release(self, owner: str) -> None:
        """See ``Lease``."""
        self._owner = ""
        try:
            self._release(keys=self._keys, args=[owner])
        except redis.RedisError:
            return  # it ends by itself


_memory: dict[str, MemoryLease] = {}


def lease_of(feed: str) -> Lease:
    """The lease of a feed, in Redis where there is one."""
    if config.redis_url:
        return RedisLease(config.redis_url, feed)
    return _memory.setdefault(feed, MemoryLease())

"""What plans allow, counted: ``quota()`` is this process' limiter."""

from __future__ import annotations

from argus.access.limits.base import LEASE, RENEW, WINDOW, Limiter, Quota
from argus.access.limits.memory import MemoryLimiter
from argus.access.limits.redis import RedisLimiter
from argus.config import config

__all__ = ["LEASE", "RENEW", "WINDOW", "Limiter", "MemoryLimiter", "Quota", "RedisLimiter", "quota"]

_limiter: Limiter = RedisLimiter(config.redis_url) if config.redis_url else MemoryLimiter()


def quota() -> Limiter:
    """The limiter: in Redis where there is one, else in this process."""
    return _limiter

"""The limiter of a service that is one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

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
from argus.access.limits.leases import Leases
from argus.access.limits.windows import Windows
from argus.access.principal import Principal


class MemoryLimiter:
    """Counts in this process alone. Its tables hold no more than the keys of the last minute and the open connections."""

    def __init__(self, *, window: float = WINDOW, lease: float = LEASE, clock: Callable[[], float] = time.monotonic) -> None:
        self.leases = Leases(lease, clock=clock)
        self._windows = Windows(window, clock=clock)

    def spend_sync(self, principal: Principal, cost: int = 1) -> Quota:
        return quota_or_refusal(principal, *self._windows.spend(principal.key_id, cost, principal.limits.requests_per_minute))

    async def spend(self, principal: Principal, cost: int = 1) -> Quota:
        return self.spend_sync(principal, cost)

    async def open_connection(self, principal: Principal, connection_id: str) -> None:
        if not self.leases.open(key_owner(principal), connection_id, principal.limits.connections):
            raise no_connection_left(principal)

    async def close_connection(self, principal: Principal, connection_id: str) -> None:
        self.leases.close(key_owner(principal), connection_id)

    async def open_from(self, address: str, connection_id: str, limit: int) -> None:
        if not self.leases.open(address_owner(address), connection_id, limit):
            raise too_many_from_address(limit)

    async def close_from(self, address: str, connection_id: str) -> None:
        self.leases.close(address_owner(address), connection_id)

    async def hold_subscriptions(self, principal: Principal, connection_id: str, count: int) -> None:
        if not self.leases.count(key_owner(principal), connection_id, count, principal.limits.subscriptions):
            raise no_subscription_left(principal)

    async def renew(self, connection_ids: Collection[str]) -> None:
        self.leases.renew(connection_ids)

    async def close(self) -> None:
        """There is nothing to give back."""

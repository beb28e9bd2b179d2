"""The limiter of a service that is one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from threading import Lock

from argus.access.limits.base import LEASE, WINDOW, Quota, no_connection_left, quota_or_refusal
from argus.access.limits.windows import Windows
from argus.access.principal import Principal


class MemoryLimiter:
    """Counts in this process alone. Its tables hold no more than the keys of the last minute and the open connections."""

    def __init__(self, *, window: float = WINDOW, lease: float = LEASE, clock: Callable[[], float] = time.monotonic) -> None:
        self._windows = Windows(window, clock=clock)
        self._lease = lease
        self._clock = clock
        self._lock = Lock()
        self._leases: dict[int, dict[str, float]] = {}
        self._owners: dict[str, int] = {}

    def spend_sync(self, principal: Principal, cost: int = 1) -> Quota:
        return quota_or_refusal(principal, *self._windows.spend(principal.key_id, cost, principal.limits.requests_per_minute))

    async def spend(self, principal: Principal, cost: int = 1) -> Quota:
        return self.spend_sync(principal, cost)

    async def open_connection(self, principal: Principal, connection_id: str) -> None:
        with self._lock:
            leases = self._leases.get(principal.key_id, {})
            self._end_lapsed(leases)
            if connection_id not in leases and len(leases) >= principal.limits.connections:
                raise no_connection_left(principal)
            self._hold(principal.key_id, connection_id)

    async def close_connection(self, principal: Principal, connection_id: str) -> None:
        with self._lock:
            self._owners.pop(connection_id, None)
            leases = self._leases.get(principal.key_id)
            if leases is not None:
                leases.pop(connection_id, None)
                if not leases:
                    del self._leases[principal.key_id]

    async def renew(self, connection_ids: Collection[str]) -> None:
        with self._lock:
            for connection_id, key_id in self.owners(connection_ids):
                self._hold(key_id, connection_id)

    async def close(self) -> None:
        """There is nothing to give back."""

    def hold(self, key_id: int, connection_id: str) -> None:
        """Count a connection whatever the limit: another limiter has allowed it."""
        with self._lock:
            self._hold(key_id, connection_id)

    def owners(self, connection_ids: Collection[str]) -> list[tuple[str, int]]:
        """The connections among these that are held here, and whose they are."""
        return [(connection_id, self._owners[connection_id]) for connection_id in connection_ids if connection_id in self._owners]

    def _hold(self, key_id: int, connection_id: str) -> None:
        self._leases.setdefault(key_id, {})[connection_id] = self._clock() + self._lease
        self._owners[connection_id] = key_id

    def _end_lapsed(self, leases: dict[str, float]) -> None:
        now = self._clock()
        for connection_id in [connection_id for connection_id, ends in leases.items() if now >= ends]:
            del leases[connection_id]

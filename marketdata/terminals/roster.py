"""Which pools and terminals there are: frozen specs as of the database, the same in every process within a second.

The tables are small, so a look reads them whole and compares. ``current`` never waits and never fails: until the first look
it has what the settings name, as one pool ``main``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from argus.config import config
from marketdata.sources.base import Capability
from marketdata.terminals import windows
from marketdata.terminals.models import Pool, Role, Terminal, markets_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TerminalSpec:
    """A terminal as it is wanted. ``capabilities`` as last probed: empty where it has never been up."""

    name: str
    pool: str
    address: str = ""
    role: Role = Role.ACTIVE
    weight: int = 1
    concurrent: int = 4
    per_second: int | None = None
    maintenance: tuple[windows.Window, ...] = ()
    enabled: bool = True
    drained: bool = False
    version: str = ""
    capabilities: frozenset[Capability] = frozenset()

    @property
    def serving(self) -> bool:
        """Whether it is to be asked and may publish."""
        return self.enabled and not self.drained

    @property
    def excused(self) -> bool:
        """Whether it is in a maintenance window now: that it is away is expected."""
        return bool(self.maintenance) and windows.inside(self.maintenance, time.time_ns() // 1_000_000) is not None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool as it is wanted; ``size`` is set by hand, None where the slots are scaled."""

    name: str
    strategy: str = "least_connections"
    markets: tuple[str, ...] = ()
    min_size: int = 2
    max_size: int = 4
    size: int | None = None
    hedge: bool = True
    terminals: tuple[TerminalSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Roster:
    """All pools, by name."""

    pools: Mapping[str, PoolSpec] = field(default_factory=dict)

    @property
    def terminals(self) -> dict[str, TerminalSpec]:
        """All terminals, by name."""
        return {terminal.name: terminal for pool in self.pools.values() for terminal in pool.terminals}

    def pool_of(self, market: str) -> PoolSpec | None:
        """The pool that serves a market: the one that names it, else the one that serves all; None where nobody does."""
        named = (pool for pool in self.pools.values() if market in pool.markets)
        return next(named, next((pool for pool in self.pools.values() if not pool.markets), None))

    def accepts(self, pool: str) -> Callable[[str], bool] | None:
        """Whether a pool publishes a symbol; None where it publishes whatever its terminals have."""
        mine = frozenset(self.pools[pool].markets)
        others = frozenset(market for other in self.pools.values() if other.name != pool for market in other.markets)
        if mine:
            return lambda symbol: symbol.rpartition(".")[2] in mine
        return (lambda symbol: symbol.rpartition(".")[2] not in others) if others else None


def of_settings() -> Roster:
    """The terminals that the settings name, as one pool."""
    terminals = tuple(TerminalSpec(name, "main", address) for name, address in config.addresses.items())
    return Roster({"main": PoolSpec("main", terminals=terminals)})


def load() -> Roster:
    """Read all of it. Raises Django's database errors."""
    found: dict[str, list[TerminalSpec]] = {}
    for row in Terminal.objects.select_related("pool"):
        found.setdefault(row.pool.name, []).append(_terminal(row))
    pools = {
        row.name: PoolSpec(
            row.name,
            row.strategy,
            markets_of(row.markets),
            row.min_size,
            row.max_size,
            row.size,
            row.hedge,
            tuple(found.get(row.name, ())),
        )
        for row in Pool.objects.all()
    }
    return Roster(pools) if pools else of_settings()


def _terminal(row: Terminal) -> TerminalSpec:
    return TerminalSpec(
        row.name,
        row.pool.name,
        row.address,
        Role(row.role),
        row.weight,
        row.concurrent,
        row.per_second,
        windows.parse(row.maintenance),
        row.enabled,
        row.drained,
        row.version,
        frozenset(capability for capability in Capability if capability.value in row.capabilities),
    )


_current: Roster | None = None
_looking = threading.Lock()


def current() -> Roster:
    """As of the last look."""
    return _current if _current is not None else of_settings()


def look() -> bool:
    """Read the database; whether anything has changed since the last look. Raises Django's database errors."""
    global _current
    with _looking:
        found = load()
        changed = found != current()
        _current = found
    if changed:
        log.info("roster_changed", pools={name: [t.name for t in pool.terminals] for name, pool in found.pools.items()})
    return changed


def forget() -> None:
    """Go back to what the settings name."""
    global _current
    _current = None

"""Who is asking and what they may do: the value that every surface works with after the one check."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import msgspec

SCOPE_READ = "read"
"""Live quotes, over REST and over the stream."""
SCOPE_OPERATE = "operate"
"""What operators do: caches, pools, diagnostics."""
SCOPES = (SCOPE_READ, SCOPE_OPERATE)
KLINE_TYPES = ("kline:1m", "kline:5m", "kline:15m", "kline:30m", "kline:1h", "kline:1d")
DATA_TYPES = ("quote", "price", "volume", "orderbook", "status", "trade", *KLINE_TYPES)
"""What a plan may include: the values of ``marketdata.types.DataType``, which stands above this room; a test compares them."""


SUBSCRIPTIONS = 100_000
"""What a plan allows to all connections of a key together unless it says otherwise."""
MESSAGES_PER_SECOND = 100
"""What a plan allows to one connection unless it says otherwise."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """A plan's limits. ``symbols`` bounds one REST request and the union of one connection's subscriptions."""

    requests_per_minute: int
    connections: int
    symbols: int
    data_types: frozenset[str]
    priority: int
    """Higher is served first under load: 0 low, 1 normal, 2 high."""
    subscriptions: int = SUBSCRIPTIONS
    """Of all the key's connections together."""
    messages_per_second: int = MESSAGES_PER_SECOND
    """From one connection, whatever they ask for."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A key that passed the check."""

    key_id: int
    prefix: str
    """The key's visible part; it may stand in logs, the key never."""
    plan: str
    scopes: frozenset[str]
    limits: Limits
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    expires: int | None = None
    """Milliseconds since the epoch."""

"""What a limiter promises, wherever it counts.

Requests are counted in fixed windows of a minute, one per key, begun by the key's first request. It is what people expect
of "600 requests per minute" and what the RateLimit headers can say exactly: ``Remaining`` requests are certain to be
allowed before the window ends in ``Reset`` seconds, and then all of them again. (A sliding window or a token bucket has no
moment at which the quota is whole again, so their Reset is a guess.) Its price, up to twice the limit within one
minute that spans two windows, harms nobody here: the limit is a plan's fair share, not what the machine can bear.
A refused request costs nothing. A process of several takes requests in blocks; what it holds counts as spent for the others.

Connections are leases: a process renews those that it holds, and a dead process' connections stop counting by themselves, with
their subscriptions. One has a place with its key, and, where addresses are limited, one with its address.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from argus.access import address as addresses
from argus.access.principal import Principal
from argus.errors import ADDRESS_LIMIT, CONNECTION_LIMIT, RATE_LIMITED, SUBSCRIPTION_LIMIT, ArgusError

WINDOW = 60.0
"""Seconds of a quota's window."""
LEASE = 30.0
"""Seconds that a connection counts unless it is renewed; renew each ``RENEW`` seconds."""
RENEW = 10.0


class Quota(NamedTuple):
    """A key's budget after a request; ``reset_seconds`` until it is whole again, rounded up (0: it is whole)."""

    limit: int
    remaining: int
    reset_seconds: int


class Limiter(Protocol):
    """Counts what the plans allow."""

    async def spend(self, principal: Principal, cost: int = 1) -> Quota:
        """Take the cost from the key's budget, or raise RATE_LIMITED and take nothing. A cost of 0 only looks."""

    def spend_sync(self, principal: Principal, cost: int = 1) -> Quota:
        """The same, for code without an event loop."""

    async def open_connection(self, principal: Principal, connection_id: str) -> None:
        """Take one of the key's connections for ``LEASE`` seconds, or raise CONNECTION_LIMIT. Idempotent."""

    async def close_connection(self, principal: Principal, connection_id: str) -> None:
        """Give the connection back, and its subscriptions. Idempotent."""

    async def open_from(self, address: str, connection_id: str, limit: int) -> None:
        """Take one of the address' connections for ``LEASE`` seconds, or raise ADDRESS_LIMIT. Idempotent.

        All addresses of an IPv6 /64 count as one.
        """

    async def close_from(self, address: str, connection_id: str) -> None:
        """Give the address' connection back. Idempotent."""

    async def hold_subscriptions(self, principal: Principal, connection_id: str, count: int) -> None:
        """Count so many subscriptions for the connection, which the key has open, or raise SUBSCRIPTION_LIMIT and leave it.

        Only growth is refused: whoever is above a lowered limit may still shrink.
        """

    async def renew(self, connection_ids: Collection[str]) -> None:
        """Hold these connections, opened through this limiter, for another ``LEASE`` seconds."""

    async def close(self) -> None:
        """Give back what the limiter holds on this event loop."""


def quota_or_refusal(principal: Principal, allowed: bool, used: int, left: int) -> Quota:
    """The quota that is left, or RATE_LIMITED."""
    limit = principal.limits.requests_per_minute
    remaining = max(0, limit - used)
    if allowed:
        return Quota(limit, remaining, left)
    text = format_lazy(
        _("The plan {plan} allows {limit} requests per minute; try again in {seconds} s."),
        plan=principal.plan,
        limit=str(limit),
        seconds=str(left),
    )
    raise ArgusError(RATE_LIMITED, text, retry_after=left, limit=limit, remaining=remaining)


def no_connection_left(principal: Principal) -> ArgusError:
    """The refusal of one connection more than the plan allows."""
    limit = principal.limits.connections
    text = format_lazy(_("The plan {plan} allows {limit} connections at a time."), plan=principal.plan, limit=str(limit))
    return ArgusError(CONNECTION_LIMIT, text, limit=limit)


def no_subscription_left(principal: Principal) -> ArgusError:
    """The refusal of more subscriptions than the plan allows to all connections of a key together."""
    limit = principal.limits.subscriptions
    text = format_lazy(
        _("The plan {plan} allows {limit} subscriptions to all connections of a key together."),
        plan=principal.plan,
        limit=str(limit),
    )
    return ArgusError(SUBSCRIPTION_LIMIT, text, limit=limit)


def too_many_from_address(limit: int) -> ArgusError:
    """The refusal of one connection more than an address may have."""
    text = format_lazy(_("One address may have {limit} connections at a time."), limit=str(limit))
    return ArgusError(ADDRESS_LIMIT, text, limit=limit)


def key_owner(principal: Principal) -> str:
    """The name under which a key's connections are counted."""
    return f"argus:connections:{principal.key_id}"


def address_owner(address: str) -> str:
    """The name under which an address' connections are counted."""
    return f"argus:addresses:{addresses.neighbourhood(address)}"

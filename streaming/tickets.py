"""Tickets: what a browser, which cannot set headers, shows instead of a key when it connects.

A ticket is good once and for half a minute, so that it does no harm in a URL, a history or a proxy's log. It stands for
its key: what the key may not do at the moment of connecting, the ticket may not do.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

from django.core.cache import cache

from argus.access import keys
from argus.errors import KEY_INVALID, TICKET_INVALID, ArgusError

SECONDS = 30
"""How long a ticket is good."""


class KeyReference(NamedTuple):
    """Which key a ticket stands for; nobody can make the key from it."""

    prefix: str
    digest: str


def issue(key: str) -> str:
    """A new ticket of a key that has passed the check."""
    prefix = keys.prefix_of(key)
    if prefix is None:
        raise ArgusError(KEY_INVALID)
    ticket = secrets.token_urlsafe(32)
    cache.set(_name(ticket), (prefix, keys.digest(key)), SECONDS)
    return ticket


async def redeem(ticket: str) -> KeyReference:
    """The key of a ticket, which is used up by this. Raises TICKET_INVALID."""
    name = _name(ticket)
    found = await cache.aget(name)
    # Of several that read it at the same time, only one deletes it.
    if found is None or not await cache.adelete(name):
        raise ArgusError(TICKET_INVALID)
    return KeyReference(*found)


def _name(ticket: str) -> str:
    return f"stream-ticket:{hashlib.sha256(ticket.encode()).hexdigest()}"

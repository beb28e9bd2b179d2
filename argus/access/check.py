"""The one check that REST, the stream and everything else make: who has this key, and may they do this.

A known key costs a hash and a look into a dict; an unknown one at most one query, and no more than ``MISSES`` of them a
minute from one address. Every refusal is an ``ArgusError``; none of them holds the key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from threading import Lock
from typing import Any, NamedTuple

import structlog
from django.db import Error as DatabaseError
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from argus.access import address as addresses
from argus.access import keys, lookup
from argus.access.cache import KeyCache, Known
from argus.access.limits.windows import Windows
from argus.access.principal import Principal
from argus.config import config
from argus.errors import (
    ADDRESS_NOT_ALLOWED,
    DATA_TYPE_NOT_ALLOWED,
    FORBIDDEN,
    KEY_EXPIRED,
    KEY_INVALID,
    NOT_AUTHENTICATED,
    NOT_READY,
    RATE_LIMITED,
    SYMBOL_LIMIT,
    ArgusError,
)

log = structlog.get_logger(__name__)

MISSES = 600
"""Keys that do not exist for which one address may make us ask the database in a minute: ten queries a second harm nobody."""
PENDING = 1000
"""Lookups that may wait for the database at a time; a request beyond them is told to come back."""
DEADLINE = 5.0
"""Seconds that a request waits for the database."""

cache = KeyCache()
_misses = Windows(60.0, capacity=10_000)
_flights: dict[str, Future[_Found]] = {}
_flights_lock = Lock()
_trusted = tuple(addresses.parse_network(text) for text in config.trusted_proxies)


def key_of(headers: Mapping[str, str]) -> str | None:
    """The key in ``Authorization: Bearer`` or ``X-API-Key``; the headers' names are in lower case."""
    scheme, space, credentials = headers.get("authorization", "").partition(" ")
    bearer = credentials.strip() if space and scheme.lower() == "bearer" else ""
    return bearer or headers.get("x-api-key", "").strip() or None


def client_address(scope: Mapping[str, Any]) -> str | None:
    """Where an ASGI request comes from; None on a Unix socket. X-Forwarded-For is believed from trusted proxies alone."""
    return addresses.scope_origin(scope, _trusted)


def request_address(peer: str | None, forwarded: str) -> str | None:
    """The same from the peer's address and the X-Forwarded-For header."""
    return addresses.origin(peer, forwarded, _trusted)


async def authenticate(key: str, address: str | None) -> Principal:
    """Who has this key. Raises KEY_INVALID, KEY_EXPIRED, KEY_REVOKED, ADDRESS_NOT_ALLOWED or NOT_AUTHENTICATED.

    Under attack or in trouble also RATE_LIMITED (too many unknown keys from the address) or NOT_READY (no database).
    """
    digest = keys.digest(key)
    known = cache.find(digest)
    if known is None:
        known = await _look_up_beside(_prefix(key), digest, address)
    return admit(known, address)


async def authenticate_digest(prefix: str, digest: str, address: str | None) -> Principal:
    """The same for who does not have the key at hand but what is stored of it."""
    known = cache.find(digest)
    if known is None:
        known = await _look_up_beside(prefix, digest, address)
    return admit(known, address)


@sensitive_variables("key")
def authenticate_sync(key: str, address: str | None) -> Principal:
    """The same as ``authenticate``, for code without an event loop; asks the database on this thread's own connection."""
    digest = keys.digest(key)
    known = cache.find(digest)
    if known is None:
        prefix = _prefix(key)
        _allow_query(digest, address)
        try:
            known = _look_up(prefix, digest, address).known
        except DatabaseError as error:
            known = _without_database(digest, error)
    return admit(known, address)


def admit(known: Known, address: str | None, now_ms: int | None = None) -> Principal:
    """Let a known key in from this address at this moment, or raise. At ``expires`` itself the key is expired."""
    if not isinstance(known, Principal):
        raise ArgusError(known)
    if known.expires is not None and (now_ms if now_ms is not None else time.time_ns() // 1_000_000) >= known.expires:
        raise ArgusError(KEY_EXPIRED)
    if known.networks:
        origin = addresses.parse_address(address) if address else None
        if origin is None or not addresses.contains(known.networks, origin):
            raise ArgusError(ADDRESS_NOT_ALLOWED)
    cache.used.add(known.key_id)
    return known


def require(principal: Principal, scope: str) -> None:
    """Raise FORBIDDEN unless the key has the scope."""
    if scope not in principal.scopes:
        raise ArgusError(FORBIDDEN, format_lazy(_("The key does not have the scope {scope}."), scope=scope), scope=scope)


def require_data_types(principal: Principal, types: Collection[str]) -> None:
    """Raise DATA_TYPE_NOT_ALLOWED unless the plan includes all of the data types."""
    if not principal.limits.data_types.issuperset(types):
        missing = sorted(str(word) for word in types if word not in principal.limits.data_types)
        allowed = sorted(principal.limits.data_types)
        text = format_lazy(
            _("The plan {plan} includes {allowed}, not {missing}."),
            plan=principal.plan,
            allowed=", ".join(allowed),
            missing=", ".join(missing),
        )
        raise ArgusError(DATA_TYPE_NOT_ALLOWED, text, data_types=missing, allowed=allowed)


def require_symbols(principal: Principal, count: int) -> None:
    """Raise SYMBOL_LIMIT if these are more symbols than the plan allows at a time."""
    limit = principal.limits.symbols
    if count > limit:
        text = format_lazy(
            _("The plan {plan} allows {limit} symbols at a time; these are {count}."),
            plan=principal.plan,
            limit=str(limit),
            count=str(count),
        )
        raise ArgusError(SYMBOL_LIMIT, text, limit=limit, count=count)


def _prefix(key: str) -> str:
    """The prefix to look for. Raises NOT_AUTHENTICATED where there is no key, KEY_INVALID where it cannot be one."""
    if not key:
        raise ArgusError(NOT_AUTHENTICATED)
    prefix = keys.prefix_of(key)
    if prefix is None:
        raise ArgusError(KEY_INVALID)
    return prefix


def _allow_query(digest: str, address: str | None) -> None:
    """Refuse a key that is known not to exist, and an address that has shown too many such keys."""
    if cache.is_unknown(digest):
        raise ArgusError(KEY_INVALID)
    misses = _misses.spend(addresses.neighbourhood(address), 0, MISSES)
    if misses.used >= MISSES and cache.find_old(digest) is None:
        text = format_lazy(_("Too many unknown keys from this address; try again in {seconds} s."), seconds=str(misses.left))
        raise ArgusError(RATE_LIMITED, text, retry_after=misses.left)


class _Found(NamedTuple):
    known: Known
    generation: int


def _look_up(prefix: str, digest: str, address: str | None) -> _Found:
    """Ask the database, and remember the answer."""
    generation = cache.generation
    known = cache.find(digest)
    if known is not None:  # Found while this lookup waited for its turn.
        return _Found(known, generation)
    found = lookup.by_digest(prefix, digest)
    if found is None:
        cache.put_unknown(digest)
        _misses.spend(addresses.neighbourhood(address), 1, MISSES)
        return _Found(KEY_INVALID, generation)
    key_id, known = found
    cache.put(digest, known, key_id, generation)
    return _Found(known, generation)


async def _look_up_beside(prefix: str, digest: str, address: str | None) -> Known:
    """Ask the database beside the event loop; again where a key changed before the answer was here.

    So a change that the watcher told to this loop's connections is in what the caller gets, or still to be told.
    """
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                # Shielded: others wait for the same answer.
                found = await asyncio.shield(asyncio.wrap_future(_flight(prefix, digest, address)))
                if found.generation == cache.generation:
                    return found.known
    except (DatabaseError, TimeoutError) as error:
        return _without_database(digest, error)


def _flight(prefix: str, digest: str, address: str | None) -> Future[_Found]:
    """The lookup of this key that is under way, or a new one: many requests with one key make one query."""
    with _flights_lock:
        flight = _flights.get(digest)
        if flight is not None:
            return flight
        _allow_query(digest, address)
        if len(_flights) >= PENDING:
            raise ArgusError(NOT_READY)
        flight = _flights[digest] = lookup.in_thread(_look_up, prefix, digest, address)
    flight.add_done_callback(lambda _: _flights.pop(digest, None))
    return flight


def _without_database(digest: str, error: Exception) -> Known:
    """What was known before the database went away. Nobody can revoke a key there in the meantime."""
    known = cache.find_old(digest)
    log.warning("key_lookup_failed", error=type(error).__name__, known=known is not None)
    if known is None:
        raise ArgusError(NOT_READY) from error
    return known


def still(known: Known, now_ms: int) -> Principal | ArgusError:
    """What is left of a key that was admitted earlier, whatever its address."""
    if not isinstance(known, Principal):
        return ArgusError(known)
    return ArgusError(KEY_EXPIRED) if known.expires is not None and now_ms >= known.expires else known

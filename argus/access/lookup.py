"""Keys as the database has them, turned into what the check works with."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

from argus.access.address import parse_network
from argus.access.cache import Known
from argus.access.models import APIKey
from argus.access.principal import Limits, Principal
from argus.errors import KEY_INVALID, KEY_REVOKED

P = ParamSpec("P")
T = TypeVar("T")

# Threads of our own: lookups and the watcher must not wait behind a slow view in the one thread that Django's views share.
_pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="access")


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Run a function that uses the database beside the event loop."""

    def work() -> T:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return _pool.submit(work)


def by_digest(prefix: str, digest: str) -> tuple[int, Known] | None:
    """The key with this prefix and digest."""
    row = APIKey.objects.select_related("plan").filter(prefix=prefix).first()
    if row is None or not hmac.compare_digest(row.digest, digest):
        return None
    return row.pk, known(row)


def by_ids(key_ids: Iterable[int]) -> dict[int, Known]:
    """What is known now of these keys; one that is gone is not a known key."""
    wanted = list(key_ids)
    found: dict[int, Known] = dict.fromkeys(wanted, KEY_INVALID)
    for start in range(0, len(wanted), 500):
        for row in APIKey.objects.select_related("plan").filter(pk__in=wanted[start : start + 500]):
            found[row.pk] = known(row)
    return found


def known(row: APIKey) -> Known:
    """A stored key as a principal, or why it is refused. Whether it has expired is decided when it is used."""
    if row.revoked_at is not None:
        return KEY_REVOKED
    plan = row.plan
    return Principal(
        key_id=row.pk,
        prefix=row.prefix,
        plan=plan.name,
        scopes=frozenset(row.scopes),
        limits=Limits(
            requests_per_minute=plan.requests_per_minute,
            connections=plan.connections,
            symbols=plan.symbols,
            data_types=frozenset(plan.data_types),
            priority=plan.priority,
            subscriptions=plan.subscriptions,
            messages_per_second=plan.messages_per_second,
        ),
        networks=tuple(parse_network(text) for text in row.networks),
        expires=None if row.expires_at is None else milliseconds(row.expires_at),
    )


def milliseconds(moment: datetime) -> int:
    """The moment in integer milliseconds since the epoch, a part of one cut off: a key never lives longer than it was given."""
    seconds, micros = int(moment.replace(microsecond=0).timestamp()), moment.microsecond
    return seconds * 1000 + micros // 1000

"""Principals as the check would give them out, for tests that need no database."""

from __future__ import annotations

from argus.access.principal import DATA_TYPES, SCOPE_READ, Limits, Principal


def principal(
    *, symbols: int = 500, data_types: tuple[str, ...] = DATA_TYPES, scopes: tuple[str, ...] = (SCOPE_READ,)
) -> Principal:
    limits = Limits(requests_per_minute=600, connections=5, symbols=symbols, data_types=frozenset(data_types), priority=1)
    return Principal(key_id=1, prefix="abcd1234", plan="pro", scopes=frozenset({SCOPE_READ}), limits=limits)

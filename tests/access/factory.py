"""Plans, keys and principals for tests."""

from __future__ import annotations

import itertools
from typing import Any

from argus.access import services
from argus.access.models import APIKey, Plan
from argus.access.principal import DATA_TYPES, Limits, Principal

_numbers = itertools.count(1)
LIMITS: dict[str, Any] = {
    "requests_per_minute": 100,
    "connections": 2,
    "symbols": 10,
    "data_types": list(DATA_TYPES),
    "priority": 1,
}


def make_plan(**values: Any) -> Plan:
    """A plan under a name of its own."""
    return Plan.objects.create(**{"name": f"plan-{next(_numbers)}", **LIMITS, **values})


def make_key(plan: Plan | None = None, **values: Any) -> tuple[APIKey, str]:
    """A stored key and its text."""
    key, secret = services.create_key(**{"name": "test", "plan": plan or make_plan(), **values})
    return key, secret.text


def make_principal(key_id: int = 1, *, scopes: frozenset[str] = frozenset({"read"}), **values: Any) -> Principal:
    """A principal that no database knows; ``values`` are the plan's limits."""
    limits = {**LIMITS, **values}
    limits["data_types"] = frozenset(limits["data_types"])
    return Principal(key_id=key_id, prefix="abcdefgh", plan="plan", scopes=scopes, limits=Limits(**limits))

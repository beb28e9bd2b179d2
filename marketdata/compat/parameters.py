"""What stands in the query of another vendor's client: one value a parameter, each refused under the name it has there."""

from __future__ import annotations

from collections.abc import Sequence

from argus.errors import INVALID_ARGUMENT, ArgusError
from marketdata.api.query import Query


def single(query: Query, name: str) -> str | None:
    """A parameter's value; None where it is not there or empty. Raises INVALID_ARGUMENT."""
    values = query.get(name, ())
    if len(values) > 1:
        raise ArgusError(INVALID_ARGUMENT, f"{name} is given {len(values)} times; give it once.", parameter=name)
    return (values[0].strip() if values else "") or None


def choice(query: Query, name: str, choices: Sequence[str], default: str) -> str:
    """One of several words. Raises INVALID_ARGUMENT."""
    word = single(query, name) or default
    if word not in choices:
        detail = f"{name} cannot be {word[:40]!r} here; it can be {' or '.join(choices)}."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter=name)
    return word


def limit(query: Query, default: int, most: int) -> int:
    """``limit``: 1 to ``most``. Raises INVALID_ARGUMENT."""
    word = single(query, "limit")
    if word is None:
        return default
    if not (word.isascii() and word.isdigit() and len(word) <= 6 and 1 <= int(word) <= most):
        raise ArgusError(INVALID_ARGUMENT, f"limit cannot be {word[:40]!r}: 1 to {most:,} can.", parameter="limit")
    return int(word)

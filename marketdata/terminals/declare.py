"""Pools declared by the settings: ``ARGUS_TERMINALS`` or the file ``ARGUS_POOLS``, applied at the start of every process.

What a declaration names is set, what it does not name keeps what the database has; what an earlier declaration named and this
one does not is removed, what people added stays. Applying the same one twice changes nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import override

from argus.cli import DEFAULT_TERMINAL
from argus.config import config
from marketdata.terminals import roster
from marketdata.terminals.models import Pool, Terminal, check_name

log = structlog.get_logger(__name__)

POOL_FIELDS: Final = ("strategy", "markets", "min_size", "max_size", "size", "hedge")
TERMINAL_FIELDS: Final = (
    "address",
    "role",
    "weight",
    "concurrent",
    "per_second",
    "maintenance",
    "enabled",
)
"""What may be declared. Drained is what an operator does to a running terminal."""

MADE: Final = ("name", "address", "declared")
"""What tells the terminal that was made without a declaration."""

Declaration = dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]]
"""Pool -> its fields, and its terminals with theirs."""


class DeclarationError(ValueError):
    """The declaration cannot be applied; the text says what is wrong with it."""


def declared() -> Declaration | None:
    """What the settings declare; None where they declare nothing. Raises ``DeclarationError``."""
    if config.pools is not None:
        return read(config.pools)
    if "terminals" in config.model_fields_set:
        return of_addresses(config.addresses)
    return None


def of_addresses(addresses: Mapping[str, str]) -> Declaration:
    """Terminals of one pool ``main``."""
    return {"main": ({}, {name: {"address": address} for name, address in addresses.items()})}


def read(path: Path) -> Declaration:
    """The declaration in a TOML file. Raises ``DeclarationError``."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeclarationError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DeclarationError(f"{path} is not TOML: {error}") from None
    found: Declaration = {}
    _only(document, {"pools"}, str(path))
    for entry in _tables(document, "pools", str(path)):
        name, fields = _entry(entry, (*POOL_FIELDS, "terminals"), f"a pool in {path}")
        terminals: dict[str, dict[str, Any]] = {}
        for inner in _tables(fields, "terminals", f"the pool {name} in {path}"):
            terminal, values = _entry(inner, TERMINAL_FIELDS, f"a terminal of the pool {name} in {path}")
            if terminal in terminals or any(terminal in others for _, others in found.values()):
                raise DeclarationError(f"{path} names the terminal {terminal} twice")
            terminals[terminal] = values
        fields.pop("terminals", None)
        if isinstance(fields.get("markets"), list):
            fields["markets"] = ",".join(map(str, fields["markets"]))
        if name in found:
            raise DeclarationError(f"{path} names the pool {name} twice")
        found[name] = fields, terminals
    if not found:
        raise DeclarationError(f"{path} declares no pool: begin one with [[pools]]")
    return found


def _tables(document: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise DeclarationError(f"{where}: write each of its {key} as a table, [[{key}]]")
    return tables


def _entry(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> tuple[str, dict[str, Any]]:
    fields = dict(table)
    name = fields.pop("name", None)
    if not isinstance(name, str):
        raise DeclarationError(f"{where} has no name")
    try:
        check_name(name)
    except ValidationError as error:
        raise DeclarationError(f"{where}, {name!r}: {'; '.join(error.messages)}") from None
    _only(fields, set(known), f"{where}, {name}")
    return name, fields


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(table.keys() - known):
        raise DeclarationError(f"{where}: {', '.join(unknown)} is not known; known are {', '.join(sorted(known))}")


def apply() -> bool:
    """Bring the database to what the settings declare, or make the pool ``main`` where nothing is declared and there has never
    been one; whether that changed anything. Raises ``DeclarationError`` and Django's database errors."""
    # What a process says of its start is English, as its log is.
    with override("en"):
        declaration = declared()
    if declaration is None:
        # One that was made for a source without addresses gets its own when it needs it.
        if Pool.objects.exists() and list(Terminal.objects.values_list("pool__name", *MADE)) != [("main", "main", "", True)]:
            return False
        declaration = of_addresses({"main": DEFAULT_TERMINAL if config.source == "qmt" else ""})
    try:
        with override("en"):
            try:
                changed = _apply(declaration)
            except (IntegrityError, ValidationError):
                # Another process may have applied the same one at the same moment: then it is found to be there now.
                changed = _apply(declaration)
    except ValidationError as error:
        raise DeclarationError("; ".join(error.messages)) from None
    if changed:
        log.info("pools_declared", pools={name: list(terminals) for name, (_, terminals) in declaration.items()})
        roster.look()
    return changed


@transaction.atomic
def _apply(declaration: Declaration) -> bool:
    # One writer at a time: what one row may be depends on the others.
    list(Pool.objects.select_for_update().order_by("pk"))
    rows: list[Pool | Terminal] = []
    changed = False
    for name, (fields, terminals) in declaration.items():
        pool = Pool.objects.filter(name=name).first() or Pool(name=name)
        changed = _set(pool, fields) or changed
        rows.append(pool)
        for terminal, values in terminals.items():
            row = Terminal.objects.filter(name=terminal).first() or Terminal(name=terminal)
            changed = _set(row, {"pool": pool, **values}) or changed
            rows.append(row)
    names = [row.name for row in rows if isinstance(row, Terminal)]
    gone, _ = Terminal.objects.filter(declared=True).exclude(name__in=names).delete()
    removed, _ = Pool.objects.filter(declared=True, terminals=None).exclude(name__in=declaration).delete()
    changed = changed or bool(gone or removed)
    if changed:
        # As all of them are now, not on the way there: markets may have gone from one pool to another.
        for one in rows:
            _check(one, one.full_clean)
    return changed


def _set(row: Pool | Terminal, fields: Mapping[str, Any]) -> bool:
    """Give a row its declared fields; whether it had others."""
    before = {name: getattr(row, name, None) for name in fields if name != "pool" or row.pk}
    if row.pk and row.declared and before == dict(fields):
        return False
    for name, value in fields.items():
        setattr(row, name, value)
    row.declared = True
    _check(row, row.clean_fields)
    row.save()
    return True


def _check(row: Pool | Terminal, check: Callable[[], None]) -> None:
    try:
        check()
    except (ValidationError, OverflowError) as error:
        found = error.messages if isinstance(error, ValidationError) else [str(error)]
        raise ValidationError([f"{row._meta.model_name} {row.name}: {'; '.join(found)}"]) from None

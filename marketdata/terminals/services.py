"""What is done to pools and terminals: the writes that REST, the admin, the console's page and the commands share.

Each is checked by the models' ``full_clean``, written as a whole or not at all, logged with who did it (the request's id is in
every log line) and acted on in this process at once; the others see it within a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import structlog
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, transaction

from argus.errors import CONFLICT, INVALID_ARGUMENT, NOT_FOUND, ArgusError
from marketdata.terminals import declare, roster
from marketdata.terminals.models import Pool, Terminal

log = structlog.get_logger(__name__)

Fields = Mapping[str, Any]
Row = TypeVar("Row", Pool, Terminal)

POOL_FIELDS: Final = declare.POOL_FIELDS
TERMINAL_FIELDS: Final = (*declare.TERMINAL_FIELDS, "drained")

PROBED_WITHIN: Final = 10.0
"""Seconds that somebody who asks for a probe waits for all the terminals together."""


def find_pool(name: str) -> Pool:
    """The pool. Raises ``ArgusError``."""
    try:
        return Pool.objects.prefetch_related("terminals").get(name=_askable(name))
    except Pool.DoesNotExist:
        there = ", ".join(Pool.objects.values_list("name", flat=True)) or "none"
        raise ArgusError(NOT_FOUND, f"There is no pool {name[:50]!r}; there is: {there}.", parameter="pool") from None


def find_terminal(name: str, pool: str | None = None) -> Terminal:
    """The terminal, of this pool if one is named. Raises ``ArgusError``."""
    rows = Terminal.objects.select_related("pool")
    if pool is not None:
        rows = rows.filter(pool=find_pool(pool))
    found = rows.filter(name=_askable(name)).first()
    if found is None:
        there = ", ".join(rows.values_list("name", flat=True)) or "none"
        where = "" if pool is None else f" in the pool {pool}"
        raise ArgusError(NOT_FOUND, f"There is no terminal {name[:50]!r}{where}; there is: {there}.", parameter="terminal")
    return found


def _askable(name: str) -> str:
    """The name, with what PostgreSQL refuses in a question replaced by what no name has either."""
    return name.replace("\0", "\ufffd")


def create_pool(name: str, fields: Fields, terminals: Sequence[Fields], *, by: str) -> Pool:
    """Make a pool with its terminals, each with its ``name`` among its fields. Raises ``ArgusError``."""
    with _writing():
        if Pool.objects.filter(name=_askable(name)).exists():
            raise ArgusError(CONFLICT, f"There is a pool {name[:50]!r} already.", parameter="name")
        pool = _put(Pool(name=name), fields, by)
        _put_terminals(pool, terminals, by)
    return find_pool(name)


def replace_pool(name: str, fields: Fields, terminals: Sequence[Fields], *, by: str) -> Pool:
    """Give a pool these fields and terminals; what is not named gets its default or goes. Raises ``ArgusError``."""
    with _writing():
        pool = find_pool(name)
        for gone in pool.terminals.exclude(name__in=[str(given["name"]) for given in terminals]):
            gone.delete()
            audit("terminal_deleted", gone, by)
        _put(pool, _defaults(pool, POOL_FIELDS) | dict(fields), by)
        _put_terminals(pool, terminals, by)
    return find_pool(name)


def change_pool(name: str, fields: Fields, terminals: Sequence[Fields] = (), *, by: str) -> Pool:
    """Change the named fields of a pool and those of the named ones of its terminals. Raises ``ArgusError``."""
    with _writing():
        pool = find_pool(name)
        _put(pool, fields, by)
        for index, given in enumerate(terminals):
            values = dict(given)
            row = find_terminal(str(values.pop("name")), name)
            _put(row, values, by, f"terminals.{index}.")
    return find_pool(name)


def delete_pool(name: str, *, by: str) -> None:
    """Remove a pool and its terminals; the last one stays. Raises ``ArgusError``."""
    with _writing():
        pool = find_pool(name)
        if not Pool.objects.exclude(pk=pool.pk).exists():
            raise ArgusError(CONFLICT, f"{name} is the only pool, and one must be.", parameter="pool")
        pool.delete()
        audit("pool_deleted", pool, by)


def scale(name: str, size: int | None, *, by: str) -> Pool:
    """Fix the number of slots of each of a pool's terminals, or let it grow and shrink again (None). Raises ``ArgusError``."""
    return change_pool(name, {"size": size}, by=by)


def put_terminal(pool: str, name: str, fields: Fields, *, by: str) -> tuple[Terminal, bool]:
    """Make a terminal, or replace it: what is not named gets its default. It, and whether it is new. Raises ``ArgusError``."""
    with _writing():
        parent = find_pool(pool)
        row = _row(parent, name, "terminal")
        created = row.pk is None
        _put(row, _defaults(row, TERMINAL_FIELDS) | dict(fields), by)
    return row, created


def change_terminal(name: str, fields: Fields, *, by: str, pool: str | None = None) -> Terminal:
    """Change the named fields of a terminal. Raises ``ArgusError``."""
    with _writing():
        return _put(find_terminal(name, pool), fields, by)


def delete_terminal(name: str, *, by: str, pool: str | None = None) -> None:
    """Remove a terminal. Raises ``ArgusError``."""
    with _writing():
        row = find_terminal(name, pool)
        row.delete()
        audit("terminal_deleted", row, by)


def drain(name: str, *, by: str) -> Terminal:
    """Let it finish what it has; it is asked nothing more and publishes nothing. Raises ``ArgusError``."""
    return change_terminal(name, {"drained": True}, by=by)


def resume(name: str, *, by: str) -> Terminal:
    """Use it again. Raises ``ArgusError``."""
    return change_terminal(name, {"drained": False}, by=by)


def audit(event: str, row: Pool | Terminal, by: str, **about: Any) -> None:
    """Write down who did what, and look at it at once when it is in the database."""
    where = {"pool": row.name} if isinstance(row, Pool) else {"terminal": row.name, "pool": row.pool.name}
    log.info(event, by=by, **where, **about)
    # Robust: what is done is done, also where the database goes away between the two.
    transaction.on_commit(roster.look, robust=True)


@contextmanager
def _writing() -> Iterator[None]:
    """One writer at a time: what one row may be depends on the others. Raises ``ArgusError``."""
    try:
        with transaction.atomic():
            list(Pool.objects.select_for_update().order_by("pk"))
            yield
    except IntegrityError:
        raise ArgusError(CONFLICT, "Somebody else made one of this name at the same moment.") from None


def _put_terminals(pool: Pool, terminals: Sequence[Fields], by: str) -> None:
    for index, given in enumerate(terminals):
        values = dict(given)
        row = _row(pool, str(values.pop("name")), f"terminals.{index}.name")
        _put(row, _defaults(row, TERMINAL_FIELDS) | values, by, f"terminals.{index}.")


def _row(pool: Pool, name: str, parameter: str) -> Terminal:
    """The pool's terminal of this name, or a new one. Raises ``ArgusError`` where another pool has it."""
    found = Terminal.objects.select_related("pool").filter(name=_askable(name)).first()
    if found is None:
        return Terminal(pool=pool, name=name)
    if found.pool_id != pool.pk:
        text = f"The pool {found.pool.name} has the terminal {name}: delete it there first."
        raise ArgusError(CONFLICT, text, parameter=parameter)
    return found


def _put(row: Row, fields: Fields, by: str, path: str = "") -> Row:
    """Check and save a row with these fields; ``path`` is where they stand in what was asked."""
    before = {name: getattr(row, name) for name in fields}
    for name, value in fields.items():
        setattr(row, name, value)
    try:
        row.full_clean()
    except ValidationError as error:
        raise invalid(error, path) from None
    kind = row._meta.model_name
    if row.pk is None:
        row.save()
        audit(f"{kind}_created", row, by)
    elif changes := {name: [old, getattr(row, name)] for name, old in before.items() if old != getattr(row, name)}:
        row.save(update_fields=list(changes))
        audit(f"{kind}_changed", row, by, changes=changes)
    return row


def _defaults(row: Pool | Terminal, names: Sequence[str]) -> dict[str, Any]:
    return {field.name: field.get_default() for field in row._meta.concrete_fields if field.name in names}


def invalid(error: ValidationError, path: str = "") -> ArgusError:
    """What ``full_clean`` found, by where it stands in what was asked."""
    fields = error.message_dict.items()
    return refused(
        [(path.rstrip(".") if field == NON_FIELD_ERRORS else path + field, text) for field, texts in fields for text in texts]
    )


def refused(found: Sequence[tuple[str, str]]) -> ArgusError:
    """All that is wrong with what was asked: where (``terminals.0.weight``), and what; the first of it in the sentence."""
    where, what = found[0]
    errors = [{"parameter": parameter, "detail": detail} for parameter, detail in found]
    return ArgusError(INVALID_ARGUMENT, f"{where}: {what}" if where else what, parameter=where, errors=errors)

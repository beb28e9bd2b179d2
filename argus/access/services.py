"""What is done to keys: the writes that the admin, the commands and ``up`` share."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from argus.access import keys
from argus.access.models import APIKey, Plan
from argus.access.principal import SCOPE_READ

DEMO = "demo"
"""The plan and the name of the key that ``up`` gives to whoever tries Argus."""


def issue_key(*, key: APIKey) -> keys.Secret:
    """Give a new row its key and store it. The secret returned is the only place where the key stands."""
    secret = keys.new()
    while APIKey.objects.filter(prefix=secret.prefix).exists():
        secret = keys.new()
    key.prefix, key.digest = secret.prefix, secret.digest
    key.save()
    return secret


def create_key(
    *,
    name: str,
    plan: Plan,
    scopes: Iterable[str] = (SCOPE_READ,),
    networks: Iterable[str] = (),
    expires_at: datetime | None = None,
) -> tuple[APIKey, keys.Secret]:
    """Make a key. Raises Django's ValidationError, by field, where a value is wrong."""
    key = APIKey(name=name, plan=plan, scopes=list(scopes), networks=list(networks), expires_at=expires_at)
    key.full_clean(exclude=["prefix", "digest"])
    return key, issue_key(key=key)


def revoke_keys(*, keys: QuerySet[APIKey]) -> int:
    """Revoke those that are not yet; they stop working everywhere within two seconds and for good. How many there were."""
    return keys.filter(revoked_at=None).update(revoked_at=Now())


def state_of(key: APIKey, now: datetime) -> str:
    """``active``, ``expired`` or ``revoked``."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def demo_key() -> keys.Secret | None:
    """The key for trying Argus out, unless there is one already; a revoked one counts, so revoking it is for good."""
    with transaction.atomic():
        plan = Plan.objects.select_for_update().filter(name=DEMO).first()
        if plan is None or plan.keys.filter(name=DEMO).exists():
            return None
        return create_key(name=DEMO, plan=plan)[1]


def note_use(*, key_ids: Iterable[int]) -> None:
    """Note that these keys are in use."""
    wanted = list(key_ids)
    for start in range(0, len(wanted), 500):
        APIKey.objects.filter(pk__in=wanted[start : start + 500]).update(last_used_at=Now())

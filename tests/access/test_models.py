"""Plans and keys as they are stored, and the writes that everybody shares."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection
from django.db.models import ProtectedError
from django.utils import timezone

from argus.access import keys, services
from argus.access.models import APIKey, Plan
from tests.access.factory import LIMITS, make_key, make_plan

pytestmark = pytest.mark.django_db


def errors_of(**values: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        services.create_key(**{"name": "test", "plan": make_plan(), **values})
    return caught.value.message_dict


def test_only_the_hash_of_a_key_is_stored() -> None:
    _key, text = make_key()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM access_apikey")
        stored = repr(cursor.fetchall())
    assert text[-43:] not in stored
    assert keys.digest(text) in stored


def test_networks_are_stored_in_their_canonical_form_and_once() -> None:
    key, _ = make_key(networks=["192.0.2.7", " 2001:DB8::/32", "::ffff:10.0.0.0/104", "10.0.0.0/8"])
    key.refresh_from_db()
    assert key.networks == ["192.0.2.7/32", "2001:db8::/32", "10.0.0.0/8"]


def test_each_wrong_network_is_named_with_what_would_be_right(settings: Any) -> None:
    settings.LANGUAGE_CODE = "en"
    assert errors_of(networks=["10.1.2.3/8", "example.org", "10.0.0.0/8"]) == {
        "networks": [
            "10.1.2.3/8 has bits set to the right of its mask; the network is 10.0.0.0/8.",
            "example.org is neither an address nor a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32.",
        ]
    }


@pytest.mark.parametrize("scopes", [[], ["write"], ["read", "write"]])
def test_a_key_has_scopes_that_exist(scopes: list[str]) -> None:
    assert errors_of(scopes=scopes).keys() == {"scopes"}


def test_a_new_key_does_not_expire_in_the_past_but_an_old_one_may_be_ended_so() -> None:
    assert errors_of(expires_at=timezone.now()).keys() == {"expires_at"}
    key, _ = make_key()
    key.expires_at = timezone.now() - timedelta(days=1)
    key.full_clean()


@pytest.mark.parametrize(
    "wrong",
    [
        {"data_types": []},
        {"data_types": ["quote", "news"]},
        {"requests_per_minute": 0},
        {"symbols": 0},
        {"name": ""},
        {"subscriptions": 0},
        {"messages_per_second": 0},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Plan(**{"name": "plan", **LIMITS, **wrong}).full_clean()
    assert caught.value.message_dict.keys() == wrong.keys()


def test_a_plan_that_keys_have_cannot_be_deleted() -> None:
    key, _ = make_key()
    with pytest.raises(ProtectedError):
        key.plan.delete()


def test_prefixes_are_unique() -> None:
    key, _ = make_key()
    with pytest.raises(IntegrityError):
        APIKey.objects.create(name="copy", prefix=key.prefix, digest="", plan=key.plan)


def test_a_prefix_that_is_taken_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = make_key()
    fresh = keys.new()
    drawn = iter([keys.Secret("", key.prefix, ""), fresh])
    monkeypatch.setattr(keys, "new", lambda: next(drawn))
    assert make_key()[0].prefix == fresh.prefix


def test_saving_an_old_copy_puts_back_neither_the_last_use_nor_the_version() -> None:
    key, _ = make_key()
    copy = APIKey.objects.get(pk=key.pk)
    services.note_use(key_ids=[key.pk])
    APIKey.objects.filter(pk=key.pk).touch()
    version = APIKey.objects.get(pk=key.pk).version
    copy.name = "renamed"
    copy.save()
    key.refresh_from_db()
    assert key.name == "renamed"
    assert key.last_used_at is not None
    assert key.version == version + 1


def test_revoking_is_for_good_and_counts_what_it_revoked() -> None:
    first, _ = make_key()
    second, _ = make_key()
    assert services.revoke_keys(keys=APIKey.objects.filter(pk=first.pk)) == 1
    first.refresh_from_db()
    moment = first.revoked_at
    assert services.revoke_keys(keys=APIKey.objects.filter(pk__in=[first.pk, second.pk])) == 1
    first.refresh_from_db()
    assert first.revoked_at == moment


def test_states() -> None:
    now = timezone.now()
    key, _ = make_key(expires_at=now + timedelta(hours=1))
    assert services.state_of(key, now) == "active"
    assert services.state_of(key, key.expires_at) == "expired"
    key.revoked_at = now
    assert services.state_of(key, now) == "revoked"


def test_the_demo_key_is_made_once_and_not_again_when_it_was_revoked() -> None:
    secret = services.demo_key()
    assert secret is not None
    key = APIKey.objects.get(prefix=secret.prefix)
    assert (key.name, key.plan.name, key.scopes) == ("demo", "demo", ["read"])
    assert services.demo_key() is None
    services.revoke_keys(keys=APIKey.objects.all())
    assert services.demo_key() is None


def test_without_the_demo_plan_there_is_no_demo_key() -> None:
    Plan.objects.filter(name="demo").delete()
    assert services.demo_key() is None


def test_thousands_of_keys_can_be_noted_at_once() -> None:
    key, _ = make_key()
    services.note_use(key_ids=[*range(10_000, 12_000), key.pk])
    key.refresh_from_db()
    assert key.last_used_at is not None

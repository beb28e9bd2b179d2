"""The one check: who has this key, from where, until when, and what may they do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError
from django.utils import timezone as django_timezone
from pytest_django import DjangoAssertNumQueries

from argus.access import check, keys, lookup, services
from argus.access.limits.windows import Windows
from argus.access.models import APIKey, Plan
from argus.access.principal import DATA_TYPES, Principal
from argus.errors import (
    ADDRESS_NOT_ALLOWED,
    DATA_TYPE_NOT_ALLOWED,
    FORBIDDEN,
    KEY_EXPIRED,
    KEY_INVALID,
    KEY_REVOKED,
    NOT_AUTHENTICATED,
    NOT_READY,
    RATE_LIMITED,
    SYMBOL_LIMIT,
    ArgusError,
    Problem,
)
from marketdata.types import DataType
from tests.access.factory import make_key, make_plan, make_principal


def refusal(call: Callable[[], Any]) -> ArgusError:
    with pytest.raises(ArgusError) as caught:
        call()
    return caught.value


def problem_of(key: str, address: str | None = "192.0.2.1") -> Problem:
    return refusal(lambda: check.authenticate_sync(key, address)).problem


@pytest.fixture(autouse=True)
def fresh_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_misses", Windows(60.0, capacity=100))


def test_the_data_types_of_plans_are_those_of_the_stream() -> None:
    assert set(DATA_TYPES) == set(DataType)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer   abc "}, "abc"),
        ({"x-api-key": " abc "}, "abc"),
        ({"authorization": "Basic eDp5", "x-api-key": "abc"}, "abc"),
        ({"authorization": "Bearer abc", "x-api-key": "def"}, "abc"),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer "}, None),
        ({"authorization": "abc"}, None),
        ({"x-api-key": ""}, None),
    ],
)
def test_a_key_is_read_from_either_header(headers: dict[str, str], key: str | None) -> None:
    assert check.key_of(headers) == key


@pytest.mark.django_db
class TestAuthenticate:
    def test_a_good_key_is_a_principal_with_its_plans_limits(self) -> None:
        plan = make_plan(requests_per_minute=7, connections=3, symbols=5, data_types=["quote", "status"], priority=2)
        key, text = make_key(plan, scopes=["read", "operate"], networks=["192.0.2.0/24"])
        principal = check.authenticate_sync(text, "192.0.2.9")
        assert (principal.key_id, principal.prefix, principal.plan) == (key.pk, key.prefix, plan.name)
        assert principal.scopes == {"read", "operate"}
        assert principal.networks == (ip_network("192.0.2.0/24"),)
        limits = principal.limits
        assert (limits.requests_per_minute, limits.connections, limits.symbols, limits.priority) == (7, 3, 5, 2)
        assert limits.data_types == {"quote", "status"}

    @pytest.mark.parametrize(
        "text", ["x", "argus_abcdefgh_short", "argus_" * 10_000, "\ud800", "é" * 58, "argus_abcdefgh_" + "a" * 44]
    )
    def test_what_cannot_be_a_key_is_refused_without_a_query(
        self, text: str, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        with django_assert_num_queries(0):
            assert problem_of(text) is KEY_INVALID

    def test_no_key_is_another_problem_than_a_wrong_one(self) -> None:
        assert problem_of("") is NOT_AUTHENTICATED

    def test_a_known_key_costs_one_query_and_then_none(self, django_assert_num_queries: DjangoAssertNumQueries) -> None:
        _, text = make_key()
        with django_assert_num_queries(1):
            for _ in range(20):
                check.authenticate_sync(text, None)

    def test_an_unknown_key_costs_one_query_and_then_none(self, django_assert_num_queries: DjangoAssertNumQueries) -> None:
        text = keys.new().text
        with django_assert_num_queries(1):
            for _ in range(20):
                assert problem_of(text) is KEY_INVALID

    def test_the_right_prefix_with_another_secret_is_unknown(self) -> None:
        key, text = make_key()
        assert problem_of(f"argus_{key.prefix}_{keys.new().text[-43:]}") is KEY_INVALID
        assert check.authenticate_sync(text, None).key_id == key.pk

    def test_a_revoked_key_is_refused(self) -> None:
        key, text = make_key()
        services.revoke_keys(keys=APIKey.objects.filter(pk=key.pk))
        assert problem_of(text) is KEY_REVOKED

    def test_an_expired_key_is_refused(self) -> None:
        key, text = make_key()
        APIKey.objects.filter(pk=key.pk).update(expires_at=django_timezone.now())
        assert problem_of(text) is KEY_EXPIRED

    def test_a_flood_of_unknown_keys_stops_costing_queries_and_does_not_touch_other_addresses(
        self, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        monkeypatch.setattr(check, "MISSES", 20)
        _, known = make_key()
        check.authenticate_sync(known, "192.0.2.66")
        with django_assert_num_queries(20):
            problems = [problem_of(keys.new().text, "192.0.2.66") for _ in range(200)]
        assert problems == [KEY_INVALID] * 20 + [RATE_LIMITED] * 180
        error = refusal(lambda: check.authenticate_sync(keys.new().text, "192.0.2.66"))
        assert 1 <= error.params["retry_after"] <= 60
        assert check.authenticate_sync(known, "192.0.2.66")  # known here: costs nothing
        assert problem_of(keys.new().text, "192.0.2.1") is KEY_INVALID

    def test_a_key_stands_in_no_error_and_no_log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        key, text = make_key(networks=["10.0.0.0/8"])
        principal = check.authenticate_sync(text, "10.0.0.1")
        errors = [refusal(lambda: check.authenticate_sync(text, "192.0.2.1"))]
        services.revoke_keys(keys=APIKey.objects.filter(pk=key.pk))
        check.cache.clear()
        errors.append(refusal(lambda: check.authenticate_sync(text, "10.0.0.1")))
        wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
        errors.append(refusal(lambda: check.authenticate_sync(wrong, "10.0.0.1")))
        shown = f"{principal!r} {key!r} {key} {vars(key)} {caplog.text}"
        for error in errors:
            shown += f"{error!r} {error} {error.params} {error.document('r')} {error.reply('r')}"
        assert text[-43:] not in shown
        assert wrong[-43:] not in shown

    def test_a_database_that_is_away_leaves_the_keys_that_are_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _, known = make_key()
        _, new = make_key()
        check.authenticate_sync(known, None)

        def away(*_: object) -> None:
            raise OperationalError("the database is away")

        monkeypatch.setattr(lookup, "by_digest", away)
        monkeypatch.setattr(check.cache, "ALONE", 0.0)
        assert check.authenticate_sync(known, None)
        assert problem_of(new) is NOT_READY


NOON = datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=UTC)


@pytest.mark.django_db
def test_a_key_expires_exactly_at_its_moment() -> None:
    key, _ = make_key()
    key.expires_at = NOON
    known = lookup.known(key)
    moment = lookup.milliseconds(NOON)
    assert check.admit(known, None, moment - 1)
    for late in (moment, moment + 1):
        assert refusal(lambda late=late: check.admit(known, None, late)).problem is KEY_EXPIRED  # type: ignore[misc]


def test_a_part_of_a_millisecond_does_not_prolong_a_key() -> None:
    assert lookup.milliseconds(NOON) == 1_795_176_000_250
    assert lookup.milliseconds(NOON + timedelta(microseconds=999)) == 1_795_176_000_250


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        (None, False),
        ("unknown", False),
    ],
)
def test_a_key_with_networks_works_from_these_alone(address: str | None, allowed: bool) -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    principal = msgspec.structs.replace(make_principal(), networks=networks)
    if allowed:
        assert check.admit(principal, address) is principal
    else:
        assert refusal(lambda: check.admit(principal, address)).problem is ADDRESS_NOT_ALLOWED


def test_scopes_are_required() -> None:
    check.require(make_principal(), "read")
    assert refusal(lambda: check.require(make_principal(), "operate")).problem is FORBIDDEN


def test_data_types_are_required_and_the_refusal_names_them() -> None:
    principal = make_principal(data_types=["quote", "price"])
    check.require_data_types(principal, [DataType.QUOTE, DataType.PRICE])
    error = refusal(lambda: check.require_data_types(principal, [DataType.QUOTE, DataType.STATUS, DataType.ORDERBOOK]))
    assert error.problem is DATA_TYPE_NOT_ALLOWED
    assert error.params == {"data_types": ["orderbook", "status"], "allowed": ["price", "quote"]}
    assert error.reply(None)["message"] == "The plan plan includes price, quote, not orderbook, status."


def test_symbols_are_limited_inclusively() -> None:
    check.require_symbols(make_principal(symbols=10), 10)
    error = refusal(lambda: check.require_symbols(make_principal(symbols=10), 11))
    assert error.problem is SYMBOL_LIMIT
    assert error.params == {"limit": 10, "count": 11}


def test_every_refusal_can_be_written_as_json_in_both_languages() -> None:
    from django.utils.translation import override

    for language in ("en", "zh-hans"):
        with override(language):
            for call in (
                lambda: check.require(make_principal(), "operate"),
                lambda: check.require_symbols(make_principal(), 11),
                lambda: check.require_data_types(make_principal(data_types=["quote"]), ["price"]),
            ):
                error = refusal(call)
                assert msgspec.json.decode(msgspec.json.encode(error.document("r")))["request_id"] == "r"
                assert msgspec.json.encode(error.reply("r"))


@pytest.mark.django_db(transaction=True)
class TestAsync:
    async def test_a_thousand_requests_with_a_new_key_make_one_query(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _, text = await sync_to_async(make_key)()
        queries: list[str] = []
        by_digest = lookup.by_digest

        def counted(prefix: str, digest: str) -> tuple[int, Any] | None:
            queries.append(prefix)
            return by_digest(prefix, digest)

        monkeypatch.setattr(lookup, "by_digest", counted)
        answers = await asyncio.gather(*(check.authenticate(text, None) for _ in range(1000)))
        assert len(queries) == 1
        assert all(isinstance(answer, Principal) for answer in answers)
        assert not check._flights

    async def test_a_digest_will_do_where_the_key_is_not_at_hand(self) -> None:
        key, text = await sync_to_async(make_key)()
        principal = await check.authenticate_digest(key.prefix, keys.digest(text), None)
        assert principal.key_id == key.pk
        with pytest.raises(ArgusError) as caught:
            await check.authenticate_digest(key.prefix, keys.digest("another"), None)
        assert caught.value.problem is KEY_INVALID

    async def test_a_request_that_gives_up_does_not_take_the_lookup_from_the_others(self) -> None:
        _, text = await sync_to_async(make_key)()
        first, second = (asyncio.create_task(check.authenticate(text, None)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).scopes == {"read"}

    async def test_lookups_that_wait_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check, "PENDING", 5)
        flood = (check.authenticate(keys.new().text, f"192.0.2.{number}") for number in range(50))
        answers = await asyncio.gather(*flood, return_exceptions=True)
        problems = [answer.problem for answer in answers if isinstance(answer, ArgusError)]
        assert len(problems) == 50
        assert set(problems) == {KEY_INVALID, NOT_READY}
        assert problems.count(KEY_INVALID) >= 5

    async def test_a_change_during_a_lookup_is_in_its_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        key, text = await sync_to_async(make_key)()
        by_digest = lookup.by_digest
        asked: list[str] = []

        def overtaken(prefix: str, digest: str) -> tuple[int, Any] | None:
            answer = by_digest(prefix, digest)
            if not asked:
                # Revoked after the database has answered and noticed before the answer is here.
                services.revoke_keys(keys=APIKey.objects.filter(pk=key.pk))
                check.cache.drop(key.pk)
            asked.append(prefix)
            return answer

        monkeypatch.setattr(lookup, "by_digest", overtaken)
        with pytest.raises(ArgusError) as caught:
            await check.authenticate(text, None)
        assert caught.value.problem is KEY_REVOKED
        assert len(asked) == 2


@pytest.mark.django_db
def test_the_plans_of_a_fresh_installation_are_there() -> None:
    names = set(Plan.objects.values_list("name", flat=True))
    assert names >= {"demo", "free", "standard", "professional", "unlimited"}
    for plan in Plan.objects.all():
        plan.full_clean()

"""Plans of before a key's subscriptions and a connection's messages were limited: nobody may do less than before."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.db import connection

from argus.access import lookup
from argus.access.models import Plan
from argus.access.principal import MESSAGES_PER_SECOND, SUBSCRIPTIONS, Principal
from streaming.subscriptions import MAX_SUBSCRIPTIONS
from tests.access.factory import make_key, make_plan

migration = importlib.import_module("argus.access.migrations.0005_stream_limits")


@pytest.mark.django_db
def test_a_plan_goes_on_allowing_what_its_connections_and_requests_allowed() -> None:
    small, large = make_plan(), make_plan(connections=2_000, requests_per_minute=60_001)
    migration.allow_what_was_allowed(apps, SimpleNamespace(connection=connection))
    small.refresh_from_db()
    large.refresh_from_db()
    assert (small.subscriptions, small.messages_per_second) == (SUBSCRIPTIONS, MESSAGES_PER_SECOND)
    assert (large.subscriptions, large.messages_per_second) == (2_000 * MAX_SUBSCRIPTIONS, 1001)


@pytest.mark.django_db
def test_every_default_plan_allows_what_it_allowed() -> None:
    for plan in Plan.objects.all():
        assert plan.subscriptions >= plan.connections * MAX_SUBSCRIPTIONS
        assert plan.messages_per_second * 60 >= plan.requests_per_minute


@pytest.mark.django_db
def test_a_keys_principal_has_its_plans_limits() -> None:
    row, _ = make_key(make_plan(subscriptions=7, messages_per_second=3))
    known = lookup.known(row)
    assert isinstance(known, Principal)
    assert (known.limits.subscriptions, known.limits.messages_per_second) == (7, 3)

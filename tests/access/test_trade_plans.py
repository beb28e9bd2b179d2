"""Plans of before there were trades: who had everything has these too, and who had chosen keeps the choice."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.db import connection

from argus.access.models import Plan
from argus.access.principal import DATA_TYPES
from tests.access.factory import make_plan

migration = importlib.import_module("argus.access.migrations.0004_trades")
BEFORE = [name for name in DATA_TYPES if name != "trade"]


@pytest.mark.django_db
def test_plans_with_every_data_type_gain_the_trades_and_lose_them_again() -> None:
    everything, chosen = make_plan(data_types=BEFORE), make_plan(data_types=["quote", "kline:1m"])
    migration.add_trades(apps, SimpleNamespace(connection=connection))
    assert Plan.objects.get(pk=everything.pk).data_types == list(DATA_TYPES)
    assert Plan.objects.get(pk=chosen.pk).data_types == ["quote", "kline:1m"]
    migration.take_trades_away(apps, SimpleNamespace(connection=connection))
    assert Plan.objects.get(pk=everything.pk).data_types == BEFORE


@pytest.mark.django_db
def test_the_default_plans_with_everything_have_them() -> None:
    assert "trade" in Plan.objects.get(name="standard").data_types
    assert "trade" not in Plan.objects.get(name="free").data_types

"""The console shows reference data as it is stored, and lets nobody change it."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from marketdata.models import Dividends, Instrument, MainContract, Sector, TradingDates
from marketdata.reference import store

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stored")]


@pytest.fixture
def admin() -> Client:
    client = Client(headers={"Accept-Language": "en"})
    client.force_login(get_user_model().objects.create_superuser("root", password="x"))
    return client


@pytest.mark.parametrize(
    ("model", "shows"),
    [
        (Instrument, "平安银行"),
        (Sector, "000300.SH"),
        (TradingDates, "2026-10-09"),
        (MainContract, "IF2612.IF"),
        (Dividends, "600900.SH"),
    ],
)
def test_every_page_shows_its_rows_and_lets_nobody_change_them(admin: Client, model: type, shows: str) -> None:
    # On 2026-10-09 the exchanges trade, which the source leaves out.
    store.save_trading_dates(source="scripted", market="SH", dates=["2026-10-08", "2026-10-12"])
    Dividends.objects.create(symbol="600900.SH", rows=[], source="scripted", refreshed_at=timezone.now())
    name = f"admin:marketdata_{model._meta.model_name}"  # type: ignore[attr-defined]
    page = admin.get(reverse(f"{name}_changelist"))
    assert page.status_code == 200
    assert shows in page.content.decode()
    row = model.objects.first()  # type: ignore[attr-defined]
    detail = admin.get(reverse(f"{name}_change", args=[row.pk]))
    assert detail.status_code == 200
    assert 'name="_save"' not in detail.content.decode()
    assert admin.get(reverse(f"{name}_add")).status_code == 403


def test_an_instrument_is_found_by_its_initials(admin: Client) -> None:
    page = admin.get(reverse("admin:marketdata_instrument_changelist"), {"q": "payh"}).content.decode()
    assert "000001.SZ" in page
    assert "600900.SH" not in page

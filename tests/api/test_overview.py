"""The admin's first page says how things are, and its figures come for administrators alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from argus.access.models import APIKey
from argus.access.services import revoke_keys
from argus.config import config
from marketdata.latest import LatestStore, store
from monitoring import overview
from streaming.models import LiveConnection
from tests.api.conftest import Keys

FIGURES = "/admin/overview.json"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def administrator() -> Client:
    """A browser that is signed in."""
    django = Client(headers={"Accept-Language": "en"})
    django.force_login(get_user_model().objects.create_superuser("root", password="x"))
    return django


@pytest.fixture
def figure(administrator: Client) -> Callable[[str], dict[str, Any]]:
    """One figure by its id, asked for anew."""

    def ask(id: str) -> dict[str, Any]:
        figures = administrator.get(FIGURES).json()["figures"]
        return next(item for item in figures if item["id"] == id)

    return ask


Figure = Callable[[str], dict[str, Any]]


def test_the_page_shows_every_figure_and_the_terminals(administrator: Client, filled: LatestStore) -> None:
    page = administrator.get("/admin/")
    assert page.status_code == 200
    text = page.content.decode()
    for item in administrator.get(FIGURES).json()["figures"]:
        assert f'data-figure="{item["id"]}"' in text
    assert 'data-terminal="main"' in text
    assert "/static/monitoring/overview.js" in text
    assert "<canvas" in text


def test_strangers_and_ordinary_users_see_nothing(filled: LatestStore) -> None:
    ordinary = Client()
    ordinary.force_login(get_user_model().objects.create_user("someone", password="x"))
    for django in (Client(), ordinary):
        assert django.get("/admin/").status_code == 302
        assert django.get(FIGURES).status_code == 302


def test_the_feed_is_live_silent_or_without_data(figure: Figure, filled: LatestStore) -> None:
    assert (figure("feed")["value"], figure("feed")["level"]) == ("Live", "good")
    filled.feeds["main"].canary_arrived = time.monotonic() - config.stale_after - 5
    assert (figure("feed")["value"], figure("feed")["level"]) == ("Silent", "bad")
    store.clear()
    assert (figure("feed")["value"], figure("feed")["level"]) == ("No data yet", "bad")
    assert figure("stream")["value"] == "–"


def test_it_counts_messages_symbols_and_quotes(administrator: Client, figure: Figure, filled: LatestStore) -> None:
    assert (figure("stream")["value"], figure("stream")["detail"]) == ("1,842", "main, epoch 7")
    assert (figure("symbols")["value"], figure("symbols")["detail"]) == ("6", "simulated data")
    chart = administrator.get(FIGURES).json()["chart"]
    assert len(chart) == overview.CHART_SECONDS
    assert {count for count in chart if count} <= {7}
    assert "7 since the start" in figure("rate")["detail"] or figure("rate")["value"] == "–"


def test_it_counts_living_connections_and_slow_readers(figure: Figure) -> None:
    assert (figure("connections")["value"], figure("connections")["detail"]) == ("0", "nobody is connected")
    now = timezone.now()
    for number, behind in enumerate((False, True, False)):
        LiveConnection.objects.create(
            connection_id=f"c{number}",
            process="p",
            plan=("little", "large")[number % 2],
            connected_at=now,
            behind=behind,
            seen_at=now if number < 2 else now - timedelta(hours=1),
        )
    assert (figure("connections")["value"], figure("connections")["detail"]) == ("2", "large 1 · little 1")
    assert (figure("slow")["value"], figure("slow")["level"]) == ("1", "warning")


def test_it_counts_working_keys_by_plan(figure: Figure, keys: Keys) -> None:
    assert (figure("keys")["value"], figure("keys")["detail"]) == ("3", "large 2 · little 1")
    revoke_keys(keys=APIKey.objects.filter(plan__name="little"))
    assert (figure("keys")["value"], figure("keys")["detail"]) == ("2", "large 2")


def test_a_terminal_that_another_process_serves_is_told_so(administrator: Client) -> None:
    [terminal] = administrator.get(FIGURES).json()["terminals"]
    assert (terminal["name"], terminal["state"]) == ("main", "in a worker of its own")


def test_reference_data_is_shown_and_cannot_be_changed(administrator: Client) -> None:
    from marketdata.models import Instrument
    from tests.symbols.test_universe import save, told

    save(told("600000.SH", name="浦发银行"), 沪深300=["600000.SH"])
    assert "浦发银行" in administrator.get("/admin/marketdata/instrument/?q=600000").content.decode()
    assert "沪深300" in administrator.get("/admin/marketdata/sector/").content.decode()
    pk = Instrument.objects.get().pk
    assert administrator.get(f"/admin/marketdata/instrument/{pk}/change/").status_code == 200
    assert administrator.post(f"/admin/marketdata/instrument/{pk}/change/", {"name": "x"}).status_code == 403
    assert administrator.get("/admin/marketdata/instrument/add/").status_code == 403
    assert administrator.post(f"/admin/marketdata/instrument/{pk}/delete/").status_code == 403

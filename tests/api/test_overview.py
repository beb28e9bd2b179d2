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
from msgspec import structs

from argus.access.models import APIKey
from argus.access.services import revoke_keys
from argus.config import config
from marketdata.latest import LatestStore, store
from marketdata.terminals import roster, states
from marketdata.terminals.models import Pool, Terminal
from marketdata.terminals.states import TerminalReport
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


def terminals(administrator: Client) -> dict[str, dict[str, Any]]:
    """The terminals' list, asked for anew."""
    return {row["id"]: row for row in administrator.get(FIGURES).json()["terminals"]}


def test_a_terminal_is_as_its_worker_reports_whichever_process_that_is(administrator: Client) -> None:
    assert (terminals(administrator)["main"]["state"], terminals(administrator)["main"]["level"]) == ("unknown", "warning")
    now = time.time_ns() // 1_000_000
    report = TerminalReport(
        pool="main",
        process="another",
        source="qmt",
        state="up",
        publishing=True,
        address="192.0.2.10:58610",
        version="4.2",
        canary=now,
        quoted=now,
        clock=now,
        restarts=2,
        dropped=3,
    )
    states.tell("main", report)
    found = terminals(administrator)["main"]
    assert (found["name"], found["state"], found["level"]) == ("main", "up", "good")
    for text in ("publishing", "QMT", "market time", "192.0.2.10:58610", "4.2", "2 restarts", "3 quotes merged"):
        assert text in found["detail"], text
    states.tell("main", structs.replace(report, state="down", detail="connection refused", publishing=False))
    found = terminals(administrator)["main"]
    assert (found["state"], found["level"]) == ("down", "bad")
    assert found["reasons"] == "Its worker has no connection to it."
    assert "connection refused" in found["detail"]
    assert "publishing" not in found["detail"]


def test_the_terminals_are_those_that_there_are_now(administrator: Client) -> None:
    pool = Pool.objects.create(name="main")
    for name in ("a", "b"):
        Terminal.objects.create(pool=pool, name=name)
    roster.look()
    try:
        assert list(terminals(administrator)) == ["a", "b"]
        assert terminals(administrator)["a"]["detail"] == ""
        Pool.objects.create(name="futures", markets="IF")
        Terminal.objects.create(pool=Pool.objects.get(name="futures"), name="c")
        roster.look()
        assert {id: row["detail"] for id, row in terminals(administrator).items()} == {"a": "main", "b": "main", "c": "futures"}
        Terminal.objects.get(name="c").delete()
        Terminal.objects.get(name="b").delete()
        roster.look()
        assert list(terminals(administrator)) == ["a"]
    finally:
        roster.forget()


def test_the_list_leads_those_who_may_see_them_to_the_terminals(administrator: Client) -> None:
    card = '<a class="text-sm text-link" href="/admin/terminals/">'
    assert card in administrator.get("/admin/").content.decode()
    clerk = Client()
    clerk.force_login(get_user_model().objects.create_user("clerk", password="x", is_staff=True))
    page = clerk.get("/admin/").content.decode()
    assert 'data-terminal="main"' in page
    assert card not in page


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

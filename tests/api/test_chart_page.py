"""The console's chart: for those who may see instruments, with tickets that open the chart's addresses and end."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from marketdata.compat import udf_tickets
from marketdata.latest import LatestStore

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = "/admin/chart/"
TICKETS = "/admin/chart/ticket"


@pytest.fixture
def signed_in() -> Callable[..., Client]:
    """A browser of somebody with these permissions."""

    def sign_in(*permissions: str) -> Client:
        person = get_user_model().objects.create_user("clerk", password="x", is_staff=True)
        person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        browser = Client(headers={"Accept-Language": "en"})
        browser.force_login(person)
        return browser

    return sign_in


def test_it_is_for_those_who_may_see_instruments(signed_in: Callable[..., Client]) -> None:
    assert Client().get(PAGE).status_code == 302
    assert Client().post(TICKETS).status_code == 302
    browser = signed_in()
    assert browser.get(PAGE).status_code == 403
    assert browser.post(TICKETS).status_code == 403


def test_the_page_has_every_resolution_and_loads_nothing_from_elsewhere(signed_in: Callable[..., Client]) -> None:
    page = signed_in("view_instrument").get(PAGE)
    assert page.status_code == 200
    text = page.content.decode()
    for resolution in ("1", "5", "15", "30", "60", "1D", "1W", "1M"):
        assert f'data-resolution="{resolution}"' in text
    assert f'data-tickets="{TICKETS}"' in text
    assert 'src="http' not in text


async def test_a_person_s_ticket_opens_the_chart_s_addresses_for_minutes(
    client: httpx.AsyncClient, filled: LatestStore, signed_in: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await sync_to_async(signed_in)("view_instrument")
    assert (await sync_to_async(browser.get)(TICKETS)).status_code == 405
    answer = (await sync_to_async(browser.post)(TICKETS)).json()
    assert answer["expires_in"] == udf_tickets.PERSONS_SECONDS
    quotes = await client.get(f"{answer['url']}/quotes?symbols=000001.SZ")
    assert quotes.json()["d"][0]["v"]["lp"] == 11.38
    assert quotes.headers["ratelimit-limit"] == str(udf_tickets.CONSOLE.requests_per_minute)
    now = udf_tickets.time.time()
    monkeypatch.setattr(udf_tickets.time, "time", lambda: now + udf_tickets.PERSONS_SECONDS + 1)
    late = await client.get(f"{answer['url']}/quotes?symbols=000001.SZ")
    assert (late.status_code, late.json()["name"]) == (401, "ticket_invalid")

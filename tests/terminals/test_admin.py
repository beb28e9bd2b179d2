"""Pools and terminals in the admin: what is saved acts at once and is logged; names are kept; the last pool stays."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils.html import strip_tags

from marketdata.terminals import roster, states
from marketdata.terminals.balance import STRATEGIES
from marketdata.terminals.models import Pool, Terminal
from marketdata.terminals.states import TerminalReport

pytestmark = pytest.mark.django_db(transaction=True)

POOLS = reverse("admin:marketdata_pool_changelist")
ADD_POOL = reverse("admin:marketdata_pool_add")
TERMINALS = reverse("admin:marketdata_terminal_changelist")


@pytest.fixture
def admin() -> Iterator[Client]:
    """A browser that is signed in, and the pool ``main`` with its terminal ``first``."""
    main = Pool.objects.create(name="main")
    Terminal.objects.create(pool=main, name="first")
    roster.look()
    client = Client(headers={"Accept-Language": "en"})
    client.force_login(get_user_model().objects.create_superuser("root", password="x"))
    yield client
    roster.forget()


def form(**fields: Any) -> dict[str, Any]:
    """A pool's form with one terminal below it."""
    terminal = {"name": "a", "address": "", "role": "active", "weight": 2, "concurrent": 2, "maintenance": "", "enabled": "on"}
    inline = {f"terminals-0-{name}": value for name, value in terminal.items()}
    counts = {"terminals-TOTAL_FORMS": 1, "terminals-INITIAL_FORMS": 0}
    pool = {"name": "futures", "strategy": "random", "markets": "IF", "min_size": 1, "max_size": 4, "size": "", "hedge": "on"}
    return pool | inline | counts | fields


def act(admin: Client, action: str, *names: str) -> str:
    chosen = [str(pk) for pk in Terminal.objects.filter(name__in=names).values_list("pk", flat=True)]
    answer = admin.post(TERMINALS, {"action": action, "_selected_action": chosen}, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_pool_is_saved_with_its_terminals_acts_at_once_and_is_logged(admin: Client) -> None:
    with structlog.testing.capture_logs() as lines:
        assert admin.post(ADD_POOL, form()).status_code == 302
    assert roster.current().pools["futures"].terminals[0].weight == 2
    assert [line["event"] for line in lines if "created" in line["event"]] == ["pool_created", "terminal_created"]
    assert all(line["by"].startswith("user ") for line in lines if "created" in line["event"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"markets": ""}, "the pool main serves all markets"),
        ({"min_size": 5}, "it is larger than the most slots"),
        ({"terminals-0-maintenance": "at night"}, "at night"),
        ({"terminals-0-address": "nowhere"}, "is not HOST:PORT"),
        ({"terminals-0-name": "first"}, "already exists"),
    ],
)
def test_a_form_with_a_mistake_saves_nothing_and_says_what_is_wrong(admin: Client, fields: dict[str, Any], says: str) -> None:
    answer = admin.post(ADD_POOL, form(**fields))
    assert answer.status_code == 200
    assert says in answer.content.decode()
    assert set(Pool.objects.values_list("name", flat=True)) == {"main"}


def test_a_name_is_kept_and_what_the_settings_declare_says_so(admin: Client) -> None:
    row = Terminal.objects.get()
    address = reverse("admin:marketdata_terminal_change", args=[row.pk])
    assert 'data-note="declared"' not in admin.get(address).content.decode()
    fields = {"role": "standby", "weight": 1, "concurrent": 2, "address": "", "maintenance": "", "enabled": "on"}
    assert admin.post(address, {"name": "other", **fields}).status_code == 302
    row.refresh_from_db()
    assert (row.name, row.role) == ("first", "standby")
    assert roster.current().terminals["first"].role == "standby"
    Terminal.objects.update(declared=True)
    assert 'data-note="declared"' in admin.get(address).content.decode()


def test_the_last_pool_cannot_be_deleted(admin: Client) -> None:
    main = reverse("admin:marketdata_pool_delete", args=[Pool.objects.get().pk])
    assert admin.post(main, {"post": "yes"}).status_code == 403
    admin.post(ADD_POOL, form())
    assert admin.post(main, {"post": "yes"}).status_code == 302
    assert set(roster.current().pools) == {"futures"}
    assert "delete_selected" not in admin.get(POOLS).content.decode()


def test_terminals_are_drained_resumed_disabled_and_enabled_from_the_list(admin: Client) -> None:
    for action, field, value in (
        ("drain", "drained", True),
        ("resume", "drained", False),
        ("disable", "enabled", False),
        ("enable", "enabled", True),
    ):
        assert "Saved: first" in act(admin, action, "first")
        assert getattr(roster.current().terminals["first"], field) is value


def test_a_probe_from_the_list_says_what_came_of_it(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketdata.terminals.services.PROBED_WITHIN", 0.2)
    assert "first: Its worker did not answer in time." in act(admin, "probe", "first")


def test_the_list_shows_how_terminals_are(admin: Client) -> None:
    now = time.time_ns() // 1_000_000
    report = TerminalReport(
        pool="main", process="w", source="simulated", state="up", publishing=True, canary=now, quoted=now, clock=now, p99=0.25
    )
    states.tell("first", report)
    page = admin.get(TERMINALS).content.decode()
    assert "publishing" in page
    assert "0.250 s" in page
    states.tell("first", TerminalReport(pool="main", process="w", source="simulated", state="down"))
    assert "0.250 s" not in admin.get(TERMINALS).content.decode()


def test_every_state_is_told_in_the_readers_language(admin: Client) -> None:
    admin.cookies["django_language"] = "zh-hans"
    for fields, says in (({"drained": True}, "已排空"), ({"enabled": False}, "已停用")):
        Terminal.objects.update(**fields)
        roster.look()
        [cell] = re.findall(r'<td class="[^"]*field-level.*?</td>', admin.get(TERMINALS).content.decode(), re.DOTALL)
        assert strip_tags(cell).strip() == says


def test_a_strategy_is_called_as_people_call_it(admin: Client) -> None:
    assert "least connections" in admin.get(POOLS).content.decode()
    admin.cookies["django_language"] = "zh-hans"
    assert "最少连接" in admin.get(POOLS).content.decode()
    assert {value for value, _label in Pool._meta.get_field("strategy").flatchoices} == set(STRATEGIES)

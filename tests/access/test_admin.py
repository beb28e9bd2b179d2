"""Keys and plans in the admin, as an operator uses it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from argus.access import check, services
from argus.access.models import APIKey, Plan
from argus.access.principal import DATA_TYPES
from tests.access.factory import make_key, make_plan

pytestmark = pytest.mark.django_db

KEY = re.compile(r"argus_[a-z0-9]{8}_[A-Za-z0-9_-]{43}")
LIST = reverse("admin:access_apikey_changelist")
ADD = reverse("admin:access_apikey_add")


def form(plan: Plan, **values: Any) -> dict[str, Any]:
    return {"name": "desk", "plan": plan.pk, "scopes": ["read"], "networks": "", "expires_at_0": "", "expires_at_1": "", **values}


def change(key: APIKey) -> str:
    return reverse("admin:access_apikey_change", args=[key.pk])


@pytest.fixture(params=["en", "zh-hans"])
def language(request: pytest.FixtureRequest, admin_client: Client) -> str:
    admin_client.defaults["HTTP_ACCEPT_LANGUAGE"] = request.param
    return str(request.param)


def test_a_new_key_is_shown_once_on_the_next_page_and_never_again(admin_client: Client, language: str) -> None:
    answer = admin_client.post(ADD, form(make_plan()))
    assert answer.status_code == 302
    page = admin_client.get(answer.headers["Location"])
    [text] = set(KEY.findall(page.content.decode()))
    key = APIKey.objects.get()
    assert check.authenticate_sync(text, None).key_id == key.pk

    pages = [LIST, change(key), reverse("admin:access_apikey_history", args=[key.pk]), reverse("admin:index"), LIST]
    for address in pages:
        page = admin_client.get(address)
        assert page.status_code == 200
        assert not KEY.search(page.content.decode())
        assert key.digest not in page.content.decode()


def test_a_new_key_is_written_down_nowhere(admin_client: Client) -> None:
    answer = admin_client.post(ADD, form(make_plan()))
    [text] = set(KEY.findall(admin_client.get(answer.headers["Location"]).content.decode()))
    stored = [repr(vars(row)) for model in (APIKey, LogEntry) for row in model.objects.all()]
    stored += [repr(session.get_decoded()) for session in Session.objects.all()]
    assert stored
    assert not [row for row in stored if text[-43:] in row]
    # It went with the browser's own cookie, which is gone by now.
    assert not KEY.search(str(admin_client.cookies[CookieStorage.cookie_name]))


def test_the_message_can_be_copied_and_is_no_way_in_for_scripts(admin_client: Client) -> None:
    page = admin_client.post(ADD, form(make_plan(), name="<script>alert(1)</script>"), follow=True).content.decode()
    assert 'id="new-api-key"' in page
    assert "clipboard" in page
    assert "<script>alert(1)" not in page


def test_a_form_with_mistakes_makes_no_key_and_says_what_is_wrong(admin_client: Client) -> None:
    admin_client.defaults["HTTP_ACCEPT_LANGUAGE"] = "en"
    wrong = form(make_plan(), networks="10.0.0.1/8\nexample.org", expires_at_0="2020-01-01", expires_at_1="00:00:00")
    page = admin_client.post(ADD, wrong)
    assert page.status_code == 200
    content = page.content.decode()
    assert "10.0.0.1/8 has bits set to the right of its mask; the network is 10.0.0.0/8." in content
    assert "example.org is neither an address nor a network" in content
    assert "This moment has passed" in content
    assert not APIKey.objects.exists()


def test_a_new_key_may_read_and_a_new_plan_has_all_data_types_unless_said_otherwise(admin_client: Client) -> None:
    assert admin_client.get(ADD).context["adminform"].form["scopes"].value() == ["read"]
    page = admin_client.get(reverse("admin:access_plan_add"))
    assert page.context["adminform"].form["data_types"].value() == list(DATA_TYPES)


def test_networks_are_written_one_a_line_or_with_commas(admin_client: Client) -> None:
    admin_client.post(ADD, form(make_plan(), networks="10.0.0.0/8, 192.0.2.7\r\n\r\n2001:db8::/32"))
    key = APIKey.objects.get()
    assert key.networks == ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]
    assert "10.0.0.0/8\n192.0.2.7/32\n2001:db8::/32" in admin_client.get(change(key)).content.decode()


def test_editing_a_key_changes_what_it_may_do_and_not_the_key(admin_client: Client) -> None:
    key, text = make_key()
    answer = admin_client.post(change(key), form(key.plan, name="new name", scopes=["operate"]), follow=True)
    assert answer.status_code == 200
    assert not KEY.search(answer.content.decode())
    principal = check.authenticate_sync(text, None)
    assert principal.scopes == {"operate"}
    key.refresh_from_db()
    assert key.name == "new name"


def test_a_key_and_the_list_say_what_state_it_is_in(admin_client: Client) -> None:
    admin_client.defaults["HTTP_ACCEPT_LANGUAGE"] = "en"
    key, _ = make_key()
    services.revoke_keys(keys=APIKey.objects.filter(pk=key.pk))
    assert re.search(r">\s*revoked\s*<", admin_client.get(change(key)).content.decode())
    assert re.search(r">\s*revoked\s*<", admin_client.get(LIST).content.decode().partition("<tbody")[2])


def test_what_machines_write_cannot_be_edited(admin_client: Client) -> None:
    key, _ = make_key()
    before = APIKey.objects.values("prefix", "digest", "revoked_at", "last_used_at", "created_at").get(pk=key.pk)
    forged = {"prefix": "aaaaaaaa", "digest": "0", "revoked_at_0": "2020-01-01", "last_used_at": "x", "created_at": "x"}
    admin_client.post(change(key), form(key.plan, **forged))
    assert APIKey.objects.values("prefix", "digest", "revoked_at", "last_used_at", "created_at").get(pk=key.pk) == before


def test_the_action_revokes_keys_and_writes_it_down(admin_client: Client, language: str) -> None:
    keys = [make_key()[0] for _ in range(3)]
    data = {"action": "revoke", "_selected_action": [key.pk for key in keys[:2]]}
    assert admin_client.post(LIST, data, follow=True).status_code == 200
    assert [APIKey.objects.get(pk=key.pk).revoked_at is not None for key in keys] == [True, True, False]
    assert LogEntry.objects.count() == 2


def test_who_may_only_look_cannot_revoke(client: Client) -> None:
    user = User.objects.create_user("viewer", password="viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    client.force_login(user)
    key, _ = make_key()
    assert client.get(LIST).status_code == 200
    client.post(LIST, {"action": "revoke", "_selected_action": [key.pk]})
    key.refresh_from_db()
    assert key.revoked_at is None
    assert client.get(ADD).status_code == 403


def test_keys_are_found_by_name_prefix_plan_and_state(admin_client: Client) -> None:
    plan = make_plan()
    _active, _ = make_key(plan, name="alpha")
    expired, _ = make_key(name="beta", expires_at=timezone.now() + timedelta(hours=1))
    APIKey.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(hours=1))
    revoked, _ = make_key(name="gamma")
    APIKey.objects.filter(pk=revoked.pk).update(revoked_at=timezone.now())

    def found(**query: Any) -> set[str]:
        return {key.name for key in admin_client.get(LIST, query).context["cl"].result_list}

    assert found() == {"alpha", "beta", "gamma"}
    assert found(q="alp") == {"alpha"}
    assert found(q=revoked.prefix) == {"gamma"}
    assert found(plan__id__exact=plan.pk) == {"alpha"}
    assert found(state="active") == {"alpha"}
    assert found(state="expired") == {"beta"}
    assert found(state="revoked") == {"gamma"}
    assert found(state="nonsense") == {"alpha", "beta", "gamma"}


def test_the_list_makes_no_query_for_each_key(admin_client: Client, django_assert_max_num_queries: Any) -> None:
    for _ in range(20):
        make_key()
    admin_client.get(LIST)
    with django_assert_max_num_queries(15):
        admin_client.get(LIST)


def test_plans_are_edited_with_boxes_for_the_data_types(admin_client: Client, language: str) -> None:
    plan = make_plan()
    address = reverse("admin:access_plan_change", args=[plan.pk])
    assert admin_client.get(address).status_code == 200
    assert admin_client.get(reverse("admin:access_plan_changelist")).status_code == 200
    assert admin_client.get(ADD).status_code == 200
    values = {"name": plan.name, "requests_per_minute": 5, "connections": 0, "symbols": 3, "priority": 2}
    values |= {"subscriptions": 7, "messages_per_second": 9}
    answer = admin_client.post(address, values | {"data_types": ["status", "quote"]})
    assert answer.status_code == 302
    plan.refresh_from_db()
    assert (plan.requests_per_minute, plan.connections, plan.data_types) == (5, 0, ["quote", "status"])
    assert (plan.subscriptions, plan.messages_per_second) == (7, 9)
    assert admin_client.post(address, values).status_code == 200  # no data type at all: refused


def test_a_plan_that_is_in_use_cannot_be_deleted(admin_client: Client) -> None:
    key, _ = make_key()
    admin_client.post(reverse("admin:access_plan_delete", args=[key.plan.pk]), {"post": "yes"})
    assert Plan.objects.filter(pk=key.plan.pk).exists()

"""The console's page of terminals: it says how each is, and its knobs are for those alone who may change them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from marketdata.terminals import roster, states
from marketdata.terminals.models import Pool, Terminal
from marketdata.terminals.states import PoolReport, SlotsReport, TerminalReport

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = "/admin/terminals/"
LIVE = "/admin/terminals.json"
JSON = "application/json"

SignedIn = Callable[..., Client]


@pytest.fixture(autouse=True)
def _main() -> Iterator[None]:
    """The pool ``main`` with two terminals, of which one reports."""
    main = Pool.objects.create(name="main")
    Terminal.objects.create(pool=main, name="first", maintenance="daily 05:00-05:40")
    Terminal.objects.create(pool=main, name="second", role="standby")
    now = time.time_ns() // 1_000_000
    report = TerminalReport(
        pool="main",
        process="w",
        source="simulated",
        state="up",
        publishing=True,
        in_step=True,
        epoch=7,
        canary=now,
        quoted=now,
        clock=now,
        version="<b>4.2</b>",
        p50=0.04,
        p99=1.25,
    )
    states.tell("first", report)
    slots = SlotsReport(size=4, in_flight=3, waiting=2, breaker="half_open", answered=18240, waited_p90=0.02)
    states.tell("main", PoolReport(process="web", strategy="random", terminals={"first": slots}))
    yield
    roster.forget()


@pytest.fixture
def signed_in() -> SignedIn:
    """A browser of somebody who has these permissions; of an administrator where none is named."""

    def sign_in(*permissions: str) -> Client:
        people = get_user_model().objects
        if permissions:
            person = people.create_user("clerk", password="x", is_staff=True)
            person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        else:
            person = people.create_superuser("root", password="x")
        client = Client(headers={"Accept-Language": "en"})
        client.force_login(person)
        return client

    return sign_in


def test_it_says_how_every_terminal_is(signed_in: SignedIn) -> None:
    browser = signed_in()
    news = browser.get(LIVE).json()
    first, second = news["terminals"]["first"], news["terminals"]["second"]
    for text in ("publishing", "3 / 4", "width: 75%", "40 ms / 1.2 s", "2, nearly all under 20 ms", "half open", "18,240"):
        assert text in first["html"], text
    assert "daily 05:00-05:40 (" in first["html"]
    assert "&lt;b&gt;4.2" in first["html"], "what a terminal says of itself is text"
    assert (first["p99"], first["knobs"]["weight"], first["drained"]) == (1.25, 1, False)
    assert "publishing" not in second["html"]
    assert second["knobs"]["role"] == "standby"
    assert "3 / 4" in news["pools"]["main"]["html"]
    assert news["pools"]["main"]["knobs"] == {
        "strategy": "least_connections",
        "min_size": 2,
        "max_size": 4,
        "size": None,
        "hedge": True,
    }
    page = browser.get(PAGE).content.decode()
    assert f'data-shape="{news["shape"]}"' in page
    for name in ("first", "second"):
        assert f'data-terminal="{name}"' in page


def test_a_knob_acts_at_once_and_is_logged(signed_in: SignedIn) -> None:
    browser = signed_in()
    with structlog.testing.capture_logs() as lines:
        assert browser.post("/admin/terminals/pools/main", {"strategy": "random"}, JSON).json() == {"detail": "Saved."}
        assert browser.post("/admin/terminals/terminals/first", {"drained": True}, JSON).status_code == 200
    assert roster.current().pools["main"].strategy == "random"
    assert not roster.current().terminals["first"].serving
    assert {"pool_changed", "terminal_changed"} <= {line["event"] for line in lines if line.get("by", "").startswith("user ")}
    assert browser.get(LIVE).json()["terminals"]["first"]["drained"] is True


@pytest.mark.parametrize(
    ("address", "body", "status", "says"),
    [
        ("pools/main", {"size": 9}, 400, "Fixed slots: it must lie between the least and the most slots"),
        ("pools/main", {"size": 0, "min_size": 0}, 400, "Least slots: Ensure"),
        ("pools/main", {"speed": 9}, 400, "speed: There is no such field"),
        ("pools/none", {"size": 1}, 404, "none"),
        ("terminals/first", {"weight": "much"}, 400, "Weight: A valid integer"),
        ("terminals/none", {"weight": 1}, 404, "none"),
        ("terminals/none/probe", {}, 404, "none"),
    ],
)
def test_what_is_refused_is_said_in_words(signed_in: SignedIn, address: str, body: Any, status: int, says: str) -> None:
    answer = signed_in().post(f"/admin/terminals/{address}", body, JSON)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_the_page_speaks_the_readers_language(signed_in: SignedIn) -> None:
    browser = signed_in()
    browser.cookies["django_language"] = "zh-hans"
    page = browser.get(PAGE).content.decode()
    for text in ("最少连接", "主用", "半开", "发布终端", "维护窗口"):
        assert text in page, text
    for english in ("least connections", ">active<", "half open", ">publishing<", "publisher", ">maintenance<"):
        assert english not in page, english
    refused = browser.post("/admin/terminals/pools/main", {"size": 9}, JSON).json()["detail"]
    assert refused == "固定槽位: 必须介于最少槽位与最多槽位之间"


def test_a_body_that_is_no_json_is_refused(signed_in: SignedIn) -> None:
    browser = signed_in()
    for body in ("{", "[" * 9000, b'"\xff"'):
        answer = browser.post("/admin/terminals/pools/main", body, JSON)
        assert (answer.status_code, answer.json()["name"]) == (400, "bad_json")


def test_a_probe_says_what_came_of_it(signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketdata.terminals.services.PROBED_WITHIN", 0.2)
    answer = signed_in().post("/admin/terminals/terminals/first/probe", {}, JSON)
    assert answer.json() == {"detail": "Its worker did not answer in time."}


def test_who_may_only_look_turns_nothing_and_who_may_not_look_sees_nothing(signed_in: SignedIn) -> None:
    clerk = signed_in("view_terminal")
    page = clerk.get(PAGE)
    assert page.status_code == 200
    assert page.content.decode().count('<fieldset class="terminals-knobs" disabled>') == 3
    for address in ("pools/main", "terminals/first", "terminals/first/probe"):
        assert clerk.post(f"/admin/terminals/{address}", {}, JSON).status_code == 403
    get_user_model().objects.get().user_permissions.clear()
    assert [clerk.get(path).status_code for path in (PAGE, LIVE)] == [403, 403]
    assert [Client().get(path).status_code for path in (PAGE, LIVE)] == [302, 302]


def test_a_change_without_the_page_s_token_is_refused(signed_in: SignedIn) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = signed_in().cookies
    assert strict.post("/admin/terminals/pools/main", {"strategy": "random"}, JSON).status_code == 403
    assert Pool.objects.get().strategy == "least_connections"

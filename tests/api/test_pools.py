"""Pools and terminals over REST: made, read, changed and removed by operators alone, checked as one, acted on at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from django.test import Client
from kombu.exceptions import OperationalError

from marketdata.tasks import poll_quotes
from marketdata.terminals import roster, states
from marketdata.terminals.models import Pool, Terminal
from marketdata.terminals.states import PoolReport, SlotsReport, TerminalReport
from tests.api.conftest import Keys

ROOT = "/api/v1/connection_pool"
MAIN = f"{ROOT}/pools/main"
JSON = "application/json"
FUTURES = {"name": "futures", "markets": "IF,SF", "terminals": [{"name": "a", "weight": 3}, {"name": "b", "role": "standby"}]}

Ask = Callable[..., Any]


@pytest.fixture
def ask(keys: Keys) -> Iterator[Ask]:
    """An operator's request against a database with the pool ``main`` and its terminal ``first``."""
    main = Pool.objects.create(name="main")
    Terminal.objects.create(pool=main, name="first")
    roster.look()
    client = Client(headers={"X-API-Key": keys.operator, "Accept-Language": "en"})

    def request(method: str, path: str, body: Any = None) -> Any:
        return getattr(client, method)(path, *(() if body is None else (body,)), content_type=JSON)

    yield request
    roster.forget()


def test_a_pool_is_made_with_its_terminals_and_acts_at_once(ask: Ask) -> None:
    answer = ask("post", f"{ROOT}/pools", FUTURES)
    assert (answer.status_code, answer.headers["Location"]) == (201, f"{ROOT}/pools/futures")
    made = answer.json()
    assert [(row["name"], row["weight"], row["role"]) for row in made["terminals"]] == [("a", 3, "active"), ("b", 1, "standby")]
    assert ask("get", f"{ROOT}/pools/futures").json() == made
    assert [pool["name"] for pool in ask("get", f"{ROOT}/pools").json()["pools"]] == ["futures", "main"]
    assert roster.current().pools["futures"].markets == ("IF", "SF")
    assert roster.current().terminals["a"].weight == 3


def test_what_was_read_can_be_put_back_and_a_put_resets_what_it_leaves_out(ask: Ask) -> None:
    made = ask("post", f"{ROOT}/pools", FUTURES).json()
    assert ask("put", f"{ROOT}/pools/futures", made).json() == made
    kept = Terminal.objects.get(name="a").pk
    answer = ask("put", f"{ROOT}/pools/futures", {"markets": "SF", "terminals": [{"name": "a"}, {"name": "c", "weight": 2}]})
    assert [(row["name"], row["weight"]) for row in answer.json()["terminals"]] == [("a", 1), ("c", 2)]
    assert Terminal.objects.get(name="a").pk == kept
    assert set(roster.current().terminals) == {"first", "a", "c"}


def test_markets_may_be_a_list_and_are_answered_as_a_string(ask: Ask) -> None:
    assert ask("post", f"{ROOT}/pools", FUTURES | {"markets": ["IF", "SF"]}).json()["markets"] == "IF,SF"
    assert roster.current().pools["futures"].markets == ("IF", "SF")
    assert ask("patch", f"{ROOT}/pools/futures", {"markets": ["SF"]}).json()["markets"] == "SF"
    assert ask("put", f"{ROOT}/pools/futures", {"markets": ["IF"]}).json()["markets"] == "IF"
    assert ask("patch", MAIN, {"markets": []}).json()["markets"] == ""
    components = ask("get", "/api/schema?format=json").json()["components"]["schemas"]
    for name in ("Pool", "KnownPool", "PatchedKnownPool"):
        assert [one["type"] for one in components[name]["properties"]["markets"]["oneOf"]] == ["string", "array"]


def test_a_terminal_of_another_pool_is_not_taken_from_it(ask: Ask) -> None:
    made = ask("post", f"{ROOT}/pools", FUTURES).json()
    mixed = {"markets": "IF", "terminals": [{"name": "ok"}, {"name": "first"}]}
    for method, path, body, parameter in (
        ("put", f"{ROOT}/pools/futures/terminals/first", {"weight": 4}, "terminal"),
        ("put", f"{ROOT}/pools/futures", mixed, "terminals.1.name"),
        ("post", f"{ROOT}/pools", mixed | {"name": "x", "markets": "ZF"}, "terminals.1.name"),
    ):
        answer = ask(method, path, body)
        assert (answer.status_code, answer.json()["name"], answer.json()["parameter"]) == (409, "conflict", parameter)
        assert answer.json()["detail"] == "The pool main has the terminal first: delete it there first."
    assert {pool.name for pool in Pool.objects.all()} == {"main", "futures"}
    assert ask("get", f"{ROOT}/pools/futures").json() == made
    assert ask("delete", f"{MAIN}/terminals/first").status_code == 204
    assert ask("put", f"{ROOT}/pools/futures/terminals/first", {"weight": 4}).status_code == 201


def test_a_patch_changes_what_it_names_and_nothing_else(ask: Ask) -> None:
    ask("post", f"{ROOT}/pools", FUTURES)
    change = {"strategy": "random", "terminals": [{"name": "b", "per_second": 5, "maintenance": "daily 05:00-05:40"}]}
    pool = ask("patch", f"{ROOT}/pools/futures", change).json()
    assert (pool["strategy"], pool["markets"]) == ("random", "IF,SF")
    first, second = pool["terminals"]
    assert (first["weight"], second["per_second"], second["role"]) == (3, 5, "standby")
    assert roster.current().pools["futures"].strategy == "random"


def test_a_terminal_is_added_changed_and_removed_under_its_own_address(ask: Ask) -> None:
    address = f"{MAIN}/terminals/second"
    added = ask("put", address, {"weight": 4, "per_second": 9})
    assert (added.status_code, added.headers["Location"]) == (201, address)
    assert ask("put", address, {"weight": 5}).status_code == 200
    row = ask("patch", address, {"drained": True}).json()
    assert (row["weight"], row["per_second"], row["drained"]) == (5, None, True)
    assert not roster.current().terminals["second"].serving
    assert ask("get", address).json() == row
    assert ask("delete", address).status_code == 204
    assert ask("get", address).status_code == 404
    assert set(roster.current().terminals) == {"first"}


def test_the_slots_are_fixed_by_hand_and_set_free_again(ask: Ask) -> None:
    assert ask("post", f"{ROOT}/scale", {"pool": "main", "size": 3}).json()["size"] == 3
    assert roster.current().pools["main"].size == 3
    assert ask("post", f"{MAIN}/scale", {"size": None}).json()["size"] is None
    assert roster.current().pools["main"].size is None
    refused = ask("post", f"{ROOT}/scale", {"pool": "main", "size": 5}).json()
    assert (refused["name"], refused["parameter"]) == ("invalid_argument", "size")
    assert "between the least and the most" in refused["detail"]
    assert ask("post", f"{MAIN}/scale", {}).json()["parameter"] == "size"


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"name": "x y", "markets": "IF"}, "name"),
        ({"name": "x", "markets": "ZZ"}, "markets"),
        ({"name": "x", "markets": ["IF", "ZZ"]}, "markets"),
        ({"name": "x", "markets": ["IF", {}]}, "markets"),
        ({"name": "x", "markets": {"IF": 1}}, "markets"),
        ({"name": "x"}, "markets"),
        ({"name": "x", "markets": "IF", "strategy": "best"}, "strategy"),
        ({"name": "x", "markets": "IF", "min_size": 5, "max_size": 4}, "min_size"),
        ({"name": "x", "markets": "IF", "slots": 5}, "slots"),
        ({"name": "x", "markets": "IF", "terminals": {"name": "a"}}, "terminals"),
        ({"name": "x", "markets": "IF", "terminals": [{"name": "a"}, {"name": "b", "weight": 101}]}, "terminals.1.weight"),
        ({"name": "x", "markets": "IF", "terminals": [{"name": "a", "maintenance": "at night"}]}, "terminals.0.maintenance"),
        ({"name": "x", "markets": "IF", "terminals": [{"name": "a", "address": "nowhere"}]}, "terminals.0.address"),
        ({"name": "x", "markets": "IF", "terminals": [{"name": "a", "wait": 1}]}, "terminals.0.wait"),
        ({"name": "x", "markets": "IF", "terminals": [{"name": "a"}, {"name": "a"}]}, "terminals.1.name"),
        ({"name": "x", "markets": "IF", "terminals": [{"name": f"t{number}"} for number in range(101)]}, "terminals"),
        ([], ""),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_nothing_of_it_is_written(ask: Ask, body: Any, parameter: str) -> None:
    answer = ask("post", f"{ROOT}/pools", body)
    problem = answer.json()
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert (problem["name"], problem["parameter"]) == ("invalid_argument", parameter)
    assert problem["errors"][0]["parameter"] == parameter
    assert [pool.name for pool in Pool.objects.all()] == ["main"]
    assert [terminal.name for terminal in Terminal.objects.all()] == ["first"]


def test_all_that_is_wrong_is_said_at_once(ask: Ask) -> None:
    body = {"min_size": 0, "terminals": [{"name": "first", "weight": 0}]}
    errors = ask("patch", MAIN, body).json()["errors"]
    assert {error["parameter"] for error in errors} == {"min_size", "terminals.0.weight"}


def test_what_cannot_be_is_refused_and_leaves_everything_as_it_is(ask: Ask) -> None:
    before = ask("get", MAIN).json()
    assert ask("patch", MAIN, {"strategy": "random", "terminals": [{"name": "none", "weight": 2}]}).status_code == 404
    assert ask("patch", MAIN, {"name": "other"}).json()["parameter"] == "name"
    assert ask("patch", MAIN, {"terminals": [{"weight": 2}]}).json()["parameter"] == "terminals.0.name"
    last = ask("delete", MAIN)
    assert (last.status_code, last.json()["name"]) == (409, "conflict")
    taken = ask("post", f"{ROOT}/pools", {"name": "main"})
    assert (taken.status_code, taken.json()["name"]) == (409, "conflict")
    assert ask("get", MAIN).json() == before
    for method in ("get", "put", "patch", "delete"):
        assert ask(method, f"{ROOT}/pools/none", {"markets": "IF"} if method in ("put", "patch") else None).status_code == 404
    ask("post", f"{ROOT}/pools", FUTURES)
    assert ask("get", f"{MAIN}/terminals/a").status_code == 404, "it is another pool's"
    assert ask("delete", MAIN).status_code == 204
    assert set(roster.current().pools) == {"futures"}


def test_each_change_is_logged_with_the_key_that_made_it(ask: Ask, keys: Keys) -> None:
    with structlog.testing.capture_logs() as lines:
        ask("patch", MAIN, {"strategy": "random", "terminals": [{"name": "first", "weight": 7}]})
        ask("patch", MAIN, {"strategy": "random"})
        ask("put", f"{MAIN}/terminals/second", {})
        ask("delete", f"{MAIN}/terminals/second")
    told = [(line["event"], line.get("changes")) for line in lines if line["event"].startswith(("pool_", "terminal_"))]
    assert told == [
        ("pool_changed", {"strategy": ["least_connections", "random"]}),
        ("terminal_changed", {"weight": [1, 7]}),
        ("terminal_created", None),
        ("terminal_deleted", None),
    ]
    assert all(line["by"].startswith("key ") for line in lines if line["event"] == "terminal_changed")


def test_readers_and_strangers_see_and_change_nothing(ask: Ask, keys: Keys) -> None:
    paths = {
        f"{ROOT}/pools": ("get", "post"),
        MAIN: ("get", "put", "patch", "delete"),
        f"{MAIN}/terminals/first": ("get", "put", "patch", "delete"),
        f"{ROOT}/metrics": ("get",),
        f"{MAIN}/metrics": ("get",),
        f"{ROOT}/health_check": ("get",),
        f"{MAIN}/health_check": ("get",),
        f"{ROOT}/scale": ("post",),
        f"{MAIN}/scale": ("post",),
    }
    reader = Client(headers={"X-API-Key": keys.reader})
    for path, methods in paths.items():
        for method in methods:
            assert getattr(reader, method)(path).status_code == 403, path
            assert getattr(Client(), method)(path).status_code == 401, path


def told(state: str = "up", **values: Any) -> TerminalReport:
    now = time.time_ns() // 1_000_000
    settled: dict[str, Any] = {"source": "simulated", "canary": now, "quoted": now, "clock": now, "p50": 0.04, "p99": 0.3}
    return TerminalReport(pool="main", process="w:1", state=state, **settled | values)


def test_the_figures_are_those_of_all_processes_together(ask: Ask) -> None:
    states.tell("first", told(publishing=True, in_step=True, epoch=7))
    for process, breaker, waited in (("web:1", "closed", 0.5), ("web:2", "half_open", 0.2)):
        slots = SlotsReport(size=4, in_flight=1, waiting=2, breaker=breaker, answered=10, hedged=1, waited_p90=waited)
        states.tell("main", PoolReport(process=process, strategy="random", terminals={"first": slots}))
    pool = ask("get", f"{MAIN}/metrics").json()
    assert (pool["publishing"], pool["epoch"], pool["size"], pool["in_flight"], pool["waiting"]) == ("first", 7, 8, 2, 4)
    [terminal] = pool["terminals"]
    assert (terminal["breaker"], terminal["answered"], terminal["hedged"], terminal["waited_p90"]) == ("half_open", 20, 2, 0.5)
    assert (terminal["p50"], terminal["p99"], terminal["state"]) == (0.04, 0.3, "up")
    assert [process["process"] for process in terminal["processes"]] == ["web:1", "web:2"]
    assert ask("get", f"{ROOT}/metrics").json()["pools"] == [pool]


def test_figures_of_a_terminal_of_which_nobody_reports_are_not_known(ask: Ask) -> None:
    [terminal] = ask("get", f"{MAIN}/metrics").json()["terminals"]
    assert (terminal["state"], terminal["p99"], terminal["epoch"], terminal["size"]) == ("", None, None, 0)
    assert terminal["processes"] == []


def test_it_is_healthy_while_each_pool_has_a_terminal_that_answers(ask: Ask) -> None:
    down = ask("get", f"{ROOT}/health_check")
    assert (down.status_code, down.json()["name"], down.json()["healthy"]) == (503, "not_ready", False)
    [terminal] = down.json()["pools"][0]["terminals"]
    assert terminal["reasons"]
    assert terminal["detail"]
    states.tell("first", told())
    well = ask("get", f"{ROOT}/health_check")
    assert (well.status_code, well.json()["healthy"]) == (200, True)
    ask("post", f"{ROOT}/pools", FUTURES)
    both = ask("get", f"{ROOT}/health_check")
    assert both.status_code == 503
    assert {pool["name"]: pool["healthy"] for pool in both.json()["pools"]} == {"main": True, "futures": False}
    assert ask("get", f"{MAIN}/health_check").status_code == 200
    assert ask("get", f"{MAIN}/health_check?probe=perhaps").json()["parameter"] == "probe"
    assert ask("get", f"{MAIN}/health_check?prob=true").json()["parameter"] == "prob"


def test_a_poll_that_no_broker_carries_is_told_so(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: Any) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(poll_quotes, "apply_async", away)
    answer = ask("post", "/api/v1/terminals/first/poll")
    assert (answer.status_code, answer.json()["name"]) == (503, "source_unavailable")
    assert answer.json()["detail"] == "first: the broker does not answer (OperationalError)."

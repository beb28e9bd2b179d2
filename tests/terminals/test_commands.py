"""The commands, as an operator uses them: what they print, what they end with, what they refuse."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from argus.config import config
from marketdata.management.commands import terminal_worker, terminals
from marketdata.sources.base import Capability
from marketdata.terminals import keeper, probing, roster, states
from marketdata.terminals.models import Pool, Report, Terminal
from marketdata.terminals.probing import Probe
from marketdata.terminals.states import PoolReport, SlotsReport, TerminalReport

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def two() -> Iterator[None]:
    """A pool of two terminals, one of which nobody has ever heard of."""
    pool = Pool.objects.create(name="main")
    Terminal.objects.create(pool=pool, name="a", address="127.0.0.1:1", version="250807", maintenance="daily 05:00-05:40")
    Terminal.objects.create(pool=pool, name="b", role="standby", address="127.0.0.1:2")
    yield
    roster.forget()


def report(**other: Any) -> TerminalReport:
    now = int(time.time() * 1000)
    told: dict[str, Any] = {"pool": "main", "process": "host:7", "source": "qmt", "state": "up", "canary": now, "quoted": now}
    return TerminalReport(**(told | {"capabilities": tuple(Capability), "p50": 0.05, "p99": 0.4} | other))


def run(*words: str) -> tuple[str, str]:
    """Standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    call_command(*words, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


def refused(*words: str) -> tuple[str, int]:
    with pytest.raises(CommandError) as caught:
        run(*words)
    return str(caught.value), caught.value.returncode


def test_the_list_shows_every_terminal_and_why_it_is_not_up() -> None:
    states.tell("a", report(publishing=True))
    out, _ = run("terminals", "list")
    head, first, second = out.splitlines()
    assert head.split()[:5] == ["TERMINAL", "POOL", "ROLE", "LEVEL", "FEED"]
    assert first.split()[:5] == ["a", "main", "active", "up", "publishing"]
    assert {"0.050", "0.400", "250807", "127.0.0.1:1"} <= set(first.split())
    assert second.split()[:4] == ["b", "main", "standby", "unknown"]
    assert "terminal_worker" in second


def test_the_list_is_also_for_programs_and_may_be_of_some() -> None:
    states.tell("a", report(in_step=True, detail="fine"))
    (found,) = json.loads(run("terminals", "list", "a", "--json")[0])
    assert (found["name"], found["level"], found["detail"], found["in_step"]) == ("a", "up", "fine", True)
    assert found["last_seen"].endswith("+08:00")


@pytest.mark.parametrize("action", ["list", "probe"])
def test_that_no_terminal_is_set_up_is_said_and_is_no_failure(action: str) -> None:
    Terminal.objects.all().delete()
    told = "no terminal is set up: add one in the admin, over REST or in ARGUS_TERMINALS\n"
    out, err = run("terminals", action)
    assert (len(out.splitlines()), err) == (1, told)
    out, err = run("terminals", action, "--json")
    assert (bool(json.loads(out)), err) == (False, told)


def test_without_an_action_only_that_is_asked_for() -> None:
    with pytest.raises(CommandError, match=r"the following arguments are required: action$"):
        run("terminals")


@pytest.mark.parametrize("action", ["list", "probe", "drain", "resume"])
def test_a_name_that_is_not_known_is_refused_with_those_that_are(action: str) -> None:
    text, code = refused("terminals", action, "a", "zz")
    assert (text, code) == ("There is no terminal zz; there is: a, b.", 2)
    assert not Terminal.objects.filter(drained=True).exists()


@pytest.mark.parametrize("action", ["drain", "resume"])
def test_all_at_once_is_not_meant_by_naming_none(action: str) -> None:
    assert refused("terminals", action)[1] == 2


def test_a_probe_that_fails_shows_all_and_ends_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], float]] = []

    def probe(names: list[str], timeout: float) -> dict[str, Probe]:
        asked.append((names, timeout))
        well = Probe(ok=True, outcome="ok", state="up", version="250807", capabilities=("bars", "quotes"), seconds=0.012)
        return {name: well if name == "a" else Probe(ok=False, outcome="no_answer", detail="gone") for name in names}

    monkeypatch.setattr(probing, "probe", probe)
    assert "0.012" in run("terminals", "probe", "a")[0]
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"The probe failed: b\.") as caught:
        call_command("terminals", "probe", "--json", "--timeout", "3", stdout=out)
    assert caught.value.returncode == 1
    assert {name: one["ok"] for name, one in json.loads(out.getvalue()).items()} == {"a": True, "b": False}
    assert asked == [(["a"], config.source_timeout + 2), (["a", "b"], 3.0)]


def test_drain_waits_until_the_terminal_is_at_rest_and_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminals, "SETTLED", 0.0)
    monkeypatch.setattr(terminals, "LOOK", 0.05)
    states.tell("a", report(publishing=True))
    slots = SlotsReport(size=2, in_flight=1, waiting=0, breaker="closed")
    err = io.StringIO()
    draining = threading.Thread(target=lambda: call_command("terminals", "drain", "a", stdout=io.StringIO(), stderr=err))
    draining.start()

    def wait_for(text: str) -> None:
        until = time.monotonic() + 20
        while text not in err.getvalue() and time.monotonic() < until:
            time.sleep(0.02)
        assert text in err.getvalue()

    wait_for("a: it publishes")
    states.tell("main", PoolReport(process="web:1", strategy="random", terminals={"a": slots}))
    states.tell("a", report(in_flight=0))
    wait_for("a: 1 in flight")
    states.tell(
        "main", PoolReport(process="web:1", strategy="random", terminals={"a": msgspec.structs.replace(slots, in_flight=0)})
    )
    draining.join(20)
    assert not draining.is_alive()
    assert Terminal.objects.get(name="a").drained
    out, _ = run("terminals", "resume", "a")
    assert not Terminal.objects.get(name="a").drained
    assert "drained" not in out


def test_drain_does_not_wait_for_ever_and_the_terminal_stays_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminals, "LOOK", 0.02)
    states.tell("a", report(publishing=True))
    text, code = refused("terminals", "drain", "a", "--timeout", "0.1")
    assert ("not at rest: a" in text, "resume a" in text, code) == (True, True, 1)
    assert Terminal.objects.get(name="a").drained


def test_draining_the_last_one_says_what_becomes_of_the_feed() -> None:
    assert run("terminals", "drain", "a")[1] == ""
    assert "The pool main has no other terminal in use" in run("terminals", "drain", "b")[1]


# --- the worker's command


@pytest.fixture
def qmt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a terminal's host: Redis is named, and the source is QMT."""
    set_up = config.model_copy(update={"redis_url": "redis://127.0.0.1:1/0", "source": "qmt"})
    monkeypatch.setattr(terminal_worker, "config", set_up)
    monkeypatch.setattr(terminal_worker.checks, "redis_answers", lambda _: [])
    monkeypatch.setattr(keeper, "begin", lambda: None)


def test_without_redis_a_worker_of_its_own_makes_no_sense() -> None:
    text, code = refused("terminal_worker", "a")
    assert ("REDIS_URL is not set" in text, "run.py up" in text, code) == (True, True, 2)


@pytest.mark.usefixtures("qmt")
def test_an_unknown_terminal_is_refused_with_those_that_are_known() -> None:
    text, code = refused("terminal_worker", "zz")
    assert ("there is: a, b" in text, code) == (True, 2)


@pytest.mark.usefixtures("qmt")
def test_a_terminal_without_an_address_is_refused() -> None:
    Terminal.objects.filter(name="a").update(address="")
    assert refused("terminal_worker", "a") == ("a has no address: give it HOST:PORT of the terminal.", 2)


@pytest.mark.usefixtures("qmt")
def test_where_the_vendors_package_is_not_installed_it_says_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal_worker.importlib.util, "find_spec", lambda name: None)
    text, code = refused("terminal_worker", "a")
    assert ("pip install -r requirements-qmt.txt" in text, code) == (True, 2)


@pytest.mark.usefixtures("qmt")
def test_a_terminal_that_is_not_there_yet_is_no_reason_not_to_start() -> None:
    out, _ = run("terminal_worker", "a", "--check")
    assert "nothing answers at 127.0.0.1:1" in out
    assert "a can start" in out
    with socket.create_server(("127.0.0.1", 0)) as there:
        Terminal.objects.filter(name="a").update(address=f"127.0.0.1:{there.getsockname()[1]}")
        assert run("terminal_worker", "a", "--check")[0] == "argus: a can start.\n"


@pytest.mark.usefixtures("qmt")
def test_a_terminal_that_another_worker_has_is_refused_unless_forced() -> None:
    states.tell("a", report())
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(0.2):
            states.tell("a", report())

    other = threading.Thread(target=go_on)
    other.start()
    try:
        text, code = refused("terminal_worker", "a", "--check")
        assert "a can start" in run("terminal_worker", "a", "--check", "--force")[0]
    finally:
        ended.set()
        other.join()
    assert ("Another worker has a: host:7" in text, code) == (True, 3)


@pytest.mark.usefixtures("qmt")
def test_one_that_was_killed_a_moment_ago_is_waited_for() -> None:
    states.tell("a", report())
    Report.objects.update(seen_at=timezone.now() - timedelta(seconds=states.FRESH - 1))
    out, _ = run("terminal_worker", "a", "--check")
    assert "host:7 has reported of a" in out
    assert "a can start" in out

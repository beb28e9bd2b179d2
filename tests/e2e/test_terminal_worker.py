"""A terminal's worker by its own command, beside an emulated terminal: what hangs dies, and the worker lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import ROOT, call, get, over_terminal, wait_for
from tests.emulator import EmulatedTerminal, child_environment

pytestmark = [pytest.mark.timeout(240)]

WORKER = ("manage.py", "terminal_worker", "main")
SETTINGS = {"ARGUS_STALE_AFTER": "4", "ARGUS_SOURCE_TIMEOUT": "2"}
STOP_WITHIN = 5.0


@pytest.fixture(scope="module")
def terminal() -> Iterator[EmulatedTerminal]:
    with EmulatedTerminal(interval=0.5) as terminal:
        yield terminal


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, terminal: EmulatedTerminal) -> Iterator[Any]:
    directory, settings = tmp_path_factory.mktemp("worker"), SETTINGS | child_environment()
    with over_terminal(directory, terminal.address, scaled=True, worker=WORKER, **settings) as service:
        yield service


@pytest.fixture
def service(running: Any, terminal: EmulatedTerminal) -> Any:
    """With its terminal, its worker and all modes as they were at the start."""
    terminal.set_mode(frozen=False, freeze_on=[])
    if not terminal.runs:
        terminal.start()
    if "worker" not in running.processes:
        running.start("worker", *WORKER)
    running.ready(running.port, "web")
    return running


def manage(service: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, env=service.env, capture_output=True, text=True, timeout=60
    )


def poll(service: Any) -> str:
    status, body, _ = call("POST", service.port, "/api/v1/terminals/main/poll", service.key)
    return body["outcome"] if status == 200 else body["name"]


def probed(service: Any) -> Any:
    return json.loads(manage(service, "terminals", "probe", "main", "--json").stdout)["main"]


def test_a_call_that_hangs_costs_the_child_its_life_and_the_worker_goes_on(service: Any, terminal: EmulatedTerminal) -> None:
    worker = service.processes["worker"]
    assert "qmt_child_killed" not in service.log("worker")
    terminal.set_mode(freeze_on=["get_full_tick"])
    wait_for(lambda: "qmt_child_killed" in service.log("worker"), "the child whose call hangs to be killed", 30)
    terminal.set_mode(freeze_on=[])
    wait_for(lambda: poll(service) == "ok", "a poll of the child that came after it", 30)
    wait_for(lambda: get(service.port, "/health/ready")[0] == 200, "the service to be ready again")
    assert worker.poll() is None
    assert probed(service)["ok"]


def test_the_commands_see_drain_and_resume_it_and_a_second_worker_is_refused(service: Any, terminal: EmulatedTerminal) -> None:
    found = wait_for(lambda: (answer := probed(service))["ok"] and answer, "a probe that goes well")
    assert {"quotes", "push", "bars"} <= set(found["capabilities"])
    (listed,) = json.loads(manage(service, "terminals", "list", "--json").stdout)
    assert (listed["level"], listed["publishing"], listed["address"]) == ("up", True, terminal.address)
    assert set(listed["capabilities"]) == set(found["capabilities"])

    second = manage(service, *WORKER[1:])
    assert (second.returncode, "Another worker has main" in second.stderr) == (3, True)

    drained = manage(service, "terminals", "drain", "main", "--timeout", "30")
    assert drained.returncode == 0, drained.stderr
    assert "falls silent" in drained.stderr
    health = wait_for(lambda: (body := get(service.port, "/health", service.key)[1])["ready"] is False and body, "not ready")
    assert health["terminals"]["main"]["level"] == "drained"
    assert manage(service, "terminals", "resume", "main").returncode == 0
    wait_for(lambda: get(service.port, "/health/ready")[0] == 200, "the service to be ready again")

    terminal.kill()
    wait_for(lambda: not probed(service)["ok"], "a probe of what is gone to fail")
    assert manage(service, "terminals", "probe").returncode == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_seconds_while_a_call_hangs_and_leaves_no_child(
    service: Any, terminal: EmulatedTerminal, how: signal.Signals
) -> None:
    terminal.set_mode(frozen=True)
    wait_for(lambda: not get(service.port, "/health", service.key)[1]["ready"], "polls that hang")
    children = descendants(service.processes["worker"].pid)
    assert children
    began = time.monotonic()
    assert service.stop("worker", how) == 0
    assert time.monotonic() - began < STOP_WITHIN
    wait_for(lambda: not any(map(alive, children)), "the child to be gone", 10)


def descendants(pid: int) -> list[int]:
    """The children that any of a process' threads has started."""
    found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for children in found for child in children]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

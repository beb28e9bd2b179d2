"""A QMT terminal (emulated) behind the service: bars come into the archive, and a backfill outlives its terminal."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RedisServer
from tests.e2e.service import Service, call, free_port, get, wait_for
from tests.emulator import EmulatedTerminal, child_environment

pytestmark = [pytest.mark.timeout(240)]

START, END = "2025-07-14", "2025-07-25"


@pytest.fixture
def terminal() -> Iterator[EmulatedTerminal]:
    with EmulatedTerminal(interval=0.5) as terminal:
        yield terminal


@pytest.fixture(params=["embedded", "scaled"])
def service(request: pytest.FixtureRequest, tmp_path: Path, terminal: EmulatedTerminal) -> Iterator[Any]:
    """The service with one web process at ``port``, and a key for all that there is."""
    settings = {"ARGUS_STALE_AFTER": "4", "ARGUS_SOURCE_TIMEOUT": "3", "ARGUS_FETCH_TIMEOUT": "8"} | child_environment()
    redis_server = None
    if request.param == "scaled":
        redis_server = RedisServer(tmp_path)
        redis_server.start()
        settings |= {"REDIS_URL": redis_server.url, "ARGUS_SOURCE": "qmt", "ARGUS_TERMINALS": f"main={terminal.address}"}
    service = Service(tmp_path, **settings)
    service.port = free_port()
    try:
        service.manage("migrate", "--verbosity", "0")
        service.key = service.manage("create_key", "all", "--plan", "unlimited", "--scopes", "read", "operate").strip()
        if redis_server is None:
            service.start(
                "web", "manage.py", "up", "--port", str(service.port), "--source", "qmt", "--terminal", f"main={terminal.address}"
            )
        else:
            service.start("worker", "-m", "celery", "-A", "argus", "worker", "-Q", "terminal.main,argus")
            service.start("beat", "-m", "celery", "-A", "argus", "beat")
            service.start("web", "manage.py", "serve", "--port", str(service.port))
        service.ready(service.port, "web")
        yield service
        service.close()
    finally:
        for process in service.processes.values():
            process.kill()
        if redis_server is not None:
            redis_server.stop()


def post(service: Any, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    headers = {"X-API-Key": service.key, "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{service.port}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, json.loads(answer.read())


def asked(terminal: EmulatedTerminal) -> int:
    return len(terminal.called("get_market_data3"))


def test_bars_come_from_the_terminal_once_and_from_the_archive_after_that(service: Any, terminal: EmulatedTerminal) -> None:
    path = f"/api/v1/market_data/history?symbols=600000.SH&period=1d&start={START}&end={END}"
    status, body, _ = get(service.port, path, service.key)
    assert status == 200, body
    assert len(body["data"]) == 10, body
    before = asked(terminal)
    assert before > 0
    status, again, _ = get(service.port, path, service.key)
    assert (status, again["data"]) == (200, body["data"])
    assert asked(terminal) == before
    terminal.kill()
    status, offline, _ = get(service.port, path.replace("1d", "1w"), service.key)
    assert (status, len(offline["data"])) == (200, 2), offline


def test_a_backfill_waits_for_its_terminal_and_ends_when_it_is_back(service: Any, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(zero_fill=["000001.SZ"])
    terminal.kill()
    wait_for(lambda: get(service.port, "/health/ready")[0] == 503, "the service to notice")
    job_asked = {"symbols": ["600000.SH", "000001.SZ"], "period": "1m", "start": START, "end": END}
    status, job = post(service, "/api/v1/backfills", job_asked)
    assert (status, job["state"]) == (202, "waiting")
    path = f"/api/v1/backfills/{job['id']}"

    def told() -> dict[str, Any]:
        return dict(get(service.port, path, service.key)[1])

    wait_for(lambda: "waiting for the terminal" in told()["detail"], "the job to wait for its terminal")
    terminal.restart()
    done = wait_for(lambda: (job := told())["state"] == "done" and job, "the job to end", 90)
    assert done["percent"] == 100.0
    assert done["bars"] == 2410
    assert sum(done["refused"].values()) > 0, "zero-filled rows are refused and reported"
    assert {problem["symbol"] for problem in done["problems"]} == {"000001.SZ"}
    terminal.kill()
    history = f"/api/v1/market_data/history?symbols=600000.SH&period=5m&start={START}&end={END}&limit=1000"
    status, body, _ = get(service.port, history, service.key)
    assert (status, len(body["data"])) == (200, 480), body
    assert call("DELETE", service.port, path, service.key)[1]["state"] == "done", "what has ended stays as it is"

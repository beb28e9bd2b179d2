"""Behind the whole service: bars come into the archive, and a backfill outlives its terminal (emulated QMT) and its worker."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RedisServer
from tests.e2e.service import Service, call, free_port, get, over_terminal, wait_for
from tests.emulator import EmulatedTerminal, child_environment

pytestmark = [pytest.mark.timeout(240)]

START, END = "2025-07-14", "2025-07-25"


@pytest.fixture
def terminal() -> Iterator[EmulatedTerminal]:
    with EmulatedTerminal(interval=0.5) as terminal:
        yield terminal


@pytest.fixture(params=["embedded", "scaled"])
def service(request: pytest.FixtureRequest, tmp_path: Path, terminal: EmulatedTerminal) -> Iterator[Any]:
    settings = {"ARGUS_STALE_AFTER": "4", "ARGUS_SOURCE_TIMEOUT": "3", "ARGUS_FETCH_TIMEOUT": "8"} | child_environment()
    with over_terminal(tmp_path, terminal.address, scaled=request.param == "scaled", **settings) as service:
        yield service


def post(service: Any, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    headers = {"X-API-Key": service.key, "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{service.port}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, json.loads(answer.read())


def asked(terminal: EmulatedTerminal) -> int:
    return len(terminal.called("get_market_data3"))


def months_asked(terminal: EmulatedTerminal, code: str) -> set[str]:
    """The months of which the terminal was asked for minutes of a code, by the first day of each call."""
    calls = terminal.called("get_market_data3")
    return {call["arguments"][1][:6] for call in calls if code in call["first"] and call["arguments"][0] == "1m"}


def test_bars_come_from_the_terminal_once_and_from_the_archive_after_that(service: Any, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(pad=["600000.SH"])
    path = f"/api/v1/market_data/history?symbols=600000.SH&period=1d&start={START}&end={END}"
    status, body, _ = get(service.port, path, service.key)
    assert status == 200, body
    assert len(body["data"]) == 10, "rows on days without trading are refused"
    refused = get(service.port, "/metrics", service.key)[1]
    assert re.search(r'argus_bars_refused_total{[^}]*reason="date"[^}]*} [1-9]', refused), "and reported"
    before = asked(terminal)
    assert before > 0
    status, again, _ = get(service.port, path, service.key)
    assert (status, again["data"]) == (200, body["data"])
    assert asked(terminal) == before
    terminal.kill()
    status, offline, _ = get(service.port, path.replace("1d", "1w"), service.key)
    assert (status, len(offline["data"])) == (200, 2), offline


@pytest.mark.parametrize("service", ["embedded"], indirect=True)
def test_a_backfill_waits_for_its_terminal_and_goes_on_when_it_is_back(service: Any, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(zero_fill=["000001.SZ"], pad=["600000.SH"], latency=0.3)
    job_asked = {"symbols": ["600000.SH", "000001.SZ"], "period": "1m", "start": START, "end": "2025-08-07"}
    status, job = post(service, "/api/v1/backfills", job_asked)
    assert (status, job["state"]) == (202, "waiting")
    path = f"/api/v1/backfills/{job['id']}"

    def told() -> dict[str, Any]:
        return dict(get(service.port, path, service.key)[1])

    wait_for(lambda: told()["chunks_done"] == 1, "the first month")
    assert "202508" in months_asked(terminal, "600000.SH")
    terminal.kill()
    waiting = wait_for(
        lambda: "waiting for the terminal" in (job := told())["detail"] and job, "the job to wait for its terminal"
    )
    assert (waiting["state"], waiting["percent"], waiting["chunks_total"]) == ("running", 25.0, 4)
    terminal.set_mode(latency=0.0)
    terminal.restart()
    done = wait_for(lambda: (job := told())["state"] == "done" and job, "the job to end", 90)
    assert months_asked(terminal, "600000.SH") == {"202507"}, "what had come is not asked for again"
    assert done["percent"] == 100.0
    assert done["bars"] == 19 * 241 + 2, "the one minute that is not zero makes no day: it came again in the second pass"
    assert done["refused"]["zero"] > 0, "zero-filled rows are refused and reported"
    assert done["refused"]["date"] > 0, "and those of days without trading"
    assert {problem["symbol"] for problem in done["problems"]} == {"000001.SZ"}
    terminal.kill()
    history = f"/api/v1/market_data/history?symbols=600000.SH&period=5m&start={START}&end={END}&limit=1000"
    status, body, _ = get(service.port, history, service.key)
    assert (status, len(body["data"])) == (200, 480), body
    assert call("DELETE", service.port, path, service.key)[1]["state"] == "done", "what has ended stays as it is"
    _, job = post(service, "/api/v1/backfills", {**job_asked, "start": "2025-06-03", "end": "2025-06-30"})
    path = f"/api/v1/backfills/{job['id']}"
    wait_for(lambda: "waiting for the terminal" in told()["detail"], "a job that waits")
    assert service.stop("web") == 0
    assert "backfill_given_back" in service.log("web")


WORK = {"first": "terminal.first,argus", "second": "terminal.second"}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Any]:
    """A service with two terminals (simulated), a worker for each; the first one's also does the jobs."""
    redis_server = RedisServer(tmp_path)
    redis_server.start()
    settings = {"ARGUS_TERMINALS": "first,second", "ARGUS_SIMULATED_SYMBOLS": "160", "ARGUS_FETCH_TIMEOUT": "8"}
    service = Service(tmp_path, REDIS_URL=redis_server.url, **settings)
    service.port = free_port()
    try:
        service.key = service.install_with_key()
        for name in WORK:
            start_worker(service, name)
        service.start("beat", "-m", "celery", "-A", "argus", "beat")
        service.start("web", "manage.py", "serve", "--port", str(service.port))
        service.ready(service.port, "web")
        yield service
        service.close()
    finally:
        service.kill()
        redis_server.stop()


def start_worker(service: Service, name: str) -> None:
    service.start(name, "-m", "celery", "-A", "argus", "worker", "-Q", WORK[name], "-n", f"{name}@%h")


def fetched(service: Service) -> int:
    """Answers from terminals that the worker of jobs has got."""
    return service.log("first").count('"event":"fetched"')


def test_a_backfill_outlives_its_worker_and_requests_go_to_the_other_terminal_meanwhile(pair: Any) -> None:
    # None of them is halted in these months: a day without minutes would be asked for a second time.
    symbols = [f"6000{number}.SH" for number in (11, 12, 13, 16, 17)]
    wanted = {"symbols": symbols, "period": "1m", "start": "2025-07-01", "end": "2026-06-30"}
    status, job = post(pair, "/api/v1/backfills", wanted)
    assert status == 202
    path = f"/api/v1/backfills/{job['id']}"

    def told() -> dict[str, Any]:
        return dict(get(pair.port, path, pair.key)[1])

    wait_for(lambda: told()["chunks_done"] >= 1, "the first month")
    assert pair.stop("first") == 0
    left = told()
    assert (left["state"], left["chunks_total"]) == ("waiting", 12), "it was given back"
    start_worker(pair, "first")
    wait_for(lambda: told()["chunks_done"] > left["chunks_done"] + 1, "it to go on by itself")
    pair.stop("first", signal.SIGKILL)
    left = told()
    assert (left["state"], left["chunks_total"]) == ("running", 12)
    assert left["chunks_done"] < 12
    # Nobody answers for the first terminal any more: of the request's time one half is waited for it.
    asked = "/api/v1/market_data/history?symbols=600000.SH,000002.SZ&period=1d&start=2026-03-02&end=2026-03-31"
    status, body, _ = get(pair.port, asked, pair.key)
    assert (status, body["missing"]) == (200, {})
    assert post(pair, path, {})[1]["state"] == "running", "its worker may only be slow"
    later = "from marketdata.models import Backfill; Backfill.objects.update(beat_at='2026-01-01T00:00:00Z')"
    pair.manage("shell", "-c", later)
    start_worker(pair, "first")
    assert post(pair, path, {})[1]["state"] in ("waiting", "running")
    done = wait_for(lambda: (job := told())["state"] == "done" and job, "the job to end")
    assert (done["chunks_done"], done["chunks_total"], done["percent"]) == (12, 12, 100.0)
    assert (done["refused"], done["problems"]) == ({}, [])
    # Each worker's first question is what time it is; what was under way may have come and not been written down.
    assert fetched(pair) - 3 in (12, 13, 14)
    again = post(pair, "/api/v1/backfills", wanted)[1]
    path = f"/api/v1/backfills/{again['id']}"
    ended = wait_for(lambda: (job := told())["state"] == "done" and job, "the second job to end")
    assert (ended["chunks_total"], ended["bars"]) == (0, 0), "all of it is here"


def test_many_symbols_are_divided_among_terminals_and_what_one_does_not_give_comes_from_the_other(pair: Any) -> None:
    months = iter([f"2025-{month:02}" for month in range(8, 13)] + [f"2026-{month:02}" for month in range(1, 7)])
    all_of_sz = "/api/v1/market_data/history?symbols=market:SZ&period=1d"
    day = f"{all_of_sz}&start=2025-07-15&end=2025-07-15"
    wait_for(lambda: len(get(pair.port, day, pair.key)[1].get("data", ())) > 70, "the reference data")

    def ask() -> tuple[int, Any]:
        """A month that nobody has asked for, of some eighty symbols."""
        month = next(months)
        status, body, _ = get(pair.port, f"{all_of_sz}&start={month}-01&end={month}-28", pair.key)
        return status, body

    def answered_by() -> list[str]:
        events = [json.loads(line) for line in pair.log("web").splitlines() if '"event":"fetched"' in line]
        return [event["terminal"] for event in events]

    def whole() -> list[str]:
        """Ask for a month, which must come whole; who answered."""
        before = len(answered_by())
        status, body = ask()
        assert (status, body["stale"]) == (200, False), body
        assert {"source_unavailable", "deadline"}.isdisjoint(body["missing"].values()), body["missing"]
        return sorted(answered_by()[before:])

    assert whole() == ["first", "second"]
    # It hangs: its queue takes what it is given, and nothing comes back.
    pair.processes["second"].send_signal(signal.SIGSTOP)
    assert whole() == ["first", "first"]
    assert whole() == ["first"], "who has just failed is left out, so there is nobody to divide it with"
    pair.processes["second"].send_signal(signal.SIGCONT)
    wait_for(lambda: (time.sleep(2), whole())[1] == ["first", "second"], "the second one to be asked again")
    for name in WORK:
        pair.stop(name, signal.SIGKILL)
    status, problem, _ = get(pair.port, day.replace("SZ", "SH"), pair.key)
    assert (status, problem["type"]) == (504, "urn:argus:problem:deadline"), problem
    assert {f"{name}: no answer within" in problem["detail"] for name in WORK} == {True}, problem

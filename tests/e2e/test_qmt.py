"""A QMT terminal (emulated) under the embedded service and under a worker of its own: dies, returns, answers late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import call, get, over_terminal, receive, receive_data, stream, wait_for
from tests.emulator import EmulatedTerminal, child_environment

pytestmark = [pytest.mark.timeout(240)]


@pytest.fixture
def terminal() -> Iterator[EmulatedTerminal]:
    with EmulatedTerminal(interval=0.5) as terminal:
        yield terminal


@pytest.fixture(params=["embedded", "scaled"])
def service(request: pytest.FixtureRequest, tmp_path: Path, terminal: EmulatedTerminal) -> Iterator[Any]:
    settings = {"ARGUS_STALE_AFTER": "4", "ARGUS_SOURCE_TIMEOUT": "3", "ARGUS_HEARTBEAT_INTERVAL": "1"} | child_environment()
    with over_terminal(tmp_path, terminal.address, scaled=request.param == "scaled", **settings) as service:
        yield service


def test_a_terminals_quotes_reach_a_client_through_its_death_and_return(service: Any, terminal: EmulatedTerminal) -> None:
    with stream(service.port, service.key, symbols=["*"]) as client:
        first = receive_data(client)
        assert {quote["source"] for quote in first["data"]} == {"qmt"}
        symbol = first["data"][0]["symbol"]
        terminal.kill()
        wait_for(lambda: get(service.port, "/health/ready")[0] == 503, "the service to notice")
        wait_for(lambda: (message := receive(client))["type"] == "heartbeat" and message["stale"], "a heartbeat that says stale")
        status, body, _ = get(service.port, f"/api/v1/market_data/latest?symbols={symbol}", service.key)
        assert (status, body["stale"], len(body["data"])) == (200, True, 1)
        before = get(service.port, "/health", service.key)[1]["streams"]["main"]["seq"]
        terminal.restart()
        wait_for(lambda: get(service.port, "/health/ready")[0] == 200, "the service to be ready again")
        wait_for(lambda: (message := receive(client))["type"] == "heartbeat" and not message["stale"], "a fresh heartbeat")
        wait_for(lambda: receive_data(client)["seq"] > before, "quotes of the restarted terminal")


def test_one_request_id_goes_to_the_terminals_child_and_back(service: Any) -> None:
    def poll() -> None:
        status, body, headers = call(
            "POST", service.port, "/api/v1/terminals/main/poll", service.key, **{"X-Request-ID": "trace-qmt-1"}
        )
        assert (status, body["request_id"], headers["x-request-id"]) == (200, "trace-qmt-1", "trace-qmt-1")

    def seen() -> set[str]:
        text = "".join(path.read_text() for path in [*service.directory.glob("*.log"), *service.directory.glob("logs/*")])
        return {json.loads(line)["logger"] for line in text.splitlines() if "trace-qmt-1" in line and line.startswith("{")}

    def is_everywhere() -> bool:
        # Where another poll is under way, one does not reach the child.
        poll()
        return {"marketdata.tasks"} < seen() and any("qmt" in logger for logger in seen())

    wait_for(is_everywhere, "the id in every log", 30)

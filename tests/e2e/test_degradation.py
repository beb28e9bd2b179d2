"""No terminal answers: what is here is still answered and says how old it is, health says why, and all heals by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import get, over_terminal, receive, stream, wait_for
from tests.emulator import EmulatedTerminal, child_environment

pytestmark = [pytest.mark.timeout(240)]

HISTORY = "/api/v1/market_data/history?symbols=600000.SH&period=1d&start=2025-07-14&end="
KNOWN, UNKNOWN = HISTORY + "2025-07-25", HISTORY + "2025-07-31"


@pytest.fixture
def terminal() -> Iterator[EmulatedTerminal]:
    with EmulatedTerminal(interval=0.5) as terminal:
        yield terminal


@pytest.fixture
def service(tmp_path: Path, terminal: EmulatedTerminal) -> Iterator[Any]:
    settings = {"ARGUS_STALE_AFTER": "3", "ARGUS_SOURCE_TIMEOUT": "2", "ARGUS_HEARTBEAT_INTERVAL": "1"} | child_environment()
    with over_terminal(tmp_path, terminal.address, scaled=False, **settings) as service:
        yield service


def level(service: Any) -> str:
    return str((get(service.port, "/health")[1]["terminals"] or {"main": {"level": "not known"}})["main"]["level"])


def ask(service: Any, path: str) -> dict[str, Any]:
    status, body, _ = get(service.port, path, service.key)
    assert status == 200, body
    return dict(body)


def test_all_that_is_here_is_answered_while_no_terminal_is_and_everything_heals(service: Any, terminal: EmulatedTerminal) -> None:
    wait_for(lambda: level(service) == "up", "the terminal to be up")
    assert json.loads(service.manage("terminals", "probe", "--json"))["main"]["ok"], "asked from another process"
    fresh = ask(service, KNOWN)
    assert (fresh["stale"], fresh["age"], len(fresh["data"])) == (False, None, 10)
    full = ask(service, "/api/v1/market_data/full")
    assert (full["stale"], full["missing"]) == (False, [])
    assert full["age"] < 3
    with stream(service.port, service.key, symbols=["*"]) as client:
        terminal.kill()
        wait_for(lambda: (message := receive(client))["type"] == "heartbeat" and message["stale"], "the stream to say stale")
        health = wait_for(lambda: (found := get(service.port, "/health/ready"))[0] == 503 and found[1], "not ready")
        assert health["terminals"]["main"]["level"] == "down"
        assert "the terminal main is down: Its worker has no connection to it." in health["reason"]
        assert get(service.port, "/health/live")[0] == 200

        old = ask(service, "/api/v1/market_data/full")
        assert (old["stale"], len(old["data"])) == (True, len(full["data"]))
        assert old["age"] >= 3
        assert ask(service, KNOWN)["data"] == fresh["data"]
        part = ask(service, UNKNOWN)
        assert (part["stale"], part["data"], set(part["missing"])) == (True, fresh["data"], {"600000.SH"})
        assert part["age"] > 0

        terminal.start()
        wait_for(lambda: get(service.port, "/health/ready")[0] == 200, "the service to be ready again")
        wait_for(lambda: (message := receive(client))["type"] == "heartbeat" and not message["stale"], "the stream to be fresh")
    wait_for(lambda: level(service) == "up", "the terminal to be up again")
    assert not ask(service, "/api/v1/market_data/full")["stale"]
    healed = wait_for(lambda: not (found := ask(service, UNKNOWN))["stale"] and found, "bars of the terminal that is back", 60)
    assert (healed["age"], len(healed["data"])) == (None, 14)

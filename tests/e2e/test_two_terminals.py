"""Two terminals (emulated) in the embedded service: one publishes, the other stands by and goes on when the first is gone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.e2e.service import Service, free_port, get, receive, receive_data, stream, wait_for
from tests.emulator import EmulatedTerminal, child_environment

pytestmark = [pytest.mark.timeout(240)]

NAMES = ("first", "second")
STOP_WITHIN = 3.0
"""Seconds: the promise that is made to whoever ends the service."""


@pytest.fixture
def terminals() -> Iterator[dict[str, EmulatedTerminal]]:
    with EmulatedTerminal(interval=0.5, name="first") as first, EmulatedTerminal(interval=0.5, name="second") as second:
        yield dict(zip(NAMES, (first, second), strict=True))


@pytest.fixture
def service(tmp_path: Path, terminals: dict[str, EmulatedTerminal]) -> Iterator[Any]:
    service = Service(tmp_path, ARGUS_SOURCE_TIMEOUT="3", ARGUS_STALE_AFTER="20", **child_environment())
    service.port = free_port()
    try:
        service.key = service.install_with_key()
        options = [word for name in NAMES for word in ("--terminal", f"{name}={terminals[name].address}")]
        service.start("web", "manage.py", "up", "--port", str(service.port), "--source", "qmt", *options)
        service.ready(service.port, "web")
        yield service
        service.close()
    finally:
        service.kill()


def active(service: Any) -> str:
    """The terminal whose feed publishes, as the metrics tell."""
    text = get(service.port, "/metrics", service.key)[1]
    found = re.findall(r'argus_feed_active{[^}]*terminal="(\w+)"[^}]*} 1\.0', text)
    return found[0] if len(found) == 1 else ""


def frame_of_a_larger_epoch(client: ClientConnection, than: int) -> dict[str, Any]:
    """The first data of the next term; nothing in between says that the stream is stale."""
    while True:
        message = receive(client, 30)
        assert not message.get("stale")
        if message["type"] == "data" and message["epoch"] > than:
            return message


@pytest.mark.parametrize("fault", ["killed", "frozen", "empty"])
def test_the_standby_goes_on_when_the_active_terminal_is(
    service: Any, terminals: dict[str, EmulatedTerminal], fault: str
) -> None:
    with stream(service.port, service.key, symbols=["*"]) as client:
        first = receive_data(client)
        name = wait_for(lambda: active(service), "one feed of the two to be active")
        # Its calls may take a minute, and a terminal that hangs in one of them is given that long.
        wait_for(lambda: "reference_refreshed" in service.log("web"), "the reference data")
        standby = next(other for other in NAMES if other != name)
        codes = [quote["symbol"] for quote in get(service.port, "/api/v1/market_data/full", service.key)[1]["data"]]
        break_down(terminals[name], fault, codes)
        second = frame_of_a_larger_epoch(client, first["epoch"])
        assert wait_for(lambda: active(service) == standby, "the standby to say that it is active")
        assert get(service.port, "/health/ready")[0] == 200
        body = get(service.port, "/api/v1/market_data/full", service.key)[1]
        assert (body["stale"], len(body["data"])) == (False, len(codes))
        repair(terminals[name], fault)
        terminals[standby].kill()
        third = frame_of_a_larger_epoch(client, second["epoch"])
        assert third["seq"] >= 1
        assert wait_for(lambda: active(service) == name, "the first to have its feed back")


def break_down(terminal: EmulatedTerminal, fault: str, codes: list[str]) -> None:
    if fault == "killed":
        terminal.kill()
    elif fault == "frozen":
        terminal.set_mode(frozen=True)
    else:
        terminal.set_mode(empty=codes)


def repair(terminal: EmulatedTerminal, fault: str) -> None:
    if fault == "killed":
        terminal.start()
    else:
        terminal.set_mode(frozen=False, empty=[])


def test_bars_come_from_the_other_terminal_and_when_none_answers_both_are_named(
    service: Any, terminals: dict[str, EmulatedTerminal]
) -> None:
    path = "/api/v1/market_data/history?period=1d&start=2025-07-14&end=2025-07-25&symbols="
    terminals["first"].kill()
    status, body, _ = get(service.port, f"{path}600000.SH", service.key)
    assert (status, len(body["data"])) == (200, 10), body
    terminals["second"].kill()
    status, body, _ = get(service.port, f"{path}000001.SZ", service.key)
    assert (status, body["name"]) == (503, "source_unavailable"), body
    assert all(f"{name}: " in body["detail"] for name in NAMES), body
    status, body, _ = get(service.port, f"{path}600000.SH", service.key)
    assert (status, len(body["data"])) == (200, 10), "what is here is still answered"


def test_the_service_ends_in_time_while_a_terminal_answers_nothing(service: Any, terminals: dict[str, EmulatedTerminal]) -> None:
    with stream(service.port, service.key, symbols=["*"]) as client:
        for terminal in terminals.values():
            terminal.set_mode(frozen=True)
        wait_for(lambda: all(hanging(service, name) for name in NAMES), "polls that hang")
        began = time.monotonic()
        assert service.stop("web") == 0
        assert time.monotonic() - began < STOP_WITHIN
        messages = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                messages.append(receive(client))
    assert messages[-1]["type"] == "goodbye"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


def hanging(service: Any, name: str) -> bool:
    """Whether later polls have found one under way."""
    text = get(service.port, "/metrics", service.key)[1]
    return re.search(rf'argus_polls_total{{[^}}]*outcome="overlap"[^}}]*terminal="{name}"[^}}]*}} [1-9]', text) is not None

"""A recorded session goes through Argus, is recorded as it passes, and comes out of the time machine as it went by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

from tests.e2e.service import Service, free_port, receive, receive_data, stream

Row = tuple[str, int]


@pytest.fixture
def session(data_dir: Path) -> Path:
    """Five Shenzhen shares, the whole session of 2022-06-01."""
    return data_dir / "ashare_l1_snapshots" / "tick.zip"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path, ARGUS_SOURCE="replay", ARGUS_RECORD="true")
    made.install()
    yield made
    made.close()


@pytest.fixture
def key(service: Service) -> str:
    """Made before anything plays: the recorded market does not wait for it."""
    made = service.manage("create_key", "time machine", "--plan=unlimited")
    return next(word for word in made.split() if word.startswith("argus_"))


def up(service: Service, files: Path, speed: str) -> int:
    """The port of a running service."""
    service.env |= {"ARGUS_REPLAY_FILES": str(files), "ARGUS_REPLAY_SPEED": speed}
    port = free_port()
    service.start("up", "manage.py", "up", "--port", str(port))
    service.ready(port, "up")
    return port


def collect(rows: dict[Row, dict[str, Any]], message: dict[str, Any]) -> None:
    for row in message["data"]:
        rows[row["symbol"], row["seq"]] = row


def replayed(port: int, key: str, query: str) -> dict[Row, dict[str, Any]]:
    """Every row of a replay to a single client."""
    rows: dict[Row, dict[str, Any]] = {}
    url = f"ws://127.0.0.1:{port}/ws/market_data?{query}"
    with connect(url, additional_headers={"X-API-Key": key}, max_size=None) as client:
        client.send(json.dumps({"action": "subscribe", "id": "1", "symbols": ["*"]}))
        try:
            while (message := receive(client))["type"] != "finished":
                if message["type"] == "data":
                    collect(rows, message)
                assert message["type"] != "error", message
        except ConnectionClosedOK:
            pytest.fail("the replay closed before it had finished")
    return rows


@pytest.mark.timeout(180)
def test_what_passed_is_played_again_row_for_row(service: Service, key: str, session: Path) -> None:
    port = up(service, session, "1500")
    live: dict[Row, dict[str, Any]] = {}
    last = 0
    with stream(port, key, symbols=["*"]) as client:
        while last < 1_654_066_800_000:  # 15:00, when the last prices are known.
            message = receive(client)
            if message["type"] == "data":
                collect(live, message)
                last = max(row["time"] for row in message["data"])
    assert len(live) > 10_000
    service.stop("up")
    day = service.directory / "archive" / "recordings" / "replay" / "2022-06-01"
    parts = sorted(path.suffix for path in day.iterdir())
    assert parts
    assert parts.count(".parquet") == parts.count(".json")

    # The recorded day as the source of everybody, and beside it the time machine for one client.
    service.env["ARGUS_RECORD"] = "false"
    port = up(service, day, "1500")
    # The whole of it, wherever the client came in.
    again = replayed(port, key, "replay=2022-06-01T09:00&speed=0")
    assert {row: again[row] for row in live} == live
    assert len(again) > 20_000
    afternoon = replayed(port, key, "replay=2022-06-01T13:00&speed=1000")
    assert 5_000 < len(afternoon) < len(again)
    with stream(port, key, symbols=["*"]) as client:
        assert {row["source"] for row in receive_data(client)["data"]} == {"replay"}

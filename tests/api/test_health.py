"""Live and ready apart; ready only while the source's canary comes through; no database on the way; no key needed."""

from __future__ import annotations

import asyncio
import re
import time

import httpx
import pytest

from argus.config import config
from marketdata.latest import LatestStore, store
from marketdata.terminals import health as terminals
from marketdata.terminals.health import Level, TerminalHealth
from monitoring.health import canary_check, hub_check, terminals_away
from tests.api.conftest import Keys, batch, quote, take


async def test_before_the_first_canary_the_service_lives_and_is_not_ready(client: httpx.AsyncClient) -> None:
    store.clear()
    answer = await client.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["live"], body["ready"]) == ("not_ready", True, False)
    assert body["checks"]["hub"]["ok"]
    assert not body["checks"]["canary"]["ok"]
    assert "nothing has come from the source" in body["reason"]
    assert (await client.get("/health/live")).json() == {"status": "ok", "live": True}
    ready = await client.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["reason"] == body["reason"]


@pytest.mark.usefixtures("filled")
async def test_a_fresh_canary_makes_it_ready(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health/ready")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["ready"], body["reason"]) == ("ok", True, "")
    assert body["streams"] == {"main": {"epoch": 7, "seq": 1842}}


async def test_a_silent_source_makes_it_unready_again(client: httpx.AsyncClient, filled: LatestStore) -> None:
    filled.feeds["main"].canary_arrived = time.monotonic() - config.stale_after - 32
    answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert re.search(r"4\d s ago; 10 s are allowed", answer.json()["reason"])
    assert (await client.get("/health/live")).status_code == 200


def test_it_says_which_feeds_are_silent_and_whether_any_is_left() -> None:
    found = LatestStore()
    take(found, batch(1, quote("600000.SH", 10.05), feed="shares"))
    take(found, batch(1, quote("000001.SZ", 11.37), feed="futures"))
    found.feeds["shares"].canary_arrived = time.monotonic() - 42
    assert canary_check(found, 10)[1:] == (True, "the last word of shares came 42 s ago; 10 s are allowed")
    found.feeds["futures"].canary_arrived = None
    assert canary_check(found, 10)[1:] == (
        False,
        "no terminal delivers: the last word of shares came 42 s ago, futures has said nothing yet; 10 s are allowed",
    )


def test_messages_without_a_canary_do_not_make_it_ready() -> None:
    found = LatestStore()
    take(found, batch(1, quote("600000.SH", 10.05), canary=None))
    assert not canary_check(found, 10).ok
    take(found, batch(2))
    assert canary_check(found, 10).ok
    assert not canary_check(found, 0).ok


AWAY = {
    "first": TerminalHealth(name="first", pool="main", level=Level.DOWN, reasons=("no_quotes",), last_seen=1784944800000),
    "second": TerminalHealth(
        name="second", pool="main", level=Level.MAINTENANCE, reasons=("maintenance", "disconnected"), until=1784929200000
    ),
    "third": TerminalHealth(name="third", pool="main", level=Level.UP, publishing=True, fresh=True),
}


@pytest.mark.usefixtures("filled")
async def test_each_terminal_is_named_with_its_reason_and_the_end_of_its_maintenance(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, filled: LatestStore
) -> None:
    monkeypatch.setattr(terminals, "known", lambda: AWAY)
    body = (await client.get("/health")).json()
    assert (body["ready"], body["reason"]) == (True, "")
    told = {name: (one["level"], one["reasons"], one["maintenance_until"]) for name, one in body["terminals"].items()}
    assert told == {
        "first": ("down", ["no_quotes"], None),
        "second": ("maintenance", ["maintenance", "disconnected"], "2026-07-25T05:40+08:00"),
        "third": ("up", [], None),
    }
    assert body["terminals"]["first"]["last_seen"] == "2026-07-25T10:00:00+08:00"
    filled.feeds["main"].canary_arrived = time.monotonic() - config.stale_after - 1
    reason = (await client.get("/health/ready")).json()["reason"]
    assert "the terminal first is down: It is connected and answers no usable quote" in reason
    assert "the terminal second is maintenance until 05:40: It is in its maintenance window." in reason
    assert "third" not in reason


async def test_a_web_process_looks_after_its_terminals_by_itself(client: httpx.AsyncClient) -> None:
    terminals.forget()
    told = None
    for _ in range(200):
        told = (await client.get("/health")).json()["terminals"]
        if told is not None:
            break
        await asyncio.sleep(0.05)
    assert told is not None
    assert {name: one["level"] for name, one in told.items()} == {"main": "unknown"}


def test_a_database_that_does_not_answer_leaves_the_terminals_unknown() -> None:
    assert "the database does not answer" in terminals_away(None)


async def test_that_no_terminal_is_set_up_is_said(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    store.clear()
    monkeypatch.setattr(terminals, "known", dict)
    assert (await client.get("/health")).json()["reason"].endswith("; no terminal is set up")
    monkeypatch.setattr(terminals, "known", lambda: {"third": AWAY["third"]})
    assert "set up" not in (await client.get("/health")).json()["reason"]


def test_a_process_whose_hub_does_not_run_is_not_ready() -> None:
    assert not hub_check(running=False).ok


async def test_other_methods_are_refused_and_head_has_no_body(client: httpx.AsyncClient) -> None:
    assert (await client.post("/health")).status_code == 405
    assert (await client.head("/health")).content == b""


async def test_metrics_are_for_operators(client: httpx.AsyncClient, keys: Keys, filled: LatestStore) -> None:
    assert (await client.get("/metrics")).status_code == 401
    refused = await client.get("/metrics", headers={"X-API-Key": keys.reader})
    assert (refused.status_code, refused.json()["name"]) == (403, "forbidden")
    answer = await client.get("/metrics", headers={"Authorization": f"Bearer {keys.operator}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'argus_feed_seq{feed="main"} 1842.0' in answer.text
    assert 'argus_feed_symbols{feed="main"} 6.0' in answer.text
    assert "argus_canary_age_seconds 0." in answer.text
    assert "argus_stream_connections" in answer.text

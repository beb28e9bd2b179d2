"""Live and ready apart; ready only while the source's canary comes through; no database on the way; no key needed."""

from __future__ import annotations

import re
import time

import httpx
import pytest

from argus.config import config
from marketdata.latest import LatestStore, store
from monitoring.health import canary_check, hub_check
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


def test_messages_without_a_canary_do_not_make_it_ready() -> None:
    found = LatestStore()
    take(found, batch(1, quote("600000.SH", 10.05), canary=None))
    assert not canary_check(found, 10).ok
    take(found, batch(2))
    assert canary_check(found, 10).ok
    assert not canary_check(found, 0).ok


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

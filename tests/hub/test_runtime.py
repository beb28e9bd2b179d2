"""The runtime of a serving process: heartbeats, keys that change, and the end."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from argus.access import services
from argus.access.models import APIKey
from argus.config import config
from argus.errors import KEY_REVOKED
from marketdata.terminals import keeper
from marketdata.terminals.declare import DeclarationError
from marketdata.types import DataType
from streaming import runtime
from streaming.frame import Frame
from streaming.heartbeat import Heartbeats
from tests.access.factory import make_key
from tests.hub.market import Client, blob, make_hub, principal, quote

A = "000001.SZ"


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def running(transactional_db: None) -> AsyncIterator[runtime.Runtime]:
    yield await runtime.ensure_started()
    await runtime.stop()


def test_no_loop_no_runtime() -> None:
    assert runtime.current() is None


async def test_it_starts_once_and_stays_stopped(running: runtime.Runtime) -> None:
    assert await runtime.ensure_started() is running
    assert runtime.current() is running
    await runtime.stop()
    assert runtime.current() is None
    assert await runtime.ensure_started() is running


async def test_the_end_says_goodbye_closes_with_1012_and_does_not_wait_for_the_mute(running: runtime.Runtime) -> None:
    client, mute = Client(running.hub), Client(running.hub, "mute")
    mute.wire.stop()
    mute.cover([A])
    began = time.monotonic()
    await runtime.stop()
    assert time.monotonic() - began < 2
    goodbye = client.wire.messages[-1]
    assert (goodbye["type"], goodbye["reason"]) == ("goodbye", "restart")
    assert goodbye["reconnect_after_ms"] > 0
    assert client.wire.closed == (1012, "restart")
    assert mute.wire.aborted


async def test_a_revoked_key_ends_its_connections_and_no_others(running: runtime.Runtime) -> None:
    key, _text = await asyncio.to_thread(make_key)
    client = Client(running.hub, principal=principal(key_id=key.pk))
    other = Client(running.hub, "other", principal=principal(key_id=key.pk + 1))
    await asyncio.to_thread(lambda: services.revoke_keys(keys=APIKey.objects.filter(pk=key.pk)))
    await until(lambda: client.wire.closed)
    assert client.wire.messages[-1]["name"] == KEY_REVOKED.name
    assert client.wire.closed == (KEY_REVOKED.close, KEY_REVOKED.name)
    assert other.wire.closed is None
    assert await APIKey.objects.filter(pk=key.pk, revoked_at__isnull=False).aexists()


def test_heartbeats_reach_everybody_once_in_a_round_and_not_all_at_once() -> None:
    hub = make_hub()
    hub.receive(blob([quote(A, 1)], 7, epoch=3))
    clients = [Client(hub, str(n)) for n in range(50)]
    for client in clients:
        client.connection.send(Frame(b'{"type":"connected"}'))
    beats = Heartbeats(hub)
    beats.beat(0)
    first = sum(len(client.wire.messages) > 1 for client in clients)
    assert first < 50
    for group in range(1, max(4, round(config.heartbeat_interval))):
        beats.beat(group)
    for client in clients:
        _, beat = client.wire.messages
        assert (beat["type"], beat["streams"], beat["stale"]) == ("heartbeat", {"main": {"epoch": 3, "seq": 7}}, False)
        assert abs(beat["server_time"] - time.time() * 1000) < 60_000


def test_a_heartbeat_goes_neither_before_the_greeting_nor_to_who_is_behind() -> None:
    hub = make_hub()
    fresh, behind = Client(hub), Client(hub, "behind")
    behind.cover([A], DataType.QUOTE)
    behind.connection.send(Frame(b'{"type":"connected"}'))
    behind.wire.stop()
    hub.receive(blob([quote(A, 1)], 1))
    beats = Heartbeats(hub)
    for group in range(max(4, round(config.heartbeat_interval))):
        beats.beat(group)
    behind.wire.allow(None)
    assert fresh.wire.messages == []
    assert [message["type"] for message in behind.wire.messages] == ["connected", "data"]


def test_everybody_is_told_at_once_and_once_when_the_data_turns_stale_or_fresh() -> None:
    hub = make_hub()
    beats = Heartbeats(hub)
    clients = [Client(hub, str(n)) for n in range(50)]
    for client in clients:
        client.connection.send(Frame(b'{"type":"connected"}'))

    def told() -> list[list[bool]]:
        return [[message["stale"] for message in client.wire.take() if message["type"] == "heartbeat"] for client in clients]

    hub.receive(blob([quote(A, 1)], 1))
    beats.step(0)
    assert told() == [[False]] * 50
    beats.step(0)
    assert [] in told(), "as long as nothing turns, a step is for one group"
    hub.store.feeds["main"].canary_arrived = time.monotonic() - config.stale_after - 1
    beats.step(0)
    assert told() == [[True]] * 50
    beats.step(0)
    assert [] in told()
    hub.receive(blob([quote(A, 2)], 2))
    beats.step(0)
    assert told() == [[False]] * 50


def test_the_counts_are_what_prometheus_is_told() -> None:
    def value(name: str) -> float:
        return REGISTRY.get_sample_value(name) or 0.0

    # Hubs of other tests take their counts with them when they are collected.
    gc.collect()
    before = {
        name: value(name) for name in ("argus_stream_quotes_total", "argus_stream_frames_total", "argus_stream_age_seconds_count")
    }
    hub = make_hub()
    client = Client(hub)
    client.cover([A])
    hub.receive(blob([quote(A, 1)], 1))
    after = {name: value(name) for name in before}
    assert {name: after[name] - before[name] for name in before} == dict.fromkeys(before, 1.0)
    assert value("argus_stream_connections") >= 1


async def test_the_rounds_about_the_pools_go_on_under_a_declaration_that_is_wrong(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[None] = []
    rounds: list[None] = []

    def begin() -> None:
        begun.append(None)
        raise DeclarationError("strateggy is not known")

    def go_round() -> None:
        rounds.append(None)
        if len(rounds) == 1:
            raise RuntimeError("unexpected")

    monkeypatch.setattr(keeper, "begin", begin)
    monkeypatch.setattr(keeper, "go_round", go_round)
    monkeypatch.setattr(runtime, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(runtime, "ROUND_INTERVAL", 0.01)
    await runtime.ensure_started()
    await until(lambda: len(rounds) > 3)
    await runtime.stop()
    assert len(begun) == 1, "a task that is started again is no start of the process"

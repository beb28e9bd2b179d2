"""From the channel layer and the cache into the hub: live, after a gap, at the start, and across a restart of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from channels.layers import get_channel_layer
from django.core.cache import cache

from marketdata.publish import MESSAGE_TYPE, group_name, snapshot_key
from marketdata.terminals import roster
from marketdata.terminals.roster import PoolSpec, Roster
from streaming import reader
from streaming.hub import Hub
from streaming.reader import Reader
from streaming.snapshots import Snapshots
from tests.conftest import RedisServer
from tests.hub.market import Client, blob, make_hub, quote

A, B = "000001.SZ", "000002.SZ"


def use_redis(settings: Any, url: str) -> None:
    """As argus.settings does where REDIS_URL is set."""
    host = {"address": url, "protocol": 2, "socket_timeout": None}
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [host]}}
    }
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}}


@pytest.fixture(params=["memory", "redis"])
def layer_kind(request: pytest.FixtureRequest, settings: Any) -> str:
    if request.param == "redis":
        use_redis(settings, request.getfixturevalue("redis_url"))
    cache.clear()
    return str(request.param)


class Reading:
    """A hub that reads."""

    def __init__(self) -> None:
        self.hub: Hub = make_hub()
        self.snapshots = Snapshots(self.hub)
        self.hub.on_gap = self.snapshots.want
        self.joined = asyncio.Event()
        self.task = asyncio.create_task(Reader(self.hub, self._joined).run())

    def _joined(self) -> None:
        self.snapshots.load_all()
        self.joined.set()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.snapshots.stop()
        layer: Any = get_channel_layer()
        await layer.flush()


@pytest.fixture
async def reading(layer_kind: str) -> AsyncIterator[Reading]:
    reading = Reading()
    async with asyncio.timeout(10):
        await reading.joined.wait()
    yield reading
    await reading.stop()


async def publish(message: bytes, feed: str = "main") -> None:
    layer: Any = get_channel_layer()
    await layer.group_send(group_name(feed), {"type": MESSAGE_TYPE, "blob": message})


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_published_reaches_the_hubs_clients(reading: Reading) -> None:
    client = Client(reading.hub)
    client.cover([A])
    for n in range(1, 4):
        await publish(blob([quote(A, n)], n))
    await until(lambda: len(client.wire.data) == 3)
    assert [piece["seq"] for piece in client.wire.data] == [1, 2, 3]


async def test_a_start_in_the_middle_is_completed_from_the_snapshot(layer_kind: str) -> None:
    cache.set(snapshot_key("main"), blob([quote(A, 4), quote(B, 2)], 4, snapshot=True, seqs={A: 4, B: 2}))
    reading = Reading()
    try:
        await until(lambda: len(reading.hub.store.fragments) == 2)
        assert reading.hub.store.streams() == {"main": {"epoch": 1, "seq": 4}}
    finally:
        await reading.stop()


async def test_a_gap_is_filled_as_soon_as_a_snapshot_covers_it(reading: Reading) -> None:
    client = Client(reading.hub)
    client.cover([A, B])
    cache.set(snapshot_key("main"), blob([quote(A, 1)], 1, snapshot=True))
    await publish(blob([quote(A, 1)], 1))
    await publish(blob([quote(A, 3)], 3))
    await until(lambda: reading.hub.counters.gaps)
    cache.set(snapshot_key("main"), blob([quote(A, 3), quote(B, 2)], 3, snapshot=True, seqs={A: 3, B: 2}))
    await until(lambda: len(client.wire.data) == 3)
    assert [(piece["symbol"], piece["seq"]) for piece in client.wire.data] == [(A, 1), (A, 3), (B, 2)]


async def test_a_feed_that_begins_is_heard_and_one_that_ends_is_forgotten(
    layer_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"main": PoolSpec("main")}
    monkeypatch.setattr(roster, "current", lambda: Roster(dict(there)))
    monkeypatch.setattr(reader, "LOOK", 0.05)
    reading = Reading()
    try:
        hub = reading.hub
        await reading.joined.wait()
        client = Client(hub)
        client.cover([A, B])
        await publish(blob([quote(A, 1)], 1))
        await publish(blob([quote(B, 1)], 1, feed="futures"), "futures")
        await until(lambda: client.wire.data)
        assert set(hub.store.feeds) == {"main"}
        cache.set(snapshot_key("futures"), blob([quote(B, 1)], 1, feed="futures", snapshot=True))
        there["futures"] = PoolSpec("futures")
        await until(lambda: B in hub.store.fragments)
        await publish(blob([quote(B, 2)], 2, feed="futures"), "futures")
        await until(lambda: len(client.wire.data) == 3)
        hub.store.feeds["main"].canary_arrived = 0.0
        assert hub.store.stale(60)
        del there["main"]
        await until(lambda: set(hub.store.feeds) == {"futures"})
        assert not hub.store.stale(60), "what is no more is not waited for"
        await publish(blob([quote(A, 2)], 2))
        hub.receive(blob([quote(A, 2)], 2))
        await until(lambda: set(hub.store.feeds) == {"futures"})
        assert set(hub.store.fragments) == {B}
    finally:
        await reading.stop()


async def test_a_market_that_moves_to_another_feed_comes_from_that_one(layer_kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"main": PoolSpec("main"), "second": PoolSpec("second", markets=("SH",))}
    monkeypatch.setattr(roster, "current", lambda: Roster(dict(there)))
    monkeypatch.setattr(reader, "LOOK", 0.05)
    reading = Reading()
    try:
        await reading.joined.wait()
        await publish(blob([quote(A, 1)], 1))
        await until(lambda: reading.hub.store.feed_of.get(A) == "main")
        # The other feed knows of it sooner than this process.
        await publish(blob([quote(A, 2)], 1, feed="second"), "second")
        await until(lambda: "second" in reading.hub.store.feeds)
        assert reading.hub.store.feed_of[A] == "main"
        there["second"] = PoolSpec("second", markets=("SH", "SZ"))
        await until(lambda: not reading.hub.store.accepts["main"](A))
        cache.set(snapshot_key("second"), blob([quote(A, 2)], 1, feed="second", snapshot=True))
        await until(lambda: reading.hub.store.feed_of[A] == "second")
    finally:
        await reading.stop()


async def test_a_layer_that_refuses_a_group_is_asked_again(layer_kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there, refusals = {"main": PoolSpec("main")}, 0
    layer: Any = get_channel_layer()
    join = layer.group_add

    async def group_add(group: str, channel: str) -> None:
        nonlocal refusals
        if group == group_name("futures") and refusals < 3:
            refusals += 1
            raise OSError
        await join(group, channel)

    monkeypatch.setattr(layer, "group_add", group_add)
    monkeypatch.setattr(roster, "current", lambda: Roster(dict(there)))
    monkeypatch.setattr(reader, "LOOK", 0.05)
    reading = Reading()
    try:
        await reading.joined.wait()
        reading.joined.clear()
        there["futures"] = PoolSpec("futures")
        await reading.joined.wait()
        assert refusals == 3
        await publish(blob([quote(B, 1)], 1, feed="futures"), "futures")
        await until(lambda: B in reading.hub.store.fragments)
    finally:
        await reading.stop()


async def test_a_redis_that_was_away_is_read_again_and_what_was_missed_is_loaded(
    redis_server: RedisServer, settings: Any
) -> None:
    use_redis(settings, redis_server.url)
    reading = Reading()
    try:
        client = Client(reading.hub)
        client.cover([A, B])
        await reading.joined.wait()
        await publish(blob([quote(A, 1)], 1))
        await until(lambda: client.wire.data)
        redis_server.stop()
        await asyncio.to_thread(redis_server.start)
        await asyncio.to_thread(
            cache.set, snapshot_key("main"), blob([quote(A, 1), quote(B, 2)], 9, snapshot=True, seqs={A: 1, B: 2})
        )
        seq = 2

        async def heard_again() -> bool:
            nonlocal seq
            seq += 1
            try:
                await publish(blob([quote(A, seq)], seq))
            except OSError:
                return False
            except Exception as error:  # noqa: BLE001 - redis-py's own, while it has not come back
                assert "onnect" in str(error), error
                return False
            return reading.hub.counters.batches > 1

        async with asyncio.timeout(30):
            while not await heard_again():
                await asyncio.sleep(0.1)
        await until(lambda: any(piece["symbol"] == B for piece in client.wire.data))
        assert not reading.task.done()
    finally:
        await reading.stop()

"""A time of day that jumps, the publisher's or this process', loses no quote and makes nothing stale."""

from __future__ import annotations

import time

import pytest

from streaming import hub as hub_module
from streaming.heartbeat import Heartbeats
from streaming.merging import LAG_WINDOW, MERGED_INTERVAL
from tests.hub.market import Client, blob, make_hub, quote

A, B = "000001.SZ", "600000.SH"
HOUR = 3600.0


@pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["back", "forward"])
@pytest.mark.parametrize("whose", ["publisher", "hub"])
def test_every_quote_arrives_in_order_and_soon_each_at_once_again(
    whose: str, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = make_hub()
    client = Client(hub)
    client.cover([A, B])
    start = time.time()
    published = start
    for n in range(1, 10):
        hub.receive(blob([quote(A, n)], n, published=published))
    if whose == "publisher":
        published += jump
    else:
        monkeypatch.setattr(hub_module.time, "time", lambda: start + jump)
    hub.receive(blob([quote(B, 10)], 10, published=published))
    hub.tick(time.monotonic() + MERGED_INTERVAL)
    assert (client.wire.data[-1]["symbol"], client.wire.data[-1]["seq"]) == (B, 10), "at the latest a merge later"
    for n in range(11, 11 + LAG_WINDOW):
        hub.receive(blob([quote(A, n)], n, published=published))
    client.wire.take()
    for n in range(11 + LAG_WINDOW, 20 + LAG_WINDOW):
        hub.receive(blob([quote(A, n)], n, published=published))
    assert [piece["seq"] for piece in client.wire.data] == list(range(11 + LAG_WINDOW, 20 + LAG_WINDOW))
    assert hub.store.feeds["main"].seq == 19 + LAG_WINDOW


@pytest.mark.parametrize("apart", [-HOUR, HOUR], ids=["behind", "ahead"])
def test_a_standby_whose_host_has_another_time_is_not_taken_for_late(apart: float) -> None:
    hub = make_hub()
    client = Client(hub)
    client.cover([A])
    now = time.time()
    for n in range(1, 10):
        hub.receive(blob([quote(A, n)], n, epoch=1, published=now))
    for n in range(10, 20):
        hub.receive(blob([quote(A, n)], n - 9, epoch=2, published=now + apart))
    assert [piece["seq"] for piece in client.wire.data] == [*range(1, 10), *range(1, 11)]
    assert hub.counters.lagged == 0


@pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["back", "forward"])
def test_fresh_data_is_not_called_stale_nor_old_data_fresh(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub()
    client = Client(hub)
    client.cover([A])
    hub.receive(blob([quote(A, 1)], 1))
    now, real = time.time(), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    monkeypatch.setattr(time, "time_ns", lambda: int((now + jump) * 1e9))
    assert not hub.store.stale(after=10)
    assert hub.store.stale(after=10, now=real + 11)
    heartbeats = Heartbeats(hub)
    client.wire.take()
    for group in range(heartbeats._groups):
        heartbeats.beat(group)
    (beat,) = client.wire.take()
    assert beat["stale"] is False
    assert abs(beat["server_time"] / 1000 - (now + jump)) < 1, "the time of day is told as it is"

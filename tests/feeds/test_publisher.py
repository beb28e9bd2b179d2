"""Numbering, owing, fencing and snapshots of a publisher."""

from __future__ import annotations

import time

import pytest
import redis

from argus.config import Config
from marketdata.batch import Batch, decode
from marketdata.lease import TTL, Lease, MemoryLease, RedisLease, lease_of
from marketdata.publish import PublishError
from marketdata.publisher import Publisher


class Wire:
    """The channel layer's edge: keeps what it took, and can be cut."""

    def __init__(self) -> None:
        self.sent: list[Batch] = []
        self.snapshots: list[Batch] = []
        self.broken = False

    def send(self, feed: str, blob: bytes) -> None:
        if self.broken:
            raise PublishError("cut")
        self.sent.append(decode(blob))

    def save(self, feed: str, blob: bytes) -> None:
        self.snapshots.append(decode(blob))


def publisher(wire: Wire, lease: Lease, owner: str = "a") -> Publisher:
    return Publisher(feed="main", source="test", owner=owner, lease=lease, send=wire.send, save_snapshot=wire.save)


def group(**quotes: int) -> dict[str, bytes]:
    return {symbol: b'{"symbol":"%b","v":%d}' % (symbol.encode(), value) for symbol, value in quotes.items()}


def test_messages_count_up_within_an_epoch_and_every_quote_carries_its_message() -> None:
    wire = Wire()
    it = publisher(wire, MemoryLease())
    it.publish([group(A=1, B=1), group(A=2)], canary=5)
    assert [(batch.seq, batch.symbols, batch.canary) for batch in wire.sent] == [(1, ["A", "B"], None), (2, ["A"], 5)]
    assert len({batch.epoch for batch in wire.sent}) == 1
    assert wire.sent[1].fragments == [b'{"symbol":"A","v":2,"seq":2}']


def test_a_canary_travels_without_quotes() -> None:
    wire = Wire()
    publisher(wire, MemoryLease()).publish([], canary=7)
    assert (wire.sent[0].symbols, wire.sent[0].canary, wire.sent[0].fragments) == ([], 7, [])


def test_what_the_layer_refused_goes_out_with_the_next_message_newest_first() -> None:
    wire = Wire()
    it = publisher(wire, MemoryLease())
    wire.broken = True
    with pytest.raises(PublishError):
        it.publish([group(A=1, B=1), group(A=2)], canary=None)
    assert it.owed == 2
    wire.broken = False
    it.publish([group(C=1)], canary=None)
    assert it.owed == 0
    assert wire.sent[0].seq == 2, "the number of the refused message is used up, so that receivers see a gap"
    assert b"".join(wire.sent[0].fragments) == (
        b'{"symbol":"A","v":2,"seq":2}{"symbol":"B","v":1,"seq":2}{"symbol":"C","v":1,"seq":2}'
    )


def test_the_snapshot_is_the_newest_of_everything_published() -> None:
    wire = Wire()
    it = publisher(wire, MemoryLease())
    it.publish([group(A=1, B=1)], canary=None)
    it.publish([group(A=2)], canary=None)
    it.resign()
    last = wire.snapshots[-1]
    assert (last.snapshot, last.seq) == (True, 2)
    assert last.fragments == [b'{"symbol":"A","v":2,"seq":2}', b'{"symbol":"B","v":1,"seq":1}']


def leases(kind: str, redis_url: str) -> tuple[Lease, Lease]:
    if kind == "redis":
        return RedisLease(redis_url, "main"), RedisLease(redis_url, "main")
    lease = MemoryLease()
    return lease, lease


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_a_standby_publishes_what_it_holds_under_a_larger_epoch_once_the_lease_is_free(kind: str, redis_url: str) -> None:
    first, second = leases(kind, redis_url)
    wire = Wire()
    active, standby = publisher(wire, first, "a"), publisher(wire, second, "b")
    active.publish([group(A=1)], canary=None)
    standby.publish([group(A=1, B=3)], canary=1)
    assert not standby.active
    assert len(wire.sent) == 1
    active.resign()
    standby.publish([], canary=2)
    assert standby.active
    assert wire.sent[1].epoch > wire.sent[0].epoch
    assert (wire.sent[1].seq, wire.sent[1].symbols) == (1, ["A", "B"])
    active.publish([group(A=9)], canary=None)
    assert not active.active
    assert len(wire.sent) == 2


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_epochs_start_above_the_wall_clock(kind: str, redis_url: str) -> None:
    lease, _ = leases(kind, redis_url)
    before = int(time.time() * 1000)
    token = lease.hold("a")
    assert token is not None
    assert token >= before
    assert lease.hold("a") == token
    lease.release("a")
    again = lease.hold("a")
    assert again is not None
    assert again > token


def test_a_holder_keeps_its_token_through_a_short_absence_of_redis_and_not_longer(redis_server, monkeypatch) -> None:
    lease = RedisLease(redis_server.url, "main")
    token = lease.hold("a")
    redis_server.stop()
    clock = time.monotonic()
    monkeypatch.setattr("marketdata.lease.time.monotonic", lambda: clock + TTL * 0.9)
    assert lease.hold("a") == token
    monkeypatch.setattr("marketdata.lease.time.monotonic", lambda: clock + TTL * 1.1)
    assert lease.hold("a") is None


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_a_publisher_with_nothing_to_say_does_not_keep_its_standby_waiting(kind: str, redis_url: str, monkeypatch) -> None:
    first, second = leases(kind, redis_url)
    wire = Wire()
    mute, standby = publisher(wire, first, "a"), publisher(wire, second, "b")
    mute.publish([group(A=1)], canary=1)
    expire(kind, redis_url, monkeypatch)
    mute.publish([], canary=None)
    assert not mute.active
    standby.publish([], canary=2)
    assert standby.active
    assert [batch.seq for batch in wire.sent] == [1, 1]
    assert wire.sent[1].epoch > wire.sent[0].epoch


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_a_new_term_begins_with_all_that_is_known_so_that_no_seq_of_an_old_one_looks_newer(
    kind: str, redis_url: str, monkeypatch
) -> None:
    wire = Wire()
    it = publisher(wire, leases(kind, redis_url)[0])
    for value in range(1, 10):
        it.publish([group(A=value, B=1)], canary=None)
    expire(kind, redis_url, monkeypatch)
    it.publish([group(A=10)], canary=None)
    it.resign()
    last = wire.sent[-1]
    assert last.epoch > wire.sent[0].epoch
    assert last.fragments == [b'{"symbol":"A","v":10,"seq":1}', b'{"symbol":"B","v":1,"seq":1}']
    assert wire.snapshots[-1].fragments == last.fragments


def expire(kind: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the lease run out, by the holders' clock and by Redis' own."""
    later = time.monotonic() + 1.1 * TTL
    monkeypatch.setattr("time.monotonic", lambda: later)
    if kind == "redis":
        redis.Redis.from_url(redis_url, protocol=2).delete("argus:feed:main:lease")


def test_a_wall_clock_that_is_set_back_ends_no_term_and_makes_no_epoch_smaller(monkeypatch) -> None:
    lease = MemoryLease()
    token = lease.hold("a")
    assert token is not None
    monkeypatch.setattr("marketdata.lease.time.time", lambda: 1.0)
    assert lease.hold("a") == token
    lease.release("a")
    again = lease.hold("b")
    assert again is not None
    assert again > token


def test_a_lease_outlasts_the_pause_between_rare_polls(monkeypatch) -> None:
    monkeypatch.setattr("marketdata.lease.config", Config(poll_interval=20, stale_after=60))
    lease = lease_of("rare")
    token = lease.hold("a")
    clock = time.monotonic()
    monkeypatch.setattr("marketdata.lease.time.monotonic", lambda: clock + 2 * 20)
    assert lease.hold("b") is None
    assert lease.hold("a") == token

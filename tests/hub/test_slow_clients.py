"""Clients that do not read, or not fast enough: what they are owed, what they cost, and how they end."""

from __future__ import annotations

import time

import pytest

from argus.config import config
from argus.errors import KEY_REVOKED
from marketdata.types import KLINES, DataType
from streaming.frame import Frame
from streaming.hub import Hub
from streaming.outbox import CHUNK, CONTROL_BYTES, CONTROL_LIMIT
from streaming.views import PURE_EVENTS
from tests.hub.market import Client, bar, blob, make_hub, quote

A, B = "000001.SZ", "000002.SZ"


@pytest.fixture
def hub() -> Hub:
    return make_hub()


def test_a_client_without_room_gets_the_newest_once_when_it_reads_again(hub: Hub) -> None:
    client, other = Client(hub), Client(hub, "other")
    for each in (client, other):
        each.cover([A, B])
    client.wire.stop()
    hub.receive(blob([quote(A, 1), quote(B, 1)], 1))
    for n in range(2, 6):
        hub.receive(blob([quote(A, n)], n))
    assert client.wire.messages == []
    assert len(other.wire.messages) == 5
    client.wire.allow(None)
    (message,) = client.wire.take()
    assert sorted((piece["symbol"], piece["seq"]) for piece in message["data"]) == [(A, 5), (B, 1)]
    assert client.connection.behind_since is None
    assert hub.counters.merged == 4
    hub.receive(blob([quote(A, 6)], 6))
    assert [piece["seq"] for piece in client.wire.data] == [6]


def test_one_missed_frame_is_sent_as_it_is(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A])
    client.wire.stop()
    hub.receive(blob([quote(A, 1)], 1))
    client.wire.allow(None)
    (message,) = client.wire.take()
    assert message["seq"] == 1
    assert hub.counters.merged == 0
    assert hub.counters.frames == 1


def test_what_a_client_is_owed_does_not_grow_with_time(hub: Hub) -> None:
    symbols = [f"{n:06d}.SZ" for n in range(50)]
    client = Client(hub)
    client.cover(None, *DataType)
    client.wire.stop()
    for n in range(1, 200):
        bars = [bar(symbol, n, period=period) for symbol in symbols for period in KLINES.values()]
        hub.receive(blob([quote(symbol, n) for symbol in symbols], n, bars=bars))
    outbox = client.connection.outbox
    owed = {**outbox._snapshot, **outbox._owed}
    assert {data_type: len(keys) for data_type, keys in owed.items()} == dict.fromkeys(set(DataType) - PURE_EVENTS, 50)
    assert client.connection.outbox._missed is None


def test_much_that_is_owed_goes_out_in_pieces_as_room_comes(hub: Hub) -> None:
    symbols = [f"{n:06d}.SZ" for n in range(2 * CHUNK + 1)]
    hub.receive(blob([quote(symbol, 1) for symbol in symbols], 1))
    client = Client(hub)
    client.wire.stop()
    client.cover(None)
    client.wire.allow(1)
    assert [len(message["data"]) for message in client.wire.messages] == [CHUNK]
    client.wire.allow(None)
    assert [len(message["data"]) for message in client.wire.messages] == [CHUNK, CHUNK, 1]
    assert {piece["symbol"] for piece in client.wire.data} == set(symbols)


def test_control_messages_wait_in_order_and_before_the_data(hub: Hub) -> None:
    hub.receive(blob([quote(A, 1)], 1))
    client = Client(hub)
    client.wire.stop()
    for n in range(3):
        client.connection.send(Frame(b'{"type":"pong","id":%d}' % n))
    client.cover([A])
    client.wire.allow(None)
    assert [message.get("id", "data") for message in client.wire.messages] == [0, 1, 2, "data"]


def test_a_change_of_coverage_takes_back_what_is_owed_and_no_longer_covered(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B])
    client.wire.stop()
    hub.receive(blob([quote(A, 1), quote(B, 1)], 1))
    client.cover([B])
    client.wire.allow(None)
    assert [piece["symbol"] for piece in client.wire.data] == [B]


def test_too_many_control_messages_cut_the_client_off(hub: Hub) -> None:
    client = Client(hub)
    client.wire.stop()
    for _ in range(CONTROL_LIMIT):
        client.connection.send(Frame(b"{}"))
    assert not client.wire.aborted
    client.connection.send(Frame(b"{}"))
    assert client.wire.aborted
    assert hub.counters.slow == 1


def test_too_much_of_control_messages_cuts_the_client_off(hub: Hub) -> None:
    client = Client(hub)
    client.wire.stop()
    answer = b'{"x":"' + b"x" * (CONTROL_BYTES // 4) + b'"}'
    for _ in range(3):
        client.connection.send(Frame(answer))
    assert not client.wire.aborted
    client.connection.send(Frame(answer))
    assert client.wire.aborted


def test_a_client_that_does_not_read_for_too_long_is_cut_off_and_others_are_not(hub: Hub) -> None:
    client, other = Client(hub), Client(hub, "other")
    for each in (client, other):
        each.cover([A])
    client.wire.stop()
    hub.receive(blob([quote(A, 1)], 1))
    now = time.monotonic()
    hub.tick(now)
    hub.tick(now + config.send_timeout - 0.1)
    assert not client.wire.aborted
    hub.tick(now + config.send_timeout + 0.1)
    assert client.wire.aborted
    assert hub.counters.slow == 1
    hub.receive(blob([quote(A, 2)], 2))
    assert not other.wire.aborted
    assert len(other.wire.messages) == 2


def test_a_client_that_reads_slowly_but_steadily_stays(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A])
    client.wire.stop()
    now = time.monotonic()
    for n in range(1, 20):
        hub.receive(blob([quote(A, n)], n))
        hub.tick(now + n * config.send_timeout / 2)
        client.wire.allow(1)
        client.wire.stop()
    assert not client.wire.aborted
    assert client.wire.data[-1]["seq"] == 19


def test_a_close_sends_the_waiting_control_messages_and_forgets_the_data(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A])
    client.wire.stop()
    hub.receive(blob([quote(A, 1)], 1))
    client.connection.send(Frame(b'{"type":"error"}'))
    client.connection.close(KEY_REVOKED)
    client.connection.close(1000)
    assert [message["type"] for message in client.wire.messages] == ["error"]
    assert client.wire.closed == (KEY_REVOKED.close, KEY_REVOKED.name)
    client.connection.send(Frame(b"{}"))
    hub.receive(blob([quote(A, 2)], 2))
    assert len(client.wire.messages) == 1
    assert not hub.behind

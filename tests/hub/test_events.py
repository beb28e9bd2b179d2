"""Events: each is sent, in order, and a message that is not the whole of what is owed says so."""

from __future__ import annotations

import time

import msgspec
import pytest

from argus.errors import EVENT_OVERFLOW
from marketdata import events
from marketdata.batch import Events
from marketdata.events import Event
from marketdata.types import DataType
from streaming import outbox
from streaming.codecs import DEFLATED, MSGPACK
from streaming.frame import Frame
from streaming.hub import Hub
from streaming.merging import MERGE_AFTER, MERGED_INTERVAL
from streaming.selection import Frequency
from tests.hub.market import Client, blob, make_hub, quote

A, B = "000001.SZ", "600000.SH"


@pytest.fixture
def hub() -> Hub:
    return make_hub()


def trades(seq: int, *symbols: str) -> Events:
    bodies = [msgspec.json.encode({"type": "trade", "symbol": symbol, "index": seq}) for symbol in symbols]
    found = [Event(DataType.TRADE, symbol, body) for symbol, body in zip(symbols, bodies, strict=True)]
    return events.numbered(found, b',"seq":%d}' % seq)


def told(client: Client) -> list[tuple[int, list[tuple[str, int]], bool]]:
    """Of each data message its seq, its fragments, and whether more is to come."""
    return [
        (message["seq"], [(piece["type"], piece["seq"]) for piece in message["data"]], message.get("more", False))
        for message in client.wire.take()
    ]


def test_an_event_goes_to_those_who_cover_it_with_the_states_of_its_message(hub: Hub) -> None:
    one, both, other = Client(hub, "one"), Client(hub, "both"), Client(hub, "other")
    one.cover([A], DataType.TRADE)
    both.cover(None, DataType.TRADE, DataType.QUOTE)
    other.cover([B], DataType.TRADE)
    hub.receive(blob([quote(A, 1)], 1, happened=trades(1, A)))
    assert told(one) == [(1, [("trade", 1)], False)]
    assert told(both) == [(1, [("trade", 1), ("quote", 1)], False)]
    assert told(other) == []


def test_who_is_behind_gets_every_event_in_order_and_then_the_newest_states(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], DataType.TRADE, DataType.QUOTE)
    client.wire.stop()
    for seq in range(1, 6):
        hub.receive(blob([quote(A, seq)], seq, happened=trades(seq, A)))
    client.wire.allow(None)
    assert told(client) == [*((seq, [("trade", seq)], True) for seq in range(1, 6)), (5, [("quote", 5)], False)]


def test_who_covers_events_alone_may_resume_from_each(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], DataType.TRADE)
    client.wire.stop()
    for seq in (1, 2, 3):
        hub.receive(blob([quote(A, seq)], seq, happened=trades(seq, A)))
    client.wire.allow(None)
    assert told(client) == [(seq, [("trade", seq)], False) for seq in (1, 2, 3)]


def test_a_slower_frequency_holds_no_event_back(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], DataType.TRADE, DataType.PRICE, frequency=Frequency.S5)
    hub.receive(blob([quote(A, 1)], 1, happened=trades(1, A)))
    hub.receive(blob([quote(A, 2)], 2, happened=trades(2, A)))
    assert told(client) == [(1, [("trade", 1)], True), (2, [("trade", 2)], True)]
    hub.tick(time.monotonic() + 5.1)
    assert told(client) == [(2, [("price", 2)], False)]


def test_a_hub_that_lags_sends_events_and_merges_states(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], DataType.TRADE, DataType.QUOTE)
    now = time.time()
    hub.receive(blob([quote(A, 1)], 1, published=now))
    told(client)
    for seq in (2, 3):
        hub.receive(blob([quote(A, seq)], seq, published=now - 2 * MERGE_AFTER, happened=trades(seq, A)))
    assert told(client) == [(2, [("trade", 2)], True), (3, [("trade", 3)], True)]
    hub.tick(time.monotonic() + MERGED_INTERVAL)
    assert told(client) == [(3, [("quote", 3)], False)]


def test_who_is_owed_more_events_than_are_kept_is_told_and_closed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "EVENT_LIMIT", 3)
    client, other = Client(hub), Client(hub, "other")
    for one in (client, other):
        one.cover([A], DataType.TRADE)
    client.wire.stop()
    for seq in range(1, 7):
        hub.receive(blob([], seq, happened=trades(seq, A)))
    assert client.wire.messages[-1]["name"] == "event_overflow"
    assert client.wire.closed == (EVENT_OVERFLOW.close, "event_overflow")
    assert hub.counters.overflowed == 1
    assert [seq for seq, _, _ in told(other)] == [1, 2, 3, 4, 5, 6]


def test_a_reply_keeps_its_place_among_events(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], DataType.TRADE)
    client.wire.stop()
    hub.receive(blob([], 1, happened=trades(1, A)))
    client.connection.send(Frame(b'{"type":"pong"}'))
    hub.receive(blob([], 2, happened=trades(2, A)))
    client.wire.allow(None)
    assert [message["type"] for message in client.wire.take()] == ["data", "pong", "data"]


@pytest.mark.parametrize("codec", [MSGPACK, DEFLATED])
def test_every_codec_has_the_same_events(hub: Hub, codec: object) -> None:
    client = Client(hub)
    client.connection.codec = codec  # type: ignore[assignment]
    client.cover([A], DataType.TRADE, DataType.QUOTE)
    client.wire.stop()
    hub.receive(blob([quote(A, 1)], 1, happened=trades(1, A)))
    hub.receive(blob([quote(A, 2)], 2, happened=trades(2, A)))
    client.wire.allow(None)
    assert told(client) == [(1, [("trade", 1)], True), (2, [("trade", 2)], True), (2, [("quote", 2)], False)]

"""Bounds in bytes of what waits for a client, and what it is told where there is more: few events may be large as well."""

from __future__ import annotations

from typing import Any

import pytest

from marketdata import events
from marketdata.batch import Events
from marketdata.types import DataType
from streaming import acknowledged, outbox, resume, runtime
from streaming.codecs import JSON, Head
from streaming.frame import Events as Waiting
from streaming.outbox import Outbox
from tests.hub.market import Client, blob, make_hub, quote
from tests.streaming.returning import Source, again, first, trade
from tests.streaming.server import SYMBOLS, Server, until

A, B = SYMBOLS[:2]
ACK: dict[str, Any] = {"data_types": ["trade"], "ack": True, "subscription": "mine"}
EVENT = len(next(iter(events.numbered([trade(A, 1)], b',"seq":1}').values()))[1][0])
"""Bytes of one trade."""


async def heard(seq: int) -> None:
    """Wait until the hub has come that far."""
    await until(lambda: runtime.current().hub.position("main")[1] == seq, "the hub to hear it")  # type: ignore[union-attr]


def overflowed() -> int:
    current = runtime.current()
    assert current is not None
    return current.hub.counters.overflowed


def happened(seq: int, count: int = 1) -> Events:
    return events.numbered([trade(A, index) for index in range(count)], b',"seq":%d}' % seq)


# Events that wait to be acknowledged


async def test_too_many_bytes_that_wait_to_be_acknowledged_end_the_connection(
    server: Server, source: Source, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledged, "MOST_BYTES", 3 * EVENT + EVENT // 2)
    async with first(server, key, A, **ACK) as one:
        for index in (1, 2, 3):
            await source.tell(happened=[trade(A, index)])
        assert [piece["index"] for piece in await one.read(3)] == [1, 2, 3]
        # What is acknowledged makes room.
        assert (await one.client.ask("ack", subscription="mine", epoch=1, seq=1))["pending"] == 2
        await source.tell(happened=[trade(A, 4)])
        assert [piece["index"] for piece in await one.read(1)] == [4]
        assert overflowed() == 0
        await source.tell(happened=[trade(A, 5)])
        error = await one.client.receive("error")
        assert (error["name"], error["code"], error["retryable"]) == ("event_overflow", 441, True)
        assert await one.client.closed() == 4041
        assert overflowed() == 1


async def test_too_many_bytes_for_a_client_that_comes_back_are_said_to_be_missing_and_what_is_new_comes(
    server: Server, source: Source, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with first(server, key, A, **ACK) as one:
        for index in (1, 2, 3, 4):
            await source.tell(happened=[trade(A, index)])
        await one.read(4)
        await one.client.ask("ack", subscription="mine", epoch=1, seq=1)
    monkeypatch.setattr(acknowledged, "MOST_BYTES", 2 * EVENT + EVENT // 2)
    async with again(server, one.left) as (back, answer):
        (gap,) = [gap for gap in answer["gaps"] if gap.get("subscription")]
        assert (gap["filled"], gap["source"], gap["reason"]) == (False, "none", "too_much")
        assert (gap["from"]["seq"], gap["to"]["seq"]) == (2, 4)
        await source.tell(happened=[trade(A, 5)])
        assert [piece["index"] for piece in await back.read(1)] == [5]
        assert "redelivered" not in back.messages[-1]
        assert (await back.client.ask("ack", subscription="mine", epoch=1, seq=4))["pending"] == 1
        assert (await back.client.ask("ack", subscription="mine", epoch=1, seq=5))["pending"] == 0
    async with again(server, back.left) as (_, answer):
        (gap,) = [gap for gap in answer["gaps"] if gap.get("subscription")]
        assert (gap["filled"], gap["from"]["seq"]) == (True, 6)


# Events that wait for room


def test_too_many_bytes_that_wait_for_room_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "EVENT_BYTES", 4 * EVENT)
    hub = make_hub()
    client, other = Client(hub), Client(hub, "other")
    for one in (client, other):
        one.cover([A], DataType.TRADE)
    client.wire.stop()
    for seq in range(1, 5):
        hub.receive(blob([], seq, happened=happened(seq)))
    assert client.wire.messages == []
    hub.receive(blob([], 5, happened=happened(5)))
    (error,) = client.wire.take()
    assert (error["type"], error["name"]) == ("error", "event_overflow")
    assert client.wire.closed == (4041, "event_overflow")
    assert hub.counters.overflowed == 1
    assert [message["seq"] for message in other.wire.messages] == [1, 2, 3, 4, 5]


def test_one_message_that_is_larger_than_all_that_may_wait_is_sent_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "EVENT_BYTES", EVENT)
    hub = make_hub()
    client = Client(hub)
    client.cover([A], DataType.TRADE, DataType.QUOTE)
    client.wire.stop()
    hub.receive(blob([quote(A, 1)], 1, happened=happened(1, 10)))
    hub.receive(blob([quote(A, 2)], 2))
    client.wire.allow(None)
    assert [(piece["type"], piece["seq"]) for piece in client.wire.data] == [("trade", 1)] * 10 + [("quote", 2)]
    assert client.wire.closed is None


@pytest.mark.parametrize("bound", ["EVENT_BYTES", "EVENT_LIMIT"])
def test_events_that_come_while_others_wait_already_are_not_lost_when_a_reply_comes(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """A client that has come back is owed nearly all that it may be, and subscribes to more."""
    monkeypatch.setattr(outbox, bound, 4 * (EVENT if bound == "EVENT_BYTES" else 1))
    hub = make_hub()
    hub.receive(blob([quote(B, 1)], 1))
    client = Client(hub)
    client.cover([A], DataType.TRADE)
    client.wire.stop()
    client.connection.hold()
    pieces = [piece for _, pieces in happened(1, 4).values() for piece in pieces]
    assert client.connection.outbox.put_first([Waiting(JSON, Head("main", 1, 1), pieces)])
    client.connection.release()
    hub.receive(blob([], 2, happened=happened(2)))
    client.cover([A, B], DataType.TRADE, DataType.QUOTE)
    client.wire.allow(None)
    assert [message.get("name") for message in client.wire.messages] == ["event_overflow"], "one of them would be lost"
    assert client.wire.closed == (4041, "event_overflow")


# Events of a client that comes back


def waiting(seq: int, count: int) -> Waiting:
    return Waiting(JSON, Head("main", 1, seq), [b"x" * EVENT] * count)


def test_what_goes_first_counts_with_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "EVENT_BYTES", 4 * EVENT)
    box = Outbox()
    assert box.add_events(waiting(3, 2))
    assert box.put_first([waiting(1, 1), waiting(2, 1)])
    assert not box.add_events(waiting(4, 1))
    assert not box.put_first([waiting(0, 1)])


async def test_a_return_that_is_too_large_with_what_has_come_since_is_told_to_come_again(
    server: Server, source: Source, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with first(server, key, A, data_types=["trade"]) as one:
        await source.tell(happened=[trade(A, 1)])
        await one.read(1)
    await source.tell(happened=[trade(A, 2), trade(A, 3)])
    await heard(2)
    monkeypatch.setattr(outbox, "EVENT_BYTES", EVENT)
    async with again(server, one.left) as (back, error):
        assert (error["type"], error["name"], error["retryable"]) == ("error", "event_overflow", True)
        assert await back.client.closed() == 4041
        assert overflowed() == 1
    monkeypatch.undo()
    async with again(server, one.left) as (back, answer):
        assert answer["recovered"] is True
        assert [piece["index"] for piece in await back.read(2)] == [2, 3]


async def test_a_return_that_is_too_large_by_itself_is_a_gap_that_is_not_filled_and_a_snapshot(
    server: Server, source: Source, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with first(server, key, A, data_types=["trade", "quote"]) as one:
        await source.tell(quote(A, 1), happened=[trade(A, 1)])
        await one.read(2)
    await source.tell(quote(A, 2), happened=[trade(A, 2), trade(A, 3)])
    await heard(2)
    monkeypatch.setattr(resume, "EVENT_BYTES", EVENT)
    async with again(server, one.left) as (back, answer):
        (gap,) = answer["gaps"]
        assert (answer["recovered"], gap["filled"], gap["source"], gap["reason"]) == (False, False, "snapshot", "too_much")
        (piece,) = await back.read(1)
        assert (piece["type"], piece["seq"], back.messages[0]["snapshot"]) == ("quote", 2, True)
        await source.tell(happened=[trade(A, 4)])
        assert [piece["index"] for piece in await back.read(1)] == [4]

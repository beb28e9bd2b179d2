"""Subscriptions that are acknowledged: at least once, in order, and never more than is kept."""

from __future__ import annotations

from typing import Any

import pytest

from streaming import acknowledged, runtime
from tests.streaming.returning import Source, again, first, trade
from tests.streaming.server import SYMBOLS, Server, client, new_key, quote, until

A, B = SYMBOLS[:2]
ACK: dict[str, Any] = {"data_types": ["trade"], "ack": True, "subscription": "mine"}


def indices(pieces: list[dict[str, Any]]) -> list[int]:
    return [piece["index"] for piece in pieces]


async def test_what_is_not_acknowledged_comes_again(
    server: Server, source: Source, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledged, "AGAIN", 0.2)
    async with first(server, key, A, **ACK) as one:
        await source.tell(happened=[trade(A, 1), trade(A, 2)])
        await source.tell(happened=[trade(A, 3)])
        assert indices(await one.read(3)) == [1, 2, 3]
        assert [(message["subscription"], message.get("redelivered")) for message in one.messages] == [("mine", None)] * 2
        one.messages.clear()
        assert indices(await one.read(3)) == [1, 2, 3]
        assert [message["redelivered"] for message in one.messages] == [True, True]
        answer = await one.client.ask("ack", subscription="mine", epoch=1, seq=1)
        assert (answer["type"], answer["subscription"], answer["pending"]) == ("acked", "mine", 1)
        one.messages.clear()
        while indices(await one.read(1)) != [3]:
            one.messages.clear()
        assert (await one.client.ask("ack", subscription="mine", streams={"main": {"epoch": 1, "seq": 2}}))["pending"] == 0
        await source.tell(happened=[trade(A, 4)])
        found = await one.read(1)
        while indices(found) != [4]:
            assert indices(found) == [3], "sent again while the answer was under way"
            found = await one.read(1)


async def test_what_was_not_acknowledged_comes_on_the_next_connection(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A, **ACK) as one:
        for index in (1, 2, 3):
            await source.tell(happened=[trade(A, index), trade(B, index)])
        assert indices(await one.read(3)) == [1, 2, 3]
        await one.client.ask("ack", subscription="mine", epoch=1, seq=1)
    await source.tell(happened=[trade(A, 4)])
    await until(lambda: runtime.current().hub.position("main")[1] == 4, "the hub to hear it")  # type: ignore[union-attr]
    async with again(server, one.left) as (back, answer):
        (gap,) = [gap for gap in answer["gaps"] if gap.get("subscription")]
        assert (gap["subscription"], gap["from"]["seq"], gap["filled"]) == ("mine", 2, True)
        assert answer["recovered"], "nothing else is covered, so nothing else can be missing"
        assert indices(await back.read(3)) == [2, 3, 4]
        assert [message["redelivered"] for message in back.messages] == [True] * 3
        await source.tell(happened=[trade(A, 5)])
        assert indices(await back.read(1)) == [5]
        assert "redelivered" not in back.messages[-1]


async def test_more_than_is_kept_ends_the_connection(
    server: Server, source: Source, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledged, "MOST", 3)
    async with client(server, key) as one:
        await one.receive("connected")
        await one.ask("subscribe", symbols=[A], **ACK)
        for index in range(5):
            await source.tell(happened=[trade(A, index)])
        assert (await one.receive("error"))["name"] == "event_overflow"
        assert await one.closed() == 4041


async def test_quotes_beside_it_come_as_always(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A, **ACK) as one:
        await one.client.ask("subscribe", symbols=[A], data_types=["quote", "trade"])
        await source.tell(quote(A, price=1), happened=[trade(A, 1)])
        messages = [await one.client.receive("data"), await one.client.receive("data")]
        assert {message.get("subscription") for message in messages} == {"mine", None}
        own, shared = sorted(messages, key=lambda message: "subscription" not in message)
        assert [piece["type"] for piece in own["data"]] == ["trade"]
        assert sorted(piece["type"] for piece in shared["data"]) == ["quote", "trade"]


@pytest.mark.parametrize("data_types", [["quote"], ["trade", "price"]])
async def test_only_events_can_be_acknowledged(server: Server, key: str, data_types: list[str]) -> None:
    async with client(server, key) as one:
        await one.receive("connected")
        answer = await one.ask("subscribe", symbols=[A], data_types=data_types, ack=True)
        assert (answer["name"], answer["parameter"]) == ("invalid_argument", "ack")


async def test_a_wrong_acknowledgement_is_told_what_is_wrong(server: Server) -> None:
    async with client(server, (await new_key())[1]) as one:
        await one.receive("connected")
        assert (await one.ask("ack", epoch=1, seq=1))["name"] == "unknown_subscription"
        await one.ask("subscribe", symbols=[A])
        assert (await one.ask("ack", epoch=1, seq=1))["parameter"] == "subscription"
        await one.ask("subscribe", symbols=[A], **ACK)
        assert (await one.ask("ack", subscription="mine"))["parameter"] == "streams"
        state = (await one.ask("subscriptions"))["subscriptions"]
        assert (state["mine"]["ack"], "ack" in state["main"]) == (True, False)

"""Coming back after a cut: the subscriptions, every event and the newest of every state, over real connections."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async

from argus.access import check, services
from argus.access.models import APIKey
from marketdata.batch import Term
from streaming import runtime, saved
from tests.streaming.returning import Source, again, first, trade
from tests.streaming.server import SYMBOLS, Server, client, new_key, quote, subscriber, until

A, B, C = SYMBOLS[:3]


async def test_states_come_as_they_are_now_where_they_changed(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A, B) as one:
        await source.tell(quote(A, price=1), quote(B, price=1), quote(C, price=1))
        await one.read(2)
    await source.tell(quote(A, price=2))
    await source.tell(quote(C, price=2))
    await source.tell(quote(A, price=3))
    await until(lambda: runtime.current().hub.position("main")[1] == 4, "the hub to hear it")  # type: ignore[union-attr]
    async with again(server, one.left) as (back, answer):
        assert (answer["type"], answer["id"], answer["recovered"], answer["rejected"]) == ("resumed", 1, True, [])
        assert answer["subscriptions"]["main"]["symbols"] == [A, B]
        (gap,) = answer["gaps"]
        assert (gap["from"], gap["to"]) == ({"epoch": 1, "seq": 2}, {"epoch": 1, "seq": 4})
        assert (gap["feed"], gap["filled"], gap["source"]) == ("main", True, "state")
        (piece,) = await back.read(1)
        assert (piece["symbol"], piece["price"]) == (A, 3)
        assert "snapshot" not in back.messages[0]
        await source.tell(quote(B, price=4))
        assert [(piece["symbol"], piece["price"]) for piece in await back.read(1)] == [(B, 4)]


async def test_every_event_comes_once_and_in_order(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A, B, data_types=["trade"]) as one:
        await source.tell(happened=[trade(A, 1), trade(B, 1), trade(A, 2)])
        await one.read(3)
    await source.tell(happened=[trade(A, 3), trade(C, 1)])
    await source.tell(quote(A))
    await source.tell(happened=[trade(B, 2), trade(A, 4), trade(A, 5)])
    await until(lambda: runtime.current().hub.position("main")[1] == 4, "the hub to hear it")  # type: ignore[union-attr]
    async with again(server, one.left) as (back, answer):
        assert (answer["recovered"], answer["gaps"][0]["source"]) == (True, "journal")
        await source.tell(happened=[trade(B, 3)])
        found = await back.read(5)
        assert [(piece["symbol"], piece["index"]) for piece in found] == [(A, 3), (B, 2), (A, 4), (A, 5), (B, 3)]
        assert [message["seq"] for message in back.messages] == [2, 4, 5]


async def test_events_and_states_come_together(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A, data_types=["trade", "quote"]) as one:
        await source.tell(quote(A, price=1), happened=[trade(A, 1)])
        await one.read(2)
    await source.tell(quote(A, price=2), happened=[trade(A, 2)])
    await source.tell(quote(A, price=3), happened=[trade(A, 3)])
    await until(lambda: runtime.current().hub.position("main")[1] == 3, "the hub to hear it")  # type: ignore[union-attr]
    async with again(server, one.left) as (back, _):
        found = await back.read(3)
        assert [(piece["type"], piece["seq"]) for piece in found] == [("trade", 2), ("trade", 3), ("quote", 3)]
        # Whoever is cut off before the quote has come must not resume behind it.
        assert [message.get("more") for message in back.messages] == [True, True, None]


async def test_beyond_the_journal_a_snapshot_comes_and_the_reason(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A, B, data_types=["trade", "quote"]) as one:
        await source.tell(quote(A, price=1), quote(B, price=1), kept=False)
        await one.read(2)
    current = runtime.current()
    assert current is not None
    for price in (2, 3):
        await source.tell(quote(A, price=price), happened=[trade(A, price)], kept=price > 2)
    await until(lambda: current.hub.position("main")[1] == 3, "the hub to hear it")
    current.past._feeds.clear()
    async with again(server, one.left) as (back, answer):
        assert answer["recovered"] is False
        (gap,) = answer["gaps"]
        assert (gap["filled"], gap["source"], gap["reason"]) == (False, "snapshot", "out_of_reach")
        found = await back.read(2)
        assert back.messages[0]["snapshot"] is True
        assert sorted((piece["symbol"], piece["price"]) for piece in found) == [(A, 3), (B, 1)]


async def test_a_client_without_a_position_gets_a_snapshot(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A) as one:
        pass
    await source.tell(quote(A, price=2))
    await until(lambda: runtime.current().hub.position("main")[1] == 1, "the hub to hear it")  # type: ignore[union-attr]
    async with again(server, one.left, key) as (back, answer):
        assert (answer["recovered"], answer["gaps"][0]["reason"]) == (False, "no_position")
        assert [piece["price"] for piece in await back.read(1)] == [2]
        assert back.messages[0]["snapshot"] is True


async def test_what_was_subscribed_to_last_comes_whole(server: Server, source: Source, key: str) -> None:
    """The cut may have come between the answer and the snapshot."""
    await source.tell(quote(A, price=1), quote(B, price=1))
    await until(lambda: runtime.current().hub.position("main")[1] == 1, "the hub to hear it")  # type: ignore[union-attr]
    async with first(server, key, A) as one:
        await one.read(1)
        await one.client.ask("subscribe", subscription="more", symbols=[B])
    async with again(server, one.left) as (back, answer):
        assert answer["recovered"] is True
        assert {piece["symbol"] for piece in await back.read(2)} >= {B}


async def test_a_change_of_publisher_that_lost_nothing_is_no_gap(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A, B, data_types=["trade", "quote"]) as one:
        await source.tell(quote(A, price=1), quote(B, price=1))
        await one.read(2)
    await source.tell(happened=[trade(A, 1)])
    end = (source.epoch, source.seq)
    source.epoch, source.seq = source.epoch + 1, 0
    await source.tell()
    await source.tell(quote(A, price=2), happened=[trade(A, 2)])
    await source.tell(quote(A, price=2), quote(B, price=1), term=Term(*end, recovered=True))
    await source.tell(happened=[trade(B, 1)])
    await until(lambda: runtime.current().hub.position("main") == (2, 4), "the hub to hear it")  # type: ignore[union-attr]
    async with again(server, one.left) as (back, answer):
        assert answer["recovered"] is True
        found = await back.read(4)
        events_found = [(piece["symbol"], piece["index"]) for piece in found if piece["type"] == "trade"]
        assert events_found == [(A, 1), (A, 2), (B, 1)]
        assert [(piece["symbol"], piece["price"]) for piece in found if piece["type"] == "quote"] == [(A, 2)]


async def test_a_hub_that_missed_events_finds_them_in_the_journal(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A, data_types=["trade"]) as one:
        await source.tell(happened=[trade(A, 1)])
        await source.tell(happened=[trade(A, 2)], heard=False)
        await source.tell(happened=[trade(A, 3)], heard=False)
        await source.tell(happened=[trade(A, 4)])
        assert [piece["index"] for piece in await one.read(4)] == [1, 2, 3, 4]
        assert [message["seq"] for message in one.messages] == [1, 2, 3, 4]


async def test_events_that_cannot_be_found_are_told_as_a_gap(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A, data_types=["trade"]) as one:
        await source.tell(happened=[trade(A, 1)])
        await one.read(1)
        await source.tell(happened=[trade(A, 2)], heard=False, kept=False)
        await source.tell(happened=[trade(A, 3)])
        gap = (await one.client.receive("gap"))["gap"]
        assert (gap["feed"], gap["filled"], gap["from"]) == ("main", False, {"epoch": 1, "seq": 2})
        assert [piece["index"] for piece in await one.read(1)] == [3]


async def test_an_unknown_session_is_refused_and_the_connection_goes_on(server: Server, key: str) -> None:
    async with client(server, key) as one:
        await one.receive("connected")
        answer = await one.ask("resume", session="nonsense")
        assert answer["name"] == "session_unknown"
        assert (await one.ask("subscribe", symbols=[A]))["type"] == "subscribed"


async def test_a_session_that_cannot_be_looked_up_now_may_be_asked_for_again(
    server: Server, source: Source, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with first(server, key, A) as one:
        pass

    async def away(token: str) -> None:
        raise TimeoutError

    with monkeypatch.context() as patched:
        patched.setattr(saved, "load", away)
        async with again(server, one.left, key) as (back, answer):
            assert (answer["name"], answer["retryable"], answer["retry_after"]) == ("not_ready", True, 1)
            patched.undo()
            assert (await back.client.ask("resume", session=one.token))["type"] == "resumed"


async def test_a_position_without_its_feed_is_refused_where_no_single_feed_is_known(server: Server, key: str) -> None:
    async with subscriber(server, key, A) as one:
        answer = await one.ask("resume", epoch=1, seq=1)
        assert (answer["name"], answer["parameter"]) == ("invalid_argument", "feed")


async def test_another_keys_session_is_unknown(server: Server, source: Source, key: str) -> None:
    async with first(server, key, A) as one:
        pass
    async with again(server, one.left, (await new_key())[1]) as (_, answer):
        assert answer["name"] == "session_unknown"


async def test_a_revoked_keys_session_lets_nobody_in(server: Server) -> None:
    stored, text = await new_key()
    async with first(server, text, A) as one:
        pass
    await until(lambda: saved.cache.get(saved._name(one.token)), "the session to be kept")
    await sync_to_async(services.revoke_keys)(keys=APIKey.objects.filter(pk=stored.pk))
    check.cache.clear()
    async with client(server) as other:
        await other.receive("connected")
        await other.send("resume", session=one.token)
        assert (await other.receive())["name"] == "key_revoked"
        assert await other.closed() == 4110


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({}, "session"),
        ({"session": "x", "epoch": 1}, "seq"),
        ({"session": "x", "feed": "main"}, "epoch"),
        ({"session": "x", "streams": {"main": {"epoch": 1}}}, "streams"),
        ({"session": "x", "epoch": 1, "seq": 2, "streams": {"main": {"epoch": 1, "seq": 2}}}, "streams"),
    ],
)
async def test_a_wrong_resume_is_told_what_is_wrong(server: Server, key: str, fields: dict[str, Any], parameter: str) -> None:
    async with client(server, key) as one:
        await one.receive("connected")
        answer = await one.ask("resume", **fields)
        assert (answer["name"], answer.get("parameter")) == ("invalid_argument", parameter)

"""The stream as a client sees it: a real server, real sockets, real keys, a feed through the real channel layer."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone
from websockets.exceptions import InvalidStatus

from argus.access.models import APIKey, Plan
from argus.access.services import revoke_keys
from argus.config import config
from marketdata.latest import store
from marketdata.types import Quote
from streaming import runtime, tickets
from tests.streaming.server import SYMBOLS, Client, Server, client, new_key, quote, subscriber, until

A, B, C = SYMBOLS[:3]


async def refusal(one: Client) -> tuple[str, int]:
    """The error that a connection is ended with, and its close code."""
    error = await one.receive("error")
    return error["name"], await one.closed()


# Connecting


@pytest.mark.parametrize("path", ["/ws", "/ws/", "/ws/market_data", "/ws/market_data/"])
async def test_a_key_in_a_header_is_welcomed_with_its_limits(server: Server, key: str, path: str) -> None:
    async with client(server, key, path=path) as one:
        hello = await one.receive()
    assert hello["type"] == "connected"
    assert hello["authenticated"] is True
    assert hello["protocol"] == 1
    assert hello["limits"]["symbols"] == 10_000
    assert hello["quota"] == {"limit": 10_000, "remaining": 10_000, "reset_seconds": 0}


async def test_a_bearer_token_is_a_key(server: Server, key: str) -> None:
    async with client(server, headers={"Authorization": f"Bearer {key}"}) as one:
        assert (await one.receive())["authenticated"] is True


async def test_a_key_in_a_message_is_welcomed(server: Server, key: str) -> None:
    async with client(server) as one:
        hello = await one.receive()
        assert (hello["type"], hello["authenticated"]) == ("connected", False)
        assert "limits" not in hello
        answer = await one.ask("auth", key=key)
        assert (answer["type"], answer["limits"]["connections"]) == ("authenticated", 100)
        assert (await one.ask("subscribe", symbols=[A]))["type"] == "subscribed"


async def test_the_connection_has_the_id_that_it_is_told(server: Server, key: str) -> None:
    async with client(server, key) as one:
        hello = await one.receive()
        assert hello["connection_id"] in server.connections


async def test_another_address_is_not_found(server: Server, key: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with client(server, key, path="/ws/elsewhere"):
            pass
    assert refused.value.response.status_code == 404


async def test_the_json_subprotocol_is_agreed_on(server: Server, key: str) -> None:
    async with client(server, key, subprotocols=["argus.v9", "argus.v1.json"]) as one:
        assert one.ws.subprotocol == "argus.v1.json"


async def test_only_unknown_subprotocols_are_refused(server: Server, key: str) -> None:
    async with client(server, key, subprotocols=["argus.v2.json"]) as one:
        assert await refusal(one) == ("subprotocol_not_supported", 4125)


async def test_messagepack_has_the_same_messages(server: Server, key: str) -> None:
    async with client(server, key, subprotocols=["argus.v1.msgpack"]) as one:
        read = msgspec.msgpack.decode
        assert read(await one.ws.recv())["type"] == "connected"
        await one.ws.send(msgspec.msgpack.encode({"action": "subscribe", "id": 1, "symbols": [SYMBOLS[0]]}))
        assert read(await one.ws.recv())["type"] == "subscribed"
        await one.send("ping", id="text")
        assert read(await one.ws.recv())["id"] == "text"
        await one.ws.send(b"\xc1")
        assert read(await one.ws.recv())["name"] == "bad_json"
        await server.feed.publish(quote(price=10.25, bid_price=(10.24,), bid_volume=(100,)))
        (piece,) = read(await one.ws.recv())["data"]
        assert (piece["type"], piece["price"], piece["bid_volume"], piece["open"], piece["seq"]) == (
            "quote",
            10.25,
            [100],
            None,
            1,
        )


async def test_compressed_messages_are_the_text_in_zlibs_format(server: Server, key: str) -> None:
    async with client(server, key, subprotocols=["argus.v1.json.deflate"]) as one:

        def read(message: str | bytes) -> Any:
            return json.loads(message if isinstance(message, str) else zlib.decompress(message))

        await one.send("subscribe", id=1, symbols=["*"])
        answers = [read(await one.ws.recv()), read(await one.ws.recv())]
        assert [answer["type"] for answer in answers] == ["connected", "subscribed"]
        quotes = [quote(symbol) for symbol in SYMBOLS[:100]]
        await server.feed.publish(*quotes)
        message = await one.ws.recv()
        assert isinstance(message, bytes)
        assert [piece["symbol"] for piece in read(message)["data"]] == list(SYMBOLS[:100])
        await server.feed.publish(quote(SYMBOLS[1], price=11.0))
        message = await one.ws.recv()
        assert isinstance(message, str), "a short message stays text"
        assert read(message)["data"][0]["price"] == 11.0


@pytest.mark.parametrize("parameter", ["key", "token", "API_KEY"])
async def test_a_key_in_the_address_is_refused_even_if_it_is_good(server: Server, key: str, parameter: str) -> None:
    async with client(server, path=f"/ws?{parameter}={key}") as one:
        assert await refusal(one) == ("key_in_url", 4126)


# Keys that are not good


@pytest.mark.parametrize("text", ["nonsense", "argus_abcd1234_" + "x" * 43])
async def test_an_unknown_key_in_a_header_is_refused(server: Server, text: str) -> None:
    async with client(server, text) as one:
        assert await refusal(one) == ("key_invalid", 4102)


async def test_an_unknown_key_in_a_message_is_refused(server: Server) -> None:
    async with client(server) as one:
        await one.receive("connected")
        answer = await one.ask("auth", key="nonsense")
        assert (answer["name"], await one.closed()) == ("key_invalid", 4102)


async def test_an_expired_key_is_refused(server: Server) -> None:
    row, text = await new_key()
    await sync_to_async(APIKey.objects.filter(pk=row.pk).update)(expires_at=timezone.now() - timedelta(seconds=1))
    async with client(server, text) as one:
        assert await refusal(one) == ("key_expired", 4109)


async def test_a_revoked_key_is_refused(server: Server) -> None:
    row, text = await new_key()
    await sync_to_async(revoke_keys)(keys=APIKey.objects.filter(pk=row.pk))
    async with client(server, text) as one:
        assert await refusal(one) == ("key_revoked", 4110)


async def test_a_key_from_another_network_is_refused(server: Server) -> None:
    _, text = await new_key(networks=["192.0.2.0/24"])
    async with client(server, text) as one:
        assert await refusal(one) == ("address_not_allowed", 4111)


async def test_a_key_without_the_read_scope_is_refused(server: Server) -> None:
    _, text = await new_key(scopes=["operate"])
    async with client(server, text) as one:
        assert await refusal(one) == ("forbidden", 4103)


async def test_a_connection_without_a_key_is_closed_in_time(patience: None, server: Server) -> None:
    async with client(server) as one:
        await one.receive("connected")
        assert await refusal(one) == ("auth_timeout", 4112)


async def test_a_connection_with_a_key_is_not_timed_out(patience: None, server: Server, key: str) -> None:
    async with client(server) as one, client(server) as stranger:
        await one.ask("auth", key=key)
        assert await stranger.closed() == 4112
        assert (await one.ask("ping"))["type"] == "pong"


async def test_a_stranger_who_keeps_asking_is_closed(server: Server) -> None:
    async with client(server) as one:
        for _ in range(8):
            await one.send("subscriptions")
        assert await refusal(one) == ("not_authenticated", 4101)


async def test_more_connections_than_the_plan_has_are_refused_until_one_ends(server: Server) -> None:
    _, text = await new_key(connections=1)
    async with client(server, text) as first:
        await first.receive("connected")
        async with client(server, text) as second:
            assert await refusal(second) == ("connection_limit", 4106)
    await until(lambda: not server.connections, "the first connection to be given back")
    async with client(server, text) as third:
        assert (await third.receive())["type"] == "connected"


# Keys and plans that change


async def test_a_revoked_key_ends_its_connections(server: Server) -> None:
    row, text = await new_key()
    _, other = await new_key()
    async with client(server, text) as one, client(server, other) as two:
        await one.receive("connected")
        await two.receive("connected")
        await sync_to_async(revoke_keys)(keys=APIKey.objects.filter(pk=row.pk))
        assert await refusal(one) == ("key_revoked", 4110)
        assert (await two.ask("ping"))["type"] == "pong"


async def test_a_key_that_expires_ends_its_connections(server: Server) -> None:
    _, text = await new_key(expires_at=timezone.now() + timedelta(seconds=1.5))
    async with client(server, text) as one:
        await one.receive("connected")
        assert await refusal(one) == ("key_expired", 4109)


async def test_an_edited_plan_counts_at_once(server: Server) -> None:
    row, text = await new_key()
    async with subscriber(server, text, A, B, data_types=["quote", "price"]) as one:
        await sync_to_async(Plan.objects.filter(pk=row.plan_id).update)(symbols=1, data_types=["price"])
        message = await one.receive("limits")
        assert (message["limits"]["symbols"], message["limits"]["data_types"]) == (1, ["price"])
        assert message["subscriptions"]["main"]["data_types"] == ["price"]
        assert (await one.ask("subscribe", symbols=[C]))["name"] == "symbol_limit"
        await server.feed.publish(quote(A))
        assert [item["type"] for item in (await one.receive("data"))["data"]] == ["price"]


async def test_a_key_that_loses_its_network_ends_its_connections(server: Server) -> None:
    row, text = await new_key()
    async with client(server, text) as one:
        await one.receive("connected")
        await sync_to_async(APIKey.objects.filter(pk=row.pk).update)(networks=["192.0.2.0/24"])
        assert await refusal(one) == ("address_not_allowed", 4111)


# Tickets


async def test_a_ticket_is_good_once(server: Server, key: str) -> None:
    ticket = await sync_to_async(tickets.issue)(key)
    async with client(server, path=f"/ws?ticket={ticket}") as one:
        assert (await one.receive())["authenticated"] is True
    async with client(server, path=f"/ws?ticket={ticket}") as two:
        assert await refusal(two) == ("ticket_invalid", 4127)


async def test_of_many_that_show_a_ticket_at_once_one_is_let_in(server: Server, key: str) -> None:
    ticket = await sync_to_async(tickets.issue)(key)

    async def outcome() -> str:
        async with client(server, path=f"/ws?ticket={ticket}") as one:
            return str((await one.receive())["type"])

    assert sorted(await asyncio.gather(*(outcome() for _ in range(8)))) == ["connected"] + ["error"] * 7


async def test_a_ticket_of_a_key_that_was_revoked_since_is_refused(server: Server) -> None:
    row, text = await new_key()
    ticket = await sync_to_async(tickets.issue)(text)
    await sync_to_async(revoke_keys)(keys=APIKey.objects.filter(pk=row.pk))
    async with client(server, path=f"/ws?ticket={ticket}") as one:
        assert await refusal(one) == ("key_revoked", 4110)


async def test_a_connection_by_ticket_ends_with_its_key(server: Server) -> None:
    row, text = await new_key()
    ticket = await sync_to_async(tickets.issue)(text)
    async with client(server, path=f"/ws?ticket={ticket}") as one:
        await one.receive("connected")
        await sync_to_async(revoke_keys)(keys=APIKey.objects.filter(pk=row.pk))
        assert await refusal(one) == ("key_revoked", 4110)


# Data


async def test_a_subscriber_receives_a_snapshot_and_then_what_changes(server: Server, key: str) -> None:
    async with subscriber(server, key, A) as witness:
        await server.feed.publish(quote(A, price=10.0), quote(B, price=20.0))
        await witness.receive("data")
        async with subscriber(server, key, A, B) as one:
            snapshot = await one.receive()
            assert snapshot["snapshot"] is True
            assert {item["symbol"]: (item["price"], item["seq"]) for item in snapshot["data"]} == {A: (10.0, 1), B: (20.0, 1)}
            await server.feed.publish(quote(B, price=20.5, time=1_700_000_003_000))
            change = await one.receive()
    assert (change["feed"], change["epoch"], change["seq"]) == ("main", 1, 2)
    assert "snapshot" not in change
    assert [(item["symbol"], item["price"], item["seq"]) for item in change["data"]] == [(B, 20.5, 2)]


async def test_what_is_not_subscribed_is_not_received(server: Server, key: str) -> None:
    async with subscriber(server, key, A) as one, subscriber(server, key, "*") as all:
        await server.feed.publish(quote(B))
        await server.feed.publish(quote(A))
        assert (await all.receive())["data"][0]["symbol"] == B
        assert (await one.receive())["data"][0]["symbol"] == A


async def test_an_update_and_an_unsubscribe_act_while_data_flows(server: Server, key: str) -> None:
    async with subscriber(server, key, A, B) as one, subscriber(server, key, "*") as witness:
        await one.ask("update", data_types=["price"])
        await one.ask("unsubscribe", symbols=[B])
        await server.feed.publish(quote(A), quote(B))
        assert [(item["type"], item["symbol"]) for item in (await one.receive("data"))["data"]] == [("price", A)]
        await one.ask("unsubscribe")
        await server.feed.publish(quote(A, time=1_700_000_003_000))
        await witness.receive("data")
        assert (await one.ask("ping"))["type"] == "pong"


async def test_a_filter_is_changed_and_taken_away_while_data_flows(server: Server, key: str) -> None:
    def prices(message: dict[str, Any]) -> list[tuple[str, float]]:
        return [(item["symbol"], item["price"]) for item in message["data"]]

    async with subscriber(server, key, A, B, filters={"min_price": 15}) as one:
        await server.feed.publish(quote(A, price=10.0), quote(B, price=20.0))
        assert prices(await one.receive("data")) == [(B, 20.0)]
        answer = await one.ask("update", filters={"max_price": 15})
        assert answer["subscriptions"]["main"]["filters"] == {"max_price": 15.0}
        assert prices(await one.receive("data")) == [(A, 10.0)]
        await server.feed.publish(quote(A, price=10.5), quote(B, price=20.5))
        assert prices(await one.receive("data")) == [(A, 10.5)]
        await one.ask("update", filters=None)
        assert sorted(prices(await one.receive("data"))) == [(A, 10.5), (B, 20.5)]
        await server.feed.publish(quote(B, price=21.0))
        assert prices(await one.receive("data")) == [(B, 21.0)]


async def test_a_frequency_is_changed_while_data_flows_and_nothing_is_lost_or_sent_twice(server: Server, key: str) -> None:
    """Merged to the newest in between."""
    got: list[tuple[str, float]] = []
    snapshots = 0

    async def read(one: Client, *, type: str = "data") -> dict[str, Any]:
        """The next message of a type; all data on the way is noted."""
        nonlocal snapshots
        while True:
            message = await one.receive()
            if message["type"] == "data":
                got.extend((item["symbol"], item["price"]) for item in message["data"])
                snapshots += message.get("snapshot", False)
            if message["type"] == type:
                return message

    async def publish(*quotes: Quote) -> None:
        await server.feed.publish(*quotes)
        current = runtime.current()
        assert current is not None
        await until(lambda: current.hub.position("main")[1] == server.feed.seq, "the message to be sent")

    async def change(one: Client, frequency: str) -> None:
        await one.send("update", update_frequency=frequency)
        state = (await read(one, type="updated"))["subscriptions"]
        assert {name: (item["count"], item["update_frequency"]) for name, item in state.items()} == {"main": (2, frequency)}
        (connection,) = server.connections.values()
        assert [view.frequency for view in connection.views] == [frequency]

    async with subscriber(server, key, A, B) as one:
        await publish(quote(A, price=1.0), quote(B, price=1.0))
        await publish(quote(A, price=2.0))
        await change(one, "1s")
        await publish(quote(A, price=3.0))
        while (A, 3.0) not in got:
            await read(one)
        assert got == [(A, 1.0), (B, 1.0), (A, 2.0), (A, 3.0)]
        ticked, before = time.monotonic(), len(got)
        for price in range(4, 24):
            await publish(quote(A, price=float(price)))
        while (A, 23.0) not in got:
            await read(one)
        merged = [price for _, price in got[before:]]
        # One for each tick that there can have been.
        assert len(merged) <= time.monotonic() - ticked + 1
        assert merged == sorted(merged)
        before = len(got)
        await publish(quote(A, price=24.0), quote(B, price=24.0))
        await publish(quote(A, price=25.0))
        await change(one, "realtime")
        await publish(quote(A, price=26.0))
        await publish(quote(A, price=27.0), quote(B, price=27.0))
        while (B, 27.0) not in got:
            await read(one)
        # A tick may have come after the first of the two messages.
        after = [item for item in got[before:] if item != (A, 24.0)]
        assert sorted(after[:-3]) == [(A, 25.0), (B, 24.0)]
        assert after[-3:] == [(A, 26.0), (A, 27.0), (B, 27.0)]
        assert snapshots == 0
        assert len(got) == len(set(got))


async def test_a_new_member_of_a_group_is_received_without_asking(server: Server, key: str) -> None:
    from marketdata import models, universe
    from marketdata.types import Instrument

    new = "300999.SZ"

    @sync_to_async
    def save() -> None:
        universe.save_reference(
            source="test", instruments=[Instrument(symbol=word, source="test") for word in (A, new)], sectors={"few": [A, new]}
        )
        assert models.Revision.objects.exists()

    async with subscriber(server, key, "sector:few") as one:
        await save()
        (connection,) = server.connections.values()
        await until(lambda: connection.symbols == 2, "the subscription to follow the refreshed universe")
        await server.feed.publish(quote(B), quote(new))
        assert [item["symbol"] for item in (await one.receive("data"))["data"]] == [new]


# Quota


async def test_requests_beyond_the_plan_are_refused_and_the_connection_goes_on(server: Server) -> None:
    _, text = await new_key(requests=2)
    async with client(server, text) as one:
        await one.receive("connected")
        assert [(await one.ask("subscriptions"))["type"] for _ in range(2)] == ["subscriptions"] * 2
        refused = await one.ask("subscribe", symbols=[A])
        assert (refused["name"], refused["retryable"], refused["id"]) == ("rate_limited", True, "ask")
        assert 0 < refused["retry_after"] <= 60
        assert (await one.ask("ping"))["type"] == "pong"
    async with client(server, text) as one:
        assert (await one.receive("connected"))["quota"]["remaining"] == 0


async def test_messages_that_cannot_be_read_cost_a_request_too(server: Server) -> None:
    _, text = await new_key(requests=2)
    async with client(server, text) as one:
        await one.receive("connected")
        for _ in range(3):
            await one.ws.send("{")
        assert [(await one.receive("error"))["name"] for _ in range(3)] == ["bad_json", "bad_json", "rate_limited"]


async def test_pings_are_free(server: Server) -> None:
    _, text = await new_key(requests=1)
    async with client(server, text) as one:
        assert [(await one.ask("ping"))["type"] for _ in range(5)] == ["pong"] * 5
        assert (await one.ask("subscriptions"))["type"] == "subscriptions"


async def test_answers_come_in_the_order_of_the_requests(server: Server, key: str) -> None:
    async with client(server, key) as one:
        await one.receive("connected")
        for number in range(200):
            action: dict[str, Any] = {"symbols": [SYMBOLS[number % 50]]} if number % 2 else {}
            await one.send("subscribe" if number % 2 else "ping", id=number, **action)
        answers = [await one.receive() for _ in range(200)]
    assert [answer["id"] for answer in answers] == list(range(200))


# Another publisher, or none


async def test_a_takeover_brings_what_was_missing_nothing_twice_and_the_new_epoch(server: Server, key: str) -> None:
    async with subscriber(server, key, A, B) as one, client(server, key) as idle:
        await server.feed.publish(quote(A), quote(B))
        await one.receive("data")
        await server.feed.take_over(quote(A, price=11.0), known=[quote(B)])
        data = await one.receive("data")
        assert (data["epoch"], [piece["symbol"] for piece in data["data"]]) == (2, [A])
        epoch = await one.receive("epoch")
        assert epoch == {
            "type": "epoch",
            "feed": "main",
            "epoch": 2,
            "seq": 3,
            "previous": {"epoch": 1, "seq": 1},
            "recovered": True,
        }
        assert await idle.receive("epoch") == epoch
        await server.feed.publish(quote(B, price=12.0))
        assert (await one.receive("data"))["seq"] == 4


async def test_a_silent_source_is_told_at_once_and_so_is_its_return(server: Server, key: str) -> None:
    async with subscriber(server, key, A) as one:
        await server.feed.publish(quote(A))
        assert (await one.receive("heartbeat"))["stale"] is False
        store.feeds["main"].canary_arrived = time.monotonic() - config.stale_after - 1
        assert (await one.receive("heartbeat"))["stale"] is True
        async with client(server, key) as late:
            assert (await late.receive("connected"))["stale"] is True
        await server.feed.publish()
        assert (await one.receive("heartbeat"))["stale"] is False
        async with client(server, key) as late:
            assert "stale" not in await late.receive("connected")

"""Massive's own streaming client, unmodified, against a running server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from asgiref.sync import sync_to_async
from massive import WebSocketClient
from massive.exceptions import AuthError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from argus.access.models import APIKey
from argus.access.services import revoke_keys
from argus.config import config
from argus.errors import EVENT_OVERFLOW
from marketdata import universe
from marketdata.types import DataType, Trade
from marketdata.universe import Universe
from streaming import runtime
from tests.dialects.overflow import overflow
from tests.dialects.test_massive_session import minute
from tests.streaming.server import Server, new_key, quote, until

MOUTAI = "600519.SH"
PUFA = "600000.SH"
PATH = "/compat/massive/stocks"


@pytest.fixture(autouse=True)
def _known(server: Server) -> None:
    universe.set_current(Universe(symbols=(PUFA, MOUTAI, "000001.SZ")))


class Vendor:
    """Massive's client on its way, and the events that it has handed over."""

    def __init__(self, server: Server, key: str, *subscriptions: str, **options: Any) -> None:
        self.events: list[Any] = []
        self.client = WebSocketClient(
            api_key=key,
            feed=f"127.0.0.1:{server.port}/compat/massive",
            market="stocks",
            secure=False,
            subscriptions=list(subscriptions),
            **options,
        )
        self.server = server
        self.task = asyncio.create_task(self.client.connect(self._take, proxy=None))

    async def _take(self, events: list[Any]) -> None:
        self.events += events

    async def covering(self, *channels: str) -> None:
        """Wait until the server serves these channels, and no others."""

        def served() -> bool:
            if self.task.done():
                self.task.result()
            return any(
                {name for view in one.views for name in CHANNEL_OF if CHANNEL_OF[name] in view.coverage} == set(channels)
                for one in self.server.connections.values()
            )

        await until(served, f"{channels} to be served")

    async def got(self, count: int) -> list[Any]:
        """The first so many events, and no more of them than that."""
        await until(lambda: len(self.events) >= count or self.task.done(), f"{count} events")
        assert len(self.events) == count, self.events
        found, self.events = self.events, []
        return found


CHANNEL_OF = {"T": DataType.TRADE, "Q": DataType.QUOTE, "AM": DataType.KLINE_1M}


@contextlib.asynccontextmanager
async def vendor(server: Server, key: str, *subscriptions: str, **options: Any) -> AsyncIterator[Vendor]:
    """A client that is subscribed already."""
    one = Vendor(server, key, *subscriptions, **options)
    try:
        await one.covering(*{word.partition(".")[0] for word in subscriptions})
        yield one
    finally:
        await one.client.close()
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)


@contextlib.asynccontextmanager
async def raw(server: Server, path: str = PATH, **options: Any) -> AsyncIterator[Any]:
    async with connect(server.url + path, proxy=None, **options) as connection:
        yield connection


async def statuses(connection: Any) -> list[tuple[str, str]]:
    message = json.loads(await asyncio.wait_for(connection.recv(), 10))
    return [(item["status"], item["message"]) for item in message]


def trade(index: int, symbol: str = MOUTAI) -> bytes:
    """One as a publisher sends it."""
    told = Trade(symbol=symbol, time=1_700_000_000_000 + index, index=index, price=1408.88, volume=100, source="test")
    return msgspec.json.encode(told)[:-1] + b',"seq":1}'


def book(price: float) -> dict[str, Any]:
    return {"price": price, "bid_price": (price - 0.01,), "bid_volume": (300,), "ask_price": (price,), "ask_volume": (200,)}


async def test_quotes_trades_and_minutes_of_600519_arrive(server: Server, key: str) -> None:
    async with vendor(server, key, f"Q.{MOUTAI}", f"T.{MOUTAI}", f"AM.{MOUTAI}") as one:
        await server.feed.publish(quote(MOUTAI, **book(1408.88)), quote(PUFA, **book(10.0)))
        (event,) = await one.got(1)
        assert (event.event_type, event.symbol, event.ask_price, event.bid_size) == ("Q", MOUTAI, 1408.88, 300)
        traded = {DataType.TRADE: ([MOUTAI, PUFA, MOUTAI], [trade(1), trade(2, PUFA), trade(3)])}
        await server.feed.publish(events=traded)
        assert [(event.event_type, event.id) for event in await one.got(2)] == [("T", "1"), ("T", "3")]
        forming = minute(symbol=MOUTAI, time=1_700_000_060_000, closed=False)
        await server.feed.publish(bars=[minute(symbol=MOUTAI), forming, minute(symbol=PUFA)])
        (bar,) = await one.got(1)
        assert (bar.event_type, bar.symbol, bar.end_timestamp, bar.close) == ("AM", MOUTAI, 1_700_000_000_000, 10.1)


async def test_the_star_is_everything_and_the_client_may_change_its_mind(server: Server, key: str) -> None:
    async with vendor(server, key, "Q.*") as one:
        await server.feed.publish(quote(MOUTAI, **book(1408.88)), quote(PUFA, **book(10.0)))
        assert {event.symbol for event in await one.got(2)} == {MOUTAI, PUFA}
        one.client.unsubscribe("Q.*")
        one.client.subscribe(f"T.{MOUTAI}")
        await one.covering("T")
        await server.feed.publish(quote(PUFA, **book(11.0)), events={DataType.TRADE: ([MOUTAI], [trade(9)])})
        assert [event.event_type for event in await one.got(1)] == ["T"]


async def test_what_is_known_already_comes_at_once(server: Server, key: str) -> None:
    await server.feed.publish(quote(MOUTAI, **book(1408.88)))
    current = runtime.current()
    assert current is not None
    await until(lambda: MOUTAI in current.hub.store.fragments, "the quote to arrive")
    async with vendor(server, key, f"Q.{MOUTAI}") as one:
        (event,) = await one.got(1)
        assert event.ask_price == 1408.88


async def test_a_key_that_is_not_good_is_the_client_s_auth_error(server: Server) -> None:
    one = Vendor(server, "argus_abcd1234_" + "x" * 43)
    with pytest.raises(AuthError, match="not known"):
        await asyncio.wait_for(one.task, 10)


async def test_what_is_refused_is_in_the_client_s_log(server: Server, key: str, caplog: pytest.LogCaptureFixture) -> None:
    async with vendor(server, key, f"Q.{MOUTAI}") as one:
        with caplog.at_level(logging.WARNING):
            one.client.subscribe("A.600519.SH")
            await until(lambda: "no aggregates of a second" in caplog.text, "the refusal")


async def test_a_key_that_is_revoked_ends_the_connection_and_the_client_gives_up(server: Server) -> None:
    row, text = await new_key()
    async with vendor(server, text, f"Q.{MOUTAI}") as one:
        await sync_to_async(revoke_keys)(keys=APIKey.objects.filter(pk=row.pk))
        with pytest.raises(AuthError, match="revoked"):
            await asyncio.wait_for(asyncio.shield(one.task), 20)


async def test_the_client_comes_back_after_a_cut_and_has_its_subscriptions_again(server: Server, key: str) -> None:
    async with vendor(server, key, f"Q.{MOUTAI}") as one:
        (before,) = server.connections
        server.connections[before].wire.abort()
        await until(lambda: before not in server.connections and server.connections, "another connection")
        await one.covering("Q")
        await server.feed.publish(quote(MOUTAI, **book(1408.88)))
        assert [event.symbol for event in await one.got(1)] == [MOUTAI]


async def test_the_service_s_end_is_told_before_it_closes(server: Server, key: str) -> None:
    async with raw(server) as connection:
        assert await statuses(connection) == [("connected", "Connected Successfully")]
        await connection.send(json.dumps({"action": "auth", "params": key}))
        assert await statuses(connection) == [("auth_success", "authenticated")]
        stopping = asyncio.create_task(runtime.stop())
        assert await statuses(connection) == [("force_disconnect", "restart: reconnect")]
        with pytest.raises(ConnectionClosedError) as closed:
            await asyncio.wait_for(connection.recv(), 10)
        await stopping
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


async def test_more_connections_than_the_plan_has_are_max_connections(server: Server) -> None:
    _, text = await new_key(connections=1)
    async with vendor(server, text, f"Q.{MOUTAI}"), raw(server) as connection:
        await statuses(connection)
        await connection.send(json.dumps({"action": "auth", "params": text}))
        assert (await statuses(connection))[0][0] == "max_connections"
        with pytest.raises(ConnectionClosedError):
            await asyncio.wait_for(connection.recv(), 10)


async def test_no_key_in_time_is_auth_timeout(server: Server, patience: None) -> None:
    async with raw(server) as connection:
        await statuses(connection)
        assert (await statuses(connection))[0][0] == "auth_timeout"


async def test_who_is_owed_too_many_events_is_a_slow_consumer(server: Server, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with raw(server, additional_headers=headers, max_size=None, max_queue=1) as connection:
        await connection.send(json.dumps({"action": "subscribe", "params": f"T.{MOUTAI}"}))
        await overflow(server, MOUTAI)
        message: list[dict[str, Any]] = []
        while not message or message[0]["ev"] == "T" or message[0]["status"] in ("connected", "auth_success", "success"):
            message = json.loads(await asyncio.wait_for(connection.recv(), 10))
        assert [item["status"] for item in message] == ["slow_consumer"]
        with pytest.raises(ConnectionClosedError) as closed:
            await asyncio.wait_for(connection.recv(), 10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == EVENT_OVERFLOW.close


async def test_a_message_that_is_too_big_closes(server: Server, key: str) -> None:
    async with raw(server, additional_headers={"Authorization": f"Bearer {key}"}) as connection:
        await statuses(connection)
        too_big = "Q." + "1" * config.max_message_size
        await connection.send(json.dumps({"action": "subscribe", "params": too_big}))
        with pytest.raises(ConnectionClosedError) as closed:
            await asyncio.wait_for(connection.recv(), 10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_a_key_in_the_address_is_refused(server: Server, key: str) -> None:
    async with raw(server, f"{PATH}?apiKey={key}") as connection:
        assert (await statuses(connection))[0][0] == "auth_failed"


async def test_the_budget_of_requests_holds(server: Server) -> None:
    _, text = await new_key(requests=1)
    async with raw(server) as connection:
        await statuses(connection)
        await connection.send(json.dumps({"action": "auth", "params": text}))
        assert (await statuses(connection))[0][0] == "auth_success"
        for expected in ("success", "error"):
            await connection.send(json.dumps({"action": "subscribe", "params": f"Q.{MOUTAI}"}))
            assert (await statuses(connection))[0][0] == expected

"""Alpaca's own streaming client, unmodified, against a running server; and Alpaca's protocol as text, without it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgpack
import msgspec
import pytest
from alpaca.data.enums import DataFeed
from alpaca.data.live import StockDataStream
from asgiref.sync import sync_to_async
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from argus.access.models import APIKey
from argus.access.services import revoke_keys
from argus.config import config
from argus.errors import EVENT_OVERFLOW
from marketdata import universe
from marketdata.types import DataType, Period, Side, Trade
from marketdata.universe import Universe
from streaming.dialects.alpaca import CHANNELS
from streaming.dialects.alpaca_errors import MESSAGES
from tests.dialects.overflow import overflow
from tests.dialects.test_alpaca_session import bar, status, subscription
from tests.streaming.server import Server, new_key, quote, until

MOUTAI, PUFA, PINGAN = "600519.SH", "600000.SH", "000001.SZ"
PATH = "/compat/alpaca/v2/sip"
TIME = 1_782_441_002_123
BOOK = {"bid_price": (9.99,), "bid_volume": (300,), "ask_price": (10.01,), "ask_volume": (200,)}
CHANNEL_OF_METHOD = {
    "trades": "trades",
    "quotes": "quotes",
    "bars": "bars",
    "updated_bars": "updatedBars",
    "daily_bars": "dailyBars",
    "trading_statuses": "statuses",
}


@pytest.fixture(autouse=True)
def _known(server: Server) -> None:
    universe.set_current(Universe(symbols=(PUFA, MOUTAI, PINGAN)))


def trade(symbol: str, index: int, **fields: Any) -> bytes:
    item = Trade(symbol=symbol, time=TIME, index=index, price=10.01, volume=200, side=Side.BUY, source="test")
    return msgspec.json.encode(msgspec.structs.replace(item, **fields))[:-1] + b',"seq":1}'


class Vendor:
    """Alpaca's client on its way; channel -> what it has handed over."""

    def __init__(self, server: Server, key: str, feed: str = "sip", **options: Any) -> None:
        self.server = server
        self.received: dict[str, list[Any]] = {channel: [] for channel in CHANNELS}
        url = f"{server.url}/compat/alpaca/v2/{feed}"
        self.client = StockDataStream("whatever", key, feed=DataFeed.SIP, url_override=url, **options)

    def handle(self, method: str, *symbols: str) -> None:
        """Subscribe, as a user's program does; blocking where it runs."""
        received = self.received[CHANNEL_OF_METHOD[method]]

        async def take(item: Any) -> None:
            received.append(item)

        getattr(self.client, f"subscribe_{method}")(take, *symbols)

    async def serving(self, **channels: set[str] | None) -> None:
        """Wait until the server serves these symbols of these channels; None: all of them."""

        def served() -> bool:
            coverage: dict[DataType, Any] = {}
            for connection in self.server.connections.values():
                for view in connection.views:
                    coverage |= {data_type: covered.names for data_type, covered in view.coverage.items()}
            return coverage == {
                CHANNELS[channel][0]: None if symbols is None else frozenset(symbols) for channel, symbols in channels.items()
            }

        await until(served, f"{channels} to be served")

    async def got(self, channel: str, count: int = 1) -> list[Any]:
        """So many of a channel's objects, and no more of them."""
        await until(lambda: len(self.received[channel]) >= count, f"{count} of {channel}")
        found = self.received[channel][:]
        self.received[channel].clear()
        assert len(found) == count, found
        return found


@contextlib.asynccontextmanager
async def running(vendor: Vendor) -> AsyncIterator[Vendor]:
    """Its program runs."""
    task = asyncio.create_task(vendor.client._run_forever())
    try:
        yield vendor
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await vendor.client.close()


async def test_alpaca_s_client_streams_moutai(server: Server, key: str) -> None:
    vendor = Vendor(server, key)
    for method in CHANNEL_OF_METHOD:
        vendor.handle(method, MOUTAI)
    async with running(vendor):
        await vendor.serving(**{channel: {MOUTAI} for channel in CHANNELS})
        await server.feed.publish(
            quote(MOUTAI, time=TIME, price=10.0, **BOOK),
            quote(PUFA, time=TIME, price=7.0, **BOOK),
            bars=[bar(), bar(period=Period.D1, time=1_782_457_200_000, closed=True)],
            events={
                DataType.TRADE: ([MOUTAI, PUFA, MOUTAI], [trade(MOUTAI, 1), trade(PUFA, 2), trade(MOUTAI, 3)]),
                DataType.STATUS: ([MOUTAI], [status(status="volatility_halt")]),
            },
        )
        (best,) = await vendor.got("quotes")
        assert (best.symbol, best.bid_price, best.bid_size, best.ask_price, best.ask_size) == (MOUTAI, 9.99, 300, 10.01, 200)
        assert best.timestamp == datetime.fromtimestamp(TIME / 1000, UTC)
        first, second = await vendor.got("trades", 2)
        assert [(item.symbol, item.id, item.price, item.size, item.exchange) for item in (first, second)] == [
            (MOUTAI, 1, 10.01, 200, "SH"),
            (MOUTAI, 3, 10.01, 200, "SH"),
        ]
        (minute,) = await vendor.got("bars")
        assert (minute.open, minute.high, minute.low, minute.close, minute.volume, minute.vwap) == (
            1400,
            1410,
            1399,
            1405,
            1000,
            1404,
        )
        assert minute.timestamp == datetime(2026, 6, 26, 2, 30, tzinfo=UTC)
        (day,) = await vendor.got("dailyBars")
        assert day.timestamp == datetime(2026, 6, 25, 16, tzinfo=UTC)
        (halted,) = await vendor.got("statuses")
        assert (halted.status_code, halted.status_message, halted.reason_code) == ("P", "Volatility Trading Pause", "LUDP")
        await server.feed.publish(bars=[bar(provisional=False, close=1406.0)])
        (updated,) = await vendor.got("updatedBars")
        assert (updated.close, updated.timestamp) == (1406.0, minute.timestamp)


async def test_every_symbol_comes_with_a_star(server: Server, key: str) -> None:
    vendor = Vendor(server, key, feed="iex")
    vendor.handle("quotes", "*")
    async with running(vendor):
        await vendor.serving(quotes=None)
        await server.feed.publish(*(quote(symbol, price=10.0, **BOOK) for symbol in (MOUTAI, PUFA, PINGAN)))
        assert {item.symbol for item in await vendor.got("quotes", 3)} == {MOUTAI, PUFA, PINGAN}


async def test_a_snapshot_comes_with_the_subscription(server: Server, key: str) -> None:
    await server.feed.publish(quote(MOUTAI, time=TIME, price=10.0, **BOOK))
    vendor = Vendor(server, key)
    vendor.handle("quotes", MOUTAI)
    async with running(vendor):
        assert [item.bid_price for item in await vendor.got("quotes")] == [9.99]


async def test_subscriptions_change_while_the_client_runs(server: Server, key: str) -> None:
    vendor = Vendor(server, key)
    vendor.handle("quotes", MOUTAI)
    async with running(vendor):
        await vendor.serving(quotes={MOUTAI})
        await asyncio.to_thread(vendor.handle, "quotes", PUFA)
        await asyncio.to_thread(vendor.handle, "trades", PUFA)
        await vendor.serving(quotes={MOUTAI, PUFA}, trades={PUFA})
        await asyncio.to_thread(vendor.client.unsubscribe_quotes, MOUTAI)
        await vendor.serving(quotes={PUFA}, trades={PUFA})
        await server.feed.publish(quote(MOUTAI, price=10.0, **BOOK), quote(PUFA, price=10.0, **BOOK))
        assert [item.symbol for item in await vendor.got("quotes")] == [PUFA]


async def test_a_subscribe_message_may_come_in_fragments(server: Server, key: str) -> None:
    """The client cuts what is longer than 32 KiB."""
    symbols = tuple(f"{code:06}.SZ" for code in range(1, 4001))
    universe.set_current(Universe(symbols=symbols))
    vendor = Vendor(server, key)
    vendor.handle("quotes", *symbols)
    async with running(vendor):
        await vendor.serving(quotes=set(symbols))


async def test_the_client_comes_back_after_a_cut(server: Server, key: str) -> None:
    vendor = Vendor(server, key)
    vendor.handle("quotes", MOUTAI)
    async with running(vendor):
        await vendor.serving(quotes={MOUTAI})
        (before,) = server.connections.values()
        before.cut_off()
        await until(lambda: before not in server.connections.values(), "the cut")
        await vendor.serving(quotes={MOUTAI})
        await server.feed.publish(quote(MOUTAI, price=10.0, **BOOK))
        assert len(await vendor.got("quotes")) == 1


@pytest.mark.parametrize(
    ("feed", "secret", "said"), [("sip", "nonsense", "auth failed"), ("boats", None, "insufficient subscription")]
)
async def test_the_client_is_told_why_it_may_not(server: Server, key: str, feed: str, secret: str | None, said: str) -> None:
    vendor = Vendor(server, secret or key, feed=feed)
    with pytest.raises(ValueError, match=said):
        await vendor.client._start_ws()
    await vendor.client.close()


async def test_what_the_plan_lacks_is_in_the_client_s_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    _, small = await new_key(data_types=("quote",))
    vendor = Vendor(server, small)
    vendor.handle("trades", MOUTAI)
    with caplog.at_level(logging.ERROR, logger="alpaca.data.live.websocket"):
        async with running(vendor):
            await until(lambda: "insufficient subscription (409)" in caplog.text, "the error")


class Text:
    """A client of Alpaca's protocol in JSON."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    async def receive(self) -> dict[str, Any]:
        """The next control message, which comes alone."""
        received = await asyncio.wait_for(self.ws.recv(), 10)
        assert isinstance(received, str)
        (message,) = json.loads(received)
        return dict(message)

    async def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        await self.ws.send(json.dumps({"action": action, **fields}))
        return await self.receive()

    async def closed(self) -> int:
        """The close code."""
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(self.ws.recv(), 10)
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code


@contextlib.asynccontextmanager
async def text(server: Server, *, path: str = PATH, **headers: str) -> AsyncIterator[Text]:
    async with connect(server.url + path, additional_headers=headers, proxy=None) as ws:
        one = Text(ws)
        assert await one.receive() == {"T": "success", "msg": "connected"}
        yield one


AUTHENTICATED = {"T": "success", "msg": "authenticated"}


@pytest.mark.parametrize("header", ["APCA-API-KEY-ID", "APCA-API-SECRET-KEY"])
async def test_a_key_in_a_header_needs_no_message(server: Server, key: str, header: str) -> None:
    async with text(server, **{header: key}) as one:
        assert await one.receive() == AUTHENTICATED
        assert (await one.ask("auth", key="a", secret=key))["code"] == 403
        assert await one.ask("subscribe", quotes=[MOUTAI], statuses=["*"]) == subscription(quotes=[MOUTAI], statuses=["*"])
        await server.feed.publish(quote(MOUTAI, time=TIME, price=10.0, **BOOK))
        told = await one.receive()
        assert (told["T"], told["S"], told["t"]) == ("q", MOUTAI, "2026-06-26T02:30:02.123000Z")
        assert await one.ask("unsubscribe", quotes=[MOUTAI]) == subscription(statuses=["*"])


async def test_errors_of_authentication_have_alpaca_s_codes(
    server: Server, key: str, monkeypatch: pytest.MonkeyPatch, patience: None
) -> None:
    async with text(server) as one:
        refused = await one.ask("subscribe", quotes=[MOUTAI])
        assert (refused["code"], refused["msg"]) == (401, "not authenticated")
        refused = await one.ask("auth", key="PK", secret="SK")
        assert (refused["code"], refused["msg"]) == (402, "auth failed")
        assert await one.closed() == 4102
    async with text(server) as one:
        refused = await one.receive()
        assert (refused["code"], refused["msg"]) == (404, "auth timeout")
        assert await one.closed() == 4112
    _, single = await new_key(connections=1)
    async with text(server, **{"APCA-API-SECRET-KEY": single}) as one:
        assert await one.receive() == AUTHENTICATED
        async with text(server) as other:
            refused = await other.ask("auth", key="a", secret=single)
            assert (refused["code"], refused["msg"]) == (406, "connection limit exceeded")
            assert await other.closed() == 4106


async def test_beyond_the_plan_s_symbols_nothing_changes(server: Server) -> None:
    _, small = await new_key(symbols=1)
    async with text(server, **{"APCA-API-SECRET-KEY": small}) as one:
        assert await one.receive() == AUTHENTICATED
        assert await one.ask("subscribe", quotes=[MOUTAI]) == subscription(quotes=[MOUTAI])
        refused = await one.ask("subscribe", trades=[PUFA])
        assert (refused["code"], refused["msg"]) == (405, "symbol limit exceeded")
        assert await one.ask("subscribe") == subscription(quotes=[MOUTAI])


async def test_a_revoked_key_ends_the_connection(server: Server, key: str) -> None:
    async with text(server, **{"APCA-API-SECRET-KEY": key}) as one:
        assert await one.receive() == AUTHENTICATED
        await sync_to_async(lambda: revoke_keys(keys=APIKey.objects.all()))()
        assert (await one.receive())["code"] == 402
        assert await one.closed() == 4110


async def test_a_binary_message_is_understood_whatever_the_handshake_said(server: Server, key: str) -> None:
    async with text(server, **{"APCA-API-SECRET-KEY": key}) as one:
        assert await one.receive() == AUTHENTICATED
        await one.ws.send(msgpack.packb({"action": "subscribe", "trades": [MOUTAI]}))
        assert await one.receive() == subscription(trades=[MOUTAI])
        await one.ws.send(b"\xc1")
        assert (await one.receive())["code"] == 400


# Alpaca's codes, each as it comes about


async def asked(server: Server, key: str, *messages: str | bytes, path: str = PATH, **options: Any) -> dict[str, Any]:
    """The first error that follows, where a header has shown a key."""
    async with connect(server.url + path, additional_headers={"APCA-API-SECRET-KEY": key}, proxy=None, **options) as ws:
        for message in messages:
            await ws.send(message)
        return await error(ws)


async def error(ws: ClientConnection) -> dict[str, Any]:
    """The next error."""
    while True:
        for message in json.loads(await asyncio.wait_for(ws.recv(), 10)):
            if message["T"] == "error":
                return dict(message)


def subscribing(**channels: list[str]) -> str:
    return json.dumps({"action": "subscribe", **channels})


async def without_a_key(server: Server, key: str) -> dict[str, Any]:
    async with text(server) as one:
        return await one.ask("subscribe", quotes=[MOUTAI])


async def without_a_word(server: Server, key: str) -> dict[str, Any]:
    async with text(server) as one:
        return await one.receive()


async def with_too_many_symbols(server: Server, key: str) -> dict[str, Any]:
    _, small = await new_key(symbols=1)
    return await asked(server, small, subscribing(quotes=[MOUTAI, PUFA]))


async def with_too_many_connections(server: Server, key: str) -> dict[str, Any]:
    _, single = await new_key(connections=1)
    async with text(server, **{"APCA-API-SECRET-KEY": single}) as one:
        assert await one.receive() == AUTHENTICATED
        return await asked(server, single)


async def without_the_data_type(server: Server, key: str) -> dict[str, Any]:
    _, small = await new_key(data_types=("quote",))
    return await asked(server, small, subscribing(trades=[MOUTAI]))


async def with_too_many_requests(server: Server, key: str) -> dict[str, Any]:
    _, small = await new_key(requests=1)
    return await asked(server, small, subscribing(quotes=[MOUTAI]), subscribing(quotes=[PUFA]))


async def that_does_not_read(server: Server, key: str) -> dict[str, Any]:
    """It is owed more events than are kept."""
    headers = {"APCA-API-SECRET-KEY": key}
    async with connect(server.url + PATH, additional_headers=headers, proxy=None, max_size=None, max_queue=1) as ws:
        await ws.send(subscribing(trades=[MOUTAI]))
        await overflow(server, MOUTAI)
        told = await error(ws)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(ws.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == EVENT_OVERFLOW.close
        return told


CODES: list[tuple[int, str, Callable[[Server, str], Awaitable[dict[str, Any]]]]] = [
    (400, "broken", lambda server, key: asked(server, key, "{")),
    (400, "unknown action", lambda server, key: asked(server, key, '{"action":"fly"}')),
    (400, "no list", lambda server, key: asked(server, key, '{"action":"subscribe","quotes":7}')),
    (400, "unknown symbol", lambda server, key: asked(server, key, subscribing(quotes=["999999.SH"]))),
    (400, "subprotocol", lambda server, key: asked(server, key, subprotocols=["argus.v1.json"])),
    (401, "no key", without_a_key),
    (402, "no good key", lambda server, key: asked(server, "argus_abcd1234_" + "x" * 43)),
    (402, "key in the address", lambda server, key: asked(server, key, path=f"{PATH}?key={key}")),
    (402, "no good ticket", lambda server, key: asked(server, "", path=f"{PATH}?ticket=nonsense")),
    (403, "a second key", lambda server, key: asked(server, key, json.dumps({"action": "auth", "key": "a", "secret": key}))),
    (404, "no word", without_a_word),
    (405, "symbols", with_too_many_symbols),
    (406, "connections", with_too_many_connections),
    (407, "slow", that_does_not_read),
    (409, "data type", without_the_data_type),
    (409, "feed", lambda server, key: asked(server, key, path="/compat/alpaca/v2/boats")),
    (410, "channel", lambda server, key: asked(server, key, subscribing(lulds=["*"]))),
    (500, "requests", with_too_many_requests),
]


@pytest.mark.parametrize(("code", "why", "bring_about"), CODES, ids=[f"{code} {why}" for code, why, _ in CODES])
async def test_every_code_of_alpaca_s_comes_over_the_wire(
    server: Server, key: str, monkeypatch: pytest.MonkeyPatch, code: int, why: str, bring_about: Callable[..., Any]
) -> None:
    if bring_about is without_a_word:
        monkeypatch.setitem(config.__dict__, "auth_timeout", 0.2)
    refused = await bring_about(server, key)
    assert (refused["code"], refused["msg"]) == (code, MESSAGES[code]), refused
    assert refused["detail"]


def test_there_is_a_way_to_every_code() -> None:
    assert {code for code, _, _ in CODES} == set(MESSAGES)

"""Live bars from a simulated market to a client's socket: the way through the builder, the demand and the channel layer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from functools import cache
from typing import Any

import pytest

from argus.config import Config
from marketdata import publish, reconcile, universe
from marketdata.batch import Batch, decode
from marketdata.calendar import midnight
from marketdata.feed import Feed
from marketdata.lease import Lease, MemoryLease
from marketdata.publisher import Publisher
from marketdata.sources.base import Capability
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.types import Period
from marketdata.universe import Universe
from streaming import runtime
from streaming.saved import HELD
from tests.streaming.server import Client, Server, client, new_key, subscriber, until

DAY = date(2026, 3, 10)
MINUTE = 60_000


def at(text: str) -> int:
    """A time of that day, in ms."""
    hours, minutes, seconds = map(int, text.split(":"))
    return midnight(DAY) + ((hours * 60 + minutes) * 60 + seconds) * 1000


class SetClock:
    """A market's clock that stands until the test moves it."""

    def __init__(self) -> None:
        self.time = at("09:29:57")

    def now(self) -> int:
        return self.time

    def delay(self, until: int) -> float:
        return 0.01 if self.time < until else 0.0


STEPS = ("09:29:57", "09:30:20", "09:30:50", "09:31:05", "09:31:30", "09:31:50", "09:32:10")
SIZE = 200


@cache
def busy() -> tuple[str, ...]:
    """Symbols of the simulated market that trade between any two of ``STEPS``."""
    clock = SetClock()
    source = SimulatedSource(symbols=SIZE, clock=clock)
    source.start()
    found, volumes = set(source.universe(timeout=10)), {}
    for text in STEPS:
        clock.time = at(text)
        for quote in source.fetch_quotes(timeout=10).quotes:
            if quote.volume <= volumes.get(quote.symbol, -1):
                found.discard(quote.symbol)
            volumes[quote.symbol] = quote.volume
    source.close()
    return tuple(sorted(found))


class Polled(SimulatedSource):
    """The simulated market without pushes: a poll is a sweep, and shows every symbol at the clock's time."""

    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities() - {Capability.PUSH}


class Market:
    """A simulated market that publishes into the server's channel layer; ``sent`` is what it published."""

    def __init__(self, clock: SetClock | None = None, lease: Lease | None = None, owner: str = "test") -> None:
        self.clock = clock or SetClock()
        self.sent: list[Batch] = []
        self.source = Polled(symbols=SIZE, clock=self.clock)
        publisher = Publisher(
            feed="main",
            source="simulated",
            owner=owner,
            lease=lease or MemoryLease(),
            send=self._send,
            save_snapshot=lambda feed, blob: None,
            clock=self.clock.now,
        )
        self.feed = Feed(terminal="main", source=self.source, publisher=publisher, config=Config())
        self.symbols = busy()

    def _send(self, feed: str, blob: bytes) -> None:
        publish.bridge.send(feed, blob)
        self.sent.append(decode(blob))

    async def go(self, text: str) -> None:
        """Move the clock on, and poll."""
        self.clock.time = at(text)
        while (outcome := await asyncio.to_thread(self.feed.poll)) == "overlap":
            await asyncio.sleep(0.01)
        assert outcome == "ok"

    async def beat(self) -> None:
        """Poll as Celery's beat does: a feed that is not polled loses its lease."""
        while True:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(self.feed.poll)

    def bars_since(self, count: int) -> list[Any]:
        """What was published of bars after so many messages."""
        return [batch.bars for batch in self.sent[count:] if batch.bars]


@pytest.fixture
async def market(server: Server) -> AsyncIterator[Market]:
    publish.bind(asyncio.get_running_loop())
    market = Market()
    market.feed.start()
    known = await asyncio.to_thread(lambda: market.source.universe(timeout=10))
    universe.set_current(Universe(symbols=known, sectors={"few": market.symbols[:3]}))
    try:
        await market.go("09:29:57")
        beat = asyncio.create_task(market.beat())
        yield market
        beat.cancel()
    finally:
        await asyncio.to_thread(market.feed.stop)
        publish.unbind()


async def bars(one: Client, symbols: set[str], good: Any, seconds: float = 10) -> dict[str, dict[str, Any]]:
    """Read until each symbol has shown a bar that is good; the first of each."""
    found: dict[str, dict[str, Any]] = {}
    async with asyncio.timeout(seconds):
        while found.keys() != symbols:
            for piece in (await one.receive("data"))["data"]:
                if piece["type"] == "kline" and piece["symbol"] in symbols and good(piece):
                    found.setdefault(piece["symbol"], piece)
    return found


async def test_bars_form_close_with_the_minutes_end_and_the_next_ones_form(server: Server, key: str, market: Market) -> None:
    five = set(market.symbols[:5])
    await market.go("09:30:20")
    async with subscriber(server, key, *five, data_types=["kline:1m"]) as one:
        message = await one.receive("data")
        assert message["snapshot"] is True, "what is newly covered"
        forming = {piece["symbol"]: piece for piece in message["data"] if not piece["closed"]}
        assert {piece["time"] for piece in forming.values()} == {at("09:31:00")}
        assert {(piece["period"], piece["provisional"]) for piece in forming.values()} == {("1m", True)}
        auction = [piece for piece in message["data"] if piece["closed"]]
        assert {piece["time"] for piece in auction} <= {at("09:30:00")}
        assert forming.keys() == five
        await market.go("09:30:50")
        later = await bars(one, five, lambda piece: piece["volume"] > forming[piece["symbol"]]["volume"])
        await market.go("09:31:05")
        closed = await bars(one, five, lambda piece: piece["closed"] and piece["time"] == at("09:31:00"))
        assert all(closed[symbol]["volume"] >= later[symbol]["volume"] for symbol in five)
        assert all(piece["low"] <= piece["open"] <= piece["high"] for piece in closed.values())
        await market.go("09:31:30")
        following = await bars(one, five, lambda piece: not piece["closed"])
        assert {piece["time"] for piece in following.values()} == {at("09:32:00")}


async def test_longer_bars_contain_the_shorter_ones(server: Server, key: str, market: Market) -> None:
    symbol = market.symbols[0]
    async with subscriber(server, key, symbol, data_types=["kline:1m", "kline:5m"]) as one:
        volumes = {"1m": 0, "5m": 0}
        for n in range(30, 37):
            await market.go(f"09:{n}:50")
            await asyncio.sleep(1.1 if n == 30 else 0)
        async with asyncio.timeout(10):
            while not volumes["5m"]:
                for piece in (await one.receive("data"))["data"]:
                    if piece["closed"] and piece["time"] <= at("09:35:00"):
                        volumes[piece["period"]] += piece["volume"]
        assert volumes["1m"] == volumes["5m"]


async def test_the_days_bar_is_the_quotes_own_day(server: Server, key: str, market: Market) -> None:
    five = market.symbols[:5]
    async with subscriber(server, key, *five, data_types=["quote", "kline:1d"]) as one:
        quotes: dict[str, Any] = {}
        days: dict[str, Any] = {}
        await until(lambda: market.feed.bars.demand.wanted, "the demand")
        await market.go("09:31:30")
        await market.go("09:32:30")
        async with asyncio.timeout(20):
            while days.keys() != set(five) or any(days[symbol]["volume"] != quotes[symbol]["volume"] for symbol in five):
                for piece in (await one.receive("data"))["data"]:
                    (quotes if piece["type"] == "quote" else days)[piece["symbol"]] = piece
    for symbol in five:
        quote, day = quotes[symbol], days[symbol]
        assert day["time"] == at("15:00:00")
        assert (day["period"], day["closed"], day["provisional"]) == ("1d", False, True)
        assert day["close"] == quote["price"]
        for name in ("open", "high", "low", "volume", "amount", "prev_close", "source"):
            assert day[name] == quote[name], name


async def test_bars_are_published_only_while_somebody_wants_them(server: Server, key: str, market: Market) -> None:
    await market.go("09:30:30")
    async with subscriber(server, key, "*") as one:
        await market.go("09:31:10")
        assert market.bars_since(0) == []
        symbol = market.symbols[0]
        await one.ask("subscribe", subscription="bars", symbols=[symbol], data_types=["kline:1m"])
        await bars(one, {symbol}, lambda piece: True)
        count = len(market.sent)
        await market.go("09:32:10")
        assert {tuple(symbols) for bars in market.bars_since(count) for symbols, _ in bars.values()} == {(symbol,)}
        assert (await one.ask("unsubscribe", subscription="bars"))["type"] == "unsubscribed"
        await until(lambda: not market.feed.bars.demand.wanted, "the demand to end")
        count = len(market.sent)
        await market.go("09:33:10")
        assert len(market.sent) > count
        assert market.bars_since(count) == []


async def test_a_client_that_unsubscribes_ends_its_demand(server: Server, key: str, market: Market) -> None:
    async with subscriber(server, key, "*", data_types=["kline:1h"]) as one:
        await until(lambda: market.feed.bars.demand.wanted, "the demand")
        await one.ask("unsubscribe")
        await until(lambda: not market.feed.bars.demand.wanted, "the demand to end")


async def test_a_client_that_is_cut_off_has_its_demand_until_its_session_is_over(
    server: Server, key: str, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    current = runtime.current()
    assert current is not None
    tick = current.hub.tick
    monkeypatch.setattr(current.hub, "tick", lambda now: tick(now + clock[0]))
    async with subscriber(server, key, "*", data_types=["kline:1h"]):
        await until(lambda: market.feed.bars.demand.wanted, "the demand")
    await until(lambda: not server.connections, "the connection to end")
    clock[0] = HELD - 10
    told = current.hub.demand
    await market.go("09:30:50")
    assert (current.hub.demand, bool(market.feed.bars.demand.wanted)) == (told, True)
    clock[0] = HELD
    await until(lambda: not market.feed.bars.demand.wanted, "the demand to end")


@pytest.mark.parametrize("frequency", ["1s", "1m"])
async def test_a_merged_subscription_has_its_snapshot_at_once(server: Server, key: str, market: Market, frequency: str) -> None:
    await market.go("09:30:50")
    three = set(market.symbols[:3])
    async with subscriber(server, key, "sector:few", data_types=["kline:1m"], update_frequency=frequency) as one:
        message = await one.receive("data")
    assert message["snapshot"] is True
    assert {piece["symbol"] for piece in message["data"]} <= three


async def test_a_second_client_has_the_last_closed_and_the_forming_bar(server: Server, key: str, market: Market) -> None:
    symbol = market.symbols[0]
    async with subscriber(server, key, symbol, data_types=["kline:1m"]) as first:
        await market.go("09:30:50")
        await bars(first, {symbol}, lambda piece: True)
        await market.go("09:31:10")
        await market.go("09:31:50")
        await bars(first, {symbol}, lambda piece: piece["time"] == at("09:32:00"))
        async with subscriber(server, key, symbol, data_types=["kline:1m"]) as second:
            message = await second.receive("data")
    assert message["snapshot"] is True
    assert [(piece["time"], piece["closed"]) for piece in message["data"]] == [(at("09:31:00"), True), (at("09:32:00"), False)]


async def test_a_plan_without_bars_refuses_them_and_bars_have_no_filters(server: Server, key: str) -> None:
    _, text = await new_key(data_types=("quote", "kline:1d"))
    async with client(server, text) as one:
        await one.receive("connected")
        error = await one.ask("subscribe", symbols=["000001.SZ"], data_types=["kline:1m"])
        assert (error["name"], error["data_types"]) == ("data_type_not_allowed", ["kline:1m"])
        answer = await one.ask("subscribe", symbols=["000001.SZ"], data_types=["kline:1d"])
        assert answer["type"] == "subscribed"
        error = await one.ask("update", data_types=["kline:1d"], filters={"min_price": 1})
        assert (error["name"], error["parameter"]) == ("invalid_argument", "filters")
        error = await one.ask("subscribe", symbols=["000001.SZ"], data_types=["kline:2m"])
        assert "kline:1m" in error["allowed"]


async def test_bars_that_the_terminal_brings_are_published_in_the_place_of_ours(server: Server, key: str, market: Market) -> None:
    symbol = market.symbols[0]
    async with subscriber(server, key, symbol, data_types=["kline:1m"]) as one:
        await market.go("09:30:50")
        await market.go("09:31:10")
        await market.go("09:31:50")
        await bars(one, {symbol}, lambda piece: piece["closed"] and piece["time"] == at("09:31:00"))
        ours = next(bar for bar in market.feed.bars.provisional(10_000) if bar.symbol == symbol and bar.time == at("09:31:00"))
        theirs = await asyncio.to_thread(
            lambda: market.source.fetch_bars([symbol], ours.period, start=ours.time, end=ours.time, timeout=10)
        )
        series = theirs.series[symbol]
        await asyncio.to_thread(market.feed.bars.settle, series.bars(symbol, ours.period, "simulated"))
        settled = await bars(one, {symbol}, lambda piece: piece["closed"] and not piece["provisional"])
        assert settled[symbol]["time"] == at("09:31:00")
        assert all(bar.time != ours.time for bar in market.feed.bars.provisional(10_000) if bar.symbol == symbol)


class Closed:
    """The closed bars that a client is told, every time that it is told them."""

    def __init__(self, one: Client) -> None:
        self.told: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        self._one = one

    async def listen(self) -> None:
        while True:
            for piece in (await self._one.receive("data"))["data"]:
                if piece["closed"]:
                    key = piece["symbol"], piece["period"], piece["time"]
                    self.told.setdefault(key, []).append({**piece, "seq": 0})

    def have(self, symbols: tuple[str, ...], period: str, text: str, *, provisional: bool) -> bool:
        last = [self.told.get((symbol, period, at(text)), [{}])[-1] for symbol in symbols]
        return all(bar.get("provisional") is provisional for bar in last)


@pytest.mark.django_db
async def test_a_standby_goes_on_with_the_bars_where_the_active_terminal_was_killed(server: Server, key: str) -> None:
    publish.bind(asyncio.get_running_loop())
    clock, lease, symbols = SetClock(), MemoryLease(ttl=3.0), busy()[:5]
    active, standby = Market(clock, lease, "active"), Market(clock, lease, "standby")
    try:
        for market in (active, standby):
            market.feed.start()
            await market.go("09:29:57")
        universe.set_current(Universe(symbols=await asyncio.to_thread(lambda: standby.source.universe(timeout=10))))
        async with subscriber(server, key, *symbols, data_types=["kline:1m", "kline:5m"]) as one:
            closed = Closed(one)
            listening = asyncio.create_task(closed.listen())
            await until(lambda: active.feed.bars.demand.wanted and standby.feed.bars.demand.wanted, "the demand")
            for text in ("09:30:20", "09:30:50", "09:31:05", "09:31:30", "09:31:50"):
                for market in (active, standby):
                    await market.go(text)
            await until(lambda: closed.have(symbols, "1m", "09:31:00", provisional=True), "the first minute")
            assert standby.sent == []
            await asyncio.to_thread(active.source.close)
            # The minute ends while nobody publishes.
            beat = asyncio.create_task(standby.beat())
            clock.time = at("09:32:10")
            await until(lambda: standby.feed.publisher.active, "the standby to take over")
            await until(lambda: closed.have(symbols, "1m", "09:32:00", provisional=True), "the minute that ended meanwhile")
            for n in range(33, 37):
                await standby.go(f"09:{n}:50")
            await until(lambda: closed.have(symbols, "5m", "09:35:00", provisional=True), "the five minutes of both")
            for bars_told in closed.told.values():
                assert bars_told == bars_told[:1] * len(bars_told), "a bar that is told again is the same"
            await standby.go("09:36:59")
            await asyncio.to_thread(reconcile.run, standby.feed)
            await until(lambda: closed.have(symbols, "5m", "09:35:00", provisional=False), "the settled five minutes")
            assert closed.have(symbols, "1m", "09:31:00", provisional=False)
            assert all(
                [bar["provisional"] for bar in told] == sorted((bar["provisional"] for bar in told), reverse=True)
                for told in closed.told.values()
            ), "what is settled stays so"
            beat.cancel()
            listening.cancel()
        whole = await asyncio.to_thread(
            lambda: standby.source.fetch_bars(symbols, Period.M1, start=at("09:30:00"), end=at("09:35:00"), timeout=10)
        )
        for symbol in symbols:
            own = [bar for bar in whole.series[symbol].bars(symbol, Period.M1, "simulated") if bar.volume]
            last = closed.told[symbol, "5m", at("09:35:00")][-1]
            assert (last["open"], last["high"], last["close"]) == (own[0].open, max(bar.high for bar in own), own[-1].close)
            assert last["volume"] == sum(bar.volume for bar in own)
        assert max(batch.epoch for batch in active.sent) < min(batch.epoch for batch in standby.sent)
    finally:
        for market in (active, standby):
            await asyncio.to_thread(market.feed.stop)
        publish.unbind()

"""Massive's own REST client, unmodified, against a running server: bars, quotes, tickers, errors in its shape."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from datetime import date
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from massive import RESTClient
from massive.exceptions import BadResponse

from marketdata import universe
from marketdata.calendar import midnight
from marketdata.compat import massive_rest
from marketdata.history import dividends
from marketdata.history.service import prepare
from marketdata.types import Instrument
from marketdata.universe import Universe
from tests.history.conftest import Market
from tests.streaming.server import Server, new_key, quote

HOUR = 3_600_000
PREFIX = "/compat/massive"
PUFA = "600000.SH"


class Vendor:
    """Massive's client, in threads beside the server."""

    def __init__(self, server: Server, key: str) -> None:
        self.base = f"http://127.0.0.1:{server.port}{PREFIX}"
        self.key = key
        self.client = RESTClient(api_key=key, base=self.base, retries=0)

    async def __call__(self, name: str, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(getattr(self.client, name), *arguments, **options)

    async def all(self, name: str, *arguments: Any, **options: Any) -> list[Any]:
        """What an iterator gives, over all pages."""
        return await asyncio.to_thread(lambda: list(getattr(self.client, name)(*arguments, **options)))

    async def refused(self, name: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        """The error that a call is answered with."""
        with pytest.raises(BadResponse) as refusal:
            await self(name, *arguments, **options)
        document: dict[str, Any] = json.loads(str(refusal.value))
        assert set(document) == {"status", "request_id", "error"}
        assert document["status"] == "ERROR"
        return document

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Without the client."""
        async with httpx.AsyncClient(verify=False) as http:
            return await http.get(self.base + path, headers={"Authorization": f"Bearer {self.key}", **headers})


@pytest.fixture
def vendor(server: Server, key: str, market: Market, symbols: list[str]) -> Vendor:
    universe.set_current(Universe(symbols=tuple(symbols), names={PUFA: "浦发银行"}))
    market.at("2026-06-30")
    return Vendor(server, key)


def begin(day: str, hours: int = 0, minutes: int = 0) -> int:
    return midnight(date.fromisoformat(day)) + hours * HOUR + minutes * 60_000


async def test_days_are_stamped_at_their_midnight_and_are_those_of_the_native_address(vendor: Vendor, market: Market) -> None:
    found = await vendor("get_aggs", PUFA, 1, "day", "2026-06-22", "2026-06-26", adjusted=False)
    query = market.query(PUFA, period="1d", start="2026-06-22", end="2026-06-26")
    ((_, series),) = prepare(query, deadline_seconds=10, request_id="t").parts()
    assert [item.timestamp for item in found] == [begin(f"2026-06-{day}") for day in (22, 23, 24, 25, 26)]
    assert [(item.open, item.high, item.low, item.close, item.volume) for item in found] == list(
        zip(series.open, series.high, series.low, series.close, series.volume, strict=True)
    )
    for item, amount in zip(found, series.amount, strict=True):
        assert item.vwap == pytest.approx(amount / item.volume, abs=1e-4)


@pytest.mark.parametrize(
    ("multiplier", "timespan", "stamps"),
    [
        (1, "hour", [(9, 30), (10, 30), (13, 0), (14, 0)]),
        (60, "minute", [(9, 30), (10, 30), (13, 0), (14, 0)]),
        (30, "minute", [(9, 30), (10, 0), (10, 30), (11, 0), (13, 0), (13, 30), (14, 0), (14, 30)]),
    ],
)
async def test_bars_within_a_day_are_stamped_where_their_trading_begins(
    vendor: Vendor, multiplier: int, timespan: str, stamps: list[tuple[int, int]]
) -> None:
    found = await vendor("get_aggs", PUFA, multiplier, timespan, "2026-06-26", "2026-06-26")
    assert [item.timestamp for item in found] == [begin("2026-06-26", *at) for at in stamps]


async def test_minutes_begin_with_the_opening_auction(vendor: Vendor, market: Market) -> None:
    found = await vendor("get_aggs", PUFA, 1, "minute", date(2026, 6, 26), date(2026, 6, 26))
    query = market.query(PUFA, period="1m", start="2026-06-26", end="2026-06-26")
    ((_, series),) = prepare(query, deadline_seconds=10, request_id="t").parts()
    assert [item.timestamp for item in found] == [time - 60_000 for time in series.time]
    assert found[0].timestamp == begin("2026-06-26", 9, 29)


@pytest.mark.parametrize(
    ("timespan", "stamps"),
    [("week", ["2026-06-15", "2026-06-22"]), ("month", ["2026-06-01"])],
)
async def test_a_week_or_month_that_the_range_touches_comes_whole(vendor: Vendor, timespan: str, stamps: list[str]) -> None:
    found = await vendor("get_aggs", PUFA, 1, timespan, "2026-06-18", "2026-06-23", adjusted=False)
    assert [item.timestamp for item in found] == [begin(day) for day in stamps]
    days = await vendor("get_aggs", PUFA, 1, "day", stamps[0], "2026-06-30", adjusted=False)
    first = [item for item in days if item.timestamp < (begin("2026-06-22") if timespan == "week" else begin("2026-07-01"))]
    assert found[0].volume == sum(item.volume for item in first)
    assert (found[0].open, found[0].close) == (first[0].open, first[-1].close)


async def test_ends_in_ms_are_stretched_to_whole_bars(vendor: Vendor) -> None:
    inside = begin("2026-06-26", 10, 3), begin("2026-06-26", 10, 7)
    found = await vendor("get_aggs", PUFA, 5, "minute", *inside)
    assert [item.timestamp for item in found] == [begin("2026-06-26", 10, 0), begin("2026-06-26", 10, 5)]


async def test_what_is_later_than_now_is_empty_and_not_today(vendor: Vendor) -> None:
    assert len(await vendor("get_aggs", PUFA, 1, "day", "2026-06-30", "2099-01-01")) == 1
    for timespan in ("minute", "day", "week"):
        assert await vendor("get_aggs", PUFA, 1, timespan, "2026-07-06", "2026-07-10") == []
    assert await vendor("get_grouped_daily_aggs", "2026-07-01") == []
    assert "no bar" in (await vendor.refused("get_daily_open_close_agg", PUFA, "2026-07-01"))["error"]


@pytest.mark.parametrize("sort", ["asc", "desc"])
async def test_the_client_goes_through_all_pages_in_either_order(vendor: Vendor, sort: str) -> None:
    whole = await vendor("get_aggs", PUFA, 15, "minute", "2026-06-22", "2026-06-30", sort=sort)
    assert len(whole) == 16 * 6 or len(whole) == 16 * 7
    paged = await vendor.all("list_aggs", PUFA, 15, "minute", "2026-06-22", "2026-06-30", sort=sort, limit=25)
    assert [item.timestamp for item in paged] == [item.timestamp for item in whole]
    assert [item.timestamp for item in whole] == sorted((item.timestamp for item in whole), reverse=sort == "desc")


async def test_a_next_url_can_be_followed_as_it_stands(vendor: Vendor) -> None:
    page = (await vendor.get(f"/v2/aggs/ticker/{PUFA}/range/1/day/2026-06-01/2026-06-30?limit=4")).json()
    assert (page["resultsCount"], page["status"], page["ticker"], page["adjusted"]) == (4, "OK", PUFA, True)
    async with httpx.AsyncClient() as http:
        following = (await http.get(page["next_url"], headers={"Authorization": f"Bearer {vendor.key}"})).json()
    assert following["results"][0]["t"] > page["results"][-1]["t"]
    assert len(following["results"]) == 4


async def test_prices_are_adjusted_unless_the_client_says_otherwise(vendor: Vendor, market: Market) -> None:
    """The simulated market pays a dividend each year, so that prices of years ago are others when adjusted."""
    ends = ("2024-01-02", "2024-01-10")
    adjusted = await vendor("get_aggs", PUFA, 1, "day", *ends)
    traded = await vendor("get_aggs", PUFA, 1, "day", *ends, adjusted=False)
    assert all(one.close < other.close for one, other in zip(adjusted, traded, strict=True))
    assert all(item.vwap is None for item in adjusted), "an average of prices that were not traded at"
    assert all(item.vwap for item in traded)


async def test_the_day_before_and_a_days_open_and_close(vendor: Vendor) -> None:
    (previous,) = await vendor("get_previous_close_agg", PUFA, adjusted=False)
    (day,) = await vendor("get_aggs", PUFA, 1, "day", "2026-06-29", "2026-06-29", adjusted=False)
    assert (previous.ticker, previous.timestamp, previous.close) == (PUFA, begin("2026-06-29"), day.close)
    told = await vendor("get_daily_open_close_agg", PUFA, "2026-06-29", adjusted=False)
    assert (told.symbol, told.from_, told.open, told.close, told.volume) == (PUFA, "2026-06-29", day.open, day.close, day.volume)
    sunday = await vendor.refused("get_daily_open_close_agg", PUFA, "2026-06-28")
    assert "no bar" in sunday["error"]


async def test_a_day_of_the_whole_market(vendor: Vendor, symbols: list[str]) -> None:
    found = await vendor("get_grouped_daily_aggs", "2026-06-29", adjusted=False)
    assert {item.ticker for item in found} == set(symbols)
    assert {item.timestamp for item in found} == {begin("2026-06-29")}


async def test_600519_is_read(server: Server, key: str, market_with_moutai: Market) -> None:
    universe.set_current(Universe(symbols=tuple(market_with_moutai.terminal.universe(timeout=60))))
    vendor = Vendor(server, key)
    found = await vendor("get_aggs", "600519.SH", 1, "day", "2026-06-22", "2026-06-26")
    assert len(found) == 5


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (("get_aggs", "999999.SH", 1, "day", "2026-06-22", "2026-06-26"), "not quoted"),
        (("get_aggs", "?", 1, "day", "2026-06-22", "2026-06-26"), "nothing at"),
        (("get_aggs", PUFA, 7, "minute", "2026-06-22", "2026-06-26"), "no bars of 7 minute"),
        (("get_aggs", PUFA, 1, "second", "2026-06-22", "2026-06-26"), "no bars of 1 second"),
        (("get_aggs", PUFA, 1, "day", "soon", "2026-06-26"), "not a time"),
        (("get_aggs", PUFA, 1, "day", "2026-06-26", "2026-06-22"), "from is after to"),
        (("get_aggs", PUFA, 1, "day", "1960-01-01", "2026-06-22"), "outside the trading calendar"),
        (("get_aggs", "market:SH", 1, "day", "2026-06-22", "2026-06-26"), "name one"),
        (("get_last_quote", PUFA), "no quote"),
        (("get_snapshot_ticker", "crypto", PUFA), "there is stocks"),
        (("get_market_status",), "nothing at"),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_massive_s_shape(vendor: Vendor, call: tuple[Any, ...], says: str) -> None:
    assert says in (await vendor.refused(*call))["error"]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        (f"/v2/aggs/ticker/{PUFA}/range/1/day/2026-06-22/2026-06-26?limit=50001", 400, "limit"),
        (f"/v2/aggs/ticker/{PUFA}/range/1/day/2026-06-22/2026-06-26?sort=up", 400, "sort"),
        (f"/v2/aggs/ticker/{PUFA}/range/1/day/2026-06-22/2026-06-26?adjusted=yes", 400, "adjusted"),
        (f"/v2/aggs/ticker/{PUFA}/range/1/day/2026-06-22/2026-06-26?colour=red", 400, "colour"),
        (f"/v2/aggs/ticker/{PUFA}/range/1/day/2026-06-22/2026-06-26?sort=asc&sort=desc", 400, "2 times"),
        ("/v3/reference/tickers?type=WARRANT", 400, "type"),
        ("/v3/reference/tickers?exchange=XNAS", 400, "exchange"),
        ("/v3/reference/tickers?market=indices&type=CS", 400, "there is INDEX"),
        ("/v3/reference/tickers?market=crypto", 400, "stocks or indices"),
        ("/v3/reference/tickers?cursor=x", 400, "cursor"),
        ("/v3/trades/" + PUFA, 501, "no history of single trades"),
        ("/v2/elsewhere", 404, "nothing at"),
        ("/", 404, "nothing at"),
    ],
)
async def test_a_parameter_that_cannot_be_meant_is_refused(vendor: Vendor, path: str, status: int, says: str) -> None:
    refused = await vendor.get(path)
    assert refused.status_code == status
    assert says in refused.json()["error"]
    assert refused.json()["request_id"] == refused.headers["x-request-id"]


async def test_bars_that_cannot_be_had_are_an_error_and_not_an_empty_answer(vendor: Vendor, market: Market) -> None:
    """The source gives no ratios, and goes away before the closes that would tell them are here."""
    market.at("2026-07-31")
    market.terminal.without_ratios = True
    asked = f"/v2/aggs/ticker/{PUFA}/range/5/minute/2026-05-06/2026-05-08"
    here = await vendor.get(f"{asked}?adjusted=false")
    assert here.json()["resultsCount"] > 0
    await sync_to_async(dividends.known)([PUFA], market.now, deadline=time.monotonic() + 10)
    market.terminal.down = True
    refused = await vendor.get(asked)
    assert (refused.status_code, refused.json()["status"]) == (503, "ERROR")
    assert PUFA in refused.json()["error"]
    again = await vendor.get(f"{asked}?adjusted=false")
    assert again.json()["results"] == here.json()["results"]


ODD = ["*", "market:SH", "%00", "%F0%9F%98%80", "%FF", "..", "-1", "0", "9" * 30, "true", "1782000000000", "1900-01-01", "second"]
EVEN = {
    "ticker": PUFA,
    "multiplier": "1",
    "timespan": "day",
    "from": "2026-06-22",
    "to": "2026-06-26",
    "date": "2026-06-26",
    "locale": "us",
    "market": "stocks",
    "adjusted": "false",
    "sort": "desc",
    "limit": "3",
    "tickers": PUFA,
    "search": "60",
    "active": "true",
    "type": "CS",
    "exchange": "XSHG",
    "cursor": "",
}


async def test_whatever_is_asked_is_answered_in_massive_s_shape(vendor: Vendor) -> None:
    chance = random.Random(5)
    parameters = [name for name in EVEN if name not in ("multiplier", "timespan", "from", "to", "date", "locale", "market")]
    seen = set()

    def value(name: str) -> str:
        return chance.choice(ODD) if chance.random() < 0.2 else EVEN[name]

    for number in range(300):
        address, _ = massive_rest.ADDRESSES[number % len(massive_rest.ADDRESSES)]
        path = re.sub(r"\{(\w+)\}", lambda found: value(found[1]), address)
        query = "&".join(f"{name}={value(name)}" for name in chance.sample(parameters, number % 3))
        answer = await vendor.get(f"{path}?{query}")
        document = answer.json()
        seen.add(answer.status_code)
        assert answer.status_code in (200, 400, 403, 404, 413, 501), (path, query, document)
        assert document["status"] == ("OK" if answer.status_code == 200 else "ERROR")
        assert document["request_id"] == answer.headers["x-request-id"]
    assert seen >= {200, 400, 404, 501}


# Access


async def test_a_key_must_be_shown_in_a_header(vendor: Vendor) -> None:
    path = f"{vendor.base}/v2/last/trade/{PUFA}"
    async with httpx.AsyncClient() as http:
        nobody = await http.get(path)
        in_address = await http.get(f"{path}?apiKey={vendor.key}")
        as_native = await http.get(f"{vendor.base}/v2/aggs/ticker/{PUFA}/prev", headers={"X-API-Key": vendor.key})
    assert (nobody.status_code, nobody.json()["error"]) == (401, "An API key is required.")
    assert in_address.status_code == 400
    assert "Authorization: Bearer" in in_address.json()["error"]
    assert vendor.key not in in_address.text
    assert as_native.status_code == 200


async def test_an_unknown_key_is_refused(vendor: Vendor, server: Server) -> None:
    stranger = Vendor(server, "argus_abcd1234_" + "x" * 43)
    assert (await stranger.refused("get_last_trade", PUFA))["error"] == "The API key is not known."


async def test_the_plan_s_limits_hold(server: Server, vendor: Vendor) -> None:
    small = Vendor(server, (await new_key(symbols=3, requests=3))[1])
    first = await small.get(f"/v2/aggs/ticker/{PUFA}/prev")
    assert first.headers["ratelimit-remaining"] == "2"
    assert "allows 3 symbols" in (await small.refused("get_grouped_daily_aggs", "2026-06-29"))["error"]
    await small("get_previous_close_agg", PUFA)
    beyond = await small.get(f"/v2/aggs/ticker/{PUFA}/prev")
    assert (beyond.status_code, beyond.json()["status"]) == (429, "ERROR")
    assert int(beyond.headers["retry-after"]) >= 1


async def test_the_plan_s_data_types_hold(server: Server, vendor: Vendor) -> None:
    bars_only = Vendor(server, (await new_key(data_types=("kline:1d",)))[1])
    assert "quote" in (await bars_only.refused("get_last_quote", PUFA))["error"]


# What is newest


@pytest.fixture
async def quoted(vendor: Vendor, server: Server) -> Vendor:
    book = {"bid_price": (9.99, 9.98), "bid_volume": (300, 500), "ask_price": (10.01,), "ask_volume": (200,)}
    day = {"open": 9.9, "high": 10.2, "low": 9.8, "prev_close": 9.5, "volume": 1000, "amount": 10_050.0}
    await server.feed.publish(quote(PUFA, price=10.0, **book, **day), quote("600001.SH", price=5.0, ask_price=(), bid_price=()))
    native = f"http://127.0.0.1:{server.port}/api/v1/market_data/latest?symbols={PUFA}"
    async with httpx.AsyncClient() as http, asyncio.timeout(10):
        while not (await http.get(native, headers={"X-API-Key": vendor.key})).json().get("data"):
            await asyncio.sleep(0.01)
    return vendor


async def test_the_last_quote_and_trade(quoted: Vendor) -> None:
    told = await quoted("get_last_quote", PUFA)
    assert (told.ticker, told.bid_price, told.bid_size, told.ask_price, told.ask_size) == (PUFA, 9.99, 300, 10.01, 200)
    assert told.sip_timestamp == 1_700_000_000_000 * 1_000_000
    trade = await quoted("get_last_trade", PUFA)
    assert (trade.ticker, trade.price, trade.size) == (PUFA, 10.0, None)


async def test_snapshots_of_one_ticker_of_some_and_of_all(quoted: Vendor) -> None:
    one = await quoted("get_snapshot_ticker", "stocks", PUFA)
    assert (one.ticker, one.todays_change, one.todays_change_percent) == (PUFA, 0.5, 5.2632)
    assert (one.day.open, one.day.high, one.day.low, one.day.close, one.day.volume) == (9.9, 10.2, 9.8, 10.0, 1000)
    assert one.day.vwap == 10.05
    assert (one.prev_day.close, one.last_trade.price) == (9.5, 10.0)
    assert (one.last_quote.bid_price, one.last_quote.ask_size) == (9.99, 200)
    some = await quoted("get_snapshot_all", "stocks", tickers=[PUFA, "600002.SH"])
    assert [item.ticker for item in some] == [PUFA]
    everything = await quoted("get_snapshot_all", "stocks")
    assert [item.ticker for item in everything] == [PUFA, "600001.SH"]
    assert everything[1].last_quote.bid_price is None


# Reference


async def test_tickers_are_searched_and_paged(vendor: Vendor, symbols: list[str]) -> None:
    await _save_instruments(symbols)
    found = await vendor.all("list_tickers", limit=15, active=True)
    assert [item.ticker for item in found] == symbols
    assert (found[0].type, found[0].primary_exchange, found[0].currency_name) == ("CS", "XSHE", "cny")
    assert [item.ticker for item in await vendor.all("list_tickers", search="浦发")] == [PUFA]
    assert [item.ticker for item in await vendor.all("list_tickers", ticker="sh600000")] == [PUFA]
    assert {item.ticker[-2:] for item in await vendor.all("list_tickers", exchange="XSHG", limit=1000)} == {"SH"}
    assert await vendor.all("list_tickers", active=False) == []
    assert await vendor.all("list_tickers", market="indices") == []
    assert len(await vendor.all("list_tickers", market="stocks", type="CS", limit=1000)) == len(symbols)
    details = await vendor("get_ticker_details", PUFA)
    assert (details.ticker, details.name, details.locale) == (PUFA, "浦发银行", "cn")


async def _save_instruments(symbols: list[str]) -> None:
    told = [Instrument(symbol=symbol, name="浦发银行" if symbol == PUFA else None, source="test") for symbol in symbols]
    await sync_to_async(universe.save_reference)(source="test", instruments=told)

"""Alpaca's own REST client, unmodified, against a running server: bars, quotes, snapshots, errors in its shape."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from alpaca.common.enums import Sort, SupportedCurrencies
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Adjustment, DataFeed
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import (
    StockBarsRequest,
    StockLatestBarRequest,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
    StockQuotesRequest,
    StockSnapshotRequest,
    StockTradesRequest,
)
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

from argus.config import config
from marketdata import demand, universe
from marketdata.calendar import midnight
from marketdata.compat import alpaca
from marketdata.compat.alpaca_key import key_among, key_in
from marketdata.history.service import prepare
from marketdata.latest import store
from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.columns import TRADES, Message, table
from marketdata.types import DataType, Period, Side, Trade
from marketdata.universe import Universe
from tests.api.conftest import batch, take
from tests.history.conftest import Market
from tests.recordings.session import record_session
from tests.sources.replay.raw import SH_TRADES, excerpt
from tests.sources.replay.test_trades import trades
from tests.streaming.server import Server, new_key, quote

PREFIX = "/compat/alpaca"
PUFA = "600000.SH"
DAY = timedelta(days=1)


class Vendor:
    """Alpaca's client, in threads beside the server."""

    def __init__(self, server: Server, key: str) -> None:
        self.base = f"http://127.0.0.1:{server.port}{PREFIX}"
        self.key = key
        self.client = StockHistoricalDataClient("whatever", key, url_override=self.base)
        self.client._retry = 0

    async def __call__(self, name: str, request: Any) -> Any:
        return await asyncio.to_thread(getattr(self.client, name), request)

    async def bars(self, *symbols: str, **options: Any) -> dict[str, Any]:
        """Symbol -> bars."""
        found = await self("get_stock_bars", StockBarsRequest(symbol_or_symbols=list(symbols), **options))
        return dict(found.data)

    async def refused(self, name: str, request: Any) -> APIError:
        """The error that a call is answered with."""
        with pytest.raises(APIError) as refusal:
            await self(name, request)
        document = json.loads(str(refusal.value))
        assert set(document) == {"code", "message", "request_id"}
        return refusal.value

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Without the client."""
        async with httpx.AsyncClient() as http:
            return await http.get(self.base + path, headers=headers or {"APCA-API-SECRET-KEY": self.key})


@pytest.fixture
def vendor(server: Server, key: str, market: Market, symbols: list[str]) -> Vendor:
    universe.set_current(Universe(symbols=tuple(symbols), names={PUFA: "浦发银行"}))
    market.at("2026-06-30")
    return Vendor(server, key)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingArchive]:
    """An empty archive of recordings."""
    monkeypatch.setitem(config.__dict__, "archive_url", str(tmp_path / "recordings"))
    yield RecordingArchive(config.archive, config.market)


def at(day: str, hours: int = 0, minutes: int = 0) -> datetime:
    """A time in Beijing."""
    return alpaca.moment(midnight(date.fromisoformat(day)) + (hours * 60 + minutes) * 60_000)


async def test_it_reads_moutai_as_the_native_address_has_it(
    market_with_moutai: Market, server: Server, key: str, symbols: list[str]
) -> None:
    universe.set_current(Universe(symbols=tuple(symbols)))
    market_with_moutai.at("2026-06-30")
    found = (await Vendor(server, key).bars("600519.SH", timeframe=TimeFrame.Day, start=at("2026-06-22"), end=at("2026-06-26")))[
        "600519.SH"
    ]
    query = market_with_moutai.query("600519.SH", period="1d", start="2026-06-22", end="2026-06-26")
    ((_, series),) = prepare(query, deadline_seconds=10, request_id="t").parts()
    assert [bar.timestamp for bar in found] == [at(f"2026-06-{day}") for day in (22, 23, 24, 25, 26)]
    assert [(bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in found] == list(
        zip(series.open, series.high, series.low, series.close, series.volume, strict=True)
    )
    for bar, amount in zip(found, series.amount, strict=True):
        assert bar.vwap == pytest.approx(amount / bar.volume, abs=1e-4)
        assert bar.trade_count is None


@pytest.mark.parametrize(
    ("timeframe", "stamps"),
    [
        (TimeFrame.Hour, [(9, 30), (10, 30), (13, 0), (14, 0)]),
        (TimeFrame(30, TimeFrameUnit.Minute), [(9, 30), (10, 0), (10, 30), (11, 0), (13, 0), (13, 30), (14, 0), (14, 30)]),
    ],
)
async def test_bars_within_a_day_are_stamped_where_they_begin(
    vendor: Vendor, timeframe: TimeFrame, stamps: list[tuple[int, int]]
) -> None:
    found = await vendor.bars(PUFA, timeframe=timeframe, start=at("2026-06-26"), end=at("2026-06-26", 16))
    assert [bar.timestamp for bar in found[PUFA]] == [at("2026-06-26", *stamp) for stamp in stamps]


@pytest.mark.parametrize(("minutes", "count"), [(1, 239), (5, 48), (15, 16), (30, 8)])
async def test_every_timeframe_is_one_of_our_periods(vendor: Vendor, minutes: int, count: int) -> None:
    timeframe = TimeFrame(minutes, TimeFrameUnit.Minute)
    found = (await vendor.bars(PUFA, timeframe=timeframe, start=at("2026-06-26"), end=at("2026-06-27")))[PUFA]
    assert len(found) == count
    assert found[-1].timestamp == at("2026-06-26", 15) - timedelta(minutes=minutes)


async def test_a_range_takes_the_bars_that_begin_in_it(vendor: Vendor) -> None:
    found = await vendor.bars(PUFA, timeframe=TimeFrame.Minute, start=at("2026-06-26", 10, 0), end=at("2026-06-26", 10, 2))
    assert [bar.timestamp for bar in found[PUFA]] == [at("2026-06-26", 10, minute) for minute in range(3)]


@pytest.mark.parametrize(
    ("timeframe", "stamps"),
    [(TimeFrame.Day, [18, 22, 23]), (TimeFrame.Week, [15, 22]), (TimeFrame.Month, [1])],
)
async def test_days_weeks_and_months_that_the_range_touches_come_whole(
    vendor: Vendor, timeframe: TimeFrame, stamps: list[int]
) -> None:
    """Times without a zone are UTC to the client: its days begin at 8 in the morning. The 19th was a holiday."""
    found = await vendor.bars(PUFA, timeframe=timeframe, start=datetime(2026, 6, 18), end=datetime(2026, 6, 23))
    assert [bar.timestamp for bar in found[PUFA]] == [at(f"2026-06-{day:02}") for day in stamps]


@pytest.mark.parametrize("sort", [Sort.ASC, Sort.DESC])
async def test_pages_give_every_bar_once_in_either_order(vendor: Vendor, sort: Sort) -> None:
    names = [PUFA, "000001.SZ", "600004.SH"]
    options = {"timeframe": "5Min", "start": "2026-06-22", "end": "2026-06-26", "sort": sort.value}
    asked = "&".join(f"{name}={value}" for name, value in options.items())
    whole = (await vendor.get(f"/v2/stocks/bars?symbols={','.join(names)}&{asked}&limit=10000")).json()
    assert whole["next_page_token"] is None
    merged: dict[str, list[Any]] = {}
    token, pages = "", 0
    while token is not None:
        path = f"/v2/stocks/bars?symbols={','.join(names)}&{asked}&limit=70" + (f"&page_token={token}" if token else "")
        page = (await vendor.get(path)).json()
        assert sum(map(len, page["bars"].values())) <= 70
        for symbol, rows in page["bars"].items():
            merged.setdefault(symbol, []).extend(rows)
        token, pages = page["next_page_token"], pages + 1
    assert pages > 3
    assert merged == whole["bars"]
    for rows in merged.values():
        stamps = [row["t"] for row in rows]
        assert stamps == sorted(stamps, reverse=sort is Sort.DESC)


async def test_the_client_goes_through_pages_and_keeps_to_its_limit(vendor: Vendor, market: Market) -> None:
    names = (PUFA, "000001.SZ", "600004.SH")
    options = {"timeframe": TimeFrame.Minute, "start": at("2026-06-01"), "end": at("2026-06-30")}
    found = await vendor.bars(*names, **options)
    query = market.query(*names, period="1m", start="2026-06-01", end="2026-06-29")
    native = dict(prepare(query, deadline_seconds=10, request_id="t").parts())
    assert sum(map(len, found.values())) > 10_000, "more than a page"
    for symbol, series in native.items():
        assert [bar.close for bar in found[symbol]] == series.close.tolist()
    limited = await vendor.bars(*names, **options, limit=5)
    assert {symbol: len(rows) for symbol, rows in limited.items()} == {PUFA: 5}


async def test_raw_and_all_are_told_apart_and_the_others_are_refused(vendor: Vendor) -> None:
    """The simulated market pays a dividend each year, so that prices of a year ago are others when adjusted."""
    options = {"timeframe": TimeFrame.Day, "start": at("2025-02-10"), "end": at("2025-02-14")}
    raw = (await vendor.bars(PUFA, **options, adjustment=Adjustment.RAW))[PUFA]
    adjusted = (await vendor.bars(PUFA, **options, adjustment=Adjustment.ALL))[PUFA]
    assert (await vendor.bars(PUFA, **options))[PUFA] == raw
    assert all(one.close < other.close for one, other in zip(adjusted, raw, strict=True))
    assert all(bar.vwap is None for bar in adjusted), "an average of prices that were not traded at"
    for word in (Adjustment.SPLIT, Adjustment.DIVIDEND):
        request = StockBarsRequest(symbol_or_symbols=PUFA, **options, adjustment=word)
        error = await vendor.refused("get_stock_bars", request)
        assert (error.status_code, error.code) == (501, 437)
        assert word.value in error.message


async def test_a_symbol_of_a_market_without_a_calendar_stands_in_no_other_s_way(vendor: Vendor, symbols: list[str]) -> None:
    universe.set_current(Universe(symbols=(*symbols, "00700.HK")))
    options = "timeframe=1Day&start=2026-06-22&end=2026-06-26"
    together = (await vendor.get(f"/v2/stocks/bars?symbols=00700.HK,{PUFA}&{options}")).json()
    assert {symbol: len(bars) for symbol, bars in together["bars"].items()} == {PUFA: 5}
    alone = await vendor.get(f"/v2/stocks/00700.HK/bars?{options}")
    assert (alone.status_code, alone.json()["code"]) == (400, 434)
    assert "nothing is known of the trading days of HK" in alone.json()["message"]


async def test_the_latest_bar_is_the_last_minute(vendor: Vendor) -> None:
    found = await vendor("get_stock_latest_bar", StockLatestBarRequest(symbol_or_symbols=[PUFA, "000001.SZ"]))
    assert {symbol: bar.timestamp for symbol, bar in found.items()} == dict.fromkeys(
        (PUFA, "000001.SZ"), at("2026-06-30", 14, 59)
    )
    one = (await vendor.get(f"/v2/stocks/{PUFA}/bars/latest")).json()
    assert one["symbol"] == PUFA
    assert one["bar"]["c"] == found[PUFA].close


async def test_one_symbol_may_stand_in_the_address(vendor: Vendor) -> None:
    many = (await vendor.get(f"/v2/stocks/bars?symbols={PUFA}&timeframe=1Day&start=2026-06-22&end=2026-06-26")).json()
    one = (await vendor.get("/v2/stocks/sh600000/bars?timeframe=1Day&start=2026-06-22&end=2026-06-26")).json()
    assert one == {"symbol": PUFA, "bars": many["bars"][PUFA], "next_page_token": None}
    none = (await vendor.get(f"/v2/stocks/{PUFA}/bars?timeframe=1Day&start=2026-06-27&end=2026-06-28")).json()
    assert none == {"symbol": PUFA, "bars": [], "next_page_token": None}


BOOK = {"bid_price": (9.99, 9.98), "bid_volume": (300, 500), "ask_price": (10.01,), "ask_volume": (200,)}
NOW = 1_782_806_400_123


def told(market: Market, *quotes: Any) -> None:
    """The feed brings quotes; the market's time stays."""
    now = market.now
    take(store, batch(1, *quotes))
    store.feeds["main"].clock = now


async def test_the_newest_quotes_and_prices_are_those_of_the_exchange(vendor: Vendor, market: Market) -> None:
    told(
        market,
        quote(PUFA, time=NOW, price=10.0, **BOOK),
        quote("000001.SZ", time=NOW, price=None, bid_price=(7.0,), bid_volume=(100,)),
    )
    found = await vendor("get_stock_latest_quote", StockLatestQuoteRequest(symbol_or_symbols=[PUFA, "000001.SZ", "600004.SH"]))
    assert set(found) == {PUFA, "000001.SZ"}
    best = found[PUFA]
    assert (best.bid_price, best.bid_size, best.bid_exchange) == (9.99, 300, "SH")
    assert (best.ask_price, best.ask_size, best.ask_exchange) == (10.01, 200, "SH")
    assert best.timestamp == datetime.fromtimestamp(NOW / 1000, UTC)
    assert (found["000001.SZ"].ask_price, found["000001.SZ"].ask_size) == (0, 0), "Alpaca's way to say that nobody sells"
    trades = await vendor("get_stock_latest_trade", StockLatestTradeRequest(symbol_or_symbols=[PUFA, "000001.SZ"]))
    assert {symbol: (trade.price, trade.size) for symbol, trade in trades.items()} == {PUFA: (10.0, 0)}
    assert (await vendor.get(f"/v2/stocks/{PUFA}/quotes/latest")).json()["quote"]["bp"] == 9.99
    missing = await vendor.get("/v2/stocks/600004.SH/quotes/latest")
    assert (missing.status_code, missing.json()["code"]) == (404, 430)


async def test_a_snapshot_has_quote_price_minute_day_and_the_day_before(vendor: Vendor, market: Market) -> None:
    whole = {"open": 9.9, "high": 10.2, "low": 9.8, "volume": 1000, "amount": 10_050.0, "trades": 7}
    told(market, quote(PUFA, time=int(at("2026-06-30", 15).timestamp() * 1000), price=10.0, **BOOK, **whole))
    found = await vendor("get_stock_snapshot", StockSnapshotRequest(symbol_or_symbols=[PUFA, "000001.SZ"]))
    snapshot = found[PUFA]
    assert (snapshot.latest_trade.price, snapshot.latest_quote.bid_price) == (10.0, 9.99)
    assert snapshot.minute_bar.timestamp == at("2026-06-30", 14, 59)
    day = snapshot.daily_bar
    assert (day.timestamp, day.open, day.high, day.low, day.close) == (at("2026-06-30"), 9.9, 10.2, 9.8, 10.0)
    assert (day.volume, day.trade_count, day.vwap) == (1000, 7, 10.05)
    assert snapshot.previous_daily_bar.timestamp == at("2026-06-29")
    unquoted = found["000001.SZ"]
    assert (unquoted.latest_trade, unquoted.latest_quote) == (None, None)
    assert (unquoted.daily_bar.timestamp, unquoted.previous_daily_bar.timestamp) == (at("2026-06-30"), at("2026-06-29"))
    one = (await vendor.get(f"/v2/stocks/{PUFA}/snapshot")).json()
    assert (one["symbol"], one["dailyBar"]["c"]) == (PUFA, 10.0)


async def test_a_snapshot_does_not_wait_for_a_terminal_that_is_down(vendor: Vendor, market: Market) -> None:
    market.terminal.down = True
    told(market, quote(PUFA, price=10.0, **BOOK))
    snapshot = (await vendor("get_stock_snapshot", StockSnapshotRequest(symbol_or_symbols=PUFA)))[PUFA]
    assert (snapshot.latest_quote.bid_price, snapshot.minute_bar, snapshot.previous_daily_bar) == (9.99, None, None)
    error = await vendor.refused(
        "get_stock_bars", StockBarsRequest(symbol_or_symbols=PUFA, timeframe=TimeFrame.Day, start=at("2026-06-01"))
    )
    assert error.status_code == 503


def record(archive: RecordingArchive, *messages: tuple[int, list[Any]]) -> None:
    """Messages of one epoch: when they were published (ms), and what they said."""
    made = [
        Message(
            when,
            1,
            seq,
            [item.symbol for item in quotes],
            [msgspec.json.encode(item)[:-1] + b',"seq":%d}' % seq for item in quotes],
        )
        for seq, (when, quotes) in enumerate(messages, 1)
    ]
    day = date.fromtimestamp(made[0].at / 1000 + 8 * 3600)
    archive.write(day, 1, table(made))


async def test_quotes_of_the_past_come_from_the_recordings(vendor: Vendor, recorded: RecordingArchive) -> None:
    start = int(at("2026-06-26", 10).timestamp() * 1000)
    rows = [
        (
            start + 3000 * number,
            [quote(name, time=start + 3000 * number, price=10.0, **BOOK) for name in (PUFA, "000001.SZ", "600004.SH")],
        )
        for number in range(20)
    ]
    record(recorded, *rows)
    asked = {
        "symbol_or_symbols": [PUFA, "000001.SZ"],
        "start": at("2026-06-26", 10),
        "end": at("2026-06-26", 10) + timedelta(seconds=30),
    }
    found = (await vendor("get_stock_quotes", StockQuotesRequest(**asked))).data
    stamps = [at("2026-06-26", 10) + timedelta(seconds=3 * number) for number in range(11)]
    assert {symbol: [item.timestamp for item in quotes] for symbol, quotes in found.items()} == dict.fromkeys(
        (PUFA, "000001.SZ"), stamps
    )
    assert len((await vendor("get_stock_quotes", StockQuotesRequest(**asked, limit=5))).data[PUFA]) == 3
    merged: dict[str, list[Any]] = {}
    token = ""
    while token is not None:
        path = f"/v2/stocks/quotes?symbols={PUFA},000001.SZ&start=2026-06-26&end=2026-06-26&limit=7"
        page = (await vendor.get(path + (f"&page_token={token}" if token else ""))).json()
        for symbol, quotes in page["quotes"].items():
            merged.setdefault(symbol, []).extend(quotes)
        token = page["next_page_token"]
    assert {symbol: len({item["t"] for item in quotes}) for symbol, quotes in merged.items()} == {PUFA: 20, "000001.SZ": 20}
    assert {symbol: len(quotes) for symbol, quotes in merged.items()} == {PUFA: 20, "000001.SZ": 20}


async def test_what_was_not_recorded_is_said_and_never_made_up(vendor: Vendor, recorded: RecordingArchive) -> None:
    day = {"symbol_or_symbols": PUFA, "start": at("2026-06-25"), "end": at("2026-06-26")}
    error = await vendor.refused("get_stock_quotes", StockQuotesRequest(**day))
    assert (error.status_code, error.code) == (404, 439)
    error = await vendor.refused("get_stock_trades", StockTradesRequest(**day))
    assert (error.status_code, error.code) == (404, 439)
    assert "ARGUS_RECORD" in error.message


async def test_trades_of_the_past_are_those_of_a_recorded_level_2_session(
    vendor: Vendor, recorded: RecordingArchive, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand, "LOOK", 0.0)
    path, names = excerpt(data_dir, SH_TRADES, tmp_path, 400), ("605580.SH", "600536.SH")
    await asyncio.to_thread(record_session, [path], recorded, frozenset(names), 800)
    session = trades(path)
    (untaken,) = session.keys() - set(names)
    universe.set_current(Universe(symbols=tuple(session)))
    day = {"start": at("2023-07-11"), "end": at("2023-07-11", 16)}
    found = await vendor("get_stock_trades", StockTradesRequest(symbol_or_symbols=list(session), **day))
    assert {symbol: len(rows) for symbol, rows in found.data.items()} == dict.fromkeys(names, 400)
    for symbol, rows in found.data.items():
        assert [(row.id, row.price, row.size, row.timestamp) for row in rows] == [
            (one.index, one.price, one.volume, alpaca.moment(one.time)) for one in session[symbol]
        ]
        assert {(row.exchange, row.tape) for row in rows} == {("SH", "SH")}
        assert all(row.conditions == [] for row in rows)
    limited = await vendor("get_stock_trades", StockTradesRequest(symbol_or_symbols=names[0], **day, limit=7))
    assert limited.data[names[0]] == found.data[names[0]][:7]
    asked = StockTradesRequest(symbol_or_symbols=untaken, **day)
    assert (await vendor.refused("get_stock_trades", asked)).code == 439, "nobody took these"


def record_trades(archive: RecordingArchive, start: int, *names: str) -> None:
    """Twenty messages, three seconds apart, each with a trade of each symbol."""
    made = []
    for seq in range(1, 21):
        when, tail = start + 3000 * (seq - 1), b',"seq":%d}' % seq
        found = [
            Trade(symbol=name, time=when, index=seq, price=10.0, volume=100, side=Side.BUY if seq % 2 else None, source="qmt")
            for name in names
        ]
        fragments = [msgspec.json.encode(one)[:-1] + tail for one in found]
        made.append(Message(when, 1, seq, list(names), fragments, DataType.TRADE))
    archive.of(TRADES).write(date(2026, 6, 26), 1, table(made, TRADES))


async def test_trades_of_a_range_come_page_by_page(vendor: Vendor, recorded: RecordingArchive) -> None:
    names = (PUFA, "000001.SZ")
    record_trades(recorded, int(at("2026-06-26", 10).timestamp() * 1000), *names)
    half = {"start": at("2026-06-26", 10) + timedelta(seconds=30), "end": at("2026-06-26", 10) + timedelta(seconds=45)}
    found = await vendor("get_stock_trades", StockTradesRequest(symbol_or_symbols=list(names), **half))
    assert {symbol: [row.id for row in rows] for symbol, rows in found.data.items()} == {name: [*range(11, 17)] for name in names}
    merged: dict[str, list[Any]] = {}
    token, pages = "", 0
    while token is not None:
        path = f"/v2/stocks/trades?symbols={','.join(names)}&start=2026-06-26&end=2026-06-26&limit=7&sort=asc"
        page = (await vendor.get(path + (f"&page_token={token}" if token else ""))).json()
        for symbol, rows in page["trades"].items():
            merged.setdefault(symbol, []).extend(rows)
        token, pages = page["next_page_token"], pages + 1
    assert pages == 6
    assert {symbol: [row["i"] for row in rows] for symbol, rows in merged.items()} == {name: [*range(1, 21)] for name in names}
    one = (await vendor.get(f"/v2/stocks/{PUFA}/trades?start=2026-06-26&end=2026-06-26&limit=2")).json()
    assert one["symbol"] == PUFA
    assert one["next_page_token"] is not None
    first = {"t": "2026-06-26T02:00:00Z", "x": "SH", "p": 10.0, "s": 100, "c": [], "i": 1, "z": "SH", "tks": "B"}
    assert one["trades"][0] == first
    assert "tks" not in one["trades"][1]


async def test_no_trade_in_a_range_is_no_error_where_the_day_was_recorded(vendor: Vendor, recorded: RecordingArchive) -> None:
    record_trades(recorded, int(at("2026-06-26", 10).timestamp() * 1000), PUFA)
    range_ = "start=2026-06-26T12:00&end=2026-06-26T12:30"
    quiet = (await vendor.get(f"/v2/stocks/{PUFA}/trades?{range_}")).json()
    assert quiet == {"symbol": PUFA, "trades": [], "next_page_token": None}
    untaken = await vendor.get(f"/v2/stocks/000001.SZ/trades?{range_}")
    assert (untaken.status_code, untaken.json()["code"]) == (404, 439)
    backwards = await vendor.get(f"/v2/stocks/{PUFA}/trades?{range_}&sort=desc")
    assert (backwards.status_code, backwards.json()["code"]) == (501, 437)
    assert "sort" in backwards.json()["message"]


async def test_a_plan_without_trades_has_none_of_the_past(vendor: Vendor) -> None:
    _, small = await new_key(data_types=("quote",))
    answer = await vendor.get(f"/v2/stocks/{PUFA}/trades", **{"APCA-API-SECRET-KEY": small})
    assert (answer.status_code, answer.json()["code"]) == (403, 404)


REFUSED = (
    ("timeframe=1Day", 400, 415, "symbol"),
    (f"symbols={PUFA}", 400, 415, "timeframe"),
    (f"symbols={PUFA}&timeframe=7Min", 400, 415, "timeframe"),
    (f"symbols={PUFA}&timeframe=1Day&start=yesterday", 400, 415, "yesterday"),
    (f"symbols={PUFA}&timeframe=1Day&start=2026-06-26&end=2026-06-25", 400, 415, "start"),
    (f"symbols={PUFA}&timeframe=1Day&start=1970-01-01", 400, 434, "calendar"),
    (f"symbols={PUFA}&timeframe=1Day&limit=0", 400, 415, "limit"),
    (f"symbols={PUFA}&timeframe=1Day&limit=10001", 400, 415, "limit"),
    (f"symbols={PUFA}&timeframe=1Day&sort=up", 400, 415, "sort"),
    (f"symbols={PUFA}&timeframe=1Day&feed=otc", 400, 415, "feed"),
    (f"symbols={PUFA}&timeframe=1Day&currency=USD", 400, 415, "currency"),
    (f"symbols={PUFA}&timeframe=1Day&asof=soon", 400, 415, "soon"),
    (f"symbols={PUFA}&timeframe=1Day&page_token=%00", 400, 436, "page_token"),
    (f"symbols={PUFA}&timeframe=1Day&page_token={'A' * 300}", 400, 436, "page_token"),
    (f"symbols={PUFA}&timeframe=1Day&nonsense=1", 400, 415, "nonsense"),
    ("symbols=999999.SH&timeframe=1Day", 404, 421, "999999.SH"),
    ("symbols=nonsense&timeframe=1Day", 400, 422, "nonsense"),
)
BAD_TOKENS = (["000001.SZ", None, 1], [PUFA, -1, 1], [PUFA, 1e300, 1], [PUFA, 10**18, 1], {"a": 1}, [], "x", [PUFA, 1, 10**15])


async def test_what_cannot_be_answered_is_refused_in_alpaca_s_shape(vendor: Vendor) -> None:
    for query, status, code, word in REFUSED:
        answer = await vendor.get(f"/v2/stocks/bars?{query}")
        document = answer.json()
        assert (answer.status_code, document["code"]) == (status, code), (query, document)
        assert word in document["message"]
        assert document["request_id"] == answer.headers["x-request-id"]


async def test_a_token_of_another_query_is_refused(vendor: Vendor) -> None:
    for token in BAD_TOKENS:
        text = base64.urlsafe_b64encode(json.dumps(token).encode()).decode()
        for address in ("bars?timeframe=1Day&", "quotes?", "trades?"):
            answer = await vendor.get(f"/v2/stocks/{address}symbols={PUFA}&start=2026-06-26&page_token={text}")
            assert (answer.status_code, answer.json()["code"]) == (400, 436), (token, answer.text)


async def test_nothing_under_the_prefix_is_open(vendor: Vendor) -> None:
    for path in ("/", "/v2/stocks/bars", "/v2/stocks/600000.SH/snapshot", "/v1/nothing", "/v2/stocks/snapshots"):
        assert (await vendor.get(path, **{"X-Nothing": "x"})).status_code == 401, path


async def test_parameters_without_a_meaning_here_do_no_harm(vendor: Vendor) -> None:
    asked = {
        "timeframe": TimeFrame.Day,
        "start": at("2026-06-26"),
        "end": at("2026-06-26"),
        "feed": DataFeed.IEX,
        "asof": "2026-06-26",
    }
    assert len((await vendor.bars(PUFA, **asked))[PUFA]) == 1
    error = await vendor.refused(
        "get_stock_bars", StockBarsRequest(symbol_or_symbols=PUFA, **asked, currency=SupportedCurrencies.USD)
    )
    assert "CNY" in error.message


async def test_a_key_may_stand_in_either_header_or_in_basic_or_bearer(vendor: Vendor) -> None:
    path = f"/v2/stocks/quotes/latest?symbols={PUFA}"
    basic = base64.b64encode(f"me:{vendor.key}".encode()).decode()
    for headers in (
        {"APCA-API-KEY-ID": vendor.key, "APCA-API-SECRET-KEY": "whatever"},
        {"APCA-API-KEY-ID": "whatever", "APCA-API-SECRET-KEY": vendor.key},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": f"Bearer {vendor.key}"},
        {"X-API-Key": vendor.key},
    ):
        assert (await vendor.get(path, **headers)).status_code == 200, headers
    for headers, code in (
        ({"X-Nothing": "x"}, 401),
        ({"APCA-API-KEY-ID": "AK", "APCA-API-SECRET-KEY": "SK"}, 402),
        ({"Authorization": "Basic ****"}, 401),
    ):
        answer = await vendor.get(path, **headers)
        assert (answer.status_code, answer.json()["code"]) == (401, code)


async def test_plans_and_quotas_hold_as_they_do_natively(vendor: Vendor, server: Server) -> None:
    _, small = await new_key(symbols=1, requests=2, data_types=("kline:1d",))
    headers = {"APCA-API-SECRET-KEY": small}
    many = await vendor.get("/v2/stocks/bars?symbols=600000.SH,000001.SZ&timeframe=1Day", **headers)
    assert (many.status_code, many.json()["code"]) == (403, 405)
    quotes = await vendor.get("/v2/stocks/quotes/latest?symbols=600000.SH", **headers)
    assert (quotes.status_code, quotes.json()["code"]) == (403, 404)
    spent = await vendor.get("/v2/stocks/quotes/latest?symbols=600000.SH", **headers)
    assert (spent.status_code, spent.json()["code"], spent.headers["ratelimit-remaining"]) == (429, 429, "0")
    assert (await vendor.get("/v2/stocks/nothing")).status_code == 404
    assert (await vendor.get("/v2/options/bars")).status_code == 404


def test_the_word_that_is_an_argus_key_counts() -> None:
    key = "argus_abcd1234_" + "A" * 43
    assert key_among("id", key) == key_among(key, "secret") == key_among(None, f" {key} ") == key
    assert key_among("id", "secret") == "secret"
    assert key_among(None, " ") is None
    assert key_in({}) is None


def test_every_timeframe_has_two_names_and_every_period_one_timeframe() -> None:
    assert set(alpaca.TIMEFRAMES.values()) == set(Period)
    assert len(alpaca.TIMEFRAMES) == 2 * len(Period)

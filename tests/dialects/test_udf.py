"""TradingView's UDF, asked as TradingView's own data feed asks: settings, symbols, search, history by pages, quotes, errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from asgiref.sync import sync_to_async

from argus import redact
from argus.access import check, services
from argus.access.models import APIKey
from marketdata import universe
from marketdata.calendar import CHINA, midnight
from marketdata.compat import udf_tickets
from marketdata.compat.udf_times import RESOLUTIONS, as_udf
from marketdata.history.service import prepare
from marketdata.latest import store
from marketdata.models import Instrument
from marketdata.series import Series
from marketdata.sources.base import Bars
from marketdata.types import Instrument as Told
from marketdata.types import Quote
from tests.api.conftest import Keys, client, keys
from tests.history.conftest import Market

__all__ = ["client", "keys"]

NAME = "平安银行"
HOLE = (date(2026, 2, 2), date(2026, 5, 8))
"""Three months without a trade: longer than minutes are looked back for."""


@pytest.fixture
def symbol(market: Market, symbols: list[str], transactional_db: None) -> Iterator[str]:
    """A stock that is quoted; the universe has it, a delisted one, and a future of which only the close is known."""
    before = universe.current()
    symbol = next(name for name in symbols if name.endswith(".SZ"))
    told = Told(symbol=symbol, name=NAME, kind="stock", price_tick=0.01, source="simulated")
    universe.save_reference(source="simulated", instruments=[told], complete=True)
    others = [
        Told(symbol="600087.SH", name="退市长油", kind="stock", price_tick=0.01, source="simulated"),
        Told(symbol="IF2612.IF", name="沪深300指数2612", kind="future", price_tick=0.2, source="simulated"),
        Told(symbol="rb2610.SF", name="螺纹钢2610", kind="future", price_tick=1.0, source="simulated"),
    ]
    universe.save_reference(source="simulated", instruments=others, quoted=False)
    universe.load()
    yield symbol
    store.clear()
    universe.set_current(before)


Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
async def ask(client: httpx.AsyncClient, keys: Keys) -> Ask:
    """Asks UDF with a key; the answer's JSON."""

    async def ask(name: str, **parameters: Any) -> Any:
        answer = await client.get(f"/udf/{name}", params=parameters, headers={"X-API-Key": keys.reader})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def utc(*day: int) -> int:
    return int(datetime(*day, tzinfo=UTC).timestamp())  # type: ignore[arg-type]


def day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def quoted(symbol: str, time: int, **fields: Any) -> None:
    """This is the newest quote here."""
    quote = Quote(symbol=symbol, time=time, source="simulated", **fields)
    store.fragments[symbol] = msgspec.json.encode(quote)[:-1] + b',"seq":1}'


def expected(market: Market, symbol: str, period: str) -> Series:
    """What the history service has, with UDF's times."""
    query = market.query(symbol, period=period, start="2025-01-01")
    prepared = prepare(query, deadline_seconds=20, request_id="t")
    ((_, series),) = prepared.parts()
    return as_udf(series, query.period, symbol.rpartition(".")[2], CHINA)


# --- the data feed


@dataclass
class Chart:
    """What TradingView's library does with its UDF data feed while somebody scrolls to the left."""

    ask: Ask
    symbol: str
    resolution: str
    bars: dict[int, tuple[float, float, float, float, float]] = field(default_factory=dict)
    jumps: list[int] = field(default_factory=list)
    pages: int = 0

    async def scroll_to_the_end(self, count: int, *, countback: bool = True) -> None:
        """Ask for ``count`` bars at a time until there are none before."""
        seconds = {"1D": 86_400, "1W": 7 * 86_400, "1M": 31 * 86_400}.get(self.resolution) or int(self.resolution) * 60
        to = int((await self.ask("time")) + 60)
        while self.pages < 200:
            self.pages += 1
            asked: dict[str, Any] = {"symbol": self.symbol, "resolution": self.resolution, "from": to - count * seconds, "to": to}
            if countback:
                asked["countback"] = count
            answer = await self.ask("history", **asked)
            if answer["s"] == "no_data":
                if "nextTime" not in answer:
                    return
                self.jumps.append(answer["nextTime"])
                assert answer["nextTime"] < to
                to = answer["nextTime"] + 1
                continue
            assert answer["s"] == "ok"
            times = answer["t"]
            assert times == sorted(set(times))
            assert times[-1] < to, "the end is not included"
            assert countback or times[0] >= asked["from"]
            assert not countback or len(times) <= count
            rows = zip(times, *(answer[name] for name in "ohlcv"), strict=True)
            for time, *row in rows:
                assert time not in self.bars, "no bar comes twice"
                self.bars[time] = tuple(row)
            to = times[0] if countback else asked["from"]
        pytest.fail("it goes on for ever")

    def table(self) -> list[tuple[float, ...]]:
        return [(time, *self.bars[time]) for time in sorted(self.bars)]


def rows(series: Series) -> list[tuple[float, ...]]:
    columns = (series.time, series.open, series.high, series.low, series.close, series.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize(
    ("resolution", "count", "countback"),
    [("1D", 70, True), ("1D", 70, False), ("1W", 30, True), ("1M", 5, False), ("60", 300, True), ("60", 300, False)],
)
async def test_a_chart_gets_every_bar_once_and_comes_to_an_end(
    ask: Ask, market: Market, symbol: str, resolution: str, count: int, countback: bool
) -> None:
    chart = Chart(ask, symbol, resolution)
    await chart.scroll_to_the_end(count, countback=countback)
    assert chart.table() == rows(await sync_to_async(expected)(market, symbol, RESOLUTIONS[resolution]))
    assert chart.pages > 2


def without_trades(bars: Bars) -> Bars:
    first, last = midnight(HOLE[0]), midnight(HOLE[1])
    return Bars({name: series.pick((series.time <= first) | (series.time > last)) for name, series in bars.series.items()})


def suspended(bars: Bars) -> Bars:
    """The same hole as a terminal shows it: rows of days that say that nothing was traded, and no minutes."""
    first, last = midnight(HOLE[0]), midnight(HOLE[1])

    def changed(series: Series) -> Series:
        inside = (series.time > first) & (series.time <= last)
        if len(series) and np.all(series.time % 86_400_000 == 7 * 3_600_000):
            return series.replace(volume=np.where(inside, 0, series.volume), suspended=series.suspended | inside)
        return series.pick(~inside)

    return Bars({name: changed(series) for name, series in bars.series.items()})


@pytest.mark.parametrize(
    ("hole", "resolution", "count"),
    [(without_trades, "1D", 20), (suspended, "1D", 20), (suspended, "60", 600), (without_trades, "1", 20_000)],
)
async def test_months_without_a_trade_are_jumped_over(
    ask: Ask, market: Market, symbol: str, hole: Any, resolution: str, count: int
) -> None:
    market.terminal.change = hole
    chart = Chart(ask, symbol, resolution)
    await chart.scroll_to_the_end(count, countback=False)
    assert "2026-01-30" in map(day, chart.jumps), "the last day before the hole"
    days = sorted({day(time) for time in chart.bars})
    assert days[0] == "2025-01-02"
    assert not [one for one in days if str(HOLE[0]) <= one < str(HOLE[1])]
    assert {"2026-01-30", "2026-05-08"} <= {*days, str(HOLE[1])}


async def test_minutes_that_are_asked_for_by_their_number_are_found_behind_a_hole(ask: Ask, market: Market, symbol: str) -> None:
    market.terminal.change = suspended
    asked = {"symbol": symbol, "resolution": "5", "from": 0, "countback": 10}
    answer = await ask("history", **asked, to=utc(2026, 5, 8, 1, 30))
    assert answer["s"] == "no_data"
    assert datetime.fromtimestamp(answer["nextTime"], UTC) == datetime(2026, 1, 30, 6, 55, tzinfo=UTC)
    answer = await ask("history", **asked, to=answer["nextTime"] + 1)
    assert (len(answer["t"]), day(answer["t"][-1])) == (10, "2026-01-30")


async def test_where_the_terminal_does_not_answer_the_chart_is_not_told_that_there_is_nothing(
    client: httpx.AsyncClient, keys: Keys, market: Market, symbol: str
) -> None:
    market.terminal.down = True
    asked = {"symbol": symbol, "resolution": "1D", "from": 0, "to": utc(2026, 6, 30), "countback": 10}
    answer = await client.get("/udf/history", params=asked, headers={"X-API-Key": keys.reader})
    assert (answer.status_code, answer.json()["s"], answer.json()["name"]) == (503, "error", "source_unavailable")


async def test_the_last_minutes_of_the_auction_are_never_cut_off(ask: Ask, market: Market, symbol: str) -> None:
    asked = {"symbol": symbol, "resolution": "1", "from": 0}
    whole = await ask("history", **asked, to=utc(2026, 6, 30, 7, 0), countback=300)
    by_time = dict(zip(whole["t"], whole["v"], strict=True))
    for end in range(utc(2026, 6, 30, 1, 30), utc(2026, 6, 30, 1, 36), 30):
        answer = await ask("history", **asked, to=end, countback=1)
        assert answer["v"] == [by_time[answer["t"][0]]], end


async def test_today_is_there_as_far_as_it_has_come(ask: Ask, market: Market, symbol: str) -> None:
    market.at("2026-06-30", 10, 30)
    noon = utc(2026, 6, 30, 2, 30)
    quoted(symbol, noon * 1000, price=9.0, open=8.0, high=9.5, low=7.5, volume=1200)
    days = await ask("history", symbol=symbol, resolution="D", to=noon, countback=2, **{"from": 0})
    assert [day(time) for time in days["t"]] == ["2026-06-29", "2026-06-30"]
    assert [days[name][-1] for name in "ohlcv"] == [8.0, 9.5, 7.5, 9.0, 1200]
    only = await ask("history", symbol=symbol, resolution="1D", to=noon, **{"from": utc(2026, 6, 30)})
    assert (only["t"], only["c"]) == ([utc(2026, 6, 30)], [9.0])
    weeks = await ask("history", symbol=symbol, resolution="1W", to=noon, countback=1, **{"from": 0})
    assert [day(time) for time in weeks["t"]] == ["2026-06-29"]
    assert (weeks["o"], weeks["c"]) == ([days["o"][0]], [9.0])
    assert weeks["v"] == [days["v"][0] + 1200]
    until_yesterday = await ask("history", symbol=symbol, resolution="1D", to=utc(2026, 6, 30), countback=1, **{"from": 0})
    assert [day(time) for time in until_yesterday["t"]] == ["2026-06-29"]


async def test_a_day_without_a_trade_so_far_is_no_bar(ask: Ask, market: Market, symbol: str) -> None:
    market.at("2026-06-30", 9, 20)
    quoted(symbol, market.now, price=None, prev_close=9.0, volume=0)
    answer = await ask("history", symbol=symbol, resolution="1D", to=market.now // 1000, countback=1, **{"from": 0})
    assert [day(time) for time in answer["t"]] == ["2026-06-29"]


async def test_an_answer_has_its_bound(ask: Ask, market: Market, symbol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketdata.compat.udf_history.MOST", 50)
    everything = await ask("history", symbol=symbol, resolution="1D", to=utc(2026, 6, 30), **{"from": 0})
    by_count = await ask("history", symbol=symbol, resolution="1D", to=utc(2026, 6, 30), countback=400, **{"from": 0})
    assert len(everything["t"]) == 50
    assert everything == by_count
    assert day(everything["t"][-1]) == "2026-06-29"


# --- symbols, search, quotes


async def test_the_settings_say_what_there_is(ask: Ask, symbol: str) -> None:
    config = await ask("config")
    assert config["supported_resolutions"] == ["1", "5", "15", "30", "60", "1D", "1W", "1M"]
    assert (config["supports_search"], config["supports_group_request"], config["supports_time"]) == (True, False, True)
    assert [one["value"] for one in config["exchanges"]] == ["", "SH", "SZ", "IF", "SF"]
    assert {"stock", "index", "futures"} <= {one["value"] for one in config["symbols_types"]}


async def test_a_symbol_says_when_and_how_finely_it_trades(ask: Ask, symbol: str) -> None:
    info = await ask("symbols", symbol=f"SZSE:{symbol.partition('.')[0]}")
    assert (info["ticker"], info["description"], info["exchange"], info["type"]) == (symbol, NAME, "SZSE", "stock")
    assert (info["session"], info["timezone"]) == ("0930-1130,1300-1500", "Asia/Shanghai")
    assert (info["minmov"], info["pricescale"]) == (1, 100)
    assert (info["has_intraday"], info["has_daily"], info["has_weekly_and_monthly"]) == (True, True, True)
    assert info["data_status"] == "streaming"
    future = await ask("symbols", symbol="IF2612.IF")
    assert (future["minmov"], future["pricescale"], future["type"]) == (2, 10, "futures")
    of_days = await ask("symbols", symbol="rb2610.SF")
    assert (of_days["has_intraday"], of_days["supported_resolutions"]) == (False, ["1D", "1W", "1M"])
    assert (await ask("symbols", symbol="600087.SH"))["data_status"] == "endofday"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"query": "payh"}, [NAME]),
        ({"query": "pinganyin"}, [NAME]),
        ({"query": "平安"}, [NAME]),
        ({"query": "", "exchange": "SF"}, ["螺纹钢2610"]),
        ({"query": "", "exchange": "SHFE", "limit": "5"}, ["螺纹钢2610"]),
        ({"query": "", "type": "futures", "limit": "1"}, ["沪深300指数2612"]),
        ({"query": "", "type": "bond"}, []),
        ({"query": "nothing like it"}, []),
    ],
)
async def test_people_find_what_they_look_for(ask: Ask, symbol: str, asked: dict[str, str], found: list[str]) -> None:
    answer = await ask("search", **{"type": "", "exchange": "", "limit": "30", **asked})
    assert [one["description"] for one in answer] == found
    for one in answer:
        assert (await ask("symbols", symbol=one["ticker"]))["description"] == one["description"]


async def test_quotes_come_under_the_names_that_were_asked_for(ask: Ask, market: Market, symbol: str) -> None:
    book = {"bid_price": (8.99, 8.98), "bid_volume": (100, 100), "ask_price": (9.0,), "ask_volume": (200,)}
    quoted(symbol, market.now, price=9.0, open=8.0, high=9.5, low=7.5, prev_close=8.7, volume=1200, **book)
    code, _, exchange = symbol.partition(".")
    answer = await ask("quotes", symbols=f"{exchange}:{code},600000.SH,IF2612.IF")
    assert answer["s"] == "ok"
    first, unknown, silent = answer["d"]
    assert (first["s"], first["n"]) == ("ok", f"{exchange}:{code}")
    assert first["v"] == {
        "short_name": NAME,
        "exchange": "SZSE",
        "description": NAME,
        "lp": 9.0,
        "ch": 0.3,
        "chp": 3.45,
        "ask": 9.0,
        "bid": 8.99,
        "spread": 0.01,
        "open_price": 8.0,
        "high_price": 9.5,
        "low_price": 7.5,
        "prev_close_price": 8.7,
        "volume": 1200,
    }
    assert [(one["s"], one["n"], one["v"]) for one in (unknown, silent)] == [
        ("error", "600000.SH", {}),
        ("error", "IF2612.IF", {}),
    ]


async def test_the_time_is_the_market_s(ask: Ask, market: Market, symbol: str) -> None:
    assert await ask("time") == market.now // 1000


# --- what is refused, and who may ask


@pytest.mark.parametrize(
    ("name", "asked", "problem"),
    [
        ("symbols", {"symbol": "999999.SH"}, "unknown_symbol"),
        ("symbols", {}, "invalid_argument"),
        ("symbols", {"symbol": "*"}, "unknown_symbol"),
        ("history", {"symbol": "600999.SH", "resolution": "1D", "from": 0, "to": 9}, "unknown_symbol"),
        ("history", {"symbol": "600087.SH", "resolution": "7", "from": 0, "to": 9}, "invalid_argument"),
        ("history", {"symbol": "600087.SH", "resolution": "1D", "from": 0}, "invalid_argument"),
        ("history", {"symbol": "600087.SH", "resolution": "1D", "to": 9}, "invalid_argument"),
        ("history", {"symbol": "600087.SH", "resolution": "1D", "from": "x", "to": 9}, "invalid_argument"),
        ("history", {"symbol": "600087.SH", "resolution": "1D", "to": 9, "countback": 0}, "invalid_argument"),
        ("history", {"symbol": "600087.SH", "resolution": "1D", "to": 10**12, "countback": 1}, "invalid_argument"),
        ("history", {"symbol": "rb2610.SF", "resolution": "1", "to": 9, "countback": 1}, "unsupported"),
        ("quotes", {}, "invalid_argument"),
        ("search", {"query": "a", "limit": "x"}, "invalid_argument"),
        ("marks", {}, "not_found"),
    ],
)
async def test_a_wrong_question_is_an_error_that_udf_knows(
    ask: Ask, symbol: str, name: str, asked: dict[str, Any], problem: str
) -> None:
    if asked.get("symbol") == "*":
        await sync_to_async(Instrument.objects.filter(quoted=True).update)(quoted=False)
        await sync_to_async(universe.load)()
        problem = "invalid_symbol"
    answer = await ask(name, **asked)
    assert (answer["s"], answer["name"]) == ("error", problem)
    assert answer["errmsg"]


@pytest.mark.parametrize("to", [0, -(10**10), 1, 10**10])
async def test_moments_far_from_all_bars_have_an_answer(ask: Ask, market: Market, symbol: str, to: int) -> None:
    for resolution in ("1", "1D", "1W", "1M"):
        answer = await ask("history", symbol=symbol, resolution=resolution, to=to, countback=1, **{"from": -5})
        assert answer["s"] == ("ok" if to > 1 else "no_data"), (resolution, answer)
        assert "nextTime" not in answer


async def test_there_is_an_answer_where_the_range_is_upside_down(ask: Ask, market: Market, symbol: str) -> None:
    asked = {"symbol": symbol, "resolution": "1D", "from": utc(2026, 6, 30), "to": utc(2026, 6, 9)}
    assert await ask("history", **asked) == {"s": "no_data", "nextTime": utc(2026, 6, 8)}


@pytest.fixture
async def ticket(client: httpx.AsyncClient, keys: Keys) -> AsyncIterator[str]:
    """A ticket of the reader's key."""
    answer = await client.post("/api/v1/udf/ticket", headers={"X-API-Key": keys.reader})
    assert answer.status_code == 201
    assert answer.json()["url"] == f"/udf/{answer.json()['ticket']}"
    yield answer.json()["ticket"]


async def test_a_ticket_is_good_for_many_requests_from_any_page(
    client: httpx.AsyncClient, keys: Keys, ticket: str, symbol: str
) -> None:
    assert keys.reader not in ticket
    left = []
    for name in ("config", "time", "search?query=&type=&exchange=&limit=3"):
        answer = await client.get(f"/udf/{ticket}/{name}", headers={"Origin": "https://charts.example.org"})
        assert answer.status_code == 200, answer.text
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        left.append(int(answer.headers["ratelimit-remaining"]))
    assert left == [left[0], left[0] - 1, left[0] - 2], "the key's quota"


def test_a_ticket_stands_in_no_log() -> None:
    ticket = udf_tickets.issue_to_person(7)
    signed, _, _ = ticket.partition(".")
    assert signed not in redact.text(f"GET /udf/{ticket}/time")


async def test_a_ticket_opens_nothing_else(client: httpx.AsyncClient, ticket: str) -> None:
    answer = await client.get("/api/v1/market_data/latest?symbols=000001.SZ", headers={"X-API-Key": ticket})
    assert answer.status_code == 401


async def test_a_ticket_does_no_more_than_its_key(client: httpx.AsyncClient, keys: Keys, ticket: str) -> None:
    rows = APIKey.objects.filter(prefix=keys.reader.split("_")[1])
    assert await sync_to_async(services.revoke_keys)(keys=rows) == 1
    check.cache.clear()
    answer = await client.get(f"/udf/{ticket}/time")
    assert (answer.status_code, answer.json()["s"], answer.json()["name"]) == (401, "error", "key_revoked")


async def test_a_ticket_ends(client: httpx.AsyncClient, ticket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = udf_tickets.time.time()
    monkeypatch.setattr(udf_tickets.time, "time", lambda: now + udf_tickets.SECONDS + 1)
    answer = await client.get(f"/udf/{ticket}/time")
    assert (answer.status_code, answer.json()["name"]) == (401, "ticket_invalid")


@pytest.mark.parametrize("forged", ["argus_udf_", "argus_udf_e30.e30", "argus_udf_" + "a" * 500])
async def test_a_forged_ticket_is_refused(client: httpx.AsyncClient, keys: Keys, forged: str) -> None:
    answer = await client.get(f"/udf/{forged}/time")
    assert (answer.status_code, answer.json()["name"]) == (401, "ticket_invalid")


async def test_without_a_key_nothing_is_told_but_what_a_browser_asks_first(client: httpx.AsyncClient, keys: Keys) -> None:
    refused = await client.get("/udf/config", headers={"Accept-Language": "en"})
    assert (refused.status_code, refused.json()["errmsg"]) == (401, "An API key is required.")
    assert refused.headers["access-control-allow-origin"] == "*"
    asked = {"Origin": "https://charts.example.org", "Access-Control-Request-Headers": "x-api-key"}
    preflight = await client.options("/udf/history", headers=asked)
    assert preflight.status_code == 200
    assert "X-API-Key" in preflight.headers["access-control-allow-headers"]
    assert (await client.post("/udf/config")).status_code == 405


async def test_the_quota_and_the_limits_are_the_plan_s(client: httpx.AsyncClient, keys: Keys, symbol: str) -> None:
    headers = {"Authorization": f"Bearer {keys.small}"}
    many = await client.get("/udf/quotes?symbols=1,2,3,4", headers=headers)
    assert (many.status_code, many.json()["name"]) == (403, "symbol_limit")
    answers = [await client.get("/udf/time", headers=headers) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert (answers[-1].json()["s"], answers[-1].json()["name"]) == ("error", "rate_limited")
    assert int(answers[-1].headers["retry-after"]) > 0

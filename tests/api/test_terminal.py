"""A QMT terminal (emulated) behind the whole service: bars of every period are the terminal's own, and so is reference data."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx
import pytest
from jsonschema import Draft202012Validator

from marketdata.calendar import DAY, midnight
from marketdata.periods import MINUTES
from marketdata.types import Adjust, Period
from tests.e2e.service import Service, free_port, wait_for
from tests.emulator import EmulatedTerminal, child_environment, history

pytestmark = pytest.mark.timeout(240)

HISTORY = "/api/v1/market_data/history"
CLOSE = 15 * 3_600_000
STOCKS = ("600000.SH", "000001.SZ", "000003.SZ")
OTHERS = ("000300.SH", "510300.SH", "IF2509.IF")
FIRST, LAST = "2025-07-14", "2025-07-31"
"""Days of which the terminal has minutes. 000003.SZ is halted on the last two."""
WHOLE = ("2023-09-01", "2025-07-31")
"""Whole months, and days of which it has daily bars: with the holidays of two years and the ex-dates of two shares."""


def at_midnight(day: str) -> int:
    return midnight(date.fromisoformat(day))


class Up(NamedTuple):
    """A service over a terminal, and a client with a key for all that there is."""

    http: httpx.Client

    def get(self, path: str, **query: str) -> Any:
        answer = self.http.get(f"{path}?{urlencode(query)}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def bars(self, symbols: tuple[str, ...], period: str, **query: str) -> dict[str, list[dict[str, Any]]]:
        """Symbol -> its bars."""
        asked = {"symbols": ",".join(symbols), "period": period, "start": FIRST, "end": LAST, "limit": "100000"}
        body = self.get(HISTORY, **asked | query)
        assert (body["source"], body["stale"], body["stamp"]) == ("qmt", False, "end")
        # That nothing was traded on days without a minute is believed when it was told twice.
        halted = {symbol: "incomplete" for symbol in symbols if symbol in history.HALTED and period in MINUTES}
        assert body["missing"].items() <= halted.items()
        found: dict[str, list[dict[str, Any]]] = {}
        for row in body["data"]:
            found.setdefault(row.pop("symbol"), []).append(row)
        return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    directory, port = tmp_path_factory.mktemp("terminal"), free_port()
    with EmulatedTerminal(interval=0.5) as terminal:
        service = Service(Path(directory), ARGUS_FETCH_TIMEOUT="30", **child_environment())
        key = service.install_with_key()
        arguments = ("--port", str(port), "--source", "qmt", "--terminal", f"main={terminal.address}")
        service.start("up", "manage.py", "up", *arguments)
        try:
            service.ready(port, "up")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}, timeout=60) as http:
                weights = "/api/v1/sectors/000300.SH"
                wait_for(lambda: http.get(weights).status_code == 200, "the last step of the refresh of reference data")
                yield Up(http)
        finally:
            service.close()


def terminals_own(symbol: str, period: str) -> list[dict[str, Any]]:
    """The bars of a period as the terminal makes them, with our stamps, units and names."""
    shares = 100 if symbol in (*STOCKS, "510300.SH") else 1
    return [
        {
            "time": row["time"] + (0 if period in MINUTES else CLOSE),
            **{name: round(row[name], 3) for name in ("open", "high", "low", "close")},
            "volume": row["volume"] * shares,
            "amount": pytest.approx(row["amount"], abs=0.01),
            "suspended": row["suspendFlag"] == 1,
        }
        for row in history.rows(symbol, period)
    ]


@pytest.mark.parametrize("period", list(Period))
def test_bars_of_every_period_are_those_that_the_terminal_makes_itself(up: Up, period: Period) -> None:
    """We fetch 1m and 1d alone; the terminal's 5m to 1h, weeks and months are of its own, independent making."""
    first, last, least = (FIRST, LAST, 40) if period in MINUTES else (*WHOLE, 22)
    begin, end = (at_midnight(day) for day in (first, last))
    for symbols in (STOCKS, OTHERS):
        ours = up.bars(symbols, period, start=first, end=last)
        assert set(ours) == set(symbols)
        for symbol, bars in ours.items():
            expected = [bar for bar in terminals_own(symbol, period) if begin <= bar["time"] < end + DAY]
            assert [{name: bar[name] for name in expected[0]} for bar in bars] == expected, symbol
            assert len(bars) > least, symbol


def test_prices_are_adjusted_by_the_terminal_s_factors_and_the_answer_names_them(up: Up) -> None:
    symbol, ex_date = "600001.SH", "2025-06-12"
    [paid] = history.dividends(symbol).values()
    asked = {"start": "2025-05-06", "end": "2025-07-11", "fields": "close,volume"}
    plain = up.bars((symbol,), "1d", **asked)[symbol]
    before = [bar["time"] < at_midnight(ex_date) for bar in plain]
    assert 10 < before.count(True) < len(before) - 10
    for adjust, rescaled in {
        "back_ratio": lambda close, early: close if early else close * paid["dr"],
        "front_ratio": lambda close, early: close / paid["dr"] if early else close,
        "back": lambda close, early: close if early else close * 1.5 + 0.1,
        "front": lambda close, early: (close - 0.1) / 1.5 if early else close,
    }.items():
        bars = up.bars((symbol,), "1d", adjust=adjust, **asked)[symbol]
        expected = [rescaled(bar["close"], early) for bar, early in zip(plain, before, strict=True)]
        assert [bar["close"] for bar in bars] == pytest.approx(expected, abs=2e-6), adjust
        assert [bar["volume"] for bar in bars] == [bar["volume"] for bar in plain]
        told = up.get(HISTORY, symbols=symbol, adjust=adjust, count="1", end="2025-07-11")["adjustment"]
        assert (told["method"], told["algorithm"].partition(":")[0]) == (adjust, adjust)
        [row] = told["factors"][symbol]["rows"]
        assert (row["ex_date"], row["cash"], row["bonus"], row["gift"]) == (ex_date, 0.1, 0.2, 0.3)
        assert row["ratio"] == pytest.approx(paid["dr"])


def test_a_front_adjustment_as_of_a_day_knows_the_dividends_of_that_day_and_no_later_ones(up: Up) -> None:
    symbol = "600001.SH"
    asked = {"start": "2025-05-06", "end": "2025-06-11", "fields": "close"}
    plain = up.bars((symbol,), "1d", **asked)
    on_the_eve = up.bars((symbol,), "1d", adjust="front", as_of="2025-06-11", **asked)
    on_the_day = up.bars((symbol,), "1d", adjust="front", as_of="2025-06-12", **asked)
    assert on_the_eve == plain
    assert on_the_day == up.bars((symbol,), "1d", adjust="front", **asked) != plain
    told = up.get(HISTORY, symbols=symbol, count="5", adjust="front", as_of="2025-06-11")
    assert (told["adjustment"]["as_of"], told["adjustment"]["factors"][symbol]["rows"]) == ("2025-06-11", [])
    assert told["data"][-1]["time"] == at_midnight("2025-06-11") + CLOSE


@pytest.mark.parametrize("adjust", list(Adjust))
def test_answers_are_as_the_schema_describes_them(up: Up, adjust: Adjust) -> None:
    schema = up.get("/api/schema", format="json")
    body = up.get(HISTORY, symbols="600000.SH,xx", adjust=adjust, period="1w", start="2024-06-03", end="2025-07-31")
    assert body["data"]
    reference = {"$ref": "#/components/schemas/HistoryBars", "components": schema["components"]}
    Draft202012Validator(reference).validate(body)
    assert (body["adjustment"] is None) == (adjust is Adjust.NONE)


def test_a_week_across_an_ex_date_is_made_of_adjusted_days(up: Up) -> None:
    symbol = "600001.SH"
    asked = {"start": "2025-06-09", "end": "2025-06-13", "adjust": "back"}
    days = up.bars((symbol,), "1d", **asked)[symbol]
    [week] = up.bars((symbol,), "1w", **asked)[symbol]
    assert (week["open"], week["close"]) == (days[0]["open"], days[-1]["close"])
    assert (week["high"], week["low"]) == (max(day["high"] for day in days), min(day["low"] for day in days))


SYMBOLS = {
    "/api/v1/indices": {"000001.SH", "000300.SH", "399001.SZ", "399006.SZ"},
    "/api/v1/etfs": {"510300.SH"},
    "/api/v1/options?underlying=510300": {"10008800.SHO", "10008801.SHO"},
    "/api/v1/options?underlying=rb2510": {"rb2510C3200.SF"},
    "/api/v1/sectors/000300.SH": {"600000.SH", "600001.SH", "600002.SH"},
    "/api/v1/instruments?q=payh": {"000001.SZ"},
    "/api/v1/instruments?q=pinganyin": {"000001.SZ"},
    "/api/v1/instruments/sz000001": {"000001.SZ"},
    "/api/instrument_detail?symbol=000001.XSHE": {"000001.SZ"},
    "/stock_list?sector=000300.SH": {"600000.SH", "600001.SH", "600002.SH"},
}


@pytest.mark.parametrize("path", SYMBOLS)
def test_what_the_terminal_offers_is_answered_with_the_date_of_its_refresh(up: Up, path: str) -> None:
    body = up.http.get(path).json()
    # The terminal's contracts expired in 2025.
    if "options" in path:
        body = up.http.get(f"{path}&expired=true").json()
    assert {row["symbol"] for row in body["data"]} == SYMBOLS[path]
    assert (body["source"], body["refreshed_at"][-6:], body["as_of"]) == ("qmt", "+08:00", body["refreshed_at"])


def test_futures_have_their_main_contracts(up: Up) -> None:
    body = up.get("/api/v1/futures", expired="true")
    assert {(row["product"], row["main"]) for row in body["data"]} == {("IF.IF", "IF2509.IF"), ("rb.SF", "rb2510.SF")}
    assert body["refreshed_at"]
    main = up.get("/api/v1/futures/IF/main")
    assert (main["data"]["symbol"], bool(main["refreshed_at"])) == ("IF2509.IF", True)


OLD_NAMES = (
    "/api/get_trading_dates?count=3",
    "/trading_dates?count=3",
    "/hist_kline?symbols=600000.SH&period=1d&count=3&end=2025-07-31",
    "/api/hist_kline?stock_list=600000.SH&period=1w&count=3&start_time=&end_time=20250731&dividend_type=none",
    "/instrument_detail?symbol=600000.SH",
    "/stock_list?sector=沪深A股",
    "/api/stock_list",
    "/latest_market?symbols=600000.SH",
    "/api/latest_market?symbols=600000.SH",
    "/full_market",
    "/api/full_market?market=SH",
)


@pytest.mark.parametrize("path", OLD_NAMES)
def test_the_old_names_answer(up: Up, path: str) -> None:
    body = up.http.get(path).raise_for_status().json()
    assert body["data"]
    assert body["source"]
    assert body["request_id"]

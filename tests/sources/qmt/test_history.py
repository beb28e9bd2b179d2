"""Bars and reference data: pitfalls of the rows alone first, then over an emulated terminal."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from marketdata.sources.base import SourceTimeout
from marketdata.sources.qmt.parse_history import beijing_date, beijing_text, parse_bars
from marketdata.sources.qmt.parse_reference import parse_dates, parse_instrument, parse_limits
from marketdata.sources.qmt.terminal import Terminal
from marketdata.types import Period
from tests.emulator import EmulatedTerminal, market
from tests.sources.conformance import PATIENCE, eventually
from tests.sources.qmt.conftest import Connect

NOW = 1_754_640_000_000
DATES = {day.isoformat() for day in market.DAYS}


def day_row(**changes: Any) -> dict[str, Any]:
    return {**market.bars("600000.SH", "1d")[-1], **changes}


def refused(row: dict[str, Any], code: str = "600000.SH") -> list[str]:
    bars, reasons = parse_bars(code, Period.D1, [row], dates=DATES, now=NOW)
    assert len(bars) + reasons.total() == 1
    return list(reasons)


def test_beijing_midnight_stays_its_own_day() -> None:
    assert beijing_date(1_754_496_000_000) == "2025-08-07"
    assert beijing_date(1_754_496_000_000 - 1) == "2025-08-06"
    assert beijing_text(1_754_496_000_000 + 34_200_000) == "20250807093000"
    assert parse_dates([1_754_496_000_000, 1_754_582_400_000.0, -1, None]) == ("2025-08-07", "2025-08-08")


def test_zero_filled_rows_are_refused() -> None:
    assert refused(day_row(open=0.0, high=0.0, low=0.0, close=0.0, volume=0, amount=0.0)) == ["zero"]


def test_rows_padded_with_nan_are_refused() -> None:
    assert refused(day_row(open=math.nan, high=math.nan, low=math.nan, close=math.nan, volume=math.nan)) == ["missing"]


def test_rows_on_days_without_trading_are_refused() -> None:
    saturday = market.MIDNIGHT + 86_400_000
    assert refused(day_row(time=saturday - 7 * 86_400_000)) == ["date"]
    assert refused(day_row(time=1_748_793_600_000)) == ["date"], "2025-06-02 was a holiday"


def test_bars_that_contradict_themselves_are_refused() -> None:
    assert refused(day_row(low=10.5)) == ["price"]
    assert refused(day_row(volume=-1)) == ["volume"]
    assert refused(day_row(amount=1.0)) == ["volume"], "neither lots nor shares"
    assert refused(day_row(time=0)) == ["time"]


def test_the_amount_tells_whether_a_volume_is_lots_or_shares() -> None:
    lots, shares = day_row(), day_row(volume=day_row()["volume"] * 100)
    (from_lots,), _ = parse_bars("600000.SH", Period.D1, [lots], dates=None, now=NOW)
    (from_shares,), _ = parse_bars("600000.SH", Period.D1, [shares], dates=None, now=NOW)
    assert from_lots == from_shares
    assert from_lots.volume == lots["volume"] * 100


def test_a_suspended_day_is_a_bar_that_says_so() -> None:
    (bar,), reasons = parse_bars("600000.SH", Period.D1, [day_row(suspendFlag=1, volume=0, amount=0.0)], dates=DATES, now=NOW)
    assert (bar.suspended, bar.volume, reasons.total()) == (True, 0, 0)


def test_is_trading_false_on_a_live_stock_does_not_matter() -> None:
    found = parse_instrument("600000.SH", {**market.detail("600000.SH", old=False), "IsTrading": False, "InstrumentStatus": 3})
    assert found is not None
    assert (found.symbol, found.name, found.listed, found.delisted) == ("600000.SH", "浦发银行", "1999-11-10", None)


def test_unset_instrument_fields_are_none() -> None:
    unset = {"InstrumentName": None, "PriceTick": 1.797e308, "OpenDate": "0", "ExpireDate": 2147483647}
    found = parse_instrument("600000.SH", {**market.detail("600000.SH", old=False), **unset})
    assert found is not None
    assert (found.name, found.price_tick, found.listed, found.delisted, found.lot) == (None, 0.01, None, None, None)
    assert parse_instrument("600000.SH", None) is None


def test_limits_are_prices_of_a_day() -> None:
    detail = market.detail("600000.SH", old=False)
    found = parse_limits("600000.SH", detail)
    assert found is not None
    assert (found.up, found.down) == (11.0, 9.0)
    assert beijing_date(found.day * 86_400_000) == "2025-08-08"
    assert parse_limits("600000.SH", {**detail, "TradingDay": 0}) is None
    assert parse_limits("000001.SH", market.detail("000001.SH", old=False)) is None, "an index has none"


def test_limits_of_the_day_come_with_the_quotes(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)

    def limits() -> set[tuple[float | None, float | None]]:
        quotes = source.fetch_quotes(["600000.SH", "000001.SH"], timeout=PATIENCE).quotes
        return {(quote.limit_up, quote.limit_down) for quote in quotes}

    eventually(lambda: limits() == {(11.0, 9.0), (None, None)})


def test_old_terminals_spelling_of_float_volume(connected: Connect, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(old=True)
    source = connected(terminal.address)
    assert [found.symbol for found in source.fetch_instruments(["600000.SH"], timeout=PATIENCE)] == ["600000.SH"]
    assert source.status().version is None


def test_padding_is_not_returned_and_is_counted(connected: Connect, terminal: EmulatedTerminal) -> None:
    zero = {"open": 0.0, "high": 0.0, "low": 0.0, "close": 0.0, "volume": 0, "amount": 0.0}
    rows = market.bars("600000.SH", "1d")
    terminal.bars("600000.SH", "1d", [{**row, **zero} for row in rows[:-1]] + rows[-1:])
    source = connected(terminal.address)
    bars = source.fetch_bars(["600000.SH"], Period.D1, timeout=PATIENCE)["600000.SH"]
    assert [bar.time for bar in bars] == [rows[-1]["time"]]
    assert source.refused_bars == {"zero": len(rows) - 1}


def test_asking_for_bars_leaves_no_subscription(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    assert source.fetch_bars(["600000.SH"], Period.M1, count=5, timeout=PATIENCE)
    assert terminal.stats()["subscriptions"] == []


def test_subscribe_is_false_where_the_function_has_the_parameter() -> None:
    asked: dict[str, Any] = {}

    def get_market_data_ex(subscribe: bool = True, **named: Any) -> dict[str, Any]:
        asked.update(named, subscribe=subscribe)
        return {}

    client = SimpleNamespace(is_connected=lambda: True, get_peer_addr=lambda: "127.0.0.1:58610")
    xtdata = SimpleNamespace(get_market_data_ex=get_market_data_ex, watch_xtquant_status=lambda _callback: None)
    xtdata.reconnect = lambda _host, _port: vars(xtdata).setdefault("__client", client)
    terminal = Terminal(xtdata, "127.0.0.1:58610", lambda: None)
    terminal.connect()
    terminal.history(["600000.SH"], "1d", "", "", -1)
    assert (asked["subscribe"], asked["fill_data"], asked["dividend_type"]) == (False, False, "none")


def test_history_is_downloaded_first_in_parts_of_fewer_than_500(connected: Connect) -> None:
    with EmulatedTerminal(symbols=600) as terminal:
        source = connected(terminal.address)
        symbols = [symbol for symbol in source.universe(timeout=PATIENCE) if not symbol.endswith(".BJ")]
        bars = source.fetch_bars(symbols, Period.D1, count=1, timeout=PATIENCE)
        methods = [call for call in terminal.stats()["calls"] if call["method"] in ("supply_history_data2", "get_market_data3")]
        assert len(bars) == len(symbols) > 500
        assert max(call["codes"] for call in methods) < 500
        read = [call["method"] for call in methods if call["codes"] > 1]
        assert read[::2] == ["supply_history_data2"] * (len(read) // 2)


def test_a_hung_download_is_cut_off_and_the_terminal_works_again(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    before = source.pid
    terminal.set_mode(hang_downloads=True)
    with pytest.raises(SourceTimeout):
        source.fetch_bars(["600000.SH"], Period.D1, count=1, timeout=0.5)
    terminal.set_mode(hang_downloads=False)
    eventually(lambda: source.capabilities() and source.pid not in (None, before), what="a new child")
    assert source.fetch_bars(["600000.SH"], Period.D1, count=1, timeout=PATIENCE)["600000.SH"]


def test_the_calendar_that_downloads_first_is_never_asked(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    assert source.fetch_trading_dates("SH", timeout=PATIENCE)[-1] == "2025-08-08"
    assert [call for call in terminal.called("commonControl") if "downloadholidaydata" in call["arguments"]] == []

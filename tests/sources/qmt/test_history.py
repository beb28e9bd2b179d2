"""Bars and reference data: pitfalls of the rows alone first, then over an emulated terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.exchanges import Kind
from marketdata.series import EMPTY, Series
from marketdata.sources.base import Capability, SourceTimeout, Unsupported
from marketdata.sources.qmt.parse_history import beijing_date, beijing_text, parse_bars
from marketdata.sources.qmt.parse_reference import parse_dates, parse_dividends, parse_instrument, parse_limits, parse_weights
from marketdata.sources.qmt.source import QmtSource
from marketdata.sources.qmt.terminal import Terminal
from marketdata.symbols import round_price
from marketdata.types import Period
from tests.emulator import EmulatedTerminal, market
from tests.sources.conformance import PATIENCE, eventually
from tests.sources.qmt.conftest import Connect

NOW = 1_754_640_000_000
DATES = {day.isoformat() for day in market.DAYS}


def day_row(**changes: Any) -> dict[str, Any]:
    return {**market.bars("600000.SH", "1d")[-1], **changes}


def parse_row(row: dict[str, Any], code: str = "600000.SH", dates: set[str] | None = DATES) -> tuple[Series, Counter[str]]:
    return parse_bars(code, Period.D1, {name: np.array([value]) for name, value in row.items()}, dates=dates, now=NOW)


def refused(row: dict[str, Any], code: str = "600000.SH") -> list[str]:
    bars, reasons = parse_row(row, code)
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
    assert refused(day_row(open=-1.0)) == ["price"]
    assert refused(day_row(open=0.001)) == ["zero"]
    assert refused(day_row(volume=-1)) == ["volume"]
    assert refused(day_row(amount=1.0)) == ["volume"], "neither lots nor shares"
    assert refused(day_row(time=0)) == ["time"]


def test_the_amount_tells_whether_a_volume_is_lots_or_shares() -> None:
    lots, shares = day_row(), day_row(volume=day_row()["volume"] * 100)
    from_lots, from_shares = parse_row(lots, dates=None)[0], parse_row(shares, dates=None)[0]
    assert from_lots.equals(from_shares)
    assert from_lots.volume.tolist() == [lots["volume"] * 100]


def test_a_suspended_day_is_a_bar_that_says_so() -> None:
    bars, reasons = parse_row(day_row(suspendFlag=1, volume=0, amount=0.0))
    assert (bars.suspended.tolist(), bars.volume.tolist(), reasons.total()) == ([True], [0], 0)


def test_a_day_is_stamped_with_its_close() -> None:
    assert parse_row(day_row())[0].time.tolist() == [market.MIDNIGHT + 15 * 3_600_000]
    assert refused(day_row(), "00700.HK") == ["hours"]


def test_of_two_rows_of_one_time_the_last_counts_and_the_other_is_reported() -> None:
    rows = [day_row(close=10.01), day_row(), market.bars("600000.SH", "1d")[-2]]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    bars, reasons = parse_bars("600000.SH", Period.D1, columns, dates=DATES, now=NOW)
    assert (len(bars), bars.close[-1], reasons) == (2, day_row()["close"], {"time": 1})


def test_columns_that_are_none_are_refused() -> None:
    assert parse_bars("600000.SH", Period.D1, {}, dates=None, now=NOW) == (EMPTY, {})
    columns = {name: np.array([value]) for name, value in day_row().items()}
    for changed in ({**columns, "open": np.array(["x"])}, {**columns, "open": np.array([1.0, 2.0])}, {"time": columns["time"]}):
        series, reasons = parse_bars("600000.SH", Period.D1, changed, dates=None, now=NOW)
        assert (len(series), list(reasons)) == (0, ["shape"])
    assert parse_bars("?", Period.D1, columns, dates=None, now=NOW)[1] == {"shape": 1}


@given(st.lists(st.floats(min_value=0.0001, max_value=1e6), min_size=1, max_size=20))
def test_prices_are_rounded_as_everywhere(prices: list[float]) -> None:
    rows = {name: np.array([value] * len(prices)) for name, value in day_row(volume=0, amount=0.0).items()}
    rows |= dict.fromkeys(("open", "high", "low", "close"), np.array(prices))
    rows["time"] = np.arange(len(prices)) * 60_000 + market.OPENED
    series, reasons = parse_bars("600000.SH", Period.M1, rows, dates=None, now=NOW)
    expected = [price for value in prices if (price := round_price(value, 0.01))]
    assert series.close.tolist() == expected
    assert reasons.get("zero", 0) == len(prices) - len(expected)


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


def fetch(source: QmtSource, symbol: str, period: Period, **limits: int) -> Series:
    return source.fetch_bars([symbol], period, timeout=PATIENCE, **limits).series.get(symbol, EMPTY)  # type: ignore[arg-type]


def test_padding_is_not_returned_and_is_counted(connected: Connect, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(zero_fill=["600000.SH"], pad=["000001.SZ"])
    source = connected(terminal.address)
    rows = market.bars("600000.SH", "1d")[:-1]
    answer = source.fetch_bars(["600000.SH"], Period.D1, end=rows[-1]["time"] + market.CLOSE, timeout=PATIENCE)
    assert answer.series["600000.SH"].time.tolist() == [rows[-1]["time"] + market.CLOSE]
    assert answer.refused == {"zero": len(rows) - 1}
    padded = source.fetch_bars(["000001.SZ"], Period.D1, end=rows[-1]["time"] + market.CLOSE, timeout=PATIENCE)
    assert len(padded.series["000001.SZ"]) == len(rows)
    assert padded.refused == {"date": 730 - len(rows)}
    assert source.refused_bars == {"zero": len(rows) - 1, "date": 730 - len(rows)}


def test_bars_are_what_the_terminal_has_with_the_stamps_of_argus(connected: Connect, terminal: EmulatedTerminal) -> None:
    terminal.go_to(4800)
    source = connected(terminal.address)
    for period in Period:
        series = fetch(source, "000001.SZ", period)
        rows = market.bars("000001.SZ", period.value)
        close = market.CLOSE if period in (Period.D1, Period.W1, Period.MON1) else 0
        assert series.time.tolist() == [row["time"] + close for row in rows]
        assert series.close.tolist() == [round(row["close"], 2) for row in rows]
        assert series.volume.tolist() == [row["volume"] * 100 for row in rows]
    minutes = fetch(source, "000001.SZ", Period.M1, start=market.MIDNIGHT)
    assert (len(minutes), minutes.time[0] - market.MIDNIGHT) == (241, 9.5 * 3_600_000)


def test_todays_bars_are_subscribed_once_in_parts_and_given_back(connected: Connect) -> None:
    with EmulatedTerminal(symbols=130) as terminal:
        terminal.go_to(40)
        source = connected(terminal.address)
        universe = [symbol for symbol in source.universe(timeout=PATIENCE) if not symbol.endswith(".BJ")][:120]
        before = len(terminal.called("subscribe_quote"))
        bars = source.fetch_bars(universe, Period.M1, start=market.MIDNIGHT, timeout=PATIENCE).series
        assert {tuple(series.time - market.OPENED) for series in bars.values()} == {(0, 60_000, 120_000)}
        assert len(bars) == 120
        assert len(terminal.called("subscribe_quote")) - before == 120
        assert terminal.stats()["subscriptions"] == []
        source.fetch_bars(universe, Period.M1, start=market.MIDNIGHT - 86_400_000, end=market.MIDNIGHT - 1, timeout=PATIENCE)
        assert len(terminal.called("subscribe_quote")) - before == 120, "yesterday needs none"


@pytest.mark.parametrize("modes", [{"missing": ["subscribe_quote"]}, {"failing": ["subscribe_quote"]}])
def test_without_subscriptions_what_the_terminal_has_is_read(
    connected: Connect, terminal: EmulatedTerminal, modes: dict[str, list[str]]
) -> None:
    terminal.set_mode(**modes)
    source = connected(terminal.address)
    assert fetch(source, "600000.SH", Period.D1, count=1).time.tolist() == [market.MIDNIGHT - 86_400_000 + market.CLOSE]
    terminal.set_mode(free_today=True)
    terminal.go_to(4800)
    assert fetch(source, "600000.SH", Period.D1, count=1).time.tolist() == [market.MIDNIGHT + market.CLOSE]


def test_what_is_still_forming_by_the_terminals_own_clock_is_not_given(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    for step, minutes in ((0, 1), (19, 1), (20, 2), (30, 2), (40, 3)):
        terminal.go_to(step)
        assert len(fetch(source, "600000.SH", Period.M1, start=market.MIDNIGHT)) == minutes
        assert fetch(source, "600000.SH", Period.D1, count=2).time[-1] == market.MIDNIGHT - 86_400_000 + market.CLOSE
    assert fetch(source, "600000.SH", Period.M1, count=2).time.tolist() == [market.OPENED + 60_000, market.OPENED + 120_000]


def test_only_the_asked_range_is_downloaded_minutes_by_months(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    day = 86_400_000
    first, last = market.MIDNIGHT - 70 * day, market.MIDNIGHT - day
    fetch(source, "600000.SH", Period.M1, start=first, end=last)
    asked = [call["arguments"][1:] for call in terminal.called("supply_history_data2")]
    assert asked == [
        ["20250530000000", "20250629235959"],
        ["20250630000000", "20250730235959"],
        ["20250731000000", "20250807000000"],
    ]
    read = [call["arguments"][1:3] for call in terminal.called("get_market_data3")]
    assert read[-3:] == asked
    fetch(source, "600000.SH", Period.D1, start=first, end=last)
    assert terminal.called("supply_history_data2")[-1]["arguments"][1:] == ["20250530", "20250807"]


def test_a_halted_day_is_a_bar_that_says_so(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    days = fetch(source, "000003.SZ", Period.D1, count=10)
    assert days.suspended.tolist().count(True) == 2
    assert (days.volume[days.suspended] == 0).all()


def test_asking_for_bars_leaves_no_subscription(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    assert len(fetch(source, "600000.SH", Period.M1, count=5)) == 5
    assert terminal.stats()["subscriptions"] == []


def test_dividends_are_per_share_with_their_day_and_the_terminals_factor(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    found = source.fetch_dividends(["600000.SH", "600001.SH", "000002.SZ", "600003.SH"], timeout=PATIENCE)
    assert set(found) == {"600000.SH", "600001.SH", "000002.SZ"}
    assert [(paid.ex_date, paid.cash) for paid in found["600000.SH"]] == [("2024-07-18", 0.321), ("2025-07-16", 0.41)]
    [paid] = found["600001.SH"]
    assert (paid.cash, paid.bonus, paid.gift) == (0.1, 0.2, 0.3)
    [offered] = found["000002.SZ"]
    assert (offered.rights, offered.rights_price) == (0.3, 7.5)
    days = fetch(source, "600001.SH", Period.D1, end=market.MIDNIGHT - 1)
    at = days.time.tolist().index(market.MIDNIGHT - 57 * 86_400_000 + market.CLOSE)
    assert paid.ratio == pytest.approx(days.close[at - 1] / ((days.close[at - 1] - 0.1) / 1.5))
    assert days.prev_close[at] == pytest.approx((days.close[at - 1] - 0.1) / 1.5, abs=0.006)


def test_dividend_rows_of_other_shapes() -> None:
    rows = {"20240718": {"interest": 0.5, "dr": math.nan}, "0": {"interest": 1.0}, "20240719": {"time": 0, "dr": 1.0}}
    assert [(paid.ex_date, paid.cash, paid.ratio) for paid in parse_dividends("600000.SH", rows)] == [("2024-07-18", 0.5, None)]
    reform = parse_dividends("600000.SH", {"20051010": {"time": 1_128_873_600_000, "gugai": 1, "dr": 1.2, "interest": "x"}})
    assert [(paid.ex_date, paid.cash, paid.ratio) for paid in reform] == [("2005-10-10", 0.0, 1.2)]
    assert parse_dividends("?", rows) == ()


@pytest.mark.parametrize("function", ["get_divid_factors", "get_main_contract", "get_weight_in_index"])
def test_what_an_older_terminal_lacks_is_unsupported(connected: Connect, terminal: EmulatedTerminal, function: str) -> None:
    terminal.set_mode(missing=[function])
    source = connected(terminal.address)
    calls: dict[str, tuple[Capability, Callable[[], object]]] = {
        "get_divid_factors": (Capability.DIVIDENDS, lambda: source.fetch_dividends(["600000.SH"], timeout=PATIENCE)),
        "get_main_contract": (Capability.MAIN_CONTRACTS, lambda: source.fetch_main_contracts(timeout=PATIENCE)),
        "get_weight_in_index": (Capability.INDEX_WEIGHTS, lambda: source.fetch_index_weights("000300.SH", timeout=PATIENCE)),
    }
    capability, call = calls[function]
    assert capability not in source.capabilities()
    assert Capability.BARS in source.capabilities()
    with pytest.raises(Unsupported):
        call()


def test_codes_come_from_the_sectors_that_this_terminal_has(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    codes = {kind: source.fetch_codes(kind, timeout=PATIENCE) for kind in Kind}
    assert codes[Kind.INDEX] == ("000001.SH", "000300.SH", "399001.SZ", "399006.SZ")
    assert codes[Kind.FUND] == ("510300.SH",)
    assert codes[Kind.FUTURE] == ("IF2509.IF", "rb2510.SF")
    assert codes[Kind.OPTION] == ("10008800.SHO", "10008801.SHO", "IO2509-C-4000.IF", "rb2510C3200.SF")
    assert len(codes[Kind.STOCK]) == 12
    assert codes[Kind.CRYPTO] == ()


def test_main_contracts_and_weights(connected: Connect, terminal: EmulatedTerminal) -> None:
    terminal.forget_weights()
    source = connected(terminal.address)
    assert source.fetch_main_contracts(timeout=PATIENCE) == {"IF.IF": "IF2509.IF", "rb.SF": "rb2510.SF"}
    weights = source.fetch_index_weights("000300.SH", timeout=PATIENCE)
    assert weights == {"600000.SH": 50.0, "600001.SH": 30.0, "600002.SH": 20.0}
    assert len(terminal.called("down_index_weight")) == 1
    assert parse_weights({"600000.SH": 0.6, "600001.SH": 0.4}) == {"600000.SH": 60.0, "600001.SH": 40.0}
    assert parse_weights({"600000.SH": math.nan, "?": 3, "600001.SH": "x"}) == {}


def test_contracts_say_what_they_are_on(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    codes = ["600000.SH", "IF2509.IF", "IO2509-C-4000.IF", "10008801.SHO", "rb2510C3200.SF"]
    found = {item.symbol: item for item in source.fetch_instruments(codes, timeout=PATIENCE)}
    assert {
        symbol: (item.multiplier, item.underlying, item.option_type, item.strike, item.delisted) for symbol, item in found.items()
    } == {
        "600000.SH": (None, None, None, None, None),
        "IF2509.IF": (300.0, "IF.IF", None, None, "2025-09-15"),
        "IO2509-C-4000.IF": (300.0, "000300.SH", "call", 4000.0, "2025-09-15"),
        "10008801.SHO": (10000.0, "510300.SH", "put", 4.1, "2025-09-15"),
        "rb2510C3200.SF": (10.0, "rb2510.SF", "call", 3200.0, "2025-09-15"),
    }


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
        bars = source.fetch_bars(symbols, Period.D1, count=1, timeout=PATIENCE).series
        methods = [call for call in terminal.stats()["calls"] if call["method"] in ("supply_history_data2", "get_market_data3")]
        assert len(bars) == len(symbols) > 500
        assert max(call["codes"] for call in methods) < 500
        read = [call["method"] for call in methods if call["codes"] > 1]
        assert read[0] == "supply_history_data2"
        assert read.count("supply_history_data2") == -(-len(symbols) // 99)


def test_a_hung_download_is_cut_off_and_the_terminal_works_again(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    before = source.pid
    terminal.set_mode(hang_downloads=True)
    with pytest.raises(SourceTimeout):
        source.fetch_bars(["600000.SH"], Period.D1, count=1, timeout=0.5)
    terminal.set_mode(hang_downloads=False)
    eventually(lambda: source.capabilities() and source.pid not in (None, before), what="a new child")
    assert len(fetch(source, "600000.SH", Period.D1, count=1)) == 1


def test_the_calendar_that_downloads_first_is_never_asked(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    assert source.fetch_trading_dates("SH", timeout=PATIENCE)[-1] == "2025-08-08"
    assert [call for call in terminal.called("commonControl") if "downloadholidaydata" in call["arguments"]] == []

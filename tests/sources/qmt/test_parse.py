"""Raw ticks, pitfall by pitfall: what becomes of each, with nothing running."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.sources.qmt.parse import STATUS, Limits, day_of, parse_tick, parse_ticks
from marketdata.types import ParseError, Quote, TradingStatus

NOW = 1_754_640_000_000
DBL_MAX = 1.7976931348623157e308

STOCK: dict[str, Any] = {
    # As the vendor's own documentation shows it (subscribe_whole_quote).
    **{"time": 1733118954000, "lastPrice": 11.39, "open": 11.39, "high": 11.4, "low": 11.31, "lastClose": 11.38},
    **{"amount": 862127800.0, "volume": 758613, "pvolume": 75861284, "stockStatus": 3, "openInt": 13, "transactionNum": 37062},
    **{"lastSettlementPrice": 11.38, "settlementPrice": 0.0, "pe": 0.0, "askPrice": [11.4, 11.41, 11.42, 11.43, 11.44]},
    **{"bidPrice": [11.39, 11.38, 11.370000000000001, 11.36, 11.35], "askVol": [10929, 12401, 6671, 4555, 6708]},
    **{"bidVol": [2429, 7127, 7146, 9111, 12189], "volRatio": 0.0, "speed1Min": 0.0, "speed5Min": 0.0},
}
FUTURE: dict[str, Any] = {
    **{
        "time": 1733118954000,
        "lastPrice": 3946.2000000000003,
        "open": 3940.0,
        "high": 3950.0,
        "low": 3930.0,
        "lastClose": 3936.4,
    },
    **{"amount": 9.1e10, "volume": 76543, "pvolume": 76543, "openInt": 13, "lastSettlementPrice": 3935.2},
    **{"askPrice": [3946.4], "bidPrice": [3946.2], "askVol": [3], "bidVol": [5]},
}


def quote(code: str = "000001.SZ", raw: dict[str, Any] = STOCK, **changes: Any) -> Quote:
    parsed = parse_tick(code, {**raw, **changes}, NOW)
    assert isinstance(parsed, Quote), parsed
    return parsed


def error(code: object = "000001.SZ", raw: object = None, **changes: Any) -> str:
    parsed = parse_tick(code, {**STOCK, **changes} if raw is None else raw, NOW)
    assert isinstance(parsed, ParseError), parsed
    return parsed.reason


def test_the_vendors_own_example_becomes_a_quote() -> None:
    assert quote() == Quote(
        symbol="000001.SZ",
        time=1733118954000,
        price=11.39,
        open=11.39,
        high=11.4,
        low=11.31,
        prev_close=11.38,
        volume=75861284,
        amount=862127800.0,
        trades=37062,
        bid_price=(11.39, 11.38, 11.37, 11.36, 11.35),
        bid_volume=(242900, 712700, 714600, 911100, 1218900),
        ask_price=(11.4, 11.41, 11.42, 11.43, 11.44),
        ask_volume=(1092900, 1240100, 667100, 455500, 670800),
        status=TradingStatus.CONTINUOUS,
        source="qmt",
    )


def test_raw_doubles_are_rounded_to_the_price_tick() -> None:
    assert quote(lastPrice=11.370000000000001).price == 11.37
    assert quote("510300.SH", lastPrice=3.9210000000000003).price == 3.921
    assert quote("IF2509.IF", FUTURE).price == 3946.2


def test_volume_is_pvolume_in_shares() -> None:
    assert quote(volume=758613, pvolume=75861284).volume == 75861284


def test_a_stocks_lots_are_a_hundred_shares_where_pvolume_is_missing() -> None:
    raw = {name: value for name, value in STOCK.items() if name != "pvolume"}
    assert quote(raw=raw).volume == 75861300
    assert quote(pvolume=0).volume == 75861300


def test_other_kinds_lots_are_not_guessed() -> None:
    raw = {name: value for name, value in STOCK.items() if name != "pvolume"}
    fund = quote("510300.SH", raw)
    assert (fund.volume, fund.bid_price, fund.bid_volume) == (None, (), ())
    assert quote("510300.SH").bid_volume[0] == 242900, "volume and pvolume together tell the lot"
    assert quote("113050.SH", volume=7586, pvolume=75861).bid_volume[0] == 24290


def test_a_future_counts_contracts() -> None:
    future = quote("IF2509.IF", FUTURE)
    assert (future.volume, future.bid_volume, future.prev_settlement) == (76543, (5,), 3935.2)


@pytest.mark.parametrize(("code", "status"), STATUS.items())
def test_open_int_is_the_trading_status_of_a_stock(code: int, status: TradingStatus) -> None:
    found = quote(openInt=code)
    assert (found.status, found.open_interest) == (status, None)


def test_open_int_is_the_open_interest_of_a_future() -> None:
    future = quote("IF2509.IF", FUTURE, openInt=13)
    assert (future.status, future.open_interest) == (TradingStatus.UNKNOWN, 13)


def test_a_status_that_is_not_in_the_table_is_unknown() -> None:
    assert quote(openInt=99).status == TradingStatus.UNKNOWN
    assert quote("00700.HK", openInt=13).status == TradingStatus.UNKNOWN


def test_stock_status_is_ignored() -> None:
    assert quote(stockStatus=17) == quote(stockStatus=3)


@pytest.mark.parametrize("unset", [0, 0.0, DBL_MAX, 1.797e308, 2147483647, math.nan, None])
def test_unset_prices_are_none(unset: Any) -> None:
    found = quote(lastPrice=unset, open=unset, high=unset, low=unset, lastClose=unset)
    assert (found.price, found.open, found.high, found.low, found.prev_close) == (None,) * 5


@pytest.mark.parametrize("unset", [DBL_MAX, 2147483647, None])
def test_unset_counts_are_none(unset: Any) -> None:
    found = quote(volume=unset, pvolume=unset, amount=unset, transactionNum=unset)
    assert (found.volume, found.amount, found.trades) == (None, None, None)


def test_a_volume_of_zero_is_zero() -> None:
    found = quote(volume=0, pvolume=0, amount=0.0, transactionNum=0, lastPrice=0.0)
    assert (found.volume, found.amount, found.trades, found.price) == (0, 0.0, 0, None)


def test_trades_that_the_terminal_does_not_count_are_none() -> None:
    assert quote(transactionNum=0).trades is None


def test_limits_count_on_their_own_day_alone() -> None:
    today = day_of(STOCK["time"])
    for limits, expected in ((Limits(today, 12.52, 10.24), (12.52, 10.24)), (Limits(today - 1, 12.52, 10.24), (None, None))):
        found = parse_tick("000001.SZ", STOCK, NOW, {"000001.SZ": limits})
        assert isinstance(found, Quote)
        assert (found.limit_up, found.limit_down) == expected


def test_empty_ticks_are_parse_errors() -> None:
    assert error(raw={}) == "empty"


def test_one_level_books_are_books() -> None:
    found = quote(askPrice=[11.4], askVol=[10], bidPrice=[11.39], bidVol=[20])
    assert (found.bid_price, found.bid_volume, found.ask_price, found.ask_volume) == ((11.39,), (2000,), (11.4,), (1000,))
    assert quote(askPrice=[], askVol=[], bidPrice=None, bidVol=None).ask_price == ()


def test_absent_levels_have_no_entry() -> None:
    found = quote(askPrice=[11.4, 0.0, 0.0, DBL_MAX, math.nan], askVol=[10, 0, 5, 0, 0])
    assert (found.ask_price, found.ask_volume) == ((11.4,), (1000,))
    assert quote(askPrice=[11.4, 11.41], askVol=[0, 7]).ask_price == (11.41,)


def test_a_level_without_volume_or_out_of_order_is_refused() -> None:
    assert error(askPrice=[11.4, 11.41], askVol=[10]) == "book"
    assert error(askPrice=[11.41, 11.4], askVol=[10, 10]) == "book"
    assert error(bidPrice=[11.38, 11.39], bidVol=[10, 10]) == "book"


@pytest.mark.parametrize("bad", [-1, -0.5, math.nan, math.inf])
@pytest.mark.parametrize("name", ["volume", "pvolume", "amount", "transactionNum"])
def test_negative_and_nan_volumes_are_refused(name: str, bad: float) -> None:
    assert error(**{name: bad}) == "volume"
    assert error(askVol=[bad] * 5) == "volume"


@pytest.mark.parametrize("bad", [None, 0, -1, 1_000_000, NOW + 2 * 86_400_000, math.nan, DBL_MAX])
def test_implausible_times_are_refused(bad: Any) -> None:
    assert error(time=bad) == "time"


def test_negative_prices_and_other_shapes_are_refused() -> None:
    assert error(lastPrice=-1.0) == "price"
    assert error(lastPrice="11.39") == "shape"
    assert error(askPrice=11.4) == "shape"
    assert error(raw=[STOCK]) == "shape"
    assert error("浦发银行") == "symbol"
    assert error(None) == "symbol"


def test_each_record_is_judged_alone_and_in_order() -> None:
    parsed = parse_ticks([("600000.SH", STOCK), ("000001.SZ", {}), ("000002.SZ", STOCK)], NOW)
    assert [found.symbol for found in parsed.quotes] == ["600000.SH", "000002.SZ"]
    assert [(found.symbol, found.reason) for found in parsed.errors] == [("000001.SZ", "empty")]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(STOCK)), inner, max_size=5),
    max_leaves=6,
)


@given(
    st.sampled_from(["000001.SZ", "510300.SH", "IF2509.IF", "", "x"]), st.dictionaries(st.sampled_from(sorted(STOCK)), anything)
)
def test_whatever_comes_is_a_quote_or_a_parse_error(code: str, changes: dict[str, Any]) -> None:
    assert isinstance(parse_tick(code, {**STOCK, **changes}, NOW), Quote | ParseError)

"""The simulated exchanges' lists."""

from __future__ import annotations

from collections import Counter

import pytest

from marketdata.sources.simulated.instruments import listings, sectors
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.symbols import board_limit, kind, parse
from tests.sources.simulated.moments import market

ALL = listings(5500)


def test_the_whole_market_has_the_real_proportions() -> None:
    assert Counter(listing.board.market for listing in ALL) == {"SH": 2300, "SZ": 2890, "BJ": 310}
    assert len({listing.symbol for listing in ALL}) == 5500


def test_every_code_is_a_stock_of_its_board() -> None:
    for listing in ALL:
        assert parse(listing.symbol) == listing.symbol
        assert kind(listing.symbol) == "stock"
        assert board_limit(listing.symbol) == listing.board.limit / 100


def test_names_say_that_the_instruments_are_simulated() -> None:
    assert all(listing.name.startswith("模拟") for listing in ALL)
    assert len({listing.name for listing in ALL}) == 5500


@pytest.mark.parametrize("count", [1, 2, 10, 300, 1000])
def test_a_smaller_market_is_a_part_of_every_larger_one(count: int) -> None:
    assert listings(count) == ALL[:count]


def test_a_market_of_a_hundred_has_every_board_and_a_heavy_tail_already() -> None:
    small = listings(100)
    assert len({listing.board for listing in small}) == 5
    activities = sorted(listing.activity for listing in small)
    assert activities[-1] > 0.9
    assert activities[50] < 0.06


def test_sectors_group_the_market_by_exchange_board_index_and_industry() -> None:
    found = sectors(ALL)
    assert {name: len(found[name]) for name in ("沪深A股", "上证A股", "深证A股", "京市A股", "沪深300")} == {
        "沪深A股": 5190,
        "上证A股": 2300,
        "深证A股": 2890,
        "京市A股": 310,
        "沪深300": 300,
    }
    assert all(symbol.startswith("688") for symbol in found["科创板"])
    assert all(symbol.startswith("30") for symbol in found["创业板"])
    assert sum(len(found[name]) for name in ("银行", "电子", "医药生物", "食品饮料", "电力设备")) == 2750


def test_instruments_tell_the_smallest_order_of_their_board() -> None:
    with market("2026-03-04 10:00:00", symbols=5500) as (source, _):
        found = source.fetch_instruments(["600000.SH", "688001.SH", "300001.SZ", "920000.BJ"], timeout=10)
        assert [(item.symbol, item.lot, item.kind, item.price_tick) for item in found] == [
            ("600000.SH", 100, "stock", 0.01),
            ("688001.SH", 200, "stock", 0.01),
            ("300001.SZ", 100, "stock", 0.01),
            ("920000.BJ", 100, "stock", 0.01),
        ]


@pytest.mark.parametrize("count", [0, 5501])
def test_a_size_that_the_market_does_not_have_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 5500"):
        SimulatedSource(symbols=count)

"""Bars are what the quotes showed."""

from __future__ import annotations

import itertools
from datetime import date

import pytest

from marketdata.sources.base import SourceTimeout
from marketdata.sources.simulated.days import frame
from marketdata.sources.simulated.instruments import Listing, listings
from marketdata.types import Bar, Period, Quote
from tests.sources.simulated.moments import market, moment, quotes

SYMBOLS = ("600000.SH", "000001.SZ", "300001.SZ", "688001.SH")


def watched(symbol: str, first: str, last: str) -> list[Quote]:
    """Every snapshot of a symbol between two times of a day."""
    seen: list[Quote] = []
    with market(first) as (source, clock):
        while clock.now() <= moment(last):
            seen += [quote for quote in source.fetch_quotes([symbol], timeout=10).quotes if quote not in seen[-1:]]
            clock.advance(1000)
    return seen


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize(
    ("first", "last", "stamp"),
    [
        ("2026-03-04 09:20:00", "2026-03-04 09:30:00", "2026-03-04 09:30:00"),
        ("2026-03-04 09:40:00", "2026-03-04 09:41:00", "2026-03-04 09:41:00"),
        ("2026-03-04 14:59:30", "2026-03-04 15:00:02", "2026-03-04 15:00:00"),
    ],
)
def test_a_minute_is_made_of_the_trades_that_quotes_showed_in_it(symbol: str, first: str, last: str, stamp: str) -> None:
    seen = watched(symbol, first, last)
    trades = [later for earlier, later in itertools.pairwise(seen) if later.volume != earlier.volume]
    with market("2026-03-04 15:40:00") as (source, _):
        bars = source.fetch_bars([symbol], Period.M1, start=moment(stamp), end=moment(stamp), timeout=10).get(symbol, ())
    if not trades:
        assert bars == ()
        return
    prices = [quote.price for quote in trades]
    [bar] = bars
    assert (bar.open, bar.high, bar.low, bar.close) == (prices[0], max(prices), min(prices), prices[-1])  # type: ignore[type-var]
    assert bar.volume == (seen[-1].volume or 0) - (seen[0].volume or 0)
    assert bar.amount == pytest.approx((seen[-1].amount or 0) - (seen[0].amount or 0))


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_day_is_its_last_quote_and_its_minutes_make_it_up(symbol: str) -> None:
    with market("2026-03-04 15:31:00") as (source, _):
        quote = quotes(source)[symbol]
        [day] = source.fetch_bars([symbol], Period.D1, count=1, timeout=10)[symbol]
        minutes = source.fetch_bars([symbol], Period.M1, start=moment("2026-03-04 00:00:00"), timeout=10)[symbol]
    assert day.time == moment("2026-03-04 15:00:00")
    assert (day.open, day.high, day.low, day.close) == (quote.open, quote.high, quote.low, quote.price)
    assert (day.volume, day.amount, day.prev_close) == (quote.volume, quote.amount, quote.prev_close)
    assert (day.open, day.close) == (minutes[0].open, minutes[-1].close)
    assert (day.high, day.low) == (max(bar.high for bar in minutes), min(bar.low for bar in minutes))
    assert day.volume == sum(bar.volume for bar in minutes)
    assert day.amount == pytest.approx(sum(bar.amount or 0 for bar in minutes))


def test_an_active_instrument_has_a_bar_for_each_minute_with_trading() -> None:
    with market("2026-03-05 08:00:00") as (source, _):
        day = source.fetch_bars(["600000.SH"], Period.M1, start=moment("2026-03-04 00:00:00"), timeout=10)["600000.SH"]
    stamps = [(bar.time - moment("2026-03-04 00:00:00")) // 60_000 for bar in day]
    # 09:30 (the opening auction), 09:31 to 11:30, 13:01 to 14:57, 15:00 (the closing auction).
    assert stamps == [570, *range(571, 691), *range(781, 898), 900]


def test_a_bar_that_is_still_forming_is_not_given() -> None:
    with market("2026-03-04 10:00:30") as (source, clock):

        def last(period: Period) -> Bar:
            return source.fetch_bars(["600000.SH"], period, count=1, timeout=10)["600000.SH"][0]

        assert last(Period.M1).time == moment("2026-03-04 10:00:00")
        assert last(Period.D1).time == moment("2026-03-03 15:00:00")
        clock.set(moment("2026-03-04 15:00:01"))
        assert last(Period.M1).time == moment("2026-03-04 14:57:00")
        clock.set(moment("2026-03-04 15:00:03"))
        assert last(Period.M1).time == moment("2026-03-04 15:00:00")
        assert last(Period.D1).time == moment("2026-03-04 15:00:00")


def halted(day: date, seed: int) -> Listing:
    return next(listing for listing in listings(1000) if frame(listing, seed, day).halted)


def test_a_halted_day_has_a_flat_bar_that_says_so_and_no_minutes() -> None:
    listing = halted(date(2026, 3, 4), 7)
    with market("2026-03-05 09:00:05", symbols=1000) as (source, _):
        [bar] = source.fetch_bars([listing.symbol], Period.D1, count=1, timeout=10)[listing.symbol]
        minutes = source.fetch_bars([listing.symbol], Period.M1, start=moment("2026-03-04 00:00:00"), timeout=10)
    assert bar.suspended
    assert bar.open == bar.high == bar.low == bar.close == bar.prev_close
    assert (bar.volume, bar.amount) == (0, 0)
    assert minutes == {}


def test_a_past_that_does_not_exist_has_no_bars() -> None:
    with market("2026-03-04 10:00:00") as (source, _):
        assert source.fetch_bars(["600000.SH"], Period.D1, end=moment("2024-12-31 15:00:00"), timeout=10) == {}


def test_bars_that_take_too_long_are_a_timeout() -> None:
    with market("2026-03-04 10:00:00") as (source, _), pytest.raises(SourceTimeout, match="of 60 symbols"):
        source.fetch_bars(source.universe(timeout=10), Period.D1, timeout=1e-3)

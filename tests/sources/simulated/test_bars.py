"""Bars are what the quotes showed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import date

import pytest

from marketdata.sources.base import SourceTimeout
from marketdata.sources.simulated import totals
from marketdata.sources.simulated.days import frame
from marketdata.sources.simulated.instruments import Listing, listings
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.sources.simulated.tape import NEVER, Tape
from marketdata.types import Bar, Period, Quote
from tests.sources.simulated.moments import market, moment, quotes


def fetch(source: SimulatedSource, symbols: Sequence[str], period: Period, **limits: int) -> dict[str, tuple[Bar, ...]]:
    """Bars as values."""
    found = source.fetch_bars(symbols, period, timeout=10, **limits).series  # type: ignore[arg-type]
    return {symbol: series.bars(symbol, period, source.name) for symbol, series in found.items()}


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
        bars = fetch(source, [symbol], Period.M1, start=moment(stamp), end=moment(stamp)).get(symbol, ())
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
        [day] = fetch(source, [symbol], Period.D1, count=1)[symbol]
        minutes = fetch(source, [symbol], Period.M1, start=moment("2026-03-04 00:00:00"))[symbol]
    assert day.time == moment("2026-03-04 15:00:00")
    assert (day.open, day.high, day.low, day.close) == (quote.open, quote.high, quote.low, quote.price)
    assert (day.volume, day.amount, day.prev_close) == (quote.volume, quote.amount, quote.prev_close)
    assert (day.open, day.close) == (minutes[0].open, minutes[-1].close)
    assert (day.high, day.low) == (max(bar.high for bar in minutes), min(bar.low for bar in minutes))
    assert day.volume == sum(bar.volume for bar in minutes)
    assert day.amount == pytest.approx(sum(bar.amount or 0 for bar in minutes))


def test_an_active_instrument_has_a_bar_for_each_minute_with_trading() -> None:
    with market("2026-03-05 08:00:00") as (source, _):
        day = fetch(source, ["600000.SH"], Period.M1, start=moment("2026-03-04 00:00:00"))["600000.SH"]
    stamps = [(bar.time - moment("2026-03-04 00:00:00")) // 60_000 for bar in day]
    # 09:30 (the opening auction), 09:31 to 11:30, 13:01 to 14:57, 15:00 (the closing auction).
    assert stamps == [570, *range(571, 691), *range(781, 898), 900]


def test_a_bar_that_is_still_forming_is_not_given() -> None:
    with market("2026-03-04 10:00:30") as (source, clock):

        def last(period: Period) -> Bar:
            return fetch(source, ["600000.SH"], period, count=1)["600000.SH"][0]

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
        [bar] = fetch(source, [listing.symbol], Period.D1, count=1)[listing.symbol]
        minutes = fetch(source, [listing.symbol], Period.M1, start=moment("2026-03-04 00:00:00"))
    assert bar.suspended
    assert bar.open == bar.high == bar.low == bar.close == bar.prev_close
    assert (bar.volume, bar.amount) == (0, 0)
    assert minutes == {}


def test_days_made_together_are_those_that_the_tape_makes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    market = listings(600)
    boards = [next(item for item in market if item.symbol.startswith(code)) for code in ("60", "00", "30", "68", "92")]
    busiest = max(market, key=lambda item: item.activity)
    days = [date(2026, 3, 4), date(2026, 3, 5), date(2026, 7, 1), date(2025, 4, 8)]
    wanted = [(listing, day) for listing in (*boards, busiest, halted(days[0], 7)) for day in days]
    made = totals.totals(wanted, 7)
    # With too few draws at first it draws more, and with few at a time it goes on in the next batch.
    monkeypatch.setattr(totals, "_events", lambda listing: 20)
    monkeypatch.setattr(totals, "BATCH", 500)
    assert totals.totals(wanted, 7) == made
    for (listing, day), total in zip(wanted, made, strict=True):
        tape = Tape(listing, 7, day)
        tape.run(NEVER - 1)
        assert total == (tape.frame, tape.opened, tape.high, tape.low, tape.price, tape.volume, tape.amount), listing.symbol
    assert any(total.frame.halted for total in made)


def test_a_past_that_does_not_exist_has_no_bars() -> None:
    with market("2026-03-04 10:00:00") as (source, _):
        assert fetch(source, ["600000.SH"], Period.D1, end=moment("2024-12-31 15:00:00")) == {}


def test_bars_that_take_too_long_are_a_timeout() -> None:
    with market("2026-03-04 10:00:00") as (source, _), pytest.raises(SourceTimeout, match="of 60 symbols"):
        source.fetch_bars(source.universe(timeout=10), Period.D1, timeout=1e-3)


def test_a_dividend_shows_in_bars_quotes_and_dividends_alike() -> None:
    with market("2026-08-03 10:00:00") as (source, _):
        [*_, paid] = source.fetch_dividends(["600000.SH"], timeout=10)["600000.SH"]
        days = fetch(source, ["600000.SH"], Period.D1, start=moment("2026-05-25 00:00:00"))["600000.SH"]
    [at] = [number for number, bar in enumerate(days) if bar.time == moment(f"{paid.ex_date} 15:00:00")]
    assert paid.ex_date.startswith(("2026-06", "2026-07", "2026-08"))
    assert days[at].prev_close == pytest.approx(days[at - 1].close - paid.cash)
    assert paid.ratio == pytest.approx(days[at - 1].close / (days[at].prev_close or 0))
    assert all(later.prev_close == earlier.close for earlier, later in itertools.pairwise(days) if later is not days[at])
    with market(f"{paid.ex_date} 10:00:00") as (source, _):
        assert quotes(source)["600000.SH"].prev_close == days[at].prev_close


def test_a_dividend_is_known_from_its_ex_date_on() -> None:
    with market("2026-08-03 10:00:00") as (source, clock):
        given = source.fetch_dividends(source.universe(timeout=10), timeout=10)
        assert {len(paid) for paid in given.values()} == {2}
        first = min(paid[-1].ex_date for paid in given.values())
    with market(f"{first} 08:00:00") as (source, clock):
        before = source.fetch_dividends(source.universe(timeout=10), timeout=10)
        clock.set(moment(f"{first} 09:30:00"))
        after = source.fetch_dividends(source.universe(timeout=10), timeout=10)
        assert sum(map(len, after.values())) > sum(map(len, before.values()))

"""Whatever quotes come: prices are in order, no share gets lost or counted twice, and what is closed stays."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marketdata.aggregate import aggregate
from marketdata.builder import PERIODS, BarBuilder, LiveBar
from marketdata.calendar import midnight
from marketdata.types import Period, Quote
from tests.builder.quotes import EVERYTHING
from tests.builder.test_sessions import as_series

DAYS = (date(2022, 6, 1), date(2022, 6, 2))
OPEN, CLOSE = 9 * 3600 + 15 * 60, 15 * 3600 + 4
SESSIONS = ((OPEN, 11 * 3600 + 1830), (13 * 3600, CLOSE))
INTRADAY = PERIODS[:-1]


@dataclass(frozen=True)
class Step:
    """A snapshot: seconds since the last, and what traded until it, at which prices in cents."""

    wait: float
    prices: tuple[int, ...]
    shares: int
    clock: bool
    """Whether the market's clock is told afterwards."""


steps = st.lists(
    st.builds(
        Step,
        wait=st.one_of(st.floats(0, 10), st.floats(0, 3600)),
        prices=st.lists(st.integers(900, 1100), max_size=4).map(tuple),
        shares=st.integers(1, 10_000),
        clock=st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


def session(day: date, taken: list[Step], *, symbol: str = "600000.SH") -> list[tuple[Quote, bool]]:
    """A day's quotes as an exchange would publish them, beginning in the auction."""
    second, volume, amount = float(OPEN), 0, 0
    opened = high = low = price = None
    found = []
    for step in [Step(0, (), 0, False), *taken]:
        second += step.wait
        if 11.5 * 3600 + 30 < second < 13 * 3600:
            second = 13 * 3600.0
        if second > CLOSE:
            break
        if step.prices:
            price = step.prices[-1]
            opened = opened or step.prices[0]
            high, low = max(*step.prices, high or 0), min(*step.prices, low or 9999)
            volume += step.shares
            amount += step.shares * price
        quote = Quote(
            symbol=symbol,
            time=midnight(day) + int(second * 1000),
            price=price and price / 100,
            open=opened and opened / 100,
            high=high and high / 100,
            low=low and low / 100,
            prev_close=10.0,
            volume=volume,
            amount=amount / 100,
            source="test",
        )
        found.append((quote, step.clock))
    return found


def play(days: list[list[tuple[Quote, bool]]]) -> tuple[BarBuilder, list[LiveBar]]:
    """Everything that is given, one quote at a time; at the end the clock closes all."""
    builder = BarBuilder()
    given_out: list[LiveBar] = []
    for quotes in days:
        for quote, clock in quotes:
            builder.take([quote])
            if clock:
                builder.advance(quote.time)
            given_out += builder.drain(EVERYTHING)
    builder.advance(midnight(DAYS[-1]) + 16 * 3_600_000)
    return builder, given_out + builder.drain(EVERYTHING)


def of_day(bars: list[LiveBar], period: Period, day: date) -> list[LiveBar]:
    start = midnight(day)
    return [bar for bar in bars if bar.period is period and bar.closed and start < bar.time <= start + 86_400_000]


@given(steps, steps)
def test_every_share_is_in_one_bar_of_every_period(first: list[Step], second: list[Step]) -> None:
    days = [session(day, taken) for day, taken in zip(DAYS, (first, second), strict=True)]
    builder, bars = play(days)
    assert builder.counts.late == 0
    for day, quotes in zip(DAYS, days, strict=True):
        last = quotes[-1][0]
        for period in PERIODS:
            found = of_day(bars, period, day)
            assert bool(found) == bool(last.volume)
            if not found:
                continue
            assert sum(bar.volume or 0 for bar in found) == last.volume
            assert abs(sum(bar.amount or 0 for bar in found) - (last.amount or 0)) < 0.005
            assert found[0].open == last.open
            assert max(bar.high for bar in found) == last.high
            assert min(bar.low for bar in found) == last.low
            assert found[-1].close == last.price


@given(steps, steps)
def test_prices_and_times_are_in_order_and_what_is_closed_stays(first: list[Step], second: list[Step]) -> None:
    _, bars = play([session(day, taken) for day, taken in zip(DAYS, (first, second), strict=True)])
    for bar in bars:
        assert bar.low <= min(bar.open, bar.close)
        assert bar.high >= max(bar.open, bar.close)
        assert (bar.volume or 0) > 0
        assert bar.provisional
    for period in PERIODS:
        closed = [bar.time for bar in bars if bar.period is period and bar.closed]
        assert closed == sorted(set(closed))
        last_closed = 0
        for bar in (bar for bar in bars if bar.period is period):
            assert bar.time > last_closed
            last_closed = bar.time if bar.closed else last_closed


@given(steps)
def test_longer_bars_are_aggregates_of_the_minutes(taken: list[Step]) -> None:
    _, bars = play([session(DAYS[0], taken)])
    minutes = of_day(bars, Period.M1, DAYS[0])
    if not minutes:
        return
    for period in INTRADAY[1:]:
        expected, found = aggregate(as_series(minutes), period, "SH"), as_series(of_day(bars, period, DAYS[0]))
        for column in ("time", "open", "high", "low", "close", "volume"):
            np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))


@given(steps, st.data())
def test_lost_quotes_change_no_day(taken: list[Step], data: st.DataObject) -> None:
    quotes = session(DAYS[0], taken)
    # The first snapshot of the morning is kept: without it the service would have started late.
    kept = [quotes[0], *(pair for pair in quotes[1:-1] if data.draw(st.booleans())), quotes[-1]]
    _, whole = play([quotes])
    _, sparse = play([kept])
    assert of_day(sparse, Period.D1, DAYS[0]) == of_day(whole, Period.D1, DAYS[0])
    for period in INTRADAY:
        assert sum(bar.volume or 0 for bar in of_day(sparse, period, DAYS[0])) == quotes[-1][0].volume


@given(st.lists(st.tuples(st.integers(0, 86_400_000 * 2), st.integers(0, 10_000), st.integers(900, 1100)), max_size=40))
def test_no_order_of_times_and_volumes_breaks_the_builder(rows: list[tuple[int, int, int]]) -> None:
    builder = BarBuilder()
    for at, volume, price in rows:
        builder.take(
            [
                Quote(
                    symbol=symbol,
                    time=midnight(DAYS[0]) + at,
                    price=price / 100,
                    open=10.0,
                    high=11.0,
                    low=9.0,
                    volume=volume,
                    amount=None,
                    source="test",
                )
                for symbol in ("600000.SH", "IF2206.IF", "BTCUSDT.BINANCE", "rb2210.SF")
            ]
        )
        builder.advance(midnight(DAYS[0]) + at)
        for bar in builder.drain(EVERYTHING):
            assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
            assert bar.volume is None or bar.volume >= 0
    assert builder.closed() == [bar for bar in builder.closed() if bar.closed]

"""Whatever the seed, the instrument, the day and the time: the exchanges' rules hold."""

from __future__ import annotations

from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata.sources.simulated import snapshot
from marketdata.sources.simulated.days import HISTORY, frame, limits, payment, trades_on, trading_day_before
from marketdata.sources.simulated.instruments import Listing, listings
from marketdata.sources.simulated.tape import Tape
from marketdata.types import Quote, TradingStatus
from tests.sources.conformance import order_problems, quote_problems

SEEDS = st.integers(min_value=0, max_value=2**31)
LISTINGS = st.sampled_from(listings(5500))
DAYS = st.dates(HISTORY, date(2028, 12, 29)).map(lambda day: day if trades_on(day) else trading_day_before(day))
SECONDS = st.lists(st.integers(min_value=9 * 3600 + 2, max_value=16 * 3600), min_size=2, max_size=30).map(sorted)
RULES = settings(max_examples=200, deadline=None)


def shown(listing: Listing, seed: int, day: date, seconds: list[int]) -> list[Quote]:
    tape = Tape(listing, seed, day)
    quotes = []
    for second in seconds:
        tape.run(second)
        quotes.append(snapshot.quote(tape))
    return quotes


@RULES
@given(SEEDS, LISTINGS, DAYS, SECONDS)
def test_quotes_obey_what_every_source_obeys(seed: int, listing: Listing, day: date, seconds: list[int]) -> None:
    quotes = shown(listing, seed, day, seconds)
    assert [problem for quote in quotes for problem in quote_problems(quote)] == []
    assert order_problems(quotes) == []


@RULES
@given(SEEDS, LISTINGS, DAYS)
def test_a_day_begins_at_the_last_close_and_ends_within_the_limits_of_the_board(seed: int, listing: Listing, day: date) -> None:
    today, yesterday = frame(listing, seed, day), frame(listing, seed, trading_day_before(day))
    paid = payment(listing, seed, day.year)
    assert today.prev_close == yesterday.close - (paid.cash if day == paid.ex_date else 0)
    assert (today.limit_down, today.limit_up) == limits(today.prev_close, listing.board.limit)
    assert today.limit_down < today.prev_close < today.limit_up
    assert today.limit_down <= today.open <= today.limit_up
    assert today.limit_down <= today.close <= today.limit_up


@RULES
@given(SEEDS, LISTINGS, st.integers(min_value=2025, max_value=2028))
def test_a_dividend_a_year_lowers_the_reference_price_and_the_market_trades_from_there(
    seed: int, listing: Listing, year: int
) -> None:
    paid = payment(listing, seed, year)
    assert date(year, 6, 1) <= paid.ex_date <= date(year, 8, 10)
    assert trades_on(paid.ex_date)
    today = frame(listing, seed, paid.ex_date)
    assert not today.halted
    assert today.prev_close == paid.last_close - paid.cash
    assert 0.009 < paid.cash / paid.last_close < 0.041 or paid.cash == 1
    assert today.limit_down <= today.close <= today.limit_up


def test_limit_prices_are_rounded_half_up_to_the_cent() -> None:
    assert limits(1005, 10) == (905, 1106)
    assert limits(723, 10) == (651, 795)
    assert limits(333, 20) == (266, 400)
    assert limits(151, 30) == (106, 196)


@RULES
@given(SEEDS, LISTINGS, DAYS, SECONDS)
def test_volumes_are_made_of_orders_that_the_board_allows(seed: int, listing: Listing, day: date, seconds: list[int]) -> None:
    smallest, step = listing.board.smallest, listing.board.step
    quotes = shown(listing, seed, day, seconds)
    volumes = [volume for quote in quotes for volume in (*quote.bid_volume, *quote.ask_volume)]
    volumes += [quote.volume for quote in quotes if quote.volume is not None]
    assert all(volume % step == 0 for volume in volumes)
    assert all(volume == 0 or volume >= smallest for volume in volumes)


@RULES
@given(SEEDS, LISTINGS, DAYS, SECONDS)
def test_amount_and_volume_are_those_of_the_prices_of_the_day(seed: int, listing: Listing, day: date, seconds: list[int]) -> None:
    for quote in shown(listing, seed, day, seconds):
        assert quote.volume is not None
        assert quote.amount is not None
        assert (quote.price is None) == (quote.volume == 0) == (quote.amount == 0) == (quote.trades == 0)
        if quote.low is not None and quote.high is not None:
            assert quote.low - 1e-6 <= quote.amount / quote.volume <= quote.high + 1e-6


@RULES
@given(SEEDS, LISTINGS, DAYS, SECONDS)
def test_the_book_stands_within_the_limits_and_is_one_sided_at_them(
    seed: int, listing: Listing, day: date, seconds: list[int]
) -> None:
    for quote in shown(listing, seed, day, seconds):
        assert quote.limit_up is not None
        assert quote.limit_down is not None
        prices = (*quote.bid_price, *quote.ask_price)
        assert all(quote.limit_down <= price <= quote.limit_up for price in prices)
        assert len(quote.bid_price) <= 5
        assert len(quote.ask_price) <= 5
        if quote.status is TradingStatus.CONTINUOUS:
            assert bool(quote.ask_price) == (quote.price != quote.limit_up)
            assert bool(quote.bid_price) == (quote.price != quote.limit_down)


def test_near_a_limit_the_book_ends_at_it() -> None:
    day, shallow = date(2026, 3, 4), set()
    for listing in listings(300):
        today = frame(listing, 1, day)
        if abs(today.swing) < today.limit_up - today.prev_close:
            continue
        for quote in shown(listing, 1, day, list(range(9 * 3600 + 1800, 15 * 3600, 3))):
            assert quote_problems(quote) == []
            assert all(today.limit_down <= round(price * 100) <= today.limit_up for price in (*quote.bid_price, *quote.ask_price))
            shallow |= {len(quote.bid_price), len(quote.ask_price)}
    assert shallow == {0, 1, 2, 3, 4, 5}


@RULES
@given(SEEDS, LISTINGS, DAYS, SECONDS)
def test_it_does_not_matter_how_often_an_instrument_is_looked_at(
    seed: int, listing: Listing, day: date, seconds: list[int]
) -> None:
    assert shown(listing, seed, day, seconds)[-1] == shown(listing, seed, day, seconds[-1:])[0]

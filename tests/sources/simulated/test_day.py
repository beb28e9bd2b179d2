"""A day of the simulated market, from before the open to the next morning."""

from __future__ import annotations

from collections import Counter

import pytest

from marketdata.types import Quote, TradingStatus
from tests.sources.conformance import PATIENCE
from tests.sources.simulated.moments import market, moment, quotes

MANY = 2000


def statuses(found: dict[str, Quote]) -> set[TradingStatus]:
    return {quote.status for quote in found.values() if quote.status is not TradingStatus.HALTED}


def test_before_the_open_there_is_a_last_close_and_no_price() -> None:
    with market("2026-03-04 09:10:00") as (source, _):
        found = quotes(source)
        assert statuses(found) == {TradingStatus.PRE_OPEN}
        for quote in found.values():
            assert (quote.price, quote.open, quote.high, quote.low, quote.volume) == (None, None, None, None, 0)
            assert quote.prev_close
            assert quote.bid_price == quote.ask_price == ()


def test_the_opening_auction_shows_a_matched_price_and_volume_and_then_opens_there() -> None:
    with market("2026-03-04 09:24:57", symbols=300) as (source, clock):
        before = quotes(source)
        assert statuses(before) == {TradingStatus.OPENING_AUCTION}
        trading = [quote for quote in before.values() if quote.status is not TradingStatus.HALTED]
        assert all(quote.price is None and quote.volume == 0 for quote in trading)
        assert all(len(quote.bid_price) == 1 and quote.bid_price == quote.ask_price for quote in trading)
        assert all(quote.bid_volume == quote.ask_volume for quote in trading)
        clock.advance(6000)
        opened = quotes(source)
        assert statuses(opened) == {TradingStatus.BREAK}
        for symbol in (quote.symbol for quote in trading):
            quote = opened[symbol]
            assert quote.price == quote.open == quote.high == quote.low
            assert quote.volume


def test_between_auction_and_open_and_over_lunch_nothing_moves() -> None:
    with market("2026-03-04 09:25:02") as (source, clock):
        for still_until, then in (("09:29:59", "11:30:02"), ("12:59:59", "15:00:02")):
            still = quotes(source)
            clock.set(moment(f"2026-03-04 {still_until}"))
            assert quotes(source) == still
            assert statuses(still) == {TradingStatus.BREAK}
            clock.set(moment(f"2026-03-04 {then}"))


def test_the_closing_auction_trades_at_its_end_and_the_next_day_begins_there() -> None:
    with market("2026-03-06 14:57:02", symbols=MANY) as (source, clock):
        before = quotes(source)
        assert statuses(before) == {TradingStatus.CLOSING_AUCTION}
        clock.set(moment("2026-03-06 14:59:59"))
        during = quotes(source)
        assert all(during[symbol].volume == quote.volume for symbol, quote in before.items())
        clock.set(moment("2026-03-06 15:30:02"))
        closed = quotes(source)
        assert statuses(closed) == {TradingStatus.CLOSED}
        traded = [quote for quote in closed.values() if quote.status is not TradingStatus.HALTED]
        assert all((quote.volume or 0) > (before[quote.symbol].volume or 0) for quote in traded)
        clock.set(moment("2026-03-08 12:00:00"))
        assert quotes(source) == closed
        clock.set(moment("2026-03-09 09:00:02"))
        assert {symbol: quote.prev_close for symbol, quote in quotes(source).items()} == {
            symbol: quote.price or quote.prev_close for symbol, quote in closed.items()
        }


def test_after_hours_only_star_and_chinext_trade_and_only_at_the_close() -> None:
    with market("2026-03-04 15:00:02", symbols=MANY) as (source, clock):
        closed = quotes(source)
        clock.set(moment("2026-03-04 15:29:59"))
        later = quotes(source)
        moved = {symbol for symbol, quote in later.items() if quote.volume != closed[symbol].volume}
        assert {symbol[:2] for symbol in moved} == {"68", "30"}
        assert all(later[symbol].price == closed[symbol].price for symbol in moved)
        assert {later[symbol].status for symbol in moved} == {TradingStatus.AFTER_HOURS}


def test_activity_is_uneven_and_not_everything_moves_at_once() -> None:
    with market("2026-03-04 10:00:00", symbols=MANY) as (source, clock):
        events: Counter[str] = Counter()
        per_second = []
        last = quotes(source)
        for _ in range(60):
            clock.advance(1000)
            now = quotes(source)
            changed = [symbol for symbol, quote in now.items() if quote != last[symbol]]
            events.update(changed)
            per_second.append(len(changed))
            last = now
        assert 0 < max(per_second) < MANY / 10
        assert max(events.values()) >= 19
        assert sum(count == 0 for count in (events[symbol] for symbol in last)) > MANY / 10
        assert all(quote.time % 1000 == 0 for quote in last.values())


def test_a_few_instruments_are_halted_and_some_stand_at_their_limits() -> None:
    with market("2026-03-04 13:00:05", symbols=MANY) as (source, _):
        found = quotes(source).values()
        halted = [quote for quote in found if quote.status is TradingStatus.HALTED]
        assert 0 < len(halted) < MANY / 50
        assert all(quote.price is None and quote.volume == 0 and quote.prev_close for quote in halted)
        assert {quote.limit for quote in found} == {None, "up", "down"}


def test_every_value_says_that_it_is_simulated() -> None:
    with market("2026-03-04 10:00:00") as (source, _):
        assert {quote.source for quote in quotes(source).values()} == {"simulated"}


@pytest.mark.parametrize("time", ["2026-03-04 03:00:00", "2026-03-07 10:00:00", "2026-02-18 10:00:00"])
def test_outside_trading_days_the_last_close_stands(time: str) -> None:
    with market(time) as (source, _):
        assert statuses(quotes(source)) == {TradingStatus.CLOSED}


def test_the_same_seed_and_time_make_the_same_market_whenever_it_was_started_and_however_large_it_is() -> None:
    with market("2026-03-04 10:00:00", symbols=50, seed=3) as (early, clock):
        for _ in range(100):
            clock.advance(1700)
            early.fetch_quotes(timeout=PATIENCE)
        with market("2026-03-03 15:00:00", symbols=80, seed=3) as (late, other):
            other.set(clock.now())
            assert quotes(early).items() <= quotes(late).items()


def test_another_seed_makes_another_market() -> None:
    with market("2026-03-04 10:00:00", seed=1) as (one, _), market("2026-03-04 10:00:00", seed=2) as (two, _):
        assert quotes(one).keys() == quotes(two).keys()
        assert not set(quotes(one).values()) & set(quotes(two).values())


def test_a_clock_that_is_set_back_stops_the_market_and_does_not_turn_it_back() -> None:
    with market("2026-03-04 10:00:00") as (source, clock):
        before = quotes(source)
        clock.set(moment("2026-03-03 10:00:00"))
        assert quotes(source) == before
        clock.set(moment("2026-03-04 10:01:00"))
        assert quotes(source) != before

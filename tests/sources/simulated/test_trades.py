"""The simulated trades are those that the simulated quotes and bars are made of."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from marketdata.sources.simulated.clock import ManualClock
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.types import ParsedTrades, Period, Quote, Side, Trade
from tests.sources.conformance import PATIENCE, Collector, TradeCollector, eventually, running, trade_problems
from tests.sources.simulated.moments import market, moment

A, B, STAR = "600000.SH", "000001.SZ", "688001.SH"


def day(source: SimulatedSource, clock: ManualClock, symbol: str, end: str) -> tuple[list[Quote], list[Trade]]:
    """The quotes and the trades of a symbol up to a time, with every event a quote of its own."""
    quotes, trades = Collector(), TradeCollector()
    source.subscribe([symbol], quotes)
    source.subscribe_trades(trades).watch(frozenset({symbol}))
    eventually(lambda: quotes.quotes)
    until = moment(end)
    while clock.now() < until:
        clock.advance(1000)
        now = clock.now()
        (shown,) = source.fetch_quotes([symbol], timeout=PATIENCE).quotes
        eventually(lambda now=now, shown=shown: quotes.quotes[symbol][-1] == shown)  # type: ignore[misc]
    eventually(lambda: trades.trades[symbol] and trades.trades[symbol][-1].index == shown.trades)
    return quotes.quotes[symbol], trades.trades[symbol]


@pytest.mark.parametrize("symbol", [A, B])
def test_between_two_snapshots_the_trades_add_up_to_what_the_quotes_show(symbol: str) -> None:
    with market("2026-03-04 09:24:50") as (source, clock):
        quotes, trades = day(source, clock, symbol, "2026-03-04 09:33:00")
    assert trade_problems(trades) == []
    assert [trade.index for trade in trades] == list(range(1, len(trades) + 1))
    assert len({trade.volume for trade in trades}) > 3
    for before, after in pairwise(quotes):
        between = [trade for trade in trades if before.time < trade.time <= after.time]
        assert len(between) == (after.trades or 0) - (before.trades or 0)
        assert sum(trade.volume for trade in between) == (after.volume or 0) - (before.volume or 0)
        assert sum(trade.amount or 0 for trade in between) == pytest.approx((after.amount or 0) - (before.amount or 0))
        assert {trade.price for trade in between} <= {after.price}
    assert {trade.side for trade in trades if trade.time < moment("2026-03-04 09:30:00")} == {None}
    assert {trade.side for trade in trades if trade.time > moment("2026-03-04 09:30:05")} == {Side.BUY, Side.SELL}


def test_the_trades_of_a_day_make_up_its_bar_even_where_the_clock_jumps_to_the_next() -> None:
    """After hours included: whoever was not given the time to look gets them all the same."""
    with market("2026-03-04 09:00:05", symbols=300) as (source, clock):
        chosen = [A, B, next(symbol for symbol in source.universe(timeout=PATIENCE) if symbol.startswith("688"))]
        pushed = TradeCollector()
        source.subscribe_trades(pushed).watch(frozenset(chosen))
        clock.set(moment("2026-03-05 09:26:00"))
        eventually(
            lambda: all(
                pushed.count(symbol) and pushed.trades[symbol][-1].time > moment("2026-03-05 09:00:00") for symbol in chosen
            )
        )
        bars = source.fetch_bars(chosen, Period.D1, end=moment("2026-03-04 15:00:00"), count=1, timeout=PATIENCE).series
        for symbol in chosen:
            (bar,) = bars[symbol].bars(symbol, Period.D1, "simulated")
            trades = [trade for trade in pushed.trades[symbol] if trade.time < moment("2026-03-05 00:00:00")]
            prices = [trade.price for trade in trades]
            assert (prices[0], max(prices), min(prices), prices[-1]) == (bar.open, bar.high, bar.low, bar.close)
            assert sum(trade.volume for trade in trades) == bar.volume
            assert trade_problems(pushed.trades[symbol]) == []
            assert pushed.trades[symbol][len(trades)].index == 1
        assert source.status().interruptions == 0


def test_days_that_a_clock_leaves_out_are_an_interruption() -> None:
    with market("2026-03-04 10:00:00", symbols=3) as (source, clock):
        pushed = TradeCollector()
        subscription = source.subscribe_trades(pushed)
        subscription.watch(None)
        clock.set(moment("2026-03-06 10:00:00"))
        eventually(lambda: any(series[-1].time > moment("2026-03-06 09:00:00") for series in pushed.trades.values()))
        assert source.status().interruptions == 1
        subscription.close()
        assert source.status().interruptions == 1


def test_the_same_seed_trades_the_same_whenever_it_is_watched() -> None:
    early, late, other = TradeCollector(), TradeCollector(), TradeCollector()
    for pushed, begin, seed in ((early, "10:00:00", 7), (late, "10:05:00", 7), (other, "10:00:00", 8)):
        with market(f"2026-03-04 {begin}", seed=seed) as (source, clock):
            source.subscribe_trades(pushed).watch(frozenset({A}))
            clock.set(moment("2026-03-04 10:10:00"))
            eventually(lambda pushed=pushed: pushed.count(A) and pushed.trades[A][-1].time > moment("2026-03-04 10:09:00"))  # type: ignore[misc]
    since = moment("2026-03-04 10:05:00")
    assert late.trades[A]
    assert late.trades[A] == [trade for trade in early.trades[A] if trade.time > since]
    assert other.trades[A] != early.trades[A]


def test_nothing_of_before_the_watch_comes_and_nothing_after_it_is_missed() -> None:
    with market("2026-03-04 10:00:00") as (source, clock):
        pushed = TradeCollector()
        (before,) = source.fetch_quotes([A], timeout=PATIENCE).quotes
        source.subscribe_trades(pushed).watch(frozenset({A}))
        clock.advance(60_000)
        (after,) = source.fetch_quotes([A], timeout=PATIENCE).quotes
        eventually(lambda: pushed.count(A) and pushed.trades[A][-1].index == after.trades)
        assert [trade.index for trade in pushed.trades[A]] == list(range((before.trades or 0) + 1, (after.trades or 0) + 1))


def test_while_a_callback_blocks_every_trade_waits() -> None:
    with market("2026-03-04 10:00:00") as (source, clock):
        entered, release, pushed = threading.Event(), threading.Event(), TradeCollector()

        def slow(parsed: ParsedTrades) -> None:
            pushed(parsed)
            entered.set()
            assert release.wait(PATIENCE)

        source.subscribe_trades(slow).watch(frozenset({A, B}))
        eventually(entered.is_set, lambda: clock.advance(1000))
        clock.advance(30 * 60_000)
        release.set()
        state = {quote.symbol: quote for quote in source.fetch_quotes([A, B], timeout=PATIENCE).quotes}
        eventually(
            lambda: all(pushed.count(symbol) and pushed.trades[symbol][-1].index == state[symbol].trades for symbol in (A, B))
        )
        for symbol in (A, B):
            first = pushed.trades[symbol][0].index
            assert [trade.index for trade in pushed.trades[symbol]] == list(range(first, (state[symbol].trades or 0) + 1))
        times = [trade.time for series in pushed.trades.values() for trade in series]
        assert source.status().dropped == 0
        assert len(times) > 1000


def test_nothing_watched_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with market("2026-03-04 10:00:00") as (source, clock):
        asked: list[int] = []
        subscription = source.subscribe_trades(TradeCollector())
        now = clock.now

        def ask(until: int = 0) -> int:
            asked.append(until)
            return now()

        monkeypatch.setattr(clock, "now", ask)
        monkeypatch.setattr(clock, "delay", ask)
        threads = running()
        clock.advance(600_000)
        subscription.close()
        assert len(asked) <= 1, "the one look with which the thread begins"
        assert running() < threads

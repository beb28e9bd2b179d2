"""What every source does, whichever stands behind it.

The rules beyond ``marketdata.sources.base``: before ``start`` and after ``close`` a source has no capabilities and its
calls raise ``SourceUnavailable``; ``start`` of a running source does nothing; a closed source stays closed (``start``
raises ``SourceUnavailable``: make a new one); an error in a callback is logged and the push goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import marketdata.sources
from marketdata import periods, symbols
from marketdata.calendar import day_of, midnight
from marketdata.exchanges import Kind
from marketdata.sources.base import (
    Capability,
    Source,
    SourceError,
    SourceTimeout,
    SourceUnavailable,
    State,
    Subscription,
    TradeSubscription,
    Unsupported,
)
from marketdata.types import Bar, Instrument, Parsed, ParsedTrades, Period
from tests.sources.conformance import (
    PATIENCE,
    Collector,
    SourceCase,
    TradeCollector,
    bar_problems,
    cases,
    eventually,
    in_time,
    is_canonical,
    order_problems,
    quote_problems,
    running,
    trade_problems,
    wait_up,
)

UNKNOWN = "689999.SH"


@pytest.fixture(params=list(cases().values()), ids=list(cases()))
def case(request: pytest.FixtureRequest) -> Iterator[SourceCase]:
    with request.param(request) as case:
        yield case


@pytest.fixture
def source(case: SourceCase) -> Iterator[Source]:
    source = case.make()
    source.start()
    wait_up(source)
    yield source
    source.close()


def need(source: Source, capability: Capability, call: Callable[[], object]) -> bool:
    """Whether the source has it. One that has not says so when asked all the same."""
    if capability in source.capabilities():
        return True
    with pytest.raises(Unsupported):
        call()
    return False


def test_every_source_has_a_case() -> None:
    packages = {path.parent.name for path in Path(marketdata.sources.__file__).parent.glob("*/source.py")}
    tested = {path.parent.name for path in Path(__file__).parent.glob("*/case.py")}
    assert tested == packages


class TestLife:
    def test_before_the_start_it_is_not_up_and_gives_nothing(self, case: SourceCase) -> None:
        source = case.make()
        assert source.name == case.name
        assert source.status().state in (State.STARTING, State.DOWN)
        assert source.capabilities() == frozenset()
        with pytest.raises(SourceUnavailable):
            source.fetch_quotes(timeout=PATIENCE)
        source.close()

    def test_starting_twice_is_starting_once(self, source: Source) -> None:
        before = running()
        source.start()
        wait_up(source)
        assert running() == before

    def test_up_it_says_what_it_can_do_and_knows_its_time(self, source: Source) -> None:
        assert Capability.QUOTES in source.capabilities()
        assert source.status().dropped == 0

    def test_close_leaves_nothing_running_and_may_be_called_again(self, case: SourceCase) -> None:
        before = running()
        source = case.make()
        source.start()
        wait_up(source)
        if Capability.PUSH in source.capabilities():
            source.subscribe(None, lambda parsed: None)
        in_time(source.close)
        source.close()
        eventually(lambda: running() <= before, what="all threads and processes gone")

    def test_close_without_start_does_nothing(self, case: SourceCase) -> None:
        source = case.make()
        source.close()
        assert source.capabilities() == frozenset()

    def test_a_closed_source_stays_closed(self, source: Source) -> None:
        source.close()
        assert source.status().state in (State.DOWN, State.FINISHED)
        assert source.capabilities() == frozenset()
        with pytest.raises(SourceUnavailable):
            source.fetch_quotes(timeout=PATIENCE)
        with pytest.raises(SourceUnavailable):
            source.start()


class TestQuotes:
    def test_the_universe_is_canonical_and_stable(self, source: Source) -> None:
        universe = source.universe(timeout=PATIENCE)
        assert universe
        assert len(set(universe)) == len(universe)
        assert all(map(is_canonical, universe))
        assert source.universe(timeout=PATIENCE) == universe

    def test_every_quote_obeys_the_invariants(self, case: SourceCase, source: Source) -> None:
        universe = set(source.universe(timeout=PATIENCE))
        seen: set[str] = set()

        def poll() -> None:
            parsed = source.fetch_quotes(timeout=PATIENCE)
            symbols = [quote.symbol for quote in parsed.quotes]
            assert len(set(symbols)) == len(symbols)
            assert universe.issuperset(symbols)
            assert {quote.source for quote in parsed.quotes} <= {source.name}
            assert [(quote, problems) for quote in parsed.quotes if (problems := quote_problems(quote))] == []
            seen.update(symbols)

        def poll_on() -> None:
            case.advance()
            poll()

        poll()
        eventually(lambda: seen.issuperset(case.symbols), poll_on)

    def test_chosen_symbols_come_and_unknown_ones_are_absent(self, case: SourceCase, source: Source) -> None:
        chosen = case.symbols[0]

        def symbols() -> list[str]:
            return [quote.symbol for quote in source.fetch_quotes([UNKNOWN, chosen], timeout=PATIENCE).quotes]

        assert set(symbols()) <= {chosen}
        eventually(lambda: symbols() == [chosen], case.advance)

    def test_nothing_asked_is_nothing_given(self, source: Source) -> None:
        assert source.fetch_quotes([], timeout=PATIENCE) == Parsed()

    def test_a_deadline_that_has_passed_is_a_timeout_or_a_quick_answer(self, source: Source) -> None:
        outcome = in_time(lambda: source.fetch_quotes(timeout=1e-6))
        assert isinstance(outcome, Parsed | SourceTimeout)

    def test_polled_quotes_come_in_order(self, case: SourceCase, source: Source) -> None:
        polled = Collector()

        def poll() -> None:
            case.advance()
            polled(source.fetch_quotes(timeout=PATIENCE))

        eventually(lambda: changed(polled), poll)
        assert problems_of(polled) == {}


class TestPush:
    def test_the_current_state_comes_first_and_then_changes_in_order(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.PUSH, lambda: source.subscribe(None, Collector())):
            return
        current = {quote.symbol: quote for quote in source.fetch_quotes(timeout=PATIENCE).quotes}
        pushed = Collector()
        subscription = source.subscribe(None, pushed)
        eventually(lambda: pushed.quotes.keys() >= current.keys(), what="the current state")
        assert all(pushed.quotes[symbol][0].time >= quote.time for symbol, quote in current.items())
        eventually(lambda: changed(pushed), case.advance)
        subscription.close()
        assert problems_of(pushed) == {}
        quotes = [quote for series in pushed.quotes.values() for quote in series]
        assert [(quote, problems) for quote in quotes if (problems := quote_problems(quote))] == []

    def test_only_what_was_asked_is_pushed(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.PUSH, lambda: source.subscribe([], Collector())):
            return
        chosen, pushed = case.symbols[0], Collector()
        source.subscribe([UNKNOWN, chosen], pushed)
        eventually(lambda: len(pushed.quotes[chosen]) > 1, case.advance)
        assert {symbol for symbol, series in pushed.quotes.items() if series} == {chosen}

    def test_two_pushes_do_not_take_from_each_other(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.PUSH, lambda: source.subscribe(None, Collector())):
            return
        chosen, one, two = case.symbols[0], Collector(), Collector()
        source.subscribe([chosen], one)
        source.subscribe(None, two)
        eventually(lambda: len(one.quotes[chosen]) > 1 and len(two.quotes[chosen]) > 1, case.advance)

    def test_an_error_in_the_callback_is_logged_and_the_push_goes_on(
        self, case: SourceCase, source: Source, caplog: pytest.LogCaptureFixture
    ) -> None:
        if not need(source, Capability.PUSH, lambda: source.subscribe(None, Collector())):
            return
        pushed = Collector()

        def fails_once(parsed: Parsed) -> None:
            pushed(parsed)
            if pushed.deliveries == 1:
                raise RuntimeError("a subscriber's own mistake")

        source.subscribe(None, fails_once)
        eventually(lambda: pushed.deliveries > 1, case.advance)
        assert [record for record in caplog.records if record.exc_info and record.levelname == "ERROR"]
        assert source.status().state in (State.UP, State.FINISHED)

    def test_no_callback_runs_after_its_subscription_was_closed(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.PUSH, lambda: source.subscribe(None, Collector())):
            return
        ended, other = Collector(), Collector()
        subscription = source.subscribe(None, ended)
        source.subscribe(None, other)
        eventually(lambda: ended.deliveries and other.deliveries, case.advance)
        subscription.close()
        subscription.close()
        deliveries, others = ended.deliveries, other.deliveries
        eventually(lambda: other.deliveries > others, case.advance)
        assert ended.deliveries == deliveries

    def test_a_subscription_may_be_closed_by_its_own_callback(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.PUSH, lambda: source.subscribe(None, Collector())):
            return
        ended, other = Collector(), Collector()
        subscriptions: list[Subscription] = []

        def close_at_once(parsed: Parsed) -> None:
            ended(parsed)
            if subscriptions:
                subscriptions[0].close()

        subscriptions.append(source.subscribe(None, close_at_once))
        source.subscribe(None, other)
        eventually(lambda: ended.deliveries and other.deliveries, case.advance)
        eventually(lambda: other.deliveries > 2, case.advance)
        assert ended.deliveries <= 2

    def test_no_callback_runs_after_the_source_was_closed(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.PUSH, lambda: source.subscribe(None, Collector())):
            return
        pushed = Collector()
        source.subscribe(None, pushed)
        eventually(lambda: pushed.deliveries, case.advance)
        in_time(source.close)
        deliveries = pushed.deliveries
        case.advance()
        with pytest.raises(SourceError):
            source.subscribe(None, pushed)
        assert pushed.deliveries == deliveries


class TestTrades:
    def test_every_trade_of_what_is_watched_comes_in_order_and_no_others(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.TRADES, lambda: source.subscribe_trades(TradeCollector())):
            return
        chosen, pushed = case.trades[0], TradeCollector()
        source.subscribe_trades(pushed).watch(frozenset({chosen, UNKNOWN}))
        eventually(lambda: pushed.count(chosen) > 10, case.advance)
        assert set(pushed.trades) == {chosen}
        assert {trade.source for trade in pushed.trades[chosen]} == {source.name}
        assert trade_problems(pushed.trades[chosen]) == []

    def test_nothing_comes_until_something_is_watched_and_nothing_of_what_is_no_longer(
        self, case: SourceCase, source: Source
    ) -> None:
        if not need(source, Capability.TRADES, lambda: source.subscribe_trades(TradeCollector())):
            return
        one, other = case.trades[:2]
        changing, steady = TradeCollector(), TradeCollector()
        subscription = source.subscribe_trades(changing)
        watcher = source.subscribe_trades(steady)
        watcher.watch(frozenset({one, other}))

        def let_them_trade() -> None:
            seen = steady.count(one), steady.count(other)
            eventually(lambda: steady.count(one) > seen[0] and steady.count(other) > seen[1], case.advance)

        let_them_trade()
        assert changing.trades == {}
        subscription.watch(frozenset({one}))
        eventually(lambda: changing.count(one), case.advance)
        subscription.watch(frozenset({other}))
        eventually(lambda: changing.count(other), case.advance)
        before = changing.count(one)
        let_them_trade()
        assert changing.count(one) == before
        subscription.watch(frozenset())
        let_them_trade()
        stopped = changing.count(other)
        let_them_trade()
        assert changing.count(other) == stopped

    def test_all_that_the_source_has(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.TRADES, lambda: source.subscribe_trades(TradeCollector())):
            return
        pushed = TradeCollector()
        source.subscribe_trades(pushed).watch(None)
        eventually(lambda: all(map(pushed.count, case.trades)), case.advance)
        assert set(source.universe(timeout=PATIENCE)).issuperset(pushed.trades)
        assert {symbol: problems for symbol, series in pushed.trades.items() if (problems := trade_problems(series))} == {}

    def test_two_pushes_of_a_symbol_bring_the_same_trades(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.TRADES, lambda: source.subscribe_trades(TradeCollector())):
            return
        chosen, one, two = case.trades[0], TradeCollector(), TradeCollector()
        for pushed in (one, two):
            source.subscribe_trades(pushed).watch(frozenset({chosen}))
        eventually(lambda: one.count(chosen) > 10 and two.count(chosen) > 10, case.advance)
        first = two.trades[chosen][0]
        both = one.trades[chosen][one.trades[chosen].index(first) :][:10]
        assert two.trades[chosen][: len(both)] == both

    def test_an_error_in_the_callback_is_logged_and_the_push_goes_on(
        self, case: SourceCase, source: Source, caplog: pytest.LogCaptureFixture
    ) -> None:
        if not need(source, Capability.TRADES, lambda: source.subscribe_trades(TradeCollector())):
            return
        pushed = TradeCollector()

        def fails_once(parsed: ParsedTrades) -> None:
            pushed(parsed)
            if pushed.deliveries == 1:
                raise RuntimeError("a subscriber's own mistake")

        source.subscribe_trades(fails_once).watch(frozenset(case.trades))
        eventually(lambda: pushed.deliveries > 1, case.advance)
        assert [record for record in caplog.records if record.exc_info and record.levelname == "ERROR"]
        assert source.status().state in (State.UP, State.FINISHED)

    def test_no_callback_runs_after_its_subscription_was_closed(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.TRADES, lambda: source.subscribe_trades(TradeCollector())):
            return
        ended, other = TradeCollector(), TradeCollector()
        subscription = source.subscribe_trades(ended)
        subscription.watch(frozenset(case.trades))
        source.subscribe_trades(other).watch(frozenset(case.trades))
        eventually(lambda: ended.deliveries and other.deliveries, case.advance)
        subscription.close()
        subscription.close()
        subscription.watch(None)
        deliveries, others = ended.deliveries, other.deliveries
        eventually(lambda: other.deliveries > others, case.advance)
        assert ended.deliveries == deliveries

    def test_a_subscription_may_be_closed_by_its_own_callback(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.TRADES, lambda: source.subscribe_trades(TradeCollector())):
            return
        ended, other = TradeCollector(), TradeCollector()
        subscriptions: list[TradeSubscription] = []

        def close_at_once(parsed: ParsedTrades) -> None:
            ended(parsed)
            subscriptions[0].close()

        subscriptions.append(source.subscribe_trades(close_at_once))
        subscriptions[0].watch(frozenset(case.trades))
        source.subscribe_trades(other).watch(frozenset(case.trades))
        eventually(lambda: ended.deliveries and other.deliveries > 2, case.advance)
        assert ended.deliveries == 1

    def test_no_callback_runs_after_the_source_was_closed(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.TRADES, lambda: source.subscribe_trades(TradeCollector())):
            return
        pushed = TradeCollector()
        subscription = source.subscribe_trades(pushed)
        subscription.watch(None)
        eventually(lambda: pushed.deliveries, case.advance)
        in_time(source.close)
        deliveries = pushed.deliveries
        subscription.watch(frozenset(case.trades))
        case.advance()
        with pytest.raises(SourceError):
            source.subscribe_trades(pushed)
        assert pushed.deliveries == deliveries


def fetch(source: Source, symbols: Sequence[str], period: Period, **limits: int) -> dict[str, tuple[Bar, ...]]:
    """Bars as values."""
    found = source.fetch_bars(symbols, period, timeout=PATIENCE, **limits).series  # type: ignore[arg-type]
    return {symbol: series.bars(symbol, period, source.name) for symbol, series in found.items()}


class TestBars:
    def test_bars_obey_the_invariants(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.BARS, lambda: source.fetch_bars(case.symbols, Period.M1, timeout=PATIENCE)):
            return
        for period in case.periods:
            bars = fetch(source, [UNKNOWN, *case.symbols], period, count=300)
            assert set(bars) <= set(case.symbols)
            for symbol, series in bars.items():
                assert 0 < len(series) <= 300
                assert {(bar.symbol, bar.period, bar.source) for bar in series} == {(symbol, period, source.name)}
                assert all(earlier.time < later.time for earlier, later in pairwise(series))
                assert [(bar, problems) for bar in series if (problems := bar_problems(bar))] == []

    def test_a_range_and_a_count_cut_the_same_series(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.BARS, lambda: source.fetch_bars(case.symbols, Period.M1, timeout=PATIENCE)):
            return
        symbol = case.symbols[0]
        for period in case.periods:
            series = fetch(source, [symbol], period, count=10).get(symbol, ())
            if len(series) < 2:
                continue
            first, last = series[0].time, series[-2].time
            cut = fetch(source, [symbol], period, start=first, end=last)[symbol]
            assert cut == series[:-1]
            assert fetch(source, [symbol], period, start=first, end=last, count=2)[symbol] == cut[-2:]

    def test_bars_are_stamped_at_their_ends_and_a_days_at_the_close(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.BARS, lambda: source.fetch_bars(case.symbols, Period.M1, timeout=PATIENCE)):
            return
        for period in case.periods:
            for symbol, series in fetch(source, case.symbols, period, count=1000).items():
                ends = set(periods.bar_ends(periods.hours_of(symbol), period))
                assert {bar.time - midnight(day_of(bar.time)) for bar in series} <= ends

    def test_minutes_begin_with_the_opening_auctions_own_bar(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.BARS, lambda: source.fetch_bars(case.symbols, Period.M1, timeout=PATIENCE)):
            return
        for symbol, series in fetch(source, case.symbols, Period.M1, count=1000).items():
            ends = periods.bar_ends(periods.hours_of(symbol), Period.M1)
            firsts = {bar.time - midnight(day_of(bar.time)) for bar in series}
            assert symbols.kind(symbol) is not Kind.STOCK or ends[0] in firsts
            auction = next((bar for bar in series if bar.time - midnight(day_of(bar.time)) == ends[0]), None)
            assert auction is None or auction.open == auction.high == auction.low == auction.close

    def test_nothing_asked_gives_no_bars(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.BARS, lambda: source.fetch_bars(case.symbols, Period.M1, timeout=PATIENCE)):
            return
        assert source.fetch_bars([], Period.D1, timeout=PATIENCE).series == {}

    def test_periods_without_bars_are_unsupported(self, case: SourceCase, source: Source) -> None:
        for period in set(Period) - set(case.periods):
            with pytest.raises(Unsupported):
                source.fetch_bars(case.symbols, period, count=1, timeout=PATIENCE)


class TestReference:
    def test_instruments_are_those_that_were_asked_and_are_known(self, case: SourceCase, source: Source) -> None:
        def fetch() -> list[Instrument]:
            return list(source.fetch_instruments([UNKNOWN, *case.symbols], timeout=PATIENCE))

        if not need(source, Capability.INSTRUMENTS, fetch):
            return
        instruments = fetch()
        assert {instrument.symbol for instrument in instruments} == set(case.symbols)
        assert {instrument.source for instrument in instruments} == {source.name}
        assert all(instrument.price_tick is None or instrument.price_tick > 0 for instrument in instruments)
        assert all(instrument.lot is None or instrument.lot > 0 for instrument in instruments)

    def test_sectors_hold_canonical_symbols_once(self, source: Source) -> None:
        if not need(source, Capability.SECTORS, lambda: source.fetch_sectors(timeout=PATIENCE)):
            return
        sectors = source.fetch_sectors(timeout=PATIENCE)
        assert sectors
        assert all(sectors)
        for constituents in sectors.values():
            assert len(set(constituents)) == len(constituents)
            assert all(map(is_canonical, constituents))

    def test_trading_dates_are_iso_and_ascend(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.TRADING_DATES, lambda: source.fetch_trading_dates(case.market, timeout=PATIENCE)):
            return
        dates = source.fetch_trading_dates(case.market, timeout=PATIENCE)
        assert dates
        assert all(len(date) == 10 and earlier < date for earlier, date in pairwise(("", *dates)))

    def test_dividends_are_positive_and_in_order(self, case: SourceCase, source: Source) -> None:
        if not need(source, Capability.DIVIDENDS, lambda: source.fetch_dividends(case.symbols, timeout=PATIENCE)):
            return
        found = source.fetch_dividends([UNKNOWN, *case.symbols], timeout=PATIENCE)
        assert found
        assert set(found) <= set(case.symbols)
        for symbol, given in found.items():
            assert all(earlier.ex_date < later.ex_date for earlier, later in pairwise(given))
            assert {(paid.symbol, paid.source) for paid in given} == {(symbol, source.name)}
            assert all(paid.cash or paid.bonus or paid.gift or paid.rights for paid in given)
            assert all(min(paid.cash, paid.bonus, paid.gift, paid.rights, paid.rights_price) >= 0 for paid in given)
            assert all(paid.ratio is None or paid.ratio > 1 for paid in given)

    def test_codes_of_a_kind_are_canonical_and_of_that_kind(self, source: Source) -> None:
        for kind in Kind:
            codes = source.fetch_codes(kind, timeout=PATIENCE)
            assert len(set(codes)) == len(codes)
            assert all(map(is_canonical, codes))
            assert {symbols.kind(code) for code in codes} <= {kind, None}

    def test_main_contracts_are_futures_of_their_product(self, source: Source) -> None:
        if not need(source, Capability.MAIN_CONTRACTS, lambda: source.fetch_main_contracts(timeout=PATIENCE)):
            return
        for product, contract in source.fetch_main_contracts(timeout=PATIENCE).items():
            code, _, market = product.rpartition(".")
            assert contract.startswith(code)
            assert symbols.market_of(contract) == market
            assert symbols.kind(contract) is Kind.FUTURE

    def test_index_weights_are_percent_of_canonical_symbols(self, source: Source) -> None:
        if not need(source, Capability.INDEX_WEIGHTS, lambda: source.fetch_index_weights("000300.SH", timeout=PATIENCE)):
            return
        weights = source.fetch_index_weights("000300.SH", timeout=PATIENCE)
        assert all(map(is_canonical, weights))
        assert all(0 < weight <= 100 for weight in weights.values())
        assert source.fetch_index_weights(UNKNOWN, timeout=PATIENCE) == {}


def changed(collector: Collector) -> bool:
    """Whether something has moved since the first look."""
    return any(len(set(series)) > 1 for series in collector.quotes.values())


def problems_of(collector: Collector) -> dict[str, list[str]]:
    return {symbol: problems for symbol, series in collector.quotes.items() if (problems := order_problems(series))}

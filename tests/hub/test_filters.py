"""What a filter lets through: held against a client that keeps in mind what it was sent and reckons on paper."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata.types import Quote
from streaming.filters import FILTERED, Filter, Filters, QuoteField
from tests.hub.market import fragment

A, B, C = "000001.SZ", "000002.SZ", "600000.SH"


class Market:
    """A store's quotes and the filters on them."""

    def __init__(self) -> None:
        self.quotes: dict[str, bytes] = {}
        self.filters = Filters(self.quotes)
        self.seq = 0

    def say(self, *quotes: Quote) -> dict[str, bytes]:
        """A message arrives in the store."""
        self.seq += 1
        message = {quote.symbol: fragment(quote, self.seq) for quote in quotes}
        self.quotes.update(message)
        return message

    def send(self, chosen: Filter, *quotes: Quote) -> set[str]:
        """A message arrives and is sent on; those of it that pass."""
        message = self.say(*quotes)
        passing = self.filters.passing(chosen, self.filters.read(message))
        self.filters.note(message)
        return passing


def at(symbol: str, price: float | None = None, **fields: Any) -> Quote:
    return Quote(symbol=symbol, time=1_700_000_000_000, price=price, source="test", **fields)


@pytest.fixture
def market() -> Market:
    return Market()


def use(market: Market, **conditions: Any) -> Filter:
    chosen = Filter(**conditions)
    market.filters.take(chosen)
    return chosen


# Conditions


@pytest.mark.parametrize(
    ("conditions", "passing"),
    [
        ({"min_price": 10.2}, {B, C}),
        ({"max_price": 10.2}, {A, B}),
        ({"min_price": 10.1, "max_price": 10.3}, {B}),
        ({"min_volume": 200}, {B, C}),
        ({"min_volume": 200.5, "min_price": 1}, {C}),
        ({"min_price": 10.4}, set()),
    ],
)
def test_limits_are_inclusive_and_all_of_them_must_be_met(market: Market, conditions: dict[str, Any], passing: set[str]) -> None:
    quotes = [at(A, 10, volume=100), at(B, 10.2, volume=200), at(C, 10.35, volume=300.25)]
    assert market.send(use(market, **conditions), *quotes) == passing


@pytest.mark.parametrize("condition", ["min_price", "max_price", "min_change_pct", "min_volume"])
def test_a_number_that_is_not_known_meets_nothing(market: Market, condition: str) -> None:
    chosen = use(market, **{condition: 0})
    assert market.send(chosen, at(A)) == set()
    assert market.send(chosen, at(A, 0.0, prev_close=None if condition == "min_change_pct" else 1.0, volume=None)) == (
        {A} if condition in ("min_price", "max_price") else set()
    )


@pytest.mark.parametrize(
    ("price", "prev_close", "percent", "passes"),
    [
        (10.20, 10.00, 2, True),
        (9.80, 10.00, 2, True),
        (10.19, 10.00, 2, False),
        (1.1, 1.0, 10, True),
        (0.07, 0.1, 30, True),
        (4.35, 4.35, 0, True),
        (3.03, 3.0, 1, True),
        (3.03, 3.0, 1.0000000001, False),
        (3.0299999999999, 3.0, 1, False),
        (1e-7, 2e-7, 50, True),
        (1e300, 1e-300, 1e308, True),
        (-37.63, 18.27, 305, True),
        (5.0, 0.0, 0, False),
    ],
)
def test_a_change_is_what_anybody_reckons_from_the_two_numbers(
    market: Market, price: float, prev_close: float, percent: float, passes: bool
) -> None:
    passing = market.send(use(market, min_change_pct=percent), at(A, price, prev_close=prev_close))
    assert passing == ({A} if passes else set())


@given(
    st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from([1, 10, 100, 1000, 10_000]), st.integers(0, 5000), st.booleans()
)
def test_changes_near_the_limit_are_exact(price: int, prev_close: int, scale: int, percent: int, exactly: bool) -> None:
    """``exactly``: the percentage is what the price has changed, as far as two decimals can say it."""
    if exactly:
        percent = abs(price - prev_close) * 10_000 // prev_close
    market = Market()
    chosen = use(market, min_change_pct=percent / 100)
    passing = market.send(chosen, at(A, price / scale, prev_close=prev_close / scale))
    paper = abs(Decimal(price) - prev_close) * 100 >= Decimal(percent) / 100 * prev_close
    assert passing == ({A} if paper else set())


# Only what changed


def test_only_a_change_of_a_named_field_passes(market: Market) -> None:
    chosen = use(market, only_changed=[QuoteField.PRICE, QuoteField.BID_PRICE])
    assert market.send(chosen, at(A, 10, volume=1), at(B, 20)) == {A, B}
    assert market.send(chosen, at(A, 10, volume=2), at(B, 20, trades=5)) == set()
    assert market.send(chosen, at(A, 10.01, volume=3), at(B, 20, bid_price=(19.9,))) == {A, B}
    assert market.send(chosen, at(A, None, volume=3), at(B, 20, bid_price=(19.9,), ask_price=(20.1,))) == {A}
    assert market.send(chosen, at(A, None, volume=4), at(B, 20, bid_price=(19.9, 19.8))) == {B}


def test_every_field_that_may_be_named_is_watched(market: Market) -> None:
    whole = at(A, 1.0)
    chosen = {field: use(market, only_changed=[field]) for field in QuoteField}
    market.say(whole)
    market.filters.note(market.quotes)
    for field in QuoteField:
        kind = (2.0,) if isinstance(getattr(whole, field), tuple) else 2
        market.say(msgspec.structs.replace(whole, **{field: kind}))
        rows = market.filters.read([A])
        assert [name for name, item in chosen.items() if market.filters.passing(item, rows)] == [field]


def test_what_did_not_pass_before_passes_although_its_fields_are_as_they_were(market: Market) -> None:
    """Whoever has the filter does not know how they are."""
    chosen = use(market, min_volume=100, only_changed=[QuoteField.PRICE])
    assert market.send(chosen, at(A, 10, volume=50)) == set()
    assert market.send(chosen, at(A, 10, volume=100)) == {A}
    assert market.send(chosen, at(A, 10, volume=150)) == set()
    assert market.send(chosen, at(A, 11, volume=20)) == set()
    assert market.send(chosen, at(A, 10, volume=150)) == {A}


def test_a_filter_compares_with_what_came_before_it_was_there(market: Market) -> None:
    market.say(at(A, 10), at(B, 20))
    chosen = use(market, only_changed=[QuoteField.PRICE])
    assert market.send(chosen, at(A, 10, volume=5), at(B, 21), at(C, 1)) == {B, C}


def test_a_later_filter_changes_nothing_for_an_earlier_one(market: Market) -> None:
    first = use(market, only_changed=[QuoteField.PRICE])
    market.send(first, at(A, 10, volume=1, amount=7.0))
    second = use(market, only_changed=[QuoteField.AMOUNT])
    message = market.say(at(A, 10, volume=2, amount=8.0))
    rows = market.filters.read(message)
    assert market.filters.passing(first, rows) == set()
    assert market.filters.passing(second, rows) == {A}
    market.filters.release(second)
    assert market.send(first, at(A, 10, volume=3, amount=9.0)) == set()


def test_what_is_newly_wanted_passes_without_a_change(market: Market) -> None:
    chosen = use(market, min_price=10, only_changed=[QuoteField.PRICE])
    market.send(chosen, at(A, 10), at(B, 9.9))
    assert market.filters.admitted(chosen, [A, B, C]) == {A}


# What is kept


def test_who_lays_a_filter_down_and_takes_it_again_has_missed_nothing(market: Market) -> None:
    """The store may have taken something in meanwhile that has not been sent on."""
    chosen = use(market, only_changed=[QuoteField.PRICE])
    market.send(chosen, at(A, 10))
    message = market.say(at(A, 11))
    market.filters.release(chosen)
    market.filters.take(chosen)
    assert market.filters.passing(chosen, market.filters.read(message)) == {A}


def test_forgotten_symbols_begin_anew(market: Market) -> None:
    chosen = use(market, only_changed=[QuoteField.PRICE])
    market.send(chosen, at(A, 10), at(B, 20))
    del market.quotes[A]
    market.filters.forget({A})
    assert market.filters.read([A, B]) == market.filters.read([B])
    assert market.filters.kept == 1
    assert market.send(chosen, at(A, 10), at(B, 20)) == {A}


def test_nothing_is_kept_for_filters_that_nobody_uses(market: Market) -> None:
    chosen = use(market, only_changed=[QuoteField.PRICE])
    market.filters.take(chosen)
    market.send(chosen, at(A, 10))
    market.filters.release(chosen)
    market.send(chosen, at(A, 11))
    assert market.filters.kept == 1
    market.filters.release(chosen)
    market.filters.note(market.say(at(A, 12)))
    assert market.filters.kept == 0


def test_a_quote_is_read_once_for_all_filters(market: Market) -> None:
    for price in (1, 2):
        use(market, min_price=price)
    market.say(at(A, 10))
    (first,) = market.filters.read([A])
    (second,) = market.filters.read([A, B])
    assert first is second
    market.say(at(A, 10))
    assert market.filters.read([A])[0] is not first


# As clients write it


def read(text: str) -> Filter:
    return msgspec.json.decode(text, type=Filter)


def test_filters_that_ask_the_same_are_equal() -> None:
    first = read('{"min_price": 10, "only_changed": ["volume", "price", "price"]}')
    second = read('{"only_changed": ["price", "volume"], "min_price": 10.0, "max_price": null}')
    assert first == second
    assert hash(first) == hash(second)
    assert msgspec.json.encode(first) == b'{"min_price":10.0,"only_changed":["price","volume"]}'
    assert read('{"min_price": 10}') != first


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"min_price": null}',
        '{"min_price": "10"}',
        '{"min_price": true}',
        '{"min_price": 1e999}',
        '{"min_price": 2, "max_price": 1}',
        '{"min_change_pct": -1}',
        '{"min_volume": -0.5}',
        '{"only_changed": []}',
        '{"only_changed": ["symbol"]}',
        '{"only_changed": "price"}',
        '{"minimum": 1}',
        "[]",
    ],
)
def test_a_filter_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(text)


@pytest.mark.parametrize("condition", ["min_price", "max_price", "min_change_pct", "min_volume"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(condition: str, number: float) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode({condition: number}), type=Filter)


def test_the_fields_that_may_be_named_are_the_quotes_own() -> None:
    numeric = [field for field in Quote.__struct_fields__ if field not in ("symbol", "time", "status", "source")]
    assert [field.value for field in QuoteField] == numeric
    assert {data_type.value for data_type in FILTERED} == {"quote", "price", "volume", "orderbook"}


# Any filter, any market


prices = st.none() | st.sampled_from([9.8, 9.9, 10.0, 10.1, 10.2])
quotes = st.builds(
    at,
    st.sampled_from([A, B, C]),
    prices,
    prev_close=st.sampled_from([None, 0.0, 10.0]),
    volume=st.sampled_from([None, 100, 200, 200.5]),
    amount=st.sampled_from([None, 1.0]),
    bid_price=st.sampled_from([(), (9.9,), (9.9, 9.8)]),
)
messages = st.lists(quotes, max_size=3, unique_by=lambda quote: quote.symbol)
numbers = {
    "min_price": st.sampled_from([9.9, 10.0]),
    "max_price": st.sampled_from([10.1, 10.2]),
    "min_change_pct": st.sampled_from([0, 1, 2]),
    "min_volume": st.sampled_from([0, 150, 200.5]),
    "only_changed": st.lists(st.sampled_from(["price", "volume", "amount", "bid_price"]), min_size=1),
}
filters = st.fixed_dictionaries({}, optional=numbers).filter(bool).map(lambda given: msgspec.convert(given, Filter))


def meets(chosen: Filter, quote: Quote) -> bool:
    """All conditions but ``only_changed``, on paper."""

    def paper(number: float) -> Decimal:
        return Decimal(repr(float(number)))

    price, close, volume = quote.price, quote.prev_close, quote.volume
    if chosen.min_price is not None and (price is None or price < chosen.min_price):
        return False
    if chosen.max_price is not None and (price is None or price > chosen.max_price):
        return False
    if chosen.min_volume is not None and (volume is None or volume < chosen.min_volume):
        return False
    if chosen.min_change_pct is None:
        return True
    if price is None or not close:
        return False
    return abs(paper(price) - paper(close)) * 100 >= paper(chosen.min_change_pct) * abs(paper(close))


class Paper:
    """One client's filter, which remembers what it let through."""

    def __init__(self, chosen: Filter, newest: dict[str, Quote]) -> None:
        self.chosen = chosen
        self.held = {symbol: quote for symbol, quote in newest.items() if meets(chosen, quote)}

    def take(self, message: list[Quote]) -> set[str]:
        passing = set()
        for quote in message:
            before = self.held.pop(quote.symbol, None)
            if not meets(self.chosen, quote):
                continue
            self.held[quote.symbol] = quote
            fields = self.chosen.only_changed
            if fields is None or before is None or any(getattr(before, field) != getattr(quote, field) for field in fields):
                passing.add(quote.symbol)
        return passing


@settings(max_examples=300, deadline=None)
@given(st.lists(messages | filters | st.integers(0, 3), max_size=25))
def test_clients_who_come_and_go_are_each_served_as_if_alone(steps: list[list[Quote] | Filter | int]) -> None:
    """A filter is a client's coming, a number that one's leaving."""
    market = Market()
    newest: dict[str, Quote] = {}
    clients: list[Paper] = []
    for step in steps:
        if isinstance(step, Filter):
            market.filters.take(step)
            clients.append(Paper(step, newest))
            assert market.filters.admitted(step, newest) == clients[-1].held.keys()
        elif isinstance(step, int):
            if step < len(clients):
                market.filters.release(clients.pop(step).chosen)
        else:
            message = market.say(*step)
            newest.update({quote.symbol: quote for quote in step})
            rows = market.filters.read(message)
            for client in clients:
                assert market.filters.passing(client.chosen, rows) == client.take(step)
            market.filters.note(message)

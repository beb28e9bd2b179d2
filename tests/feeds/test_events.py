"""What a terminal has pending of events, beside what it hears of them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata import events, klines
from marketdata.batch import Batch
from marketdata.events import AGE, Event, Owed
from marketdata.latest import LatestStore
from marketdata.types import DataType, Trade
from tests.hub.market import bar


def trade(symbol: str, index: int, volume: int = 100) -> Event:
    value = Trade(symbol=symbol, time=1_000 + index, index=index, price=10.0, volume=volume, source="test")
    return Event(DataType.TRADE, symbol, msgspec.json.encode(value))


def closed(minute: int, volume: int = 100, *, settled: bool = False) -> Event:
    (event,) = klines.group([bar("A", minute, volume=volume, closed=True)]).closed
    return event._replace(body=event.body.replace(b'"provisional":true', b'"provisional":false')) if settled else event


def pending(owed: Owed) -> list[Event]:
    return owed.first(owed.pending)


def test_events_travel_in_order_each_an_object_of_its_own() -> None:
    said = [trade("A", 1), closed(1), trade("B", 1), trade("A", 2)]
    numbered = events.numbered(said, b',"seq":7}')
    symbols, fragments = numbered[DataType.TRADE]
    assert symbols == ["A", "B", "A"]
    assert [(msgspec.json.decode(text)["index"], msgspec.json.decode(text)["seq"]) for text in fragments] == [
        (1, 7),
        (1, 7),
        (2, 7),
    ]
    assert list(events.of(numbered)) == [said[0], said[2], said[3], said[1]]


def test_what_is_published_goes_from_the_front() -> None:
    owed = Owed()
    owed.owe([trade("A", n) for n in range(5)], 0.0)
    assert owed.first(2) == [trade("A", 0), trade("A", 1)]
    owed.sent(2)
    owed.hear([trade("A", 3)], 0.0)
    owed.sent(1)
    assert pending(owed) == [trade("A", 4)]


def test_what_was_built_counts_as_published_whatever_its_numbers_and_what_was_settled_by_its_own() -> None:
    owed = Owed()
    owed.owe([closed(1), closed(2), closed(1, 90, settled=True), closed(1, 95, settled=True)], 0.0)
    owed.hear([closed(1, 70), closed(1, 95, settled=True)], 0.0)
    assert pending(owed) == [closed(2), closed(1, 90, settled=True)]


def test_what_was_heard_first_is_not_owed_and_comes_again_only_where_it_is_shown_again() -> None:
    owed = Owed()
    owed.hear([trade("A", 1), closed(1, 70)], 0.0)
    owed.owe([trade("A", 1), closed(1), trade("B", 1)], 1.0)
    assert pending(owed) == [trade("B", 1)]
    owed.owe([closed(1, 60)], 1.0)
    assert pending(owed) == [trade("B", 1), closed(1, 60)]


def test_what_one_has_published_oneself_is_not_remembered() -> None:
    owed = Owed()
    owed.owe([trade("A", 1)], 0.0)
    owed.hear([trade("A", 1), trade("A", 2)], None)
    owed.owe([trade("A", 2)], 0.0)
    assert pending(owed) == [trade("A", 2)]


def test_after_a_while_what_is_shown_counts_whatever_was_heard() -> None:
    owed = Owed()
    owed.hear([trade("A", 1)], 0.0)
    owed.catch_up()
    owed.owe([trade("A", 1)], 0.0)
    assert owed.pending == 1


def test_what_is_pending_is_bounded_by_count_and_says_so_for_as_long_as_it_matters() -> None:
    owed = Owed(most=10)
    assert owed.owe([trade("A", n) for n in range(25)], 5.0) == 15
    assert pending(owed) == [trade("A", n) for n in range(15, 25)]
    assert (owed.complete(5.0), owed.complete(5.0 + AGE)) == (False, True)


def test_what_nobody_published_in_a_minute_falls_out_of_a_standby() -> None:
    owed = Owed()
    owed.owe([trade("A", 1)], 0.0)
    owed.hear([trade("B", 7)], 0.0)
    owed.owe([trade("A", 2)], 10.0)
    assert owed.expire(AGE + 1) == 1
    assert pending(owed) == [trade("A", 2)]
    assert owed.complete(AGE + 1), "whoever publishes does not have it"
    owed.owe([trade("B", 7)], AGE + 1)
    assert owed.pending == 2, "nor is remembered what was heard long ago"


def test_a_message_brings_the_events_of_its_feeds_own_symbols_alone() -> None:
    store = LatestStore()
    told = events.numbered([trade("A", 1), trade("B", 1), trade("A", 2)], b',"seq":1}')
    first = Batch("first", 1, 1, 0, "test", None, None, False, ["A"], [b'{"seq":1}'])
    assert store.apply(first) == first
    second = store.apply(Batch("second", 1, 1, 0, "test", None, None, False, [], [], events=told))
    assert second is not None
    assert [symbol for symbol, _ in zip(*second.events[DataType.TRADE], strict=True)] == ["B"]
    third = store.apply(Batch("first", 1, 2, 0, "test", None, None, False, [], [], events=told))
    assert third is not None
    assert third.events[DataType.TRADE][0] == ["A", "A"]


@pytest.mark.parametrize("count", [20_000])
def test_what_was_struck_out_does_not_pile_up_behind_what_stays(count: int) -> None:
    owed = Owed()
    owed.owe([closed(1)], 0.0)
    for n in range(count):
        owed.owe([trade("A", n)], 0.0)
        owed.hear([trade("A", n)], 0.0)
    assert pending(owed) == [closed(1)]
    assert len(owed._order) < 1100


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["show", "hear"]), st.integers(1, 6)), max_size=40))
def test_what_stays_is_what_was_shown_and_not_heard(steps: Iterable[tuple[str, int]]) -> None:
    """Both see the same sequence: whoever is ahead, what is pending is what lies between them."""
    owed, shown, heard = Owed(), 0, 0
    for what, count in steps:
        if what == "show":
            owed.owe([trade("A", n) for n in range(shown, shown + count)], 0.0)
            shown += count
        else:
            owed.hear([trade("A", n) for n in range(heard, heard + count)], 0.0)
            heard += count
        assert pending(owed) == [trade("A", n) for n in range(heard, shown)]
        assert len(owed._heard) == max(0, heard - shown)

"""Filters in the fan-out: what reaches whom, at once, at a tick, as a snapshot, and after a client was behind."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata.types import DataType, Quote
from streaming.codecs import MSGPACK
from streaming.connection import Connection
from streaming.coverage import cover
from streaming.filters import FILTERED, Filter, QuoteField
from streaming.frame import Frame
from streaming.hub import Hub
from streaming.merging import MERGE_AFTER, MERGED_INTERVAL
from streaming.selection import Frequency, Selection
from tests.hub.market import Client, StoppableWire, blob, make_hub, principal
from tests.hub.test_filters import A, B, C, Paper, at, filters, meets

DEAR = Filter(min_price=10)
MOVED = Filter(min_price=10, only_changed=(QuoteField.PRICE,))
QUOTE, PRICE = DataType.QUOTE, DataType.PRICE


@pytest.fixture
def hub() -> Hub:
    return make_hub()


def got(client: Client) -> list[tuple[str, str, int]]:
    """Type, symbol and seq of what has come since the last look."""
    pieces = [(piece["type"], piece["symbol"], piece["seq"]) for piece in client.wire.data]
    client.wire.take()
    return sorted(pieces)


def select(symbols: str | list[str] | None, *types: DataType, **terms: Any) -> Selection:
    names = None if symbols is None else frozenset(symbols)
    return Selection(symbols=names, data_types=frozenset(types or (QUOTE,)), **terms)


@pytest.mark.parametrize("symbols", [[A, B], None])
@pytest.mark.parametrize("others", [0, 40])
def test_what_does_not_pass_does_not_come(hub: Hub, symbols: list[str] | None, others: int) -> None:
    """In a sweep and in a small message alike."""
    client = Client(hub)
    client.cover(None if symbols is None else [*symbols, *(f"{n:06d}.BJ" for n in range(others))], QUOTE, PRICE, filter=DEAR)
    hub.receive(blob([at(A, 10), at(B, 9.99)], 1))
    assert got(client) == [("price", A, 1), ("quote", A, 1)]
    hub.receive(blob([at(A, 9), at(B, 9)], 2))
    assert client.wire.messages == []
    hub.receive(blob([at(B, 11)], 3))
    assert got(client) == [("price", B, 3), ("quote", B, 3)]


def test_the_same_filter_and_coverage_share_one_view(hub: Hub) -> None:
    clients = [Client(hub, str(n)) for n in range(3)]
    for client in clients[:2]:
        client.cover([A, B], filter=Filter(min_price=10))
    clients[2].cover([A, B])
    assert hub.counters.views == 2
    hub.receive(blob([at(A, 10), at(B, 9)], 1))
    assert [got(client) for client in clients] == [[("quote", A, 1)], [("quote", A, 1)], [("quote", A, 1), ("quote", B, 1)]]
    for client in clients:
        hub.detach(client.connection)
    assert hub.counters.views == 0


def test_nothing_is_kept_for_filters_whose_clients_have_left(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], filter=MOVED)
    hub.receive(blob([at(A, 10)], 1))
    assert hub.newest.filters.kept == 1
    hub.detach(client.connection)
    hub.receive(blob([at(A, 11)], 2))
    assert hub.newest.filters.kept == 0


def test_a_filter_looks_at_the_whole_quote_whatever_part_is_sent(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], DataType.VOLUME, DataType.ORDERBOOK, filter=Filter(min_change_pct=2, only_changed=(QuoteField.HIGH,)))
    hub.receive(blob([at(A, 10.2, prev_close=10, high=10.2)], 1))
    assert got(client) == [("orderbook", A, 1), ("volume", A, 1)]
    hub.receive(blob([at(A, 10.3, prev_close=10, high=10.2)], 2))
    hub.receive(blob([at(A, 10.1, prev_close=10, high=10.4)], 3))
    assert got(client) == []


def test_a_snapshot_has_what_passes_now_whatever_has_changed(hub: Hub) -> None:
    first, second = Client(hub), Client(hub, "second")
    first.cover(None, filter=MOVED)
    hub.receive(blob([at(A, 10), at(B, 9), at(C, 12)], 1))
    hub.receive(blob([at(A, 10, volume=5), at(C, 8)], 2))
    second.cover(None, filter=MOVED)
    (message,) = second.wire.messages
    assert message["snapshot"] is True
    assert got(second) == [("quote", A, 2)]
    hub.receive(blob([at(A, 10, volume=6), at(C, 12)], 3))
    assert got(second) == [("quote", C, 3)]


def test_who_changes_the_filter_is_sent_what_the_old_one_held_back(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B, C], filter=DEAR)
    hub.receive(blob([at(A, 10), at(B, 9), at(C, 5)], 1))
    got(client)
    client.cover([A, B, C], filter=Filter(min_price=8))
    assert got(client) == [("quote", A, 1), ("quote", B, 1)]
    client.cover([A, B, C])
    assert got(client) == [("quote", A, 1), ("quote", B, 1), ("quote", C, 1)]
    client.cover([A, B, C], filter=DEAR)
    assert got(client) == []
    hub.receive(blob([at(A, 11), at(B, 9.5)], 2))
    assert got(client) == [("quote", A, 2)]


def test_what_comes_unfiltered_comes_once_and_what_two_filters_let_through_twice(hub: Hub) -> None:
    client = Client(hub)
    chosen = {"all": select([A]), "dear": select([A, B], filter=DEAR), "busy": select([A, B], filter=Filter(min_volume=1))}
    hub.cover(client.connection, chosen)
    hub.receive(blob([at(A, 10, volume=1), at(B, 10, volume=1)], 1))
    assert got(client) == [("quote", A, 1), ("quote", B, 1), ("quote", B, 1)]


def test_a_slow_filter_looks_at_the_newest_at_its_tick(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B, C], QUOTE, PRICE, frequency=Frequency.S5, filter=DEAR)
    hub.receive(blob([at(A, 9), at(B, 10), at(C, 9)], 1))
    hub.receive(blob([at(A, 10), at(B, 9)], 2))
    assert client.wire.messages == []
    hub.tick(time.monotonic() + 5.1)
    assert got(client) == [("price", A, 2), ("quote", A, 2)]
    hub.tick(time.monotonic() + 10.2)
    assert client.wire.messages == []


def test_a_slow_filter_brings_what_has_changed_since_the_tick_before(hub: Hub) -> None:
    """Even if it has changed back: somebody may have got what was between, who came or was behind."""
    client = Client(hub)
    client.cover([A, B, C], frequency=Frequency.S1, filter=MOVED)
    hub.receive(blob([at(A, 10), at(B, 10), at(C, 9)], 1))
    hub.tick(time.monotonic() + 1.1)
    assert got(client) == [("quote", A, 1), ("quote", B, 1)]
    hub.receive(blob([at(A, 11), at(B, 10, volume=1), at(C, 10)], 2))
    hub.receive(blob([at(A, 10), at(C, 10, volume=1)], 3))
    hub.tick(time.monotonic() + 2.2)
    assert got(client) == [("quote", A, 3), ("quote", C, 3)]
    hub.receive(blob([at(A, 9), at(B, 10, volume=2)], 4))
    hub.tick(time.monotonic() + 3.3)
    hub.receive(blob([at(A, 10), at(B, 10, volume=3)], 5))
    hub.tick(time.monotonic() + 4.4)
    assert got(client) == [("quote", A, 5)]


def test_who_joins_between_two_ticks_is_not_left_with_what_was_between(hub: Hub) -> None:
    first, second = Client(hub), Client(hub, "second")
    first.cover([A], frequency=Frequency.S1, filter=MOVED)
    hub.receive(blob([at(A, 10)], 1))
    hub.tick(time.monotonic() + 1.1)
    hub.receive(blob([at(A, 11)], 2))
    second.cover([A], frequency=Frequency.S1, filter=MOVED)
    assert got(second) == [("quote", A, 2)]
    hub.receive(blob([at(A, 10)], 3))
    hub.tick(time.monotonic() + 2.2)
    assert got(second) == [("quote", A, 3)]


def test_a_change_that_waits_for_a_tick_survives_a_change_of_frequency_where_it_passes(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B], frequency=Frequency.M1, filter=MOVED)
    hub.receive(blob([at(A, 10), at(B, 9)], 1))
    client.cover([A, B], filter=MOVED)
    assert got(client) == [("quote", A, 1)]
    hub.receive(blob([at(A, 10, volume=1), at(B, 10)], 2))
    assert got(client) == [("quote", B, 2)]


def test_what_waits_for_a_tick_and_has_not_changed_waits_in_vain(hub: Hub) -> None:
    hub.receive(blob([at(A, 10)], 1))
    client = Client(hub)
    client.cover([A], frequency=Frequency.M1, filter=MOVED)
    assert got(client) == [("quote", A, 1)]
    hub.receive(blob([at(A, 10, volume=1)], 2))
    client.cover([A], filter=MOVED)
    assert got(client) == []


def test_who_was_behind_gets_the_newest_of_what_passes(hub: Hub) -> None:
    client = Client(hub)
    hub.cover(client.connection, {"dear": select([A, B], filter=DEAR), "all": select([C])})
    client.wire.stop()
    for n in range(1, 4):
        hub.receive(blob([at(A, 10 + n), at(B, 10), at(C, 1)], n))
    hub.receive(blob([at(B, 9), at(C, 2)], 4))
    client.wire.allow(None)
    assert got(client) == [("quote", A, 3), ("quote", C, 4)]


def test_a_hub_that_lags_behind_filters_what_it_merges(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B, C], filter=MOVED)
    now = time.time()
    hub.receive(blob([at(A, 10), at(B, 10), at(C, 9)], 1, published=now))
    late = now - 2 * MERGE_AFTER
    hub.receive(blob([at(A, 11), at(B, 12), at(C, 10)], 2, published=late))
    hub.receive(blob([at(A, 10), at(B, 13)], 3, published=late))
    got(client)
    client.cover([A, B, C], filter=MOVED)
    hub.tick(time.monotonic() + MERGED_INTERVAL)
    assert got(client) == [("quote", A, 3), ("quote", B, 3), ("quote", C, 2)]
    hub.receive(blob([at(A, 10, volume=1), at(B, 14), at(C, 9)], 4, published=late))
    hub.receive(blob([at(B, 8)], 5, published=late))
    hub.tick(time.monotonic() + 2 * MERGED_INTERVAL)
    assert got(client) == []


def test_what_is_held_back_for_a_lower_priority_is_filtered(hub: Hub) -> None:
    low, high = (Client(hub, str(n), principal=principal(priority=n)) for n in (0, 1))
    for client in (low, high):
        client.cover([A, B], QUOTE, PRICE, filter=MOVED)
    hub.hold_back(1, 5)
    hub.receive(blob([at(A, 10), at(B, 10)], 1))
    hub.receive(blob([at(A, 10, volume=1), at(B, 9)], 2))
    assert got(high) == [("price", A, 1), ("price", B, 1), ("quote", A, 1), ("quote", B, 1)]
    hub.restore(blob([at(A, 11), at(B, 9)], 4, snapshot=True, seqs={A: 3, B: 2}))
    assert got(high) == got(low) == [("price", A, 3), ("quote", A, 3)]
    hub.receive(blob([at(A, 10)], 5))
    hub.tick(time.monotonic() + 10)
    assert got(high) == got(low) == [("price", A, 5), ("quote", A, 5)]


def test_what_a_snapshot_of_the_feed_brings_is_filtered(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B], filter=DEAR)
    hub.receive(blob([at(A, 10), at(B, 9)], 1))
    got(client)
    hub.restore(blob([at(A, 9), at(B, 10)], 3, snapshot=True, seqs={A: 3, B: 2}))
    assert got(client) == [("quote", B, 2)]


def test_a_feed_that_has_ended_leaves_nothing_to_compare_with(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], filter=MOVED)
    hub.receive(blob([at(A, 10)], 1))
    hub.forget("main")
    got(client)
    hub.receive(blob([at(A, 10)], 1, feed="other"))
    assert got(client) == [("quote", A, 1)]


def test_another_codec_is_filtered_alike(hub: Hub) -> None:
    wire = StoppableWire()
    pieces: list[Any] = []

    def write(frame: Frame) -> None:
        pieces.extend((p["type"], p["symbol"], p["seq"]) for p in msgspec.msgpack.decode(frame.payload())["data"])

    wire.write = write  # type: ignore[method-assign]
    connection = Connection("packed", None, wire, None, MSGPACK)
    hub.attach(connection)
    hub.cover(connection, {"dear": select(None, QUOTE, PRICE, filter=DEAR), "one": select([C], PRICE)})
    hub.receive(blob([at(A, 10), at(B, 9), at(C, 9)], 1))
    assert sorted(pieces) == [("price", A, 1), ("price", C, 1), ("quote", A, 1)]


def test_a_higher_priority_is_served_first_with_and_without_a_filter(hub: Hub) -> None:
    order: list[str] = []
    for priority, filter in ((0, None), (2, DEAR), (1, None), (1, DEAR)):
        client = Client(hub, f"{priority}{filter}", principal=principal(priority=priority))
        client.wire.write = lambda frame, name=priority: order.append(name)  # type: ignore[method-assign, misc]
        client.cover([A], filter=filter)
    hub.receive(blob([at(A, 10)], 1))
    assert order == [2, 1, 1, 0]


# Any clients, any market

quotes = st.builds(
    at,
    st.sampled_from([A, B, C]),
    st.sampled_from([None, 9.8, 10.0, 10.1, 10.2]),
    prev_close=st.just(10.0),
    volume=st.sampled_from([None, 100, 200]),
)
messages = st.lists(quotes, min_size=1, max_size=3, unique_by=lambda quote: quote.symbol)
selections = st.lists(
    st.builds(
        Selection,
        symbols=st.none() | st.frozensets(st.sampled_from([A, B, C]), min_size=1),
        data_types=st.frozensets(st.sampled_from(sorted(FILTERED)), min_size=1, max_size=2),
        frequency=st.sampled_from([Frequency.REALTIME, Frequency.REALTIME, Frequency.S1]),
        filter=st.none() | filters,
    ),
    max_size=3,
)


class Reader:
    """A client that reads all, and the reference of what it is to get: each of its filters decided for it alone."""

    def __init__(self, hub: Hub, number: int) -> None:
        self.client = Client(hub, str(number), principal=principal(priority=number))
        self.parts: dict[Any, Any] = {}
        self.papers: dict[Any, Paper] = {}
        self.pending: dict[Any, set[str]] = {}

    def covers(self, pace: Any, data_type: DataType, symbol: str) -> bool:
        return data_type in self.parts.get(pace, {}) and symbol in self.parts[pace][data_type]

    def cover(self, chosen: list[Selection], newest: dict[str, Quote]) -> Counter[tuple[str, str]]:
        before, self.parts = self.parts, cover(chosen)
        self.client.hub.cover(self.client.connection, {str(n): item for n, item in enumerate(chosen)})
        self.pending = {}
        self.papers = {pace: Paper(pace[1], newest) for pace in self.parts if pace[1] is not None}
        new = set()
        for _, filter in self.parts:
            for data_type in FILTERED:
                for symbol, quote in newest.items():
                    had = any(symbol in part.get(data_type, ()) for (_, f), part in before.items() if f in (None, filter))
                    has = any(symbol in part.get(data_type, ()) for (_, f), part in self.parts.items() if f == filter)
                    if has and not had and (filter is None or meets(filter, quote)):
                        new.add((data_type.value, symbol))
        return Counter(new)

    def take(self, message: list[Quote]) -> Counter[tuple[str, str]]:
        due: Counter[tuple[str, str]] = Counter()
        for pace, part in self.parts.items():
            frequency, filter = pace
            passing = {quote.symbol for quote in message} if filter is None else self.papers[pace].take(message)
            if frequency is not Frequency.REALTIME:
                self.pending.setdefault(pace, set()).update(passing)
                continue
            due.update((data_type.value, symbol) for data_type in part for symbol in passing if symbol in part[data_type])
        return due

    def tick(self, newest: dict[str, Quote]) -> Counter[tuple[str, str]]:
        due: Counter[tuple[str, str]] = Counter()
        for pace, changed in self.pending.items():
            filter = pace[1]
            passing = {symbol for symbol in changed if filter is None or meets(filter, newest[symbol])}
            part = self.parts[pace]
            due.update((data_type.value, symbol) for data_type in part for symbol in passing if symbol in part[data_type])
        self.pending = {}
        return due

    def got(self) -> Counter[tuple[str, str]]:
        return Counter((kind, symbol) for kind, symbol, _ in got(self.client))


@settings(max_examples=250, deadline=None)
@given(st.lists(messages | st.tuples(st.integers(0, 2), selections) | st.just("tick"), max_size=25))
def test_every_client_gets_exactly_what_its_own_filters_would_let_through(steps: list[Any]) -> None:
    hub = make_hub()
    readers = [Reader(hub, number) for number in range(3)]
    newest: dict[str, Quote] = {}
    now, seq = time.monotonic(), 0

    def tick() -> None:
        nonlocal now
        now += 10
        hub.tick(now)
        for reader in readers:
            assert reader.got() == reader.tick(newest)

    for step in steps:
        if step == "tick":
            tick()
        elif isinstance(step, tuple):
            # So that nothing waits that a change of subscriptions would bring forward.
            tick()
            number, chosen = step
            expected = readers[number].cover(chosen, newest)
            assert readers[number].got() == expected
        else:
            seq += 1
            hub.receive(blob(step, seq))
            newest.update({quote.symbol: quote for quote in step})
            for reader in readers:
                assert reader.got() == reader.take(step)


fates = st.sampled_from(["sent", "sent", "late", "lost"])
number = st.integers(0, 2)
events = st.one_of(
    st.tuples(st.just("say"), messages, fates),
    st.tuples(st.just("say"), messages, fates),
    st.tuples(st.just("cover"), number, selections),
    st.tuples(st.just("allow"), number, st.sampled_from([0, 1, None])),
    st.tuples(st.just("tick"), st.sampled_from([0.1, 1.0])),
    st.tuples(st.just("hold back"), st.sampled_from([0, 1, 2])),
)


@settings(max_examples=250, deadline=None)
@given(st.lists(events, max_size=40))
def test_whatever_happens_every_client_ends_in_step_and_never_gets_what_does_not_pass(steps: list[tuple[Any, ...]]) -> None:
    hub = make_hub()
    hub.on_gap = lambda feed, epoch, seq: None
    clients = [Client(hub, str(n), principal=principal(priority=n)) for n in range(3)]
    chosen: list[list[Selection]] = [[], [], []]
    held: list[dict[tuple[str, str], int]] = [{}, {}, {}]
    newest: dict[str, Quote] = {}
    by_seq: dict[tuple[str, int], Quote] = {}
    seqs: dict[str, int] = {}
    now, wall, seq = time.monotonic(), time.time(), 0

    def look() -> None:
        for mine, client, items in zip(held, clients, chosen, strict=True):
            for kind, symbol, number in got(client):
                covering = [s for s in items if kind in s.data_types and (s.symbols is None or symbol in s.symbols)]
                quote = by_seq[symbol, number]
                assert any(s.filter is None or meets(s.filter, quote) for s in covering)
                assert mine.get((kind, symbol), 0) <= number, "older after newer"
                mine[kind, symbol] = number

    def restore() -> None:
        hub.restore(blob(newest.values(), seq, snapshot=True, seqs=seqs))

    for action, *given_ in steps:
        if action == "say":
            message, fate = given_
            seq += 1
            newest.update({quote.symbol: quote for quote in message})
            seqs.update({quote.symbol: seq for quote in message})
            by_seq.update({(quote.symbol, seq): quote for quote in message})
            if fate != "lost":
                hub.receive(blob(message, seq, published=wall - (2 * MERGE_AFTER if fate == "late" else 0)))
        elif action == "cover":
            look()
            number, items = given_
            client = clients[number]
            client.wire.allow(None)
            look()
            chosen[number] = items
            held[number] = {
                (kind, symbol): n
                for (kind, symbol), n in held[number].items()
                if any(kind in s.data_types and (s.symbols is None or symbol in s.symbols) for s in items)
            }
            hub.cover(client.connection, {str(n): item for n, item in enumerate(items)})
        elif action == "allow":
            clients[given_[0]].wire.allow(given_[1])
        elif action == "hold back":
            hub.hold_back(given_[0], MERGED_INTERVAL)
        else:
            now += given_[0]
            hub.tick(now)
        look()
    restore()
    for client in clients:
        client.wire.allow(None)
    now += MERGED_INTERVAL
    hub.tick(now)
    now += 10
    hub.tick(now)
    look()
    for mine, client, items in zip(held, clients, chosen, strict=True):
        if client.wire.aborted:
            continue
        for item in items:
            for kind in item.data_types:
                for symbol, quote in newest.items():
                    if (item.symbols is None or symbol in item.symbols) and (item.filter is None or meets(item.filter, quote)):
                        known = by_seq[symbol, mine[kind, symbol]]
                        fields = Quote.__struct_fields__
                        if item.filter is not None and item.filter.only_changed is not None:
                            fields = item.filter.only_changed
                        assert [getattr(known, field) for field in fields] == [getattr(quote, field) for field in fields]

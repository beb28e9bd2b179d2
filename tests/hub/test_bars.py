"""Bars in the hub: who receives which, what is kept of them, and what of them is wanted."""

from __future__ import annotations

import time

import pytest

from marketdata.types import DataType
from streaming.hub import Hub
from streaming.merging import MERGE_AFTER, MERGED_INTERVAL
from streaming.selection import Frequency
from tests.hub.market import EPOCH, Client, bar, blob, make_hub, quote

A, B, C = "000001.SZ", "000002.SZ", "600000.SH"
M1, D1 = DataType.KLINE_1M, DataType.KLINE_1D


@pytest.fixture
def hub() -> Hub:
    return make_hub()


def seen(client: Client) -> list[tuple[str, int, bool, int]]:
    """Symbol, minute, closed and volume of all bars that came, in order; they are forgotten."""
    pieces = client.wire.data
    client.wire.take()
    return [(p["symbol"], (p["time"] - EPOCH) // 60_000, p["closed"], p["volume"]) for p in pieces if p["type"] == "kline"]


def test_bars_reach_who_covers_them_beside_the_quotes(hub: Hub) -> None:
    client, other = Client(hub), Client(hub, "other")
    client.cover([A, B], DataType.QUOTE, M1)
    other.cover([A, C])
    hub.receive(blob([], 1, bars=[bar(A, 1), bar(B, 1), bar(C, 1)]))
    assert sorted(seen(client)) == [(A, 1, False, 100), (B, 1, False, 100)]
    hub.receive(blob([quote(A, 2)], 2, bars=[bar(A, 1, closed=True), bar(A, 2, volume=7), bar(C, 2)]))
    (message,) = client.wire.messages
    assert sorted(piece["type"] for piece in message["data"]) == ["kline", "kline", "quote"]
    assert seen(client) == [(A, 1, True, 100), (A, 2, False, 7)]
    assert {piece["type"] for piece in other.wire.data} == {"quote"}


@pytest.mark.parametrize("frequency", Frequency)
def test_the_first_of_a_symbols_bars_are_the_snapshot_at_every_frequency(hub: Hub, frequency: Frequency) -> None:
    client = Client(hub)
    client.cover(None, M1, frequency=frequency)
    hub.receive(blob([], 1, bars=[bar(A, 1, closed=True), bar(A, 2)]))
    (message,) = client.wire.messages
    assert message["snapshot"] is True
    assert seen(client) == [(A, 1, True, 100), (A, 2, False, 100)]


def test_who_comes_later_has_the_last_closed_and_the_forming_bar(hub: Hub) -> None:
    first, second = Client(hub), Client(hub, "second")
    first.cover([A], M1)
    for n in range(1, 5):
        hub.receive(blob([], 2 * n - 1, bars=[bar(A, n)]))
        hub.receive(blob([], 2 * n, bars=[bar(A, n, closed=True)]))
    second.cover([A], M1)
    assert seen(second) == [(A, 4, True, 100)]
    hub.receive(blob([], 9, bars=[bar(A, 5)]))
    third = Client(hub, "third")
    third.cover([A], M1)
    assert seen(third) == [(A, 4, True, 100), (A, 5, False, 100)]


def test_an_older_bar_that_is_corrected_reaches_who_listens_and_replaces_nothing_newer(hub: Hub) -> None:
    first, second = Client(hub), Client(hub, "second")
    first.cover([A], M1)
    hub.receive(blob([], 1, bars=[bar(A, 5, closed=True), bar(A, 6)]))
    seen(first)
    hub.receive(blob([], 2, bars=[bar(A, 3, closed=True, volume=9)]))
    assert seen(first) == [(A, 3, True, 9)]
    hub.receive(blob([], 3, bars=[bar(A, 5, closed=True, volume=8)]))
    second.cover([A], M1)
    assert seen(second) == [(A, 5, True, 8), (A, 6, False, 100)]


def test_a_market_that_begins_again_forgets_the_later_day(hub: Hub) -> None:
    first, second = Client(hub), Client(hub, "second")
    first.cover([A], M1)
    hub.receive(blob([], 1, bars=[bar(A, 500, closed=True)]))
    hub.receive(blob([], 2, bars=[bar(A, 1)]))
    second.cover([A], M1)
    assert seen(second) == [(A, 1, False, 100)]


def test_a_slower_frequency_merges_the_forming_bar_and_no_closed_one(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], M1, frequency=Frequency.S5)
    hub.receive(blob([], 1, bars=[bar(A, 1)]))
    seen(client)
    for n in range(2, 5):
        hub.receive(blob([], n, bars=[bar(A, n - 1, closed=True), bar(A, n)]))
    assert seen(client) == [(A, 1, True, 100), (A, 2, True, 100), (A, 3, True, 100)]
    hub.tick(time.monotonic() + 5.1)
    assert seen(client) == [(A, 4, False, 100)]


def test_a_client_that_was_behind_gets_every_closed_and_the_newest_forming_bar(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], M1)
    hub.receive(blob([], 1, bars=[bar(A, 1)]))
    seen(client)
    client.wire.stop()
    for n in range(2, 9):
        hub.receive(blob([], n, bars=[bar(A, n - 1, closed=True), bar(A, n)]))
    client.wire.allow(None)
    assert seen(client) == [*((A, n, True, 100) for n in range(1, 8)), (A, 8, False, 100)]


def test_a_hub_that_lags_merges_forming_bars_too(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], M1)
    now = time.time()
    hub.receive(blob([], 1, published=now, bars=[bar(A, 1)]))
    seen(client)
    for n in range(2, 5):
        hub.receive(blob([], n, published=now - 2 * MERGE_AFTER, bars=[bar(A, n - 1, closed=True), bar(A, n)]))
    assert seen(client) == [(A, 1, True, 100), (A, 2, True, 100), (A, 3, True, 100)]
    hub.tick(time.monotonic() + MERGED_INTERVAL)
    assert seen(client) == [(A, 4, False, 100)]


def test_what_is_wanted_is_what_the_clients_cover_together(hub: Hub) -> None:
    one, two = Client(hub), Client(hub, "two")
    assert hub.wanted() == {}
    one.cover([A], M1, D1)
    two.cover([A, B], M1, frequency=Frequency.M1)
    assert hub.wanted() == {DataType.KLINE_1M: {A, B}, DataType.KLINE_1D: {A}}
    before = hub.demand
    two.cover(None, M1)
    assert hub.demand > before
    assert hub.wanted() == {DataType.KLINE_1M: None, DataType.KLINE_1D: {A}}
    hub.detach(one.connection)
    hub.detach(two.connection)
    assert hub.wanted() == {}


def test_quotes_alone_do_not_touch_the_demand_for_bars(hub: Hub) -> None:
    client = Client(hub)
    client.cover(None)
    assert hub.demand == 0


def test_bars_that_nobody_covers_are_forgotten_so_that_nobody_is_shown_old_ones(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B], M1)
    hub.receive(blob([], 1, bars=[bar(A, 1), bar(B, 1)]))
    client.cover([B], M1)
    hub.wanted()
    hub.receive(blob([], 2, bars=[bar(A, 2), bar(B, 2)]))
    seen(client)
    client.cover([A, B], M1)
    assert seen(client) == []
    hub.receive(blob([], 3, bars=[bar(A, 3)]))
    assert seen(client) == [(A, 3, False, 100)]


def test_bars_may_come_before_the_first_quote(hub: Hub) -> None:
    client = Client(hub)
    client.wire.stop()
    client.cover([A], M1)
    hub.receive(blob([], 1, bars=[bar(A, 1)]))
    client.wire.allow(None)
    assert seen(client) == [(A, 1, False, 100)]

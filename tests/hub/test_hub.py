"""The fan-out: what arrives at whom, in which message, and in which order."""

from __future__ import annotations

import time

import pytest

from marketdata.statuses import Statuses
from marketdata.types import DataType, TradingStatus
from streaming.audience import SLICE, SLICES
from streaming.frame import Frame
from streaming.hub import Hub
from streaming.merging import MERGE_AFTER, MERGED_INTERVAL
from streaming.runtime import TICK
from streaming.selection import Frequency, Selection
from tests.hub.market import Client, blob, changes, make_hub, principal, quote

A, B, C = "000001.SZ", "000002.SZ", "600000.SH"


@pytest.fixture
def hub() -> Hub:
    return make_hub()


def test_a_batch_reaches_who_covers_its_symbols_in_one_message(hub: Hub) -> None:
    client, other = Client(hub), Client(hub, "other")
    client.cover([A, B])
    other.cover([C])
    hub.receive(blob([quote(A, 1), quote(B, 1)], 1))
    assert len(client.wire.messages) == 1
    message = client.wire.messages[0]
    assert (message["type"], message["feed"], message["epoch"], message["seq"]) == ("data", "main", 1, 1)
    assert "snapshot" not in message
    assert sorted(piece["symbol"] for piece in message["data"]) == [A, B]
    assert all(piece["seq"] == 1 for piece in message["data"])
    assert other.wire.messages == []


def test_everything_covers_symbols_that_come_later(hub: Hub) -> None:
    client = Client(hub)
    client.cover(None)
    hub.receive(blob([quote(A, 1)], 1))
    hub.receive(blob([quote(B, 1), quote(C, 1)], 2))
    assert [piece["symbol"] for piece in client.wire.data] == [A, B, C]


def test_the_same_coverage_shares_one_frame(hub: Hub) -> None:
    clients = [Client(hub, str(n)) for n in range(3)]
    for client in clients:
        client.cover([A, B])
    assert hub.counters.views == 1
    hub.receive(blob([quote(A, 1)], 1))
    assert all(len(client.wire.messages) == 1 for client in clients)
    for client in clients:
        hub.detach(client.connection)
    assert hub.counters.views == 0


@pytest.mark.parametrize("others", [0, 40])
def test_a_quote_and_its_price_come_in_one_frame(hub: Hub, others: int) -> None:
    """In a sweep and in a small message alike."""
    crowd = Client(hub, "crowd")
    crowd.cover([f"{n:06d}.SH" for n in range(others)] or [C])
    client = Client(hub)
    client.cover([A, B], DataType.QUOTE, DataType.PRICE)
    hub.receive(blob([quote(A, 1), quote(C, 1)], 1))
    (message,) = client.wire.messages
    assert sorted((piece["type"], piece["symbol"]) for piece in message["data"]) == [("price", A), ("quote", A)]


def test_derived_types_have_the_quotes_own_values_and_seq(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], *DataType)
    quotes = [quote(A, 3)]
    hub.receive(blob(quotes, 7, happened=changes(quotes, 7)))
    pieces = {piece["type"]: piece for piece in client.wire.data}
    whole = pieces.pop("quote")
    assert set(pieces) == {"price", "volume", "orderbook", "status"}
    limit = pieces["status"].pop("limit")
    assert limit is None
    for piece in pieces.values():
        del piece["type"]
        assert piece.items() <= whole.items()
        assert piece["seq"] == 7


def test_status_comes_only_when_it_changes(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B], DataType.STATUS)
    statuses = Statuses()
    for seq, status in enumerate([TradingStatus.CONTINUOUS, TradingStatus.CONTINUOUS, TradingStatus.BREAK], 1):
        quotes = [quote(A, seq, status=status), quote(B, seq)]
        hub.receive(blob(quotes, seq, happened=changes(quotes, seq, statuses)))
    first, second = client.wire.take()
    assert [piece["symbol"] for piece in first["data"]] == [A, B]
    assert [(piece["symbol"], piece["status"], piece["seq"]) for piece in second["data"]] == [(A, "break", 3)]


def test_status_that_changed_while_nobody_looked_is_in_the_snapshot(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], DataType.STATUS)
    hub.receive(blob([quote(A, 1)], 1))
    client.cover([A])
    hub.receive(blob([quote(A, 2, status=TradingStatus.HALTED)], 2))
    client.wire.take()
    client.cover([A], DataType.STATUS)
    (message,) = client.wire.take()
    assert message["snapshot"] is True
    assert message["data"][0]["status"] == "halted"


def test_what_is_newly_covered_comes_as_a_snapshot_after_the_reply(hub: Hub) -> None:
    hub.receive(blob([quote(A, 1), quote(B, 1)], 1))
    client = Client(hub)
    client.connection.send(Frame(b'{"type":"subscribed"}'))
    client.cover([A])
    hub.receive(blob([quote(A, 2)], 2))
    reply, snapshot, live = client.wire.take()
    assert reply["type"] == "subscribed"
    assert snapshot["snapshot"] is True
    assert [piece["seq"] for piece in snapshot["data"]] == [1]
    assert "snapshot" not in live
    client.cover([A, B])
    (more,) = client.wire.take()
    assert [piece["symbol"] for piece in more["data"]] == [B]


def test_an_update_that_covers_the_same_sends_nothing(hub: Hub) -> None:
    hub.receive(blob([quote(A, 1)], 1))
    client = Client(hub)
    client.cover([A])
    client.wire.take()
    client.cover([A])
    assert client.wire.take() == []


def test_what_is_no_longer_covered_comes_no_more(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B])
    client.cover([B])
    hub.receive(blob([quote(A, 1), quote(B, 1)], 1))
    assert [piece["symbol"] for piece in client.wire.data] == [B]
    hub.cover(client.connection, {})
    hub.receive(blob([quote(A, 2), quote(B, 2)], 2))
    assert len(client.wire.messages) == 1


def test_a_symbol_of_two_selections_comes_once_at_the_faster_frequency(hub: Hub) -> None:
    client = Client(hub)
    fast = Selection(symbols=frozenset({A}), data_types=frozenset({DataType.QUOTE}))
    slow = Selection(symbols=None, data_types=frozenset({DataType.QUOTE}), frequency=Frequency.S1)
    hub.cover(client.connection, {"fast": fast, "slow": slow})
    hub.receive(blob([quote(A, 1), quote(B, 1)], 1))
    assert [piece["symbol"] for piece in client.wire.data] == [A]
    hub.tick(time.monotonic() + 1.1)
    assert [piece["symbol"] for piece in client.wire.data] == [A, B]


def test_a_slower_frequency_brings_the_newest_at_each_tick(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B], frequency=Frequency.S5)
    for n in range(1, 4):
        hub.receive(blob([quote(A, n)], n))
    assert client.wire.messages == []
    hub.tick(time.monotonic() + 5.1)
    (message,) = client.wire.take()
    assert [(piece["symbol"], piece["seq"]) for piece in message["data"]] == [(A, 3)]
    hub.tick(time.monotonic() + 10.2)
    assert client.wire.take() == []


def test_a_change_that_waits_for_a_tick_survives_a_change_of_frequency(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], frequency=Frequency.M1)
    hub.receive(blob([quote(A, 1)], 1))
    client.cover([A])
    assert [piece["seq"] for piece in client.wire.data] == [1]


def test_ticks_of_different_views_are_spread_over_the_period(hub: Hub) -> None:
    clients = [Client(hub, str(n)) for n in range(20)]
    symbols = [f"{n:06d}.SZ" for n in range(20)]
    for client, symbol in zip(clients, symbols, strict=True):
        client.cover([symbol], frequency=Frequency.S1)
    began = time.monotonic()
    hub.receive(blob([quote(symbol, 1) for symbol in symbols], 1))
    hub.tick(began + 0.55)
    served = sum(bool(client.wire.messages) for client in clients)
    assert 5 <= served <= 15
    hub.tick(began + 1.1)
    assert all(client.wire.messages for client in clients)


def test_a_thousand_who_get_the_same_do_not_wake_together_and_share_few_frames(hub: Hub) -> None:
    clients = [Client(hub, str(n)) for n in range(1000)]
    frames: list[Frame] = []
    for client in clients:
        client.wire.write = frames.append  # type: ignore[method-assign, assignment]
        client.cover([A], frequency=Frequency.S1)
    began = time.monotonic()
    hub.receive(blob([quote(A, 1)], 1))
    at_once = []
    for tick in range(1, 23):
        before = len(frames)
        hub.tick(began + tick * TICK)
        at_once.append(len(frames) - before)
    assert sum(at_once) == len(frames) == 1000
    assert max(at_once) <= 150
    assert len({id(frame) for frame in frames}) == SLICES


def test_few_who_get_the_same_share_one_frame(hub: Hub) -> None:
    clients = [Client(hub, str(n)) for n in range(SLICE)]
    for client in clients:
        client.cover([A], frequency=Frequency.S1)
    assert hub.counters.views == 1
    hub.detach(clients[0].connection)
    Client(hub, "another").cover([A], frequency=Frequency.S1)
    assert hub.counters.views == 1


def test_higher_priority_is_served_first(hub: Hub) -> None:
    order: list[str] = []
    for priority in (0, 2, 1):
        client = Client(hub, str(priority), principal=principal(priority=priority))
        client.wire.write = lambda frame, name=str(priority): order.append(name)  # type: ignore[method-assign, misc]
        client.cover([A])
    hub.receive(blob([quote(A, 1)], 1))
    assert order == ["2", "1", "0"]


def test_a_publisher_that_lost_its_lease_is_not_heard(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A])
    hub.receive(blob([quote(A, 1)], 5, epoch=2))
    hub.receive(blob([quote(A, 2)], 6, epoch=1))
    hub.receive(blob([quote(A, 2)], 5, epoch=2))
    assert [piece["seq"] for piece in client.wire.data] == [5]
    assert hub.counters.refused == 2


def test_what_cannot_be_read_is_counted_and_hurts_nobody(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A])
    good = blob([quote(A, 1)], 1)
    for bad in (b"", b"\xff\x00", good[:-3], good + b"x"):
        hub.receive(bad)
    hub.receive(good)
    assert hub.counters.refused == 4
    assert len(client.wire.messages) == 1


def test_a_gap_is_noticed_and_filled_from_the_snapshot() -> None:
    missed: list[tuple[str, int, int]] = []
    hub = make_hub()
    hub.on_gap = lambda *what: missed.append(what)
    client = Client(hub)
    client.cover([A, B])
    hub.receive(blob([quote(A, 1), quote(B, 1)], 1))
    hub.receive(blob([quote(A, 3)], 3))
    assert missed == [("main", 1, 2)]
    client.wire.take()
    hub.restore(blob([quote(A, 3), quote(B, 2)], 3, snapshot=True, seqs={A: 3, B: 2}))
    (message,) = client.wire.take()
    assert [(piece["symbol"], piece["seq"]) for piece in message["data"]] == [(B, 2)]
    hub.restore(blob([quote(A, 3), quote(B, 2)], 3, snapshot=True, seqs={A: 3, B: 2}))
    assert client.wire.take() == []


def test_a_new_epoch_that_begins_in_the_middle_is_a_gap_and_its_first_message_none() -> None:
    missed: list[tuple[str, int, int]] = []
    hub = make_hub()
    hub.on_gap = lambda *what: missed.append(what)
    hub.receive(blob([quote(A, 1)], 1, epoch=1))
    hub.receive(blob([quote(A, 2)], 1, epoch=2))
    assert missed == []
    hub.receive(blob([quote(A, 3)], 4, epoch=3))
    assert missed == [("main", 3, 3)]


def test_after_a_takeover_the_new_publishers_snapshot_counts_although_its_seq_is_smaller(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B])
    hub.receive(blob([quote(A, 1), quote(B, 1)], 500, epoch=1))
    hub.receive(blob([quote(A, 2)], 3, epoch=2))
    client.wire.take()
    hub.restore(blob([quote(A, 2), quote(B, 2)], 3, epoch=2, snapshot=True, seqs={A: 3, B: 2}))
    (message,) = client.wire.take()
    assert [(piece["symbol"], piece["seq"]) for piece in message["data"]] == [(B, 2)]


def test_two_feeds_are_told_apart(hub: Hub) -> None:
    client = Client(hub)
    client.cover(None, frequency=Frequency.S1)
    hub.receive(blob([quote(A, 1)], 8, feed="sz", epoch=4))
    hub.receive(blob([quote(C, 1)], 2, feed="sh", epoch=9))
    hub.tick(time.monotonic() + 1.1)
    assert sorted((m["feed"], m["epoch"], m["seq"], m["data"][0]["symbol"]) for m in client.wire.messages) == [
        ("sh", 9, 2, C),
        ("sz", 4, 8, A),
    ]


def test_a_hub_that_lags_behind_merges_and_loses_nothing(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B])
    now = time.time()
    hub.receive(blob([quote(A, 1)], 1, published=now))
    late = now - 2 * MERGE_AFTER
    for n in range(2, 6):
        hub.receive(blob([quote(A, n), quote(B, n)], n, published=late))
    assert len(client.wire.take()) == 1
    assert hub.counters.lagged == 4
    hub.tick(time.monotonic() + MERGED_INTERVAL)
    (message,) = client.wire.take()
    assert message["seq"] == 5
    assert sorted((piece["symbol"], piece["seq"]) for piece in message["data"]) == [(A, 5), (B, 5)]


def test_a_lag_that_is_over_sends_what_was_merged_before_what_is_new(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A, B])
    now = time.time()
    hub.receive(blob([quote(A, 1)], 1, published=now))
    hub.receive(blob([quote(B, 2)], 2, published=now - 2 * MERGE_AFTER))
    hub.receive(blob([quote(A, 3)], 3, published=now))
    assert [(piece["symbol"], piece["seq"]) for piece in client.wire.data] == [(A, 1), (B, 2), (A, 3)]


def test_empty_messages_carry_the_canary_and_reach_no_client(hub: Hub) -> None:
    client = Client(hub)
    client.cover(None)
    assert hub.store.age() is None
    hub.receive(blob([], 1))
    assert hub.store.age() is not None
    assert client.wire.messages == []


def test_who_has_left_gets_nothing_and_leaves_nothing(hub: Hub) -> None:
    client = Client(hub)
    client.cover(None)
    hub.detach(client.connection)
    hub.detach(client.connection)
    hub.receive(blob([quote(A, 1)], 1))
    assert client.wire.messages == []
    assert not hub.connections
    hub.cover(client.connection, {"main": Selection(symbols=None, data_types=frozenset({DataType.QUOTE}))})
    assert hub.counters.views == 0

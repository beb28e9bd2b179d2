"""Feeds side by side: whose a symbol is, and what remains of a feed that is no more."""

from __future__ import annotations

import time

import pytest

from argus.config import config
from marketdata.batch import Term
from marketdata.types import DataType
from streaming.frame import Frame
from streaming.hub import Hub
from streaming.merging import MERGE_AFTER, MERGED_INTERVAL
from streaming.selection import Frequency
from tests.hub.market import Client, bar, blob, make_hub, quote

A, B, C = "000001.SZ", "000002.SZ", "600000.SH"


@pytest.fixture
def hub() -> Hub:
    """Two feeds; B is carried by both."""
    hub = make_hub()
    hub.receive(blob([quote(A, 1), quote(B, 1)], 500, feed="first", epoch=9))
    hub.receive(blob([quote(B, 1), quote(C, 1)], 1, feed="second", epoch=3))
    return hub


@pytest.fixture
def client(hub: Hub) -> Client:
    client = Client(hub)
    client.cover([A, B, C], DataType.QUOTE, DataType.KLINE_1M)
    client.wire.take()
    return client


def silence(hub: Hub, feed: str) -> None:
    hub.store.feeds[feed].arrived = time.monotonic() - config.stale_after - 1


def pieces(client: Client) -> list[tuple[str, str, int]]:
    data = [message for message in client.wire.take() if message["type"] == "data"]
    return [(message["feed"], piece["symbol"], piece["seq"]) for message in data for piece in message["data"]]


def test_a_symbol_is_the_first_feeds_while_that_is_heard_from(hub: Hub, client: Client) -> None:
    hub.receive(blob([quote(B, 5), quote(C, 2)], 2, feed="second", epoch=3, bars=[bar(B, 1), bar(C, 1)]))
    assert sorted(pieces(client)) == [("second", C, 2), ("second", C, 2)]
    hub.receive(blob([quote(B, 2)], 501, feed="first", epoch=9))
    assert pieces(client) == [("first", B, 501)]
    hub.restore(blob([quote(B, 6), quote(C, 3)], 900, feed="second", epoch=3, snapshot=True))
    assert pieces(client) == [("second", C, 900)]
    hub.receive(blob([quote(B, 7), quote(C, 3)], 2, feed="second", epoch=4, term=Term(3, 900, recovered=True)))
    assert pieces(client) == []


def test_a_symbol_goes_to_who_still_brings_it_when_its_feed_falls_silent(hub: Hub, client: Client) -> None:
    silence(hub, "first")
    hub.receive(blob([quote(B, 5)], 2, feed="second", epoch=3))
    assert pieces(client) == [("second", B, 2)]
    hub.receive(blob([quote(A, 2), quote(B, 2)], 501, feed="first", epoch=9))
    assert pieces(client) == [("first", A, 501)]
    hub.restore(blob([quote(A, 3), quote(B, 3)], 600, feed="first", epoch=9, snapshot=True))
    assert pieces(client) == [("first", A, 600)]


def test_a_symbol_goes_to_the_feed_that_is_to_bring_its_market_now(hub: Hub, client: Client) -> None:
    hub.store.accepts = {"first": lambda symbol: symbol != B, "second": None}
    hub.receive(blob([quote(A, 2), quote(B, 2)], 501, feed="first", epoch=9))
    assert sorted(pieces(client)) == [("first", A, 501), ("first", B, 501)]
    hub.receive(blob([quote(B, 5)], 2, feed="second", epoch=3))
    hub.receive(blob([quote(B, 6)], 502, feed="first", epoch=9))
    assert pieces(client) == [("second", B, 2)]


def test_a_snapshot_of_who_takes_a_symbol_over_counts_although_its_seq_is_smaller(hub: Hub, client: Client) -> None:
    silence(hub, "first")
    hub.restore(blob([quote(B, 5)], 2, feed="second", epoch=3, snapshot=True))
    assert pieces(client) == [("second", B, 2)]


def test_of_a_feed_that_is_no_more_nothing_is_known_or_owed(hub: Hub) -> None:
    slow, late = Client(hub, "slow"), Client(hub, "late")
    slow.cover(None, DataType.QUOTE, DataType.STATUS, DataType.PRICE, DataType.KLINE_1M, frequency=Frequency.S1)
    hub.receive(blob([quote(A, 2)], 501, feed="first", epoch=9, bars=[bar(A, 1), bar(C, 1)]))
    hub.receive(blob([quote(A, 3)], 502, feed="first", epoch=9, published=time.time() - 2 * MERGE_AFTER))
    hub.forget("first")
    hub.forget("first")
    slow.wire.take()
    hub.tick(time.monotonic() + MERGED_INTERVAL)
    hub.tick(time.monotonic() + 2)
    late.cover(None, *DataType)
    assert {symbol for client in (slow, late) for _, symbol, _ in pieces(client)} <= {C}
    assert set(hub.store.fragments) == set(hub.store.feed_of) == {C}
    assert set(hub.store.streams()) == {"second"}


def test_a_symbol_of_a_feed_that_is_no_more_begins_anew_with_another(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], DataType.QUOTE, DataType.STATUS)
    client.wire.take()
    hub.forget("first")
    hub.receive(blob([quote(A, 1)], 2, feed="second", epoch=3))
    (message,) = client.wire.take()
    assert (message["feed"], [piece["type"] for piece in message["data"]]) == ("second", ["quote"])
    hub.cover(client.connection, {})
    client.cover([A], DataType.STATUS)
    (message,) = client.wire.take()
    assert (message["feed"], [piece["status"] for piece in message["data"]]) == ("second", ["continuous"])


def test_a_feed_of_an_old_name_is_a_new_feed(hub: Hub) -> None:
    client = Client(hub)
    client.connection.send(Frame(b'{"type":"connected"}'))
    client.cover([A])
    client.wire.take()
    hub.forget("first")
    hub.receive(blob([quote(A, 1)], 1, feed="first", epoch=2, term=Term(9, 500, recovered=True)))
    assert [message["type"] for message in client.wire.take()] == ["data"]


def test_a_feed_that_joins_others_has_its_time_before_it_is_called_silent(hub: Hub) -> None:
    hub.receive(blob([], 1, feed="third", canary=None))
    assert not hub.store.stale(after=10)
    assert hub.store.stale(after=10, now=time.monotonic() + 11)


def test_nothing_is_fresh_before_any_feed_has_had_a_word_of_its_source() -> None:
    hub = make_hub()
    hub.receive(blob([], 1, feed="first", canary=None))
    hub.receive(blob([], 1, feed="second", canary=None))
    assert hub.store.stale(after=10)

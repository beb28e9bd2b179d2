"""What is made once for all who get the same, counted: a compressed frame, and the answer of a filter."""

from __future__ import annotations

import time
import zlib
from collections import Counter
from typing import Any

import pytest

from marketdata.types import DataType
from streaming import codecs
from streaming.audience import SLICE
from streaming.codecs import DEFLATED, MSGPACK, Codec
from streaming.filters import Filter, Filters, Numbers, QuoteField
from streaming.hub import Hub
from streaming.selection import Frequency, Selection
from tests.hub.market import Client, blob, make_hub, principal, quote
from tests.hub.test_events import trades

SYMBOLS = [f"{n:06d}.SZ" for n in range(20)]
MANY = 120


@pytest.fixture
def hub() -> Hub:
    return make_hub()


def crowd(hub: Hub, count: int, codec: Codec = DEFLATED, *, priority: int = 1) -> list[Client]:
    """So many who speak alike and have plans of one priority."""
    clients = [Client(hub, f"{codec.name} {priority} {n}", principal=principal(priority=priority)) for n in range(count)]
    for client in clients:
        client.connection.codec = codec
    return clients


@pytest.fixture
def compressions(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is compressed."""
    counted: Counter[str] = Counter()

    class Counting:
        compress = staticmethod(zlib.compress)

        @staticmethod
        def compressobj(*arguments: Any) -> Any:
            counted["frames"] += 1
            return zlib.compressobj(*arguments)

    monkeypatch.setattr(codecs, "zlib", Counting)
    return counted


def sweep(seq: int, **happened: Any) -> bytes:
    """A message that is worth compressing."""
    return blob([quote(symbol, seq) for symbol in SYMBOLS], seq, **happened)


@pytest.mark.parametrize("count", [1, MANY])
def test_a_frame_is_compressed_once_however_many_get_it(hub: Hub, compressions: Counter[str], count: int) -> None:
    clients = crowd(hub, count)
    for client in clients:
        client.cover(SYMBOLS)
    for seq in range(1, 6):
        hub.receive(sweep(seq))
        assert compressions["frames"] == seq
    assert all([message["seq"] for message in client.wire.messages] == [1, 2, 3, 4, 5] for client in clients)
    assert all(len(client.wire.data) == 5 * len(SYMBOLS) for client in clients)


def test_each_coverage_and_priority_is_compressed_once_and_who_does_not_speak_so_never(
    hub: Hub, compressions: Counter[str]
) -> None:
    groups = [crowd(hub, MANY // 4), crowd(hub, MANY // 4, priority=2), crowd(hub, MANY // 4, priority=3)]
    for client in (client for group in groups for client in group):
        client.cover(SYMBOLS)
    others = [*crowd(hub, 10, codecs.JSON), *crowd(hub, 10, MSGPACK)]
    for client in others:
        client.cover(SYMBOLS)
    everything = crowd(hub, 10, priority=4)
    for client in everything:
        client.cover(None, DataType.QUOTE, DataType.PRICE)
    hub.receive(sweep(1))
    assert compressions["frames"] == len(groups) + 1
    assert all(len(client.wire.messages) == 1 for client in (*groups[0], *others, *everything))


def test_who_is_behind_by_a_frame_is_sent_the_very_one_of_the_others(hub: Hub, compressions: Counter[str]) -> None:
    late = crowd(hub, MANY)
    for client in late:
        client.cover(SYMBOLS)
    for client in late:
        client.wire.stop()
    hub.receive(sweep(1))
    for client in late:
        client.wire.allow(None)
    assert [len(client.wire.data) for client in late] == [len(SYMBOLS)] * MANY
    assert compressions["frames"] == 1


def test_events_are_compressed_once_too(hub: Hub, compressions: Counter[str]) -> None:
    clients = crowd(hub, MANY)
    for client in clients:
        client.cover(SYMBOLS, DataType.TRADE)
    hub.receive(blob([], 1, happened=trades(1, *SYMBOLS)))
    assert compressions["frames"] == 1
    assert all(len(client.wire.data) == len(SYMBOLS) for client in clients)


def test_a_slower_frequency_is_compressed_once_for_each_slice(hub: Hub, compressions: Counter[str]) -> None:
    """Those of a slice have their tick together."""
    clients = crowd(hub, 2 * SLICE)
    for client in clients:
        client.cover(SYMBOLS, frequency=Frequency.S1)
    for seq in (1, 2, 3):
        hub.receive(sweep(seq))
    assert compressions["frames"] == 0
    hub.tick(time.monotonic() + 1.1)
    assert compressions["frames"] == 2
    assert all([message["seq"] for message in client.wire.messages] == [3] for client in clients)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[Filter]:
    """Counts how often each filter is evaluated."""
    counted: Counter[Filter] = Counter()
    passing = Filters.passing

    def count(self: Filters, filter: Filter, rows: list[Numbers]) -> set[str]:
        counted[filter] += 1
        return passing(self, filter, rows)

    monkeypatch.setattr(Filters, "passing", count)
    return counted


DEAR = Filter(min_price=10.05)
MOVED = Filter(min_price=10.05, only_changed=(QuoteField.PRICE,))


def selection(symbols: list[str] | None, *types: DataType, filter: Filter | None = DEAR) -> Selection:
    return Selection(
        symbols=None if symbols is None else frozenset(symbols), data_types=frozenset(types or (DataType.QUOTE,)), filter=filter
    )


def test_a_filter_is_asked_once_of_a_message_however_many_clients_and_views_have_it(hub: Hub, asked: Counter[Filter]) -> None:
    """Whatever they cover, speak and pay; an equal filter is the same."""
    clients = [
        client
        for codec in (codecs.JSON, MSGPACK, DEFLATED)
        for priority in (1, 2)
        for client in crowd(hub, 20, codec, priority=priority)
    ]
    for n, client in enumerate(clients):
        chosen = {
            "some": selection(SYMBOLS[: n % 7 + 1]),
            "parts": selection(SYMBOLS[n % 5 :], DataType.PRICE, filter=Filter(min_price=10.05)),
            "moved": selection(None, DataType.VOLUME, filter=MOVED),
            "all": selection(SYMBOLS[:2], DataType.ORDERBOOK, filter=None),
        }
        hub.cover(client.connection, chosen)
    assert hub.counters.views > 100
    for seq in range(1, 11):
        hub.receive(sweep(seq))
        assert asked == {DEAR: seq, MOVED: seq}
    for client in clients:
        seqs = {piece["seq"] for piece in client.wire.data if piece["type"] != "orderbook"}
        assert seqs == {5, 6, 7, 8, 9, 10}, "the price is 10.05 from the fifth message on"

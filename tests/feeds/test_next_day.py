"""The change of the day through a whole feed: source, ingest, publisher and the store that clients are served from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from argus.config import Config
from marketdata.batch import decode
from marketdata.feed import Feed
from marketdata.latest import LatestStore
from marketdata.lease import MemoryLease
from marketdata.publisher import Publisher
from marketdata.sources.simulated.clock import ManualClock
from marketdata.sources.simulated.source import SimulatedSource
from tests.sources.conformance import wait_up
from tests.sources.simulated.moments import moment


class Polled(SimulatedSource):
    """The simulated market as a terminal that cannot push: what a poll brings is all there is, and comes when it is asked."""

    def capabilities(self) -> frozenset[Any]:
        return frozenset(item for item in super().capabilities() if item != "push")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(moment("2026-03-04 14:59:50"))


@pytest.fixture
def store() -> LatestStore:
    return LatestStore()


@pytest.fixture
def feed(clock: ManualClock, store: LatestStore) -> Iterator[Feed]:
    source = Polled(symbols=60, seed=7, clock=clock)
    publisher = Publisher(
        feed="main",
        source=source.name,
        owner="t",
        lease=MemoryLease(),
        send=lambda feed, blob: store.apply(decode(blob)) or None,
        save_snapshot=lambda feed, blob: None,
    )
    feed = Feed(terminal="t", source=source, publisher=publisher, config=Config(source_timeout=60, stale_after=60))
    feed.start()
    wait_up(source)
    yield feed
    feed.stop()


def at(feed: Feed, clock: ManualClock, store: LatestStore, time: str) -> dict[str, Any]:
    """What clients are served at a time, symbol by symbol."""
    clock.advance(moment(time) - clock.now())
    assert feed.poll() == "ok"
    return {symbol: json.loads(fragment) for symbol, fragment in store.fragments.items()}


def test_a_new_day_begins_at_the_last_close_with_no_price_and_no_volume(
    feed: Feed, clock: ManualClock, store: LatestStore
) -> None:
    evening = at(feed, clock, store, "2026-03-04 15:30:00")
    morning = at(feed, clock, store, "2026-03-05 09:16:00")
    trading = at(feed, clock, store, "2026-03-05 09:45:00")
    traded = [symbol for symbol, quote in evening.items() if quote["volume"] and quote["price"]]
    assert len(traded) > 40
    for symbol in traded:
        assert morning[symbol]["prev_close"] == evening[symbol]["price"]
        assert morning[symbol]["volume"] == 0, "ingest takes a volume that drops with a new day"
        assert morning[symbol]["seq"] > evening[symbol]["seq"]
    assert {morning[symbol]["open"] for symbol in traded} == {None}, "null on the wire, never 0"
    assert "opening_auction" in {morning[symbol]["status"] for symbol in traded}
    assert any(0 < trading[symbol]["volume"] < evening[symbol]["volume"] for symbol in traded)
    assert "continuous" in {trading[symbol]["status"] for symbol in traded}

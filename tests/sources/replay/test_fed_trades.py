"""A recording of trades alone behind a feed: it publishes them all, and no quote."""

from __future__ import annotations

from pathlib import Path

import pytest

from argus.config import Config
from marketdata import demand
from marketdata.demand import Announcer
from marketdata.feed import Feed
from marketdata.lease import MemoryLease
from marketdata.sources.replay.source import ReplaySource
from marketdata.types import DataType
from tests.feeds.wire import Wire, publisher
from tests.sources.conformance import eventually
from tests.sources.replay.raw import SH_TRADES, excerpt
from tests.sources.replay.test_source import finished
from tests.sources.replay.test_trades import trades


@pytest.mark.django_db
def test_a_feed_publishes_what_is_wanted_of_a_recording_of_trades(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand, "LOOK", 0.0)
    path, wire = excerpt(data_dir, SH_TRADES, tmp_path, 400), Wire()
    source = ReplaySource(files=[path], speed=0.0)
    feed = Feed(terminal="t", source=source, publisher=publisher(wire, MemoryLease()), config=Config(source_timeout=5))
    feed.start()
    try:
        eventually(lambda: feed.poll() == "ok" and feed.epoch is not None, what="that it publishes")
        Announcer().announce({DataType.TRADE: frozenset({"605580.SH", "600536.SH"})})
        eventually(finished(source), feed.poll)

        def told() -> list[str]:
            return [symbol for batch in wire.sent for symbol in batch.events.get(DataType.TRADE, ([], []))[0]]

        expected = sum(len(trades(path)[symbol]) for symbol in ("605580.SH", "600536.SH"))
        eventually(lambda: len(told()) == expected)
        assert set(told()) == {"605580.SH", "600536.SH"}
        assert [batch.symbols for batch in wire.sent if batch.symbols] == []
    finally:
        feed.stop()

"""A recorded Level-2 session goes through a feed and is recorded as it passes."""

from __future__ import annotations

from pathlib import Path

from argus.config import Config
from marketdata.demand import Announcer
from marketdata.feed import Feed
from marketdata.lease import MemoryLease
from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.recorder import Recorder
from marketdata.sources.replay.source import ReplaySource
from marketdata.types import DataType
from tests.feeds.wire import Wire, publisher
from tests.sources.conformance import eventually
from tests.sources.replay.test_source import finished


def told(wire: Wire) -> list[tuple[str, bytes]]:
    """Every trade that was published, by its symbol."""
    tables = [batch.events.get(DataType.TRADE, ([], [])) for batch in wire.sent]
    return [pair for symbols, fragments in tables for pair in zip(symbols, fragments, strict=True)]


def record_session(files: list[Path], archive: RecordingArchive, symbols: frozenset[str], count: int) -> Wire:
    """Play files whose trades of some symbols somebody takes, until so many of them were published and all is recorded. What the
    channel layer took. ``marketdata.demand.LOOK`` has to be 0."""
    wire, recorder = Wire(), Recorder(archive, feed="main", days=30)
    source = ReplaySource(files=files, speed=0.0)
    one = publisher(wire, MemoryLease(), record=recorder.take)
    one.clock = lambda: source.status().time
    feed = Feed(terminal="t", source=source, publisher=one, config=Config(source_timeout=5), recorder=recorder)
    feed.start()
    try:
        eventually(lambda: feed.poll() == "ok" and feed.epoch is not None, what="that it publishes")
        Announcer().announce({DataType.TRADE: symbols})
        eventually(finished(source), feed.poll)
        eventually(lambda: len(told(wire)) >= count, what="that all trades are published")
    finally:
        feed.stop()
    return wire

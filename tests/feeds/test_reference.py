"""What a terminal says of its instruments and sectors reaches the database, and what is reconciled follows it."""

from __future__ import annotations

import time

import pytest

from argus.config import Config
from marketdata import reference
from marketdata.feeds import Feed
from marketdata.lease import MemoryLease
from marketdata.models import Instrument as Row
from marketdata.models import Sector
from marketdata.publisher import Publisher
from marketdata.types import Instrument, Parsed
from tests.feeds.scripted import ScriptedSource, quote

pytestmark = pytest.mark.django_db


@pytest.fixture
def source() -> ScriptedSource:
    source = ScriptedSource()
    source.answer = Parsed((quote("600000.SH"), quote("000001.SZ")))
    source.instruments = [Instrument(symbol="600000.SH", name="浦发银行", source="scripted")]
    source.sectors = {"few": ("600000.SH",)}
    return source


@pytest.fixture
def feed(source: ScriptedSource) -> Feed:
    publisher = Publisher(
        feed="main", source=source.name, owner="t", lease=MemoryLease(), send=lambda *_: None, save_snapshot=lambda *_: None
    )
    return Feed(terminal="t", source=source, publisher=publisher, config=Config())


def test_instruments_sectors_and_names_are_stored(feed: Feed) -> None:
    assert reference.refresh(feed) == 2
    assert dict(Row.objects.values_list("symbol", "name")) == {"600000.SH": "浦发银行", "000001.SZ": ""}
    assert Sector.objects.get(name="few").symbols == ["600000.SH"]


def test_a_new_listing_is_reconciled_after_the_next_refresh_and_names_stay(feed: Feed, source: ScriptedSource) -> None:
    reference.refresh(feed)
    source.answer = Parsed((quote("600000.SH"), quote("301234.SZ")))
    source.instruments = []
    reference.refresh(feed)
    assert feed.universe == ("600000.SH", "301234.SZ")
    assert dict(Row.objects.values_list("symbol", "quoted")) == {"600000.SH": True, "000001.SZ": False, "301234.SZ": True}
    assert Row.objects.get(symbol="600000.SH").name == "浦发银行"


def test_only_the_active_publisher_refreshes(feed: Feed) -> None:
    assert not reference.due(feed)
    feed.publisher.publish([], canary=1)
    assert reference.due(feed)
    feed.reference_at = time.monotonic()
    assert not reference.due(feed)

"""Bars on their way from a feed into messages: what goes out, what stays owed, and who is asked for the lease."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from argus.config import Config
from marketdata import klines
from marketdata.batch import Batch, decode, encode
from marketdata.demand import Announcer
from marketdata.feed import Feed
from marketdata.journal import MemoryJournal
from marketdata.klines import KLINE_OF, among, group, then
from marketdata.lease import TTL, MemoryLease
from marketdata.live_bars import LiveBars
from marketdata.publish import PublishError
from marketdata.publisher import Publisher
from marketdata.types import DataType, Parsed, Period
from tests.builder.quotes import Tape, at
from tests.feeds.scripted import ScriptedSource
from tests.feeds.test_feed import Layer
from tests.feeds.wire import Unavailable, Wire, publisher
from tests.hub.market import EPOCH, bar

M1, M5 = Period.M1, Period.M5


def said(batch: Batch, period: Period = M1) -> dict[str, list[tuple[int, bool, int, int]]]:
    """Symbol -> minute, closed, volume and seq of each of its bars, the closed ones first."""
    found: dict[str, list[tuple[int, bool, int, int]]] = {}
    for symbols, fragments in (batch.events.get(KLINE_OF[period], ([], [])), batch.bars.get(period, ([], []))):
        for symbol, fragment in zip(symbols, fragments, strict=True):
            found.setdefault(symbol, []).append(_stamp(json.loads(fragment)))
    return found


def _stamp(piece: dict[str, Any]) -> tuple[int, bool, int, int]:
    return (piece["time"] - EPOCH) // 60_000, piece["closed"], piece["volume"], piece["seq"]


def publishing(wire: Wire) -> Publisher:
    """A publisher whose term has begun with its first message."""
    it = publisher(wire, MemoryLease(), hears=False)
    it.hold()
    wire.sent.clear()
    return it


def test_a_message_has_closed_bars_as_events_in_order_and_one_forming_bar_of_a_symbol() -> None:
    wire = Wire()
    bars = [bar("A", n, closed=True) for n in range(1, 40)] + [bar("A", 40, volume=5), bar("B", 40, period=M5)]
    publishing(wire).publish([{"A": b'{"v":1}'}], canary=1, bars=group(bars))
    (batch,) = wire.sent
    assert said(batch) == {"A": [(n, True, 100, 2) for n in range(1, 40)] + [(40, False, 5, 2)]}
    assert said(batch, M5) == {"B": [(40, False, 100, 2)]}
    assert [len(symbols) for symbols, _ in batch.bars.values()] == [1, 1]


def test_a_bar_that_has_closed_forms_no_more() -> None:
    both = group([bar("A", 1), bar("B", 3), bar("A", 1, closed=True), bar("B", 2, closed=True)])
    assert both.forming == {M1: {"B": group([bar("B", 3)]).forming[M1]["B"]}}
    assert then(group([bar("A", 1), bar("B", 3)]).forming, both) == {M1: {"B": both.forming[M1]["B"]}}
    assert then(group([bar("A", 3)]).forming, group([bar("A", 2, closed=True)])) == group([bar("A", 3)]).forming


def test_bars_go_out_with_the_last_of_several_messages() -> None:
    wire = Wire()
    publishing(wire).publish([{"A": b'{"v":1}'}, {"A": b'{"v":2}'}], canary=1, bars=group([bar("A", 1)]))
    assert [said(batch) for batch in wire.sent] == [{}, {"A": [(1, False, 100, 3)]}]


def test_of_bars_that_neither_journal_nor_layer_took_all_closed_and_the_newest_forming_stay_owed() -> None:
    wire, journal = Wire(), Unavailable()
    it = publisher(wire, MemoryLease(), hears=False, journal=journal)
    it.hold()
    wire.broken = True
    for bars in (
        [bar("A", 1), bar("B", 1)],
        [bar("A", 1, closed=True)],
        [bar("A", 2, volume=3)],
        [bar("A", 2, closed=True), bar("A", 3, volume=4)],
    ):
        with pytest.raises(PublishError):
            it.publish([{"A": b'{"v":1}'}], canary=None, bars=group(bars))
    wire.broken = False
    count = len(wire.sent)
    it.publish([], canary=2)
    *_, closed, forming = wire.sent
    assert said(closed) == {"A": [(1, True, 100, closed.seq), (2, True, 100, closed.seq)]}
    assert said(forming) == {"A": [(3, False, 4, forming.seq)], "B": [(1, False, 100, forming.seq)]}
    assert [batch.symbols for batch in wire.sent[count:-2]] == [["A"]], "the quotes come first"
    it.publish([], canary=3)
    assert (wire.sent[-1].bars, wire.sent[-1].events) == ({}, {})


def test_a_closed_bar_that_the_journal_took_is_published_though_the_layer_refused_it() -> None:
    wire, journal = Wire(), MemoryJournal()
    it = publisher(wire, MemoryLease(), hears=False, journal=journal)
    it.hold()
    wire.broken = True
    with pytest.raises(PublishError):
        it.publish([], canary=None, bars=group([bar("A", 1, closed=True)]))
    wire.broken = False
    it.publish([], canary=2)
    assert wire.sent[-1].events == {}
    assert it.epoch is not None
    *_, entry, _ = journal.read("main", (it.epoch, 0), (it.epoch, it.seq)).entries
    assert entry.seq == it.seq - 1
    assert entry.events.keys() == {DataType.KLINE_1M}


def test_forming_bars_that_nobody_wants_any_more_are_not_owed() -> None:
    both = group([bar("A", 1), bar("B", 1), bar("A", 1, period=M5)]).forming
    assert {period: set(symbols) for period, symbols in among(both, {DataType.KLINE_1M: frozenset({"B"})}).items()} == {M1: {"B"}}
    assert among(both, {DataType.KLINE_5M: None}) == {M5: both[M5]}


def test_bars_wait_out_a_lapse_of_the_lease_and_are_dropped_where_another_took_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, lease = Wire(), MemoryLease()
    first, second = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    first.publish([], None, group([bar("A", 1)]))
    first.hold()
    assert all(batch.bars == {} for batch in wire.sent), "whoever begins a term says anew how its bars stand"
    first.publish([], None, group([bar("A", 1)]))
    assert said(wire.sent[-1]) == {"A": [(1, False, 100, first.seq)]}
    later = time.monotonic() + 1.1 * TTL
    monkeypatch.setattr("time.monotonic", lambda: later)
    count = len(wire.sent)
    first.publish([], None, group([bar("A", 2)]))
    assert len(wire.sent) == count
    first.hold()
    first.publish([], canary=1)
    assert said(wire.sent[-1]) == {"A": [(2, False, 100, first.seq)]}
    later += 1.1 * TTL
    first.publish([], None, group([bar("A", 3)]))
    second.hold()
    first.hold()
    second.resign()
    first.hold()
    first.publish([], canary=3)
    assert wire.sent[-1].bars == {}


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_what_is_published_is_counted_by_period_and_state() -> None:
    names = {"feed": "main", "period": "1m"}

    def totals() -> list[float]:
        return [counted("argus_bars_published_total", state=state, **names) for state in ("closed", "forming")]

    wire, before = Wire(), totals()
    it = publishing(wire)
    wire.broken = True
    with pytest.raises(PublishError):
        it.publish([], canary=1, bars=group([bar("A", 1, closed=True), bar("A", 2)]))
    assert totals() == [before[0] + 1, before[1]], "the journal took it"
    wire.broken = False
    it.publish([], canary=1, bars=group([bar("A", 2, closed=True), bar("A", 3), bar("B", 3)]))
    assert totals() == [before[0] + 2, before[1] + 2]


@pytest.mark.django_db
def test_a_bar_that_had_closed_before_it_was_wanted_is_told_by_whoever_publishes_and_at_no_takeover(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("marketdata.demand.LOOK", 0.0)
    tape, active, standby = Tape(), LiveBars("a"), LiveBars("b")
    quotes = [tape.quote(text, 10.0, 100) for text in ("09:25:00", "09:30:30", "09:31:30")]
    for bars in (active, standby):
        assert bars.take(quotes, None) == klines.Group()
    Announcer().announce({DataType.KLINE_1M: frozenset({"600000.SH"})})
    told, withheld = active.take([], None), standby.take([], None, anew=False)
    assert [json.loads(event.body)["time"] for event in told.closed] == [at("09:31")]
    assert told.forming.keys() == {M1}
    assert withheld == klines.Group()
    assert standby.forming() == klines.Group(told.forming)
    later = tape.quote("09:32:30", 10.0, 100)
    first, second = (bars.take([later], None, anew=False).closed for bars in (active, standby))
    assert first == second
    assert [json.loads(event.body)["time"] for event in first] == [at("09:32")]


@pytest.fixture
def layer() -> Layer:
    return Layer()


@pytest.fixture
def feed(layer: Layer, request: pytest.FixtureRequest) -> Iterator[Feed]:
    """A feed whose terminal has the test's name."""
    name = request.node.name
    lease, nothing = MemoryLease(), lambda feed, blob: None
    made = Publisher(feed="main", source="scripted", owner=name, lease=lease, send=layer.send, save_snapshot=nothing)
    feed = Feed(terminal=name, source=ScriptedSource(), publisher=made, config=Config(source_timeout=5, stale_after=60))
    feed.start()
    yield feed
    feed.stop()


def test_quotes_that_bars_cannot_take_in_are_counted(feed: Feed) -> None:
    tape = Tape()
    quotes = [tape.quote(text, 10.0, 100) for text in ("09:25:00", "09:30:30", "09:31:30")]
    tape.volume -= 50
    strange = Tape("rb2210.SF").quote("21:00:00", 4000.0, 1)
    feed.source.answer = Parsed((*quotes, tape.quote("09:31:40", 10.1), strange))  # type: ignore[attr-defined]
    assert feed.poll() == "ok"
    assert [
        counted("argus_bar_quotes_total", terminal=feed.terminal, reason=reason)
        for reason in ("corrections", "unknown_hours", "late")
    ] == [1, 1, 0]


@pytest.mark.django_db
def test_what_clients_want_is_shown(feed: Feed) -> None:
    Announcer().announce({DataType.KLINE_1M: frozenset({"600000.SH", "600001.SH"}), DataType.KLINE_5M: None})
    feed.source.answer = Parsed((Tape().quote("09:25:00", 10.0, 1),))  # type: ignore[attr-defined]
    assert feed.poll() == "ok"
    deadline = time.monotonic() + 10
    while counted("argus_bars_wanted", terminal=feed.terminal, period="1m") != 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert counted("argus_bars_wanted", terminal=feed.terminal, period="5m") == 1, "all that there is"


def test_quotes_go_out_whatever_becomes_of_their_bars(feed: Feed, layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(quotes: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(feed.bars.builder, "take", broken)
    feed.source.answer = Parsed((Tape().quote("09:25:00", 10.0, 1),))  # type: ignore[attr-defined]
    assert feed.poll() == "ok"
    assert layer.symbols() == ["600000.SH"]
    assert counted("argus_bar_quotes_total", terminal=feed.terminal, reason="failed") == 1


def test_a_message_without_bars_a_term_or_events_is_as_it_was_but_for_three_bytes() -> None:
    batch = Batch("main", 1, 1, 1, "test", None, None, False, ["A"], [b"{}"])
    assert decode(encode(batch)) == batch
    assert encode(batch).endswith(b"\x80\xc0\x80")


def test_bars_and_events_whose_lists_do_not_fit_are_refused() -> None:
    batch = Batch("main", 1, 1, 1, "test", None, None, False, [], [], {M1: (["A", "B"], [b"{}"])})
    with pytest.raises(ValueError, match="bars of 2 symbols"):
        decode(encode(batch))
    batch = Batch("main", 1, 1, 1, "test", None, None, False, [], [], events={DataType.TRADE: (["A"], [])})
    with pytest.raises(ValueError, match="events of 1 symbols"):
        decode(encode(batch))

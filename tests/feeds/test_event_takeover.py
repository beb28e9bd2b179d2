"""Events through crashes of publishers, refusals of the layer and of the journal: each once, in order, none lost."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketdata import events, klines
from marketdata.batch import Batch, Term, decode
from marketdata.events import Event
from marketdata.ingest import Group, Ingest
from marketdata.journal import Entry, Journal, MemoryJournal, RedisJournal
from marketdata.lease import MemoryLease
from marketdata.ledger import Position
from marketdata.publish import PublishError
from marketdata.publisher import Publisher
from marketdata.types import DataType, Quote, Trade, TradingStatus
from tests.feeds.wire import Wire, publisher
from tests.hub.market import bar

SYMBOLS = ("A", "B")
FATES = ("well",) * 8 + ("refused", "lossy", "killed before", "killed after")
STATUSES = (TradingStatus.CONTINUOUS, TradingStatus.BREAK, TradingStatus.HALTED)


class Killed(Exception):
    """The process is gone: nothing of it happens any more."""


class Fates:
    """What becomes of the next message at the journal and at the layer; drawn while the fates are at play."""

    def __init__(self, data: st.DataObject, killable: int) -> None:
        self._data = data
        self.killable = killable
        self.at_play = True

    def draw(self) -> str:
        if not self.at_play:
            return "well"
        fate = self._data.draw(st.sampled_from(FATES if self.killable else FATES[:-2]))
        if fate.startswith("killed"):
            self.killable -= 1
        return fate


class FatefulJournal(MemoryJournal):
    """``refused``: it takes nothing and says so; ``lossy``: it takes the entry and says that it did not."""

    def __init__(self, fates: Fates) -> None:
        super().__init__()
        self.fates = fates
        self.lost = False
        """Whether some entry was not taken."""

    def append(self, feed: str, entry: Entry) -> bool:
        fate = self.fates.draw()
        if fate == "killed before":
            raise Killed
        if fate == "refused":
            self.lost = True
            return False
        assert super().append(feed, entry)
        if fate == "killed after":
            raise Killed
        return fate == "well"


class FatefulWire(Wire):
    """``refused`` and ``lossy`` as of the journal."""

    def __init__(self, fates: Fates) -> None:
        super().__init__()
        self.fates = fates

    def send(self, feed: str, blob: bytes) -> None:
        fate = self.fates.draw()
        if fate == "killed before":
            raise Killed
        if fate == "refused":
            raise PublishError("cut")
        super().send(feed, blob)
        if fate == "killed after":
            raise Killed
        if fate == "lossy":
            raise PublishError("no answer")


class Fact(NamedTuple):
    """What the exchange says, as every terminal sees it: one quote, trade or closed bar."""

    group: Group
    event: Event | None
    tells: Event | None
    """The event that is to come of it."""


@st.composite
def facts(draw: st.DrawFn) -> list[Fact]:
    said: list[Fact] = []
    standing: dict[str, TradingStatus] = {}
    for n, symbol in enumerate(draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=25)), 1):
        kind = draw(st.sampled_from(("quote", "trade", "bar")))
        if kind == "trade":
            trade = Trade(symbol=symbol, time=1_000_000 + n, index=n, price=10.0, volume=n, source="test")
            event = Event(DataType.TRADE, symbol, msgspec.json.encode(trade))
            said.append(Fact({}, event, event))
        elif kind == "bar":
            (event,) = klines.group([bar(symbol, n, closed=True)]).closed
            said.append(Fact({}, event, event))
        else:
            status = draw(st.sampled_from(STATUSES))
            quote = Quote(symbol=symbol, time=n, price=10.0, volume=n, status=status, source="test")
            told = None
            if standing.get(symbol) is not status:
                standing[symbol] = status
                body = b'{"type":"status","symbol":"%b","time":%d,"status":"%b",' % (symbol.encode(), n, status.encode())
                body += b'"limit":null,"limit_up":null,"limit_down":null,"source":"test"}'
                told = Event(DataType.STATUS, symbol, body)
            said.append(Fact(Ingest().take([quote]).groups[0], None, told))
    return said


class Terminal:
    """One terminal's publisher and how far it has come in what the exchange says."""

    def __init__(self, name: str, said: list[Fact], wire: Wire, lease: MemoryLease, journal: MemoryJournal) -> None:
        self.name = name
        self.alive = True
        self.publisher: Publisher = publisher(wire, lease, name, journal=journal)
        self._said = said
        self._lease = lease
        self._at = 0

    @property
    def behind(self) -> int:
        return len(self._said) - self._at

    def see(self, count: int) -> None:
        """See so many facts more, at once."""
        seen = self._said[self._at : self._at + count]
        self._at += len(seen)
        closed = tuple(fact.event for fact in seen if fact.event is not None and fact.event.data_type is not DataType.TRADE)
        trades = [fact.event for fact in seen if fact.event is not None and fact.event.data_type is DataType.TRADE]
        groups = [fact.group for fact in seen if fact.group]
        self._try(lambda: self.publisher.publish(groups, None, klines.Group(closed=closed), trades))

    def hold(self) -> None:
        """Listen, and take the lease where it is free."""
        self._try(lambda: self.publisher.hold(time.monotonic() - 3600))

    def _try(self, do) -> None:
        try:
            do()
        except PublishError:
            pass
        except Killed:
            self.alive = False
            self._lease.release(self.name)


def received(wire: Wire, journal: MemoryJournal) -> dict[Position, list[Event]]:
    """What whoever hears the layer and reads the journal knows of each message's events."""
    found: dict[Position, list[Event]] = {}
    for entry in journal.read("main", (0, 0), (1 << 62, 0)).entries:
        found[entry.epoch, entry.seq] = list(events.of(entry.events))
    for batch in wire.sent:
        told = list(events.of(batch.events))
        assert found.setdefault((batch.epoch, batch.seq), told) == told
    return dict(sorted(found.items()))


def by_kind(told: list[Event]) -> dict[tuple[DataType, str], list[bytes]]:
    result = defaultdict(list)
    for data_type, symbol, body in told:
        result[data_type, symbol].append(body)
    return result


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_every_event_comes_once_and_in_order_whenever_publishers_are_killed(data: st.DataObject) -> None:
    said = data.draw(facts())
    fates = Fates(data, killable=2)
    wire, journal, lease = FatefulWire(fates), FatefulJournal(fates), MemoryLease()
    terminals = [Terminal(name, said, wire, lease, journal) for name in "abc"]
    fates.at_play = False
    terminals[0].hold()
    fates.at_play = True
    for _ in range(data.draw(st.integers(1, 25))):
        one = data.draw(st.sampled_from([one for one in terminals if one.alive]))
        if data.draw(st.booleans()):
            one.see(data.draw(st.integers(1, 5)))
        else:
            one.hold()
    fates.at_play = False
    living = [one for one in terminals if one.alive]
    for _ in range(3):
        for one in living:
            one.see(one.behind)
            one.hold()
    known = received(wire, journal)
    told = [event for events_ in known.values() for event in events_]
    assert by_kind(told) == by_kind([fact.tells for fact in said if fact.tells is not None])
    assert sum(one.publisher.active for one in living) == 1
    assert not any(one.publisher.events.pending for one in living if one.publisher.active)
    _readings_are_true(data, known, journal, wire.sent)


def _readings_are_true(
    data: st.DataObject, known: dict[Position, list[Event]], journal: FatefulJournal, sent: list[Batch]
) -> None:
    """Where the journal says that nothing is missing nothing is, and where it has everything it says so."""
    positions = list(known)
    first = next(i for i, one in enumerate(positions) if i and any(b.term and (b.epoch, b.seq) == one for b in sent))
    after, until = sorted(data.draw(st.sampled_from(positions[first:])) for _ in range(2))
    reading = journal.read("main", after, until)
    expected = {position: told for position, told in known.items() if after < position <= until}
    if reading.complete:
        assert {(e.epoch, e.seq): list(events.of(e.events)) for e in reading.entries} == expected
    elif not journal.lost:
        terms = {entry.epoch: entry.term for entry in reading.entries if entry.term is not None}
        begun = {entry.epoch for entry in reading.entries} - {after[0]}
        told = begun <= terms.keys() and all(term.recovered for term in terms.values())
        assert not told, "no publisher said that it missed something"


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_a_message_that_only_the_journal_has_is_where_the_next_term_begins(kind: str, redis_url: str) -> None:
    wire, lease = Wire(), MemoryLease()
    journal: Journal = MemoryJournal() if kind == "memory" else RedisJournal(redis_url)
    active, standby = (publisher(wire, lease, name, journal=journal) for name in "ab")
    active.hold(time.monotonic() - 3600)
    (event,) = klines.group([bar("A", 1, closed=True)]).closed
    for it in (active, standby):
        it.publish([], 1, klines.Group(closed=(event,)))
    standby.listen()
    wire.broken = True
    (last,) = klines.group([bar("A", 2, closed=True)]).closed
    for it in (standby, active):
        try:
            it.publish([], None, klines.Group(closed=(last,)))
        except PublishError:
            assert it is active
    wire.broken = False
    assert active.epoch is not None
    end = (active.epoch, active.seq)
    lease.release("a")
    standby.hold(time.monotonic() - 3600)
    assert standby.epoch is not None
    assert wire.sent[-1].term == Term(*end, recovered=True, heard=(end[0], end[1] - 1))
    assert [batch.events for batch in wire.sent if batch.epoch == standby.epoch] == [{}, {}]
    reading = journal.read("main", (end[0], end[1] - 1), (standby.epoch, standby.seq))
    assert reading.complete
    assert [event for entry in reading.entries for event in events.of(entry.events)] == [last]


def test_a_publisher_that_has_been_fenced_off_leaves_nothing_in_the_journal() -> None:
    wire, journal = Wire(), MemoryJournal()
    zombie, successor = (publisher(wire, MemoryLease(), name, journal=journal) for name in "ab")
    zombie.hold()
    successor.hold()
    (event,) = klines.group([bar("A", 1, closed=True)]).closed
    zombie.publish([], None, klines.Group(closed=(event,)))
    assert all(entry.epoch == successor.epoch for entry in journal.read("main", (0, 0), (1 << 62, 0)).entries if entry.events)
    assert decode(wire.snapshot or b"").epoch >= (zombie.epoch or 0)

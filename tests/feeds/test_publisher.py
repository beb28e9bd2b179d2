"""Numbering, owing, fencing, takeovers and snapshots of a publisher."""

from __future__ import annotations

import time

import pytest

from marketdata.batch import Term
from marketdata.lease import MemoryLease
from marketdata.publish import PublishError
from marketdata.publisher import CATCH_UP
from tests.feeds.wire import Wire, group, publisher


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def lease() -> MemoryLease:
    return MemoryLease()


def long_ago() -> float:
    """Since when a feed is unbroken that always was."""
    return time.monotonic() - 3600


def test_messages_count_up_within_an_epoch_and_every_quote_carries_its_message(wire: Wire, lease: MemoryLease) -> None:
    it = publisher(wire, lease)
    it.hold()
    start = it.seq
    it.publish([group(A=1, B=1), group(A=2)], canary=5)
    found = [(batch.seq - start, batch.symbols, batch.canary) for batch in wire.sent[-2:]]
    assert found == [(1, ["A", "B"], None), (2, ["A"], 5)]
    assert [batch.seq for batch in wire.sent] == list(range(1, start + 3))
    assert len({batch.epoch for batch in wire.sent}) == 1
    assert wire.sent[-1].fragments == [b'{"symbol":"A","time":1,"volume":2,"seq":%d}' % it.seq]


def test_a_canary_travels_without_quotes(wire: Wire, lease: MemoryLease) -> None:
    it = publisher(wire, lease)
    it.hold()
    it.publish([], canary=7)
    assert (wire.sent[-1].symbols, wire.sent[-1].canary, wire.sent[-1].fragments) == ([], 7, [])


def test_what_the_layer_refused_goes_out_in_order_before_the_next(wire: Wire, lease: MemoryLease) -> None:
    it = publisher(wire, lease)
    it.hold()
    count = len(wire.sent)
    wire.broken = True
    with pytest.raises(PublishError):
        it.publish([group(A=1, B=1), group(A=2)], canary=None)
    assert it.ledger.pending == 3
    wire.broken = False
    it.publish([group(C=1)], canary=None)
    assert it.ledger.pending == 0
    later = wire.sent[count:]
    assert later[0].seq > wire.sent[count - 1].seq + 1, "a refused message uses its number up, so that receivers see a gap"
    assert [batch.symbols for batch in later if batch.symbols] == [["A", "B"], ["A", "C"]]
    assert all(batch.term is None for batch in later), "it is the same term"


def test_what_went_out_although_the_layer_said_no_is_not_sent_twice(wire: Wire, lease: MemoryLease) -> None:
    it = publisher(wire, lease)
    it.hold()
    count = len(wire.sent)
    wire.lossy = True
    with pytest.raises(PublishError):
        it.publish([group(A=1), group(A=2)], canary=None)
    wire.lossy = False
    it.hold()
    assert [next(iter(quotes.values()))[:-1].rpartition(b',"seq"')[0] for _, quotes in wire.bodies(count)] == [
        body[:-1] for one in (group(A=1), group(A=2)) for body in one.values()
    ]


def test_the_snapshot_is_the_newest_of_everything_published(wire: Wire, lease: MemoryLease) -> None:
    it = publisher(wire, lease)
    it.hold()
    it.publish([group(A=1, B=1)], canary=None)
    it.publish([group(A=2)], canary=None)
    it.resign()
    last = wire.snapshots[-1]
    assert (last.snapshot, last.seq) == (True, it.seq)
    (_, first), (_, second) = wire.bodies()
    assert dict(zip(last.symbols, last.fragments, strict=True)) == first | second


def test_the_first_term_says_that_nobody_was_before_it(wire: Wire, lease: MemoryLease) -> None:
    it = publisher(wire, lease)
    it.publish([group(A=1)], canary=None)
    assert wire.sent == [], "nothing goes out without the lease"
    it.hold(long_ago())
    assert wire.bodies()[0][1].keys() == {"A"}
    assert [batch.term for batch in wire.sent if batch.term] == [Term(0, 0, False, "first_term")]
    assert wire.sent[-1].term is not None
    it.hold(long_ago())
    assert sum(batch.term is not None for batch in wire.sent) == 1


def test_a_standby_publishes_what_its_predecessor_has_not_and_nothing_else(wire: Wire, lease: MemoryLease) -> None:
    active, standby = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    active.hold(long_ago())
    for it in (active, standby):
        it.publish([group(1, A=1, B=1, C=1), group(2, A=2)], canary=1)
    standby.hold(long_ago())
    assert not standby.active
    assert standby.ledger.pending == 0
    standby.publish([group(3, A=3, B=3), group(4, A=4)], canary=2)
    last = wire.sent[-1]
    active.resign()
    count = len(wire.sent)
    standby.hold(long_ago())
    assert standby.active
    taken = wire.sent[count:]
    assert {batch.epoch for batch in taken} == {standby.epoch}
    assert [batch.seq for batch in taken] == [1, 2, 3, 4]
    assert [batch.symbols for batch in taken] == [[], ["A", "B"], ["A"], ["C"]]
    assert [batch.term for batch in taken] == [None] * 3 + [Term(last.epoch, last.seq, True)]
    active.publish([group(9, A=9)], canary=None)
    active.hold()
    assert not active.active
    assert len(wire.sent) == count + 4


def test_a_standby_that_is_behind_says_nothing_again(wire: Wire, lease: MemoryLease) -> None:
    active, standby = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    active.hold()
    active.publish([group(1, A=1), group(2, A=2)], canary=1)
    active.resign()
    standby.hold(long_ago())
    count = len(wire.sent)
    standby.publish([group(1, A=1), group(2, A=2)], canary=None)
    assert len(wire.sent) == count
    standby.publish([group(3, A=3)], canary=None)
    assert [quotes.keys() for _, quotes in wire.bodies(count)] == [{"A"}]


def test_a_terminal_whose_clock_is_behind_is_believed_after_a_while(wire: Wire, lease: MemoryLease, monkeypatch) -> None:
    active, standby = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    active.hold()
    active.publish([group(1000, A=1000)], canary=1)
    active.resign()
    standby.hold()
    standby.publish([group(1, A=1)], canary=None)
    count = len(wire.sent)
    later = time.monotonic() + 1.1 * CATCH_UP
    monkeypatch.setattr("time.monotonic", lambda: later)
    standby.hold()
    standby.publish([group(2, A=2)], canary=None)
    assert [quotes.keys() for _, quotes in wire.bodies(count)] == [{"A"}]


@pytest.mark.parametrize(
    ("reason", "unbroken"), [("feed_broken", None), ("feed_broken", "lately"), ("not_in_step", "long"), ("overflow", "long")]
)
def test_a_takeover_says_why_something_may_be_missing(wire: Wire, lease: MemoryLease, reason: str, unbroken: str | None) -> None:
    active, standby = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    active.hold()
    active.publish([group(1, A=1)], canary=1)
    if reason == "not_in_step":
        standby._heard.join(True)
    if reason == "overflow":
        standby.ledger._most = 1
        standby.publish([group(n, A=n) for n in range(2, 6)], canary=None)
    active.resign()
    standby.hold({None: None, "lately": time.monotonic() - 1, "long": long_ago()}[unbroken])
    assert wire.sent[-1].term == Term(wire.sent[0].epoch, 3, False, reason)


def test_whoever_could_recover_has_heard_all_of_a_publisher_and_lost_nothing_lately(wire: Wire, lease: MemoryLease) -> None:
    active, standby = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    standby.listen()
    assert (standby.first, standby.could_recover(long_ago())) == (True, False)
    active.hold()
    active.publish([group(1, A=1)], canary=1)
    standby._looked_at = 0.0
    standby.listen()
    assert not standby.first
    assert [standby.could_recover(since) for since in (None, time.monotonic(), long_ago())] == [False, False, True]


def test_a_takeover_that_does_not_hear_its_own_barrier_says_so(wire: Wire, lease: MemoryLease, monkeypatch) -> None:
    monkeypatch.setattr("marketdata.publisher.BARRIER", 0.01)
    active, standby = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    active.hold()
    active.publish([group(1, A=1)], canary=1)
    active.resign()
    standby.listen()
    wire.heard.clear()
    standby.hold(long_ago())
    assert wire.sent[-1].term is not None
    assert wire.sent[-1].term.reason == "barrier_lost"


def test_a_standby_that_missed_messages_is_in_step_again_once_a_snapshot_covers_them(wire: Wire, lease: MemoryLease) -> None:
    active, standby = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    active.hold()
    missed = wire.heard.pop()
    active.publish([group(1, A=1)], canary=1)
    wire.heard.append(missed)
    active.publish([group(2, B=2)], canary=1)
    wire.snapshot = None
    standby.listen()
    assert not standby.ledger.in_step
    active.resign()
    standby._looked_at = 0.0
    standby.listen()
    assert standby.ledger.in_step
    assert standby.ledger.newest == active.ledger.newest


def test_a_takeover_interrupted_by_the_layer_is_finished_later(wire: Wire, lease: MemoryLease) -> None:
    active, standby = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    active.hold()
    for it in (active, standby):
        it.publish([group(1, A=1)], canary=1)
    standby.publish([group(2, A=2)], canary=None)
    last = (wire.sent[-1].epoch, wire.sent[-1].seq)
    active.resign()
    standby.listen()
    wire.broken = True
    with pytest.raises(PublishError):
        standby.hold(long_ago())
    with pytest.raises(PublishError):
        standby.publish([group(3, A=3)], canary=None)
    wire.broken = False
    count = len(wire.sent)
    standby.hold(long_ago())
    assert [quotes["A"].count(b'"time":%d' % n) for (_, quotes), n in zip(wire.bodies(count), (2, 3), strict=True)] == [1, 1]
    assert wire.sent[-1].term == Term(*last, True)


def test_a_term_goes_on_after_its_predecessor_although_its_own_barrier_was_heard_before(wire: Wire, lease: MemoryLease) -> None:
    active, standby = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    active.hold()
    active.publish([group(1, A=1)], canary=1)
    last = (wire.sent[-1].epoch, wire.sent[-1].seq)
    standby.listen()
    active.resign()
    wire.lossy = True
    with pytest.raises(PublishError):
        standby.hold(long_ago())
    wire.lossy = False
    standby.hold(long_ago())
    assert wire.sent[-1].term == Term(*last, True)


def test_no_seq_of_an_old_term_stays_in_the_snapshot(wire: Wire, lease: MemoryLease) -> None:
    it = publisher(wire, lease)
    it.hold()
    for value in range(1, 10):
        it.publish([group(value, A=value, B=1)], canary=None)
    it.resign()
    it.hold()
    it.publish([group(10, A=10)], canary=None)
    it.resign()
    assert wire.snapshots[-1].epoch > wire.sent[0].epoch
    later = {symbol: body for batch in wire.sent for symbol, body in zip(batch.symbols, batch.fragments, strict=True)}
    assert dict(zip(wire.snapshots[-1].symbols, wire.snapshots[-1].fragments, strict=True)) == later
    assert max(int(body.rpartition(b":")[2][:-1]) for body in later.values()) == it.seq


def test_who_was_held_up_past_its_lease_goes_on_under_its_epoch_if_nobody_came_between(
    wire: Wire, lease: MemoryLease, monkeypatch
) -> None:
    it = publisher(wire, lease)
    it.hold()
    epoch, seq = it.epoch, it.seq
    later = time.monotonic() + 1.1 * lease.ttl
    monkeypatch.setattr("time.monotonic", lambda: later)
    assert not it.active
    it.publish([group(A=1)], canary=1)
    assert wire.bodies() == []
    it.hold()
    assert (it.epoch, it.terms) == (epoch, 1)
    ((number, _),) = wire.bodies()
    assert number > seq


def test_a_publisher_that_hears_a_larger_epoch_is_silent_at_once(wire: Wire) -> None:
    zombie, successor = publisher(wire, MemoryLease(), "a"), publisher(wire, MemoryLease(), "b")
    zombie.hold()
    successor.hold()
    assert successor.epoch is not None
    assert zombie.epoch is not None
    assert successor.epoch > zombie.epoch
    zombie.listen()
    assert not zombie.active
    count, snapshots = len(wire.sent), len(wire.snapshots)
    zombie.publish([group(A=1)], canary=1)
    assert (len(wire.sent), len(wire.snapshots)) == (count, snapshots)
    assert zombie.ledger.pending == 1


def test_what_another_source_left_behind_is_not_said_again(wire: Wire, lease: MemoryLease) -> None:
    before = publisher(wire, lease, "a")
    before._source = "another"
    before.hold()
    before.publish([group(A=1)], canary=1)
    before.resign()
    it = publisher(wire, lease, "b")
    count = len(wire.sent)
    it.hold(long_ago())
    assert wire.bodies(count) == []
    assert wire.sent[-1].term is not None
    assert wire.sent[-1].term.epoch == wire.sent[0].epoch

"""What a takeover has to publish: held against a plain list of what the exchange said, whatever the two terminals' skew."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata.batch import Batch, Term
from marketdata.ingest import Group, Ingest
from marketdata.ledger import NOWHERE, Ledger
from marketdata.types import Quote

SYMBOLS = ("A", "B", "C")


def quote(symbol: str, time: int, volume: int | None = 0, bid: int = 1) -> Quote:
    return Quote(symbol=symbol, time=time, volume=volume, bid_price=(float(bid),), source="test")


def body(symbol: str, time: int, volume: int | None = 0, bid: int = 1) -> bytes:
    return Ingest().take([quote(symbol, time, volume, bid)]).groups[0][symbol]


def batch(
    group: Group,
    seq: int,
    epoch: int = 1,
    *,
    snapshot: bool = False,
    term: Term | None = None,
    numbers: dict[str, int] | None = None,
) -> Batch:
    fragments = [text[:-1] + b',"seq":%d}' % (numbers or {}).get(symbol, seq) for symbol, text in group.items()]
    return Batch("main", epoch, seq, 0, "test", None, None, snapshot, list(group), fragments, {}, term)


@st.composite
def sessions(draw: st.DrawFn) -> list[Quote]:
    """What the exchange says: per symbol never back in time, often with an equal time and volume and another book, and a book
    that has been there before among them."""
    said: list[Quote] = []
    at = {symbol: (1, 0) for symbol in SYMBOLS}
    last: dict[str, Quote] = {}
    for symbol in draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=40)):
        time, volume = at[symbol]
        step = draw(st.sampled_from(("time", "volume", "book", "book")))
        time, volume = (time + 1, volume) if step == "time" else (time, volume + 1) if step == "volume" else (time, volume)
        at[symbol] = (time, volume)
        one = quote(symbol, time, volume, draw(st.integers(1, 3)))
        if one != last.get(symbol):
            last[symbol] = one
            said.append(one)
    return said


@dataclass
class Receiver:
    """Whoever hears the feed: what came of each symbol."""

    bodies: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def take(self, group: Group) -> None:
        for symbol, text in group.items():
            self.bodies[symbol].append(text)


def pieces(draw: st.DrawFn, quotes: list[Quote]) -> list[list[Quote]]:
    """A terminal's batches: some quotes at a time, in their order."""
    result, rest = [], quotes
    while rest:
        count = draw(st.integers(1, 6))
        result.append(rest[:count])
        rest = rest[count:]
    return result


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_what_was_heard_and_what_is_taken_over_is_what_the_exchange_said_each_once_and_in_order(data: st.DataObject) -> None:
    said = data.draw(sessions())
    published = data.draw(st.integers(0, len(said)))
    receiver, ledger, ingest = Receiver(), Ledger(), Ingest()
    groups = [group for piece in pieces(data.draw, said[:published]) for group in Ingest().take(piece).groups]
    shown = pieces(data.draw, said)
    seq = 0
    while groups or (shown and data.draw(st.booleans())):
        if groups and (not shown or data.draw(st.booleans())):
            seq += 1
            group = groups.pop(0)
            receiver.take(group)
            assert ledger.hear(batch(group, seq))
        else:
            for group in ingest.take(shown.pop(0)).groups:
                ledger.owe(ledger.fresh(group), 0.0)
    for group in ledger.owed():
        receiver.take(group)
        seq += 1
        ledger.sent((2, seq), dict(zip(group, batch(group, seq, 2).fragments, strict=True)))
    assert ledger.pending == 0
    for piece in shown:
        for group in map(ledger.fresh, ingest.take(piece).groups):
            receiver.take(group)
            seq += 1
            ledger.sent((2, seq), dict(zip(group, batch(group, seq, 2).fragments, strict=True)))
    expected = Receiver()
    for one in said:
        expected.take(Ingest().take([one]).groups[0])
    assert receiver.bodies == expected.bodies


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_standby_that_missed_messages_takes_over_what_a_snapshot_after_them_leaves(data: st.DataObject) -> None:
    said = data.draw(sessions())
    published = data.draw(st.integers(0, len(said)))
    receiver, ledger, ingest = Receiver(), Ledger(), Ingest()
    newest, numbers = {}, {}
    for group in ingest.take(said).groups:
        ledger.owe(ledger.fresh(group), 0.0)
    seq = 0
    for one in said[:published]:
        group = Ingest().take([one]).groups[0]
        seq += 1
        receiver.take(group)
        newest |= group
        numbers[one.symbol] = seq
        if data.draw(st.booleans()):
            ledger.hear(batch(group, seq))
    ledger.restore(batch(newest, seq, snapshot=True, numbers=numbers))
    for group in ledger.owed():
        receiver.take(group)
    states = {symbol: [(q.time, q.volume) for q in said if q.symbol == symbol] for symbol in SYMBOLS}
    for symbol in SYMBOLS:
        last = Ingest().take([q for q in said if q.symbol == symbol][-1:]).groups
        assert receiver.bodies[symbol][-1:] == [group[symbol] for group in last], "the newest is known in any case"
        if len(set(states[symbol])) == len(states[symbol]):
            assert len(receiver.bodies[symbol]) == len(states[symbol])


def test_a_message_of_a_fenced_publisher_or_heard_before_is_refused_and_strikes_nothing_out() -> None:
    ledger = Ledger()
    ledger.owe({"A": body("A", 1)}, 0.0)
    assert ledger.hear(batch({}, 5, epoch=2))
    for position in ((4, 2), (5, 2), (9, 1)):
        assert not ledger.hear(batch({"A": body("A", 1)}, position[0], epoch=position[1]))
    assert ledger.pending == 1
    assert ledger.position == (2, 5)


def test_a_newer_quote_strikes_out_the_older_and_one_of_the_same_time_only_its_equal() -> None:
    ledger = Ledger()
    for time, bid in ((1, 1), (2, 1), (2, 2), (2, 3)):
        ledger.owe({"A": body("A", time, bid=bid)}, 0.0)
    ledger.hear(batch({"A": body("A", 2, bid=9)}, 1))
    assert [group["A"] for group in ledger.owed()] == [body("A", 2, bid=bid) for bid in (1, 2, 3)]
    ledger.hear(batch({"A": body("A", 2, bid=2)}, 2))
    assert [group["A"] for group in ledger.owed()] == [body("A", 2, bid=3)]
    ledger.hear(batch({"A": body("A", 3)}, 3))
    assert ledger.owed() == []
    assert ledger.fresh({"A": body("A", 2, bid=4)}) == {}
    assert ledger.fresh({"A": body("A", 4)}) == {"A": body("A", 4)}


def with_limits(symbol: str, time: int) -> bytes:
    return body(symbol, time).replace(b'"limit_up":null,"limit_down":null', b'"limit_up":11.0,"limit_down":9.0')


def test_a_terminal_that_does_not_know_the_limits_yet_shows_the_same_snapshots() -> None:
    ledger = Ledger()
    ledger.owe({"A": body("A", 1)}, 0.0)
    ledger.hear(batch({"A": with_limits("A", 1)}, 1))
    assert ledger.owed() == []
    ledger.hear(batch({"A": with_limits("A", 2)}, 2))
    assert ledger.fresh({"A": body("A", 2)}) == {}
    ledger.owe(ledger.fresh({"A": with_limits("A", 2)}), 0.0)
    assert ledger.owed() == [], "nor do limits that are learned later make another snapshot of it"
    ledger.owe(ledger.fresh({"A": body("A", 3)}), 0.0)
    assert ledger.owed() == [{"A": body("A", 3)}]
    ledger.owe(ledger.fresh({"A": with_limits("A", 3)}), 0.0)
    assert (ledger.owed(), ledger.pending) == ([{"A": with_limits("A", 3)}], 1)
    ledger.hear(batch({"A": body("A", 3)}, 3))
    assert (ledger.owed(), ledger.pending) == ([], 0)


@pytest.mark.parametrize(
    ("heard", "in_step"),
    [
        ([(1, 1)], False),
        ([(1, 1), "snapshot 1 1", (1, 2)], True),
        ([(1, 1), "snapshot 1 1", (1, 3)], False),
        ([(1, 1), "snapshot 1 1", (1, 3), "snapshot 1 1"], False),
        ([(1, 1), "snapshot 1 1", (1, 3), "snapshot 1 2"], True),
        ([(1, 1), "snapshot 1 1", (2, 1)], True),
        ([(1, 1), "snapshot 1 1", (2, 2)], False),
        ([(1, 1), "snapshot 1 1", (2, 2), "snapshot 1 9"], False),
        ([(1, 1), "snapshot 1 1", (2, 2), "snapshot 2 1"], True),
        ([(1, 1), "snapshot 1 1", "lose"], False),
        ([(1, 1), "snapshot 1 1", "lose", (1, 2)], True),
        ([(1, 1), "snapshot 1 1", "lose", (2, 1)], False),
        ([(1, 1), "snapshot 1 1", "lose", "snapshot 1 5"], False),
        ([(1, 1), "snapshot 1 1", "lose", "snapshot 1 5", (1, 6)], True),
        ([(1, 1), "snapshot 1 1", "snapshot 1 5"], False),
    ],
)
def test_in_step_is_who_missed_nothing_since_a_snapshot_that_covered_everything(heard: list[object], in_step: bool) -> None:
    ledger = Ledger()
    for one in heard:
        if isinstance(one, tuple):
            ledger.hear(batch({}, one[1], epoch=one[0]))
        elif one == "lose":
            ledger.lose()
        else:
            _, epoch, seq = str(one).split()
            ledger.restore(batch({}, int(seq), epoch=int(epoch), snapshot=True))
    assert ledger.in_step is in_step
    assert not (in_step and ledger.wants_snapshot)


def test_what_is_pending_is_bounded_by_count_and_a_symbols_newest_stays() -> None:
    ledger = Ledger(most=10)
    ledger.owe({"quiet": body("quiet", 1)}, 0.0)
    for n in range(1, 100):
        ledger.owe({"A": body("A", n)}, 0.0)
    assert ledger.pending == 12
    assert not ledger.complete
    assert {symbol for group in ledger.owed() for symbol in group} == {"A", "quiet"}
    assert [group["A"] for group in ledger.owed()] == [body("A", n) for n in range(89, 100)]
    ledger.hear(batch({"A": body("A", 50)}, 1))
    assert not ledger.complete, "newer ones fell out"
    ledger.hear(batch({"A": body("A", 99)}, 2))
    assert ledger.complete
    assert ledger.pending == 1


def test_what_is_pending_is_bounded_by_age_and_a_symbols_newest_stays() -> None:
    ledger = Ledger(age=60)
    for n in range(1, 4):
        ledger.owe({"A": body("A", n)}, 0.0)
    ledger.owe({"B": body("B", 1)}, 61.0)
    assert [list(group.items()) for group in ledger.owed()] == [[("B", body("B", 1)), ("A", body("A", 3))]]
    assert not ledger.complete


def test_what_was_struck_out_does_not_pile_up_behind_what_stays() -> None:
    ledger = Ledger()
    ledger.owe({"quiet": body("quiet", 1)}, 0.0)
    for n in range(1, 5000):
        ledger.owe({"A": body("A", n)}, 0.0)
        ledger.hear(batch({"A": body("A", n)}, n))
    assert len(ledger._order) < 1100
    assert ledger.owed() == [{"quiet": body("quiet", 1)}]


def test_the_end_of_a_takeover_repeats_what_is_known_and_changes_nothing() -> None:
    ledger = Ledger()
    ledger.hear(batch({"A": body("A", 1), "B": body("B", 1)}, 1))
    assert ledger.fresh({"A": body("A", 1), "B": body("B", 1)}) == {}
    ledger.hear(batch({"A": body("A", 1), "B": body("B", 1)}, 1, epoch=2, term=Term(1, 1, True)))
    assert ledger.fresh({"A": body("A", 1, bid=2)}) == {"A": body("A", 1, bid=2)}
    assert ledger.fresh({"A": body("A", 1)}) == {"A": body("A", 1)}, "the book is as it was before: another snapshot"
    assert ledger.inherited() == {}


def test_a_new_epoch_inherits_what_it_has_not_said_yet() -> None:
    ledger = Ledger()
    assert ledger.position == NOWHERE
    ledger.hear(batch({"A": body("A", 1), "B": body("B", 1)}, 1))
    ledger.sent((2, 1), {})
    ledger.sent((2, 2), {"A": body("A", 2)[:-1] + b',"seq":2}'})
    assert ledger.inherited() == {"B": body("B", 1)}

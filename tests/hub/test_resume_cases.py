"""What a client that comes back gets, one case at a time; what they have in common is tried at random beside this."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from marketdata.batch import Batch
from marketdata.journal import Entry
from marketdata.types import DataType
from streaming import acknowledged
from streaming import subscriptions as books
from streaming.filters import Filter
from streaming.past import Past
from streaming.protocol import Position
from streaming.resume import Return, fresh
from streaming.selection import Frequency, Selection
from streaming.subscriptions import Subscription
from tests.hub.returns import FEED_OF, LATE, LOST, SENT, Client, DirectPast, Journal, World, at_once, world

A, B, C = (symbol for symbol, feed in FEED_OF.items() if feed == "main")
OTHER = next(symbol for symbol, feed in FEED_OF.items() if feed == "second")
HEARD = (SENT, SENT)


def subscribe(found: World, *data_types: DataType, number: int = 0, **options: Any) -> Client:
    symbols = options.pop("symbols", frozenset({A, B, C}))
    found.cover(number, {"a": Selection(symbols=symbols, data_types=frozenset(data_types), **options)})
    client = found.clients[number]
    client.read()
    return client


def trades(client: Client) -> list[int]:
    return [identity for (_, (kind, _)), seen in client.seen.items() if kind == "trade" for _, identity in seen]


def test_a_second_gap_while_the_first_is_looked_into_loses_nothing() -> None:
    with world() as found:
        client = subscribe(found, DataType.TRADE)
        for fate in (LOST, SENT, LOST, SENT):
            found.publish({A}, (fate, SENT), 1)
        found.heal(0)
        client.read()
        assert len(trades(client)) == 4


def test_what_a_snapshot_jumps_over_has_happened_all_the_same() -> None:
    with world() as found:
        client = subscribe(found, DataType.TRADE)
        found.publish({A}, (LOST, SENT), 2)
        found.restore(0)
        found.heal(0)
        found.publish({A}, HEARD, 1)
        client.read()
        assert len(trades(client)) == 3


def test_a_bar_that_closed_while_a_gap_was_looked_into_is_sent() -> None:
    with world() as found:
        client = subscribe(found, DataType.KLINE_1M, symbols=frozenset({A}))
        for fate in (SENT, SENT, SENT, LOST, SENT):
            found.publish({A}, (fate, SENT))
        found.heal(0)
        client.read()
        closed, _ = found.feeds["main"].bars[A]
        assert closed is not None
        assert client.bars_seen["kline:1m", A].count(closed.time) == 1


def test_a_hole_in_the_journal_that_this_process_has_heard_is_none() -> None:
    journal = Journal()
    past = DirectPast(journal)

    def entry(seq: int) -> Entry:
        return Entry(1, seq)

    for seq in (1, 2, 4, 5):
        journal.append("main", entry(seq))
    for seq in (3, 4, 5):
        past.note(_batch(seq))
    found = at_once(past.read("main", (1, 0), (1, 5)))
    assert found.complete
    assert [item.seq for item in found.entries] == [1, 2, 3, 4, 5]


def _batch(seq: int) -> Batch:
    return Batch("main", 1, seq, 0, "test", None, None, False, [], [])


@pytest.mark.parametrize("kept", [True, False])
def test_a_thousand_that_come_back_ask_the_journal_once(kept: bool) -> None:
    journal = Journal()
    past: Past = DirectPast(journal)
    for seq in range(1, 11):
        if kept or seq != 4:
            journal.append("main", Entry(1, seq))
    past.note(_batch(10))
    found = [at_once(past.read("main", (1, 2), (1, 10))) for _ in range(1000)]
    assert {reading.complete for reading in found} == {kept}
    assert journal.reads == 1


def test_while_quotes_are_lacking_no_message_is_one_to_resume_from() -> None:
    with world() as found:
        client = subscribe(found, DataType.QUOTE)
        before = client.streams["main"]
        found.publish({A}, (LOST, SENT))
        found.publish({B}, HEARD)
        found.heal(0)
        found.publish({B}, HEARD)
        found.beat(0)
        client.read()
        assert client.streams["main"] == before
        found.restore(0)
        found.publish({C}, HEARD)
        client.read()
        assert client.streams["main"] == found.feeds["main"].position


def test_while_states_are_merged_no_message_is_one_to_resume_from() -> None:
    with world() as found:
        client = subscribe(found, DataType.QUOTE)
        found.hold_back(0, 1)
        before = client.streams["main"]
        found.publish({A}, HEARD)
        found.beat(0)
        client.read()
        assert client.streams["main"] == before
        found.tick(0, 1.0)
        found.beat(0)
        client.read()
        assert client.streams["main"] == found.feeds["main"].position


def test_what_was_merged_before_a_message_is_no_place_to_resume_behind_it() -> None:
    with world() as found:
        client = subscribe(found, DataType.QUOTE)
        found.hold_back(0, 1)
        found.publish({A}, HEARD)
        found.publish({A, B}, (LATE, SENT))
        client.cut(1000)
        found.settle()


def test_what_two_views_had_merged_comes_again_as_it_is() -> None:
    with world() as found:
        chosen = {
            "a": Selection(symbols=frozenset({A}), data_types=frozenset({DataType.QUOTE})),
            "b": Selection(symbols=frozenset({B}), data_types=frozenset({DataType.QUOTE}), filter=Filter(min_price=1.0)),
        }
        found.cover(0, chosen)
        client = found.clients[0]
        client.read()
        found.hold_back(0, 1)
        found.publish({A, B}, HEARD)
        for _ in range(3):
            found.publish({A}, HEARD)
        found.tick(0, 0.5)
        client.cut(1)
        found.settle()


def test_an_acknowledged_bar_comes_although_none_was_known_before() -> None:
    with world() as found:
        client = subscribe(found, DataType.KLINE_1M, symbols=frozenset({A}), ack=True)
        for _ in range(3):
            found.publish({A}, HEARD)
        found.settle()
        assert client.seen


def test_more_than_may_wait_to_be_acknowledged_is_told_and_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledged, "MOST", 5)
    with world() as found:
        client = subscribe(found, DataType.TRADE, ack=True)
        client.cut(0)
        found.publish({A}, HEARD, 6)
        hub = found.processes[0].hub
        client.connect(found.processes[0])
        hub.cover(client.connection, client.selections, snapshot=False)
        client.connection.acknowledged["a"].acked = dict(client.acked["a"])
        way = Return(hub, client.connection, {})
        at_once(way.look())
        (gap,) = [gap for gap in way.gaps if gap.subscription and gap.feed == "main"]
        assert (gap.filled, gap.reason) == (False, "too_much")
        assert not client.connection.closed


def test_what_was_acknowledged_elsewhere_does_not_come_again() -> None:
    with world() as found:
        client = subscribe(found, DataType.TRADE, ack=True)
        epoch, seq = found.feeds["main"].position
        client.connection.acknowledged["a"].ack("main", (epoch, seq + 1))
        found.publish({A}, HEARD, 1)
        assert len(client.connection.acknowledged["a"]) == 0


def test_a_feed_of_which_nothing_is_covered_needs_no_position() -> None:
    with world() as found:
        client = subscribe(found, DataType.QUOTE, symbols=frozenset({A}))
        assert "second" not in client.streams
        client.cut(0)
        client.resume(found.processes[0])
        (message,) = [message for message in client.wire.messages if message["type"] == "resumed"]
        assert message["recovered"] is True


def test_a_feed_that_is_known_by_name_alone_needs_a_position() -> None:
    with world() as found:
        found.take_over(HEARD)
        client = subscribe(found, DataType.QUOTE, DataType.STATUS, symbols=None)
        client.streams.pop("main", None)
        found.restart(0, 0)
        found.publish({A}, HEARD)
        assert not client.streams.get("main")
        client.resume(found.processes[0])
        (message,) = [message for message in client.wire.messages if message["type"] == "resumed"]
        assert message["recovered"] is False


def test_bars_stay_as_they_are_while_whoever_wanted_them_is_away() -> None:
    with world() as found:
        client = subscribe(found, DataType.KLINE_1M, symbols=frozenset({A}))
        found.publish({A}, HEARD)
        client.cut(1000)
        found.publish({A}, HEARD)
        client.resume(found.processes[0])
        client.read()
        assert client.held["kline:1m", A]["volume"] == found.feeds["main"].bars[A][1].volume


def test_what_happened_while_a_publisher_took_over_comes_to_who_came_back_meanwhile() -> None:
    with world() as found:
        client = subscribe(found, DataType.TRADE, symbols=frozenset({A}))
        found.publish({A}, HEARD, 1)
        found.take_over(HEARD)
        client.cut(1000)
        found.publish({A}, HEARD, 1)
        client.resume(found.processes[0])
        found.tell(HEARD)
        client.read()
        assert len(trades(client)) == 2
        assert not client.excused


def test_a_gap_begins_with_the_message_of_which_another_view_may_have_had_nothing() -> None:
    with world() as found:
        chosen = {
            "a": Selection(symbols=None, data_types=frozenset({DataType.QUOTE})),
            "b": Selection(symbols=None, data_types=frozenset({DataType.STATUS}), frequency=Frequency.S1),
        }
        found.cover(0, chosen)
        client = found.clients[0]
        client.read()
        found.publish({A}, HEARD)
        client.cut(1000)
        found.take_over(HEARD)
        found.take_over(HEARD)
        found.tell(HEARD)
        found.heal(0)
        client.resume(found.processes[0])
        epoch, seq = client.streams["main"]
        client.read(1)
        assert [excused[2] for excused in client.excused] == [(epoch, seq - 1)]


def test_a_gap_that_is_healed_while_a_publisher_takes_over_does_not_hide_the_next() -> None:
    with world() as found:
        client = subscribe(found, DataType.TRADE, symbols=frozenset({A}))
        for fate in (LOST, SENT, LOST):
            found.publish({A}, (fate, SENT), 1)
        found.take_over(HEARD)
        found.heal(0)
        found.publish({A}, HEARD, 1)
        found.tell(HEARD)
        found.heal(0)
        client.read()
        assert len(trades(client)) == 4


def test_a_bar_that_closes_first_comes_to_a_client_that_is_behind() -> None:
    with world() as found:
        client = subscribe(found, DataType.KLINE_1M, symbols=frozenset({A}))
        client.wire.stop()
        for _ in range(9):
            found.publish({A}, HEARD)
        client.wire.allow(None)
        client.read()
        assert len(set(client.bars_seen["kline:1m", A])) == 3


@pytest.mark.parametrize("change", ["members", "plan"])
def test_what_a_subscription_stands_for_anew_is_fresh(change: str) -> None:
    at = {"main": Position(1, 5)}
    asked = Subscription(
        names=frozenset(),
        groups=("sector:x",),
        members=frozenset({A}),
        data_types=frozenset({DataType.QUOTE, DataType.PRICE}),
        frequency=Frequency.REALTIME,
    )
    saved = books.saved({"a": asked}, {}, at, {}, frozenset({DataType.QUOTE}))
    now = {"a": replace(asked, members=frozenset({A, B}))} if change == "members" else {"a": asked}
    allowed = frozenset({DataType.QUOTE}) if change == "members" else frozenset({DataType.QUOTE, DataType.PRICE})
    again = books.saved(now, {}, {}, {}, allowed)
    assert fresh(saved, again, now, {"main": (1, 9)}) == {"main": now["a"].symbols}
    same = books.saved({"a": asked}, {}, {}, {}, frozenset({DataType.QUOTE}))
    assert fresh(saved, same, {"a": asked}, {"main": (1, 9)}) == {}

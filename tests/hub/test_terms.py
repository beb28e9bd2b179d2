"""A change of publisher: what is sent on, what clients are told, and whether `recovered` is the truth."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.batch import Term
from marketdata.types import KLINES, DataType
from streaming.frame import Frame
from streaming.hub import Hub
from streaming.merging import MERGE_AFTER
from streaming.selection import Frequency
from tests.hub.market import Client, bar, blob, make_hub, quote

A, B, C = "000001.SZ", "000002.SZ", "600000.SH"
GREETING = b'{"type":"connected"}'


@pytest.fixture
def hub() -> Hub:
    """A hub that may miss messages, and has the first epoch's 1 to 3."""
    hub = make_hub()
    hub.on_gap = lambda feed, epoch, seq: None
    for n in range(1, 4):
        hub.receive(blob([quote(A, n), quote(B, 1)], n))
    return hub


@pytest.fixture
def client(hub: Hub) -> Client:
    client = Client(hub)
    client.connection.send(Frame(GREETING))
    client.cover([A, B, C])
    client.wire.take()
    return client


def take_over(hub: Hub, term: Term | None = None, *, lost: int = 0) -> None:
    """The second epoch: a barrier, what was pending (A's next), and the rest. One message of these three may be lost."""
    messages = [
        blob([], 1, epoch=2),
        blob([quote(A, 4)], 2, epoch=2),
        blob([quote(B, 1)], 3, epoch=2, term=term or Term(1, 3, recovered=True)),
    ]
    for number, message in enumerate(messages, 1):
        if number != lost:
            hub.receive(message)


def told(client: Client) -> list[dict[str, Any]]:
    return [message for message in client.wire.messages if message["type"] == "epoch"]


def test_what_is_as_it_was_is_not_sent_again_but_has_the_new_epochs_seq(hub: Hub, client: Client) -> None:
    take_over(hub)
    assert [(piece["symbol"], piece["seq"]) for piece in client.wire.data] == [(A, 2)]
    assert hub.store.fragments[B].endswith(b',"seq":3}')
    late = Client(hub, "late")
    late.cover([B])
    assert [(piece["symbol"], piece["seq"]) for piece in late.wire.data] == [(B, 3)]


def test_what_the_terms_last_message_has_anew_is_sent_before_the_epoch(hub: Hub, client: Client) -> None:
    hub.receive(blob([], 1, epoch=2))
    hub.receive(blob([quote(A, 3), quote(B, 2), quote(C, 1)], 2, epoch=2, term=Term(1, 3, recovered=True)))
    data, epoch = client.wire.take()
    assert sorted(piece["symbol"] for piece in data["data"]) == [B, C]
    assert epoch == {
        "type": "epoch",
        "feed": "main",
        "epoch": 2,
        "seq": 2,
        "previous": {"epoch": 1, "seq": 3},
        "recovered": True,
    }


def test_what_is_known_stays_until_the_new_epoch_has_brought_newer(hub: Hub, client: Client) -> None:
    hub.receive(blob([], 1, epoch=2))
    assert client.wire.take() == []
    late = Client(hub, "late")
    late.cover([A, B])
    assert sorted((piece["symbol"], piece["seq"]) for piece in late.wire.data) == [(A, 3), (B, 3)]


def test_what_the_predecessor_still_sends_is_refused(hub: Hub, client: Client) -> None:
    hub.receive(blob([], 1, epoch=2))
    hub.receive(blob([quote(A, 9)], 4, epoch=1))
    assert client.wire.take() == []
    assert hub.counters.refused == 1


def test_every_client_is_told_once_whatever_it_covers(hub: Hub, client: Client) -> None:
    idle, ungreeted = Client(hub, "idle"), Client(hub, "ungreeted")
    idle.connection.send(Frame(GREETING))
    take_over(hub)
    hub.receive(blob([quote(A, 5)], 4, epoch=2))
    assert len(told(client)) == len(told(idle)) == 1
    assert ungreeted.wire.messages == []


def test_one_that_reads_its_data_from_another_hub_is_not_told(hub: Hub, client: Client) -> None:
    make_hub().attach(client.connection)
    take_over(hub)
    assert told(client) == []


@pytest.mark.parametrize("reason", ["first_term", "not_in_step", "feed_broken", "overflow", "barrier_lost"])
def test_what_the_publisher_could_not_recover_is_said_with_its_reason(hub: Hub, client: Client, reason: str) -> None:
    end = (0, 0) if reason == "first_term" else (1, 3)
    take_over(hub, Term(*end, recovered=False, reason=reason))
    (epoch,) = told(client)
    assert (epoch["recovered"], epoch["reason"], epoch["previous"]) == (False, reason, {"epoch": 1, "seq": 3})


def test_the_first_epoch_here_is_not_told() -> None:
    hub = make_hub()
    client = Client(hub)
    client.connection.send(Frame(GREETING))
    hub.receive(blob([], 1))
    hub.receive(blob([quote(A, 1)], 2, term=Term(0, 0, recovered=False, reason="first_term")))
    assert told(client) == []


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_message_of_the_takeover_that_did_not_come_makes_it_missed(hub: Hub, client: Client, lost: int) -> None:
    take_over(hub, lost=lost)
    hub.receive(blob([quote(A, 5)], 4, epoch=2))
    (epoch,) = told(client)
    assert (epoch["recovered"], epoch["reason"], epoch["previous"]) == (False, "missed", {"epoch": 1, "seq": 3})


def test_the_predecessors_last_message_that_did_not_come_makes_it_missed(hub: Hub, client: Client) -> None:
    take_over(hub, Term(1, 4, recovered=True))
    (epoch,) = told(client)
    assert (epoch["recovered"], epoch["reason"], epoch["previous"]) == (False, "missed", {"epoch": 1, "seq": 4})


def test_a_message_that_only_the_journal_has_is_missed_by_nobody(hub: Hub, client: Client) -> None:
    take_over(hub, Term(1, 4, recovered=True, heard=(1, 3)))
    (epoch,) = told(client)
    assert (epoch["recovered"], epoch["previous"]) == (True, {"epoch": 1, "seq": 4})


def test_what_others_have_heard_and_this_has_not_is_missed_though_the_journal_has_more(hub: Hub, client: Client) -> None:
    take_over(hub, Term(1, 5, recovered=True, heard=(1, 4)))
    (epoch,) = told(client)
    assert (epoch["recovered"], epoch["reason"]) == (False, "missed")


def test_a_gap_long_before_is_not_the_takeovers(hub: Hub, client: Client) -> None:
    hub.receive(blob([quote(A, 4)], 9))
    take_over(hub, Term(1, 9, recovered=True))
    assert [epoch["recovered"] for epoch in told(client)] == [True]


def test_a_takeover_that_was_itself_taken_over_is_not_called_whole(hub: Hub, client: Client) -> None:
    """The second publisher did not live to say how far the first one had come."""
    hub.receive(blob([], 1, epoch=2))
    hub.receive(blob([], 1, epoch=3))
    hub.receive(blob([quote(A, 4)], 2, epoch=3, term=Term(2, 1, recovered=True)))
    (epoch,) = told(client)
    assert (epoch["epoch"], epoch["recovered"], epoch["reason"]) == (3, False, "missed")


def test_a_change_of_epoch_that_was_slept_through_is_caught_up_with_by_the_snapshot(hub: Hub, client: Client) -> None:
    newest = blob([quote(A, 4), quote(B, 1)], 7, epoch=2, snapshot=True, seqs={A: 5, B: 3})
    hub.restore(newest)
    hub.restore(newest)
    data, epoch = client.wire.take()
    assert [(piece["symbol"], piece["seq"]) for piece in data["data"]] == [(A, 5)]
    assert (epoch["epoch"], epoch["seq"], epoch["recovered"], epoch["reason"]) == (2, 7, False, "missed")
    hub.receive(blob([quote(B, 2)], 8, epoch=2))
    assert [message["type"] for message in client.wire.take()] == ["data"]


def test_a_snapshot_of_what_was_heard_anyway_changes_nothing(hub: Hub, client: Client) -> None:
    hub.receive(blob([], 1, epoch=2))
    hub.restore(blob([quote(A, 3), quote(B, 1)], 1, epoch=2, snapshot=True))
    hub.receive(blob([quote(A, 4), quote(B, 1)], 2, epoch=2, term=Term(1, 3, recovered=True)))
    assert [(piece["symbol"], piece["seq"]) for piece in client.wire.data] == [(A, 2)]
    assert [epoch["recovered"] for epoch in told(client)] == [True]


def test_a_client_that_is_behind_is_told_and_its_epochs_do_not_go_back(hub: Hub, client: Client) -> None:
    client.wire.stop()
    hub.receive(blob([quote(A, 4)], 4))
    hub.receive(blob([], 1, epoch=2))
    hub.receive(blob([quote(A, 4), quote(B, 1)], 2, epoch=2, term=Term(1, 4, recovered=True)))
    client.wire.allow(None)
    epoch, data = client.wire.take()
    assert (epoch["type"], epoch["recovered"]) == ("epoch", True)
    assert (data["epoch"], [piece["symbol"] for piece in data["data"]]) == (2, [A])


def test_what_a_lag_holds_back_goes_out_before_the_epoch(hub: Hub, client: Client) -> None:
    now = 1_700_000_000.0
    late = now - 2 * MERGE_AFTER
    hub.receive(blob([], 1, epoch=2, published=now))
    hub.receive(blob([quote(C, 1)], 2, epoch=2, published=now))
    hub.receive(blob([quote(A, 4)], 3, epoch=2, published=late))
    hub.receive(blob([quote(B, 2)], 4, epoch=2, published=late, term=Term(1, 3, recovered=True)))
    first, merged, epoch = client.wire.take()
    assert [piece["symbol"] for piece in first["data"]] == [C]
    assert sorted(piece["symbol"] for piece in merged["data"]) == [A, B]
    assert epoch["type"] == "epoch"


def test_slower_clients_and_other_data_types_get_nothing_of_what_did_not_change(hub: Hub) -> None:
    slow, derived = Client(hub, "slow"), Client(hub, "derived")
    slow.cover([A, B], frequency=Frequency.S1)
    derived.cover([A, B], *(data_type for data_type in DataType if data_type not in KLINES))
    slow.wire.take()
    derived.wire.take()
    hub.receive(blob([], 1, epoch=2))
    hub.receive(blob([quote(A, 3), quote(B, 1)], 2, epoch=2, term=Term(1, 3, recovered=True)))
    hub.tick(1e12)
    assert slow.wire.data == derived.wire.data == []


def test_the_bars_of_the_terms_last_message_are_sent(hub: Hub) -> None:
    client = Client(hub)
    client.cover([A], DataType.KLINE_1M)
    hub.receive(blob([], 1, epoch=2))
    hub.receive(blob([quote(A, 3)], 2, epoch=2, term=Term(1, 3, recovered=True), bars=[bar(A, 1)]))
    assert [piece["type"] for piece in client.wire.data] == ["kline"]


def test_a_hub_that_is_not_given_every_message_calls_none_missed() -> None:
    """That of a replay: what was recorded has no term and no empty messages."""
    hub = make_hub()
    client = Client(hub)
    client.connection.send(Frame(GREETING))
    for epoch in (1, 2):
        for seq in (3, 7):
            hub.receive(blob([quote(A, seq)], seq, epoch=epoch))
    assert told(client) == []


@given(st.lists(st.booleans(), min_size=8, max_size=8))
def test_recovered_is_said_where_and_only_where_everything_came(comes: list[bool]) -> None:
    """Whichever of four messages before, and of the takeover's four, reach this process; one after it always does."""
    hub = make_hub()
    hub.on_gap = lambda feed, epoch, seq: None
    client = Client(hub)
    client.connection.send(Frame(GREETING))
    client.cover(None)
    hub.receive(blob([quote(A, 1)], 1))
    first = [blob([quote(A, n)], n) for n in range(2, 6)]
    second = [blob([], 1, epoch=2), *(blob([quote(A, 4 + n)], n, epoch=2) for n in (2, 3))]
    second.append(blob([quote(A, 7)], 4, epoch=2, term=Term(1, 5, recovered=True)))
    for message, came in zip([*first, *second], comes, strict=True):
        if came:
            hub.receive(message)
    hub.receive(blob([quote(A, 9)], 5, epoch=2))
    (epoch,) = told(client)
    assert epoch["recovered"] is all(comes[3:])
    assert epoch.get("reason") == (None if epoch["recovered"] else "missed")
    prices = [piece["time"] for piece in client.wire.data]
    assert prices == sorted(set(prices)), "none twice, none older after newer"

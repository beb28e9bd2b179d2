"""Under load the lower priorities give way: merged first, then sent away, and the high one gets every message all the time."""

from __future__ import annotations

import time

import pytest

from argus.errors import OVERLOADED, ArgusError
from marketdata.statuses import Statuses
from marketdata.types import DataType
from streaming.hub import Hub
from streaming.merging import MERGE_AFTER
from streaming.overload import BUSY, FALL, LAG, LATE, RECONNECT_AFTER_MS, RISE, Level, Load
from streaming.relief import Relief
from streaming.selection import Frequency
from tests.hub.market import Client, blob, changes, make_hub, principal, quote

A, B = "000001.SZ", "000002.SZ"
TICK = 0.05


@pytest.fixture
def hub() -> Hub:
    return make_hub()


def clients(hub: Hub, **options: Frequency) -> tuple[Client, Client, Client]:
    """One of each priority, low first, who see everything."""
    made = [Client(hub, str(priority), principal=principal(priority=priority)) for priority in (0, 1, 2)]
    for client in made:
        client.cover(None, DataType.QUOTE, **options)
    return made[0], made[1], made[2]


def seqs(client: Client) -> list[int]:
    """The numbers of the data messages since the last call."""
    return [message["seq"] for message in client.wire.take() if message["type"] == "data"]


def publish(hub: Hub, *numbers: int, symbol: str = A) -> None:
    for number in numbers:
        hub.receive(blob([quote(symbol, number)], number))


def test_what_is_held_back_is_sent_at_each_tick_as_it_is_then_and_the_others_get_every_message(hub: Hub) -> None:
    low, normal, high = clients(hub)
    hub.hold_back(1, 0.25)
    publish(hub, 1, 2, 3)
    assert (seqs(low), seqs(normal), seqs(high)) == ([], [1, 2, 3], [1, 2, 3])
    hub.tick(time.monotonic())
    (message,) = low.wire.take()
    assert [(piece["symbol"], piece["seq"]) for piece in message["data"]] == [(A, 3)]
    publish(hub, 4)
    hub.tick(time.monotonic())
    assert (seqs(low), seqs(normal), seqs(high)) == ([], [4], [4])
    hub.tick(time.monotonic() + 0.25)
    assert seqs(low) == [4]
    assert hub.counters.lagged == 4


def test_normal_priority_is_held_back_too_and_high_priority_never(hub: Hub) -> None:
    low, normal, high = clients(hub)
    hub.hold_back(2, 0.5)
    publish(hub, 1, 2, 3)
    assert (seqs(low), seqs(normal), seqs(high)) == ([], [], [1, 2, 3])
    hub.tick(time.monotonic())
    assert (seqs(low), seqs(normal), seqs(high)) == ([3], [3], [])


def test_what_was_held_back_comes_before_what_is_not_any_more(hub: Hub) -> None:
    low, normal, high = clients(hub)
    hub.hold_back(2, 0.5)
    publish(hub, 1, 2)
    publish(hub, 3, symbol=B)
    hub.hold_back(0, 0.25)
    publish(hub, 4)
    for client in (low, normal):
        first, second = client.wire.take()
        assert {piece["symbol"]: piece["seq"] for piece in first["data"]} in ({A: 4, B: 3}, {A: 2, B: 3})
        assert [piece["seq"] for piece in second["data"]] == [4]
    assert seqs(high) == [1, 2, 3, 4]


def test_events_are_never_held_back(hub: Hub) -> None:
    low, _, high = clients(hub)
    for client in (low, high):
        client.cover(None, DataType.QUOTE, DataType.STATUS)
    hub.hold_back(2, 0.5)
    statuses = Statuses()
    for number, symbol in ((1, A), (2, B)):
        quotes = [quote(symbol, number)]
        hub.receive(blob(quotes, number, happened=changes(quotes, number, statuses)))
    assert [(piece["type"], piece["symbol"]) for piece in low.wire.data] == [("status", A), ("status", B)]
    assert all(message["more"] for message in low.wire.take())
    assert [piece["type"] for piece in high.wire.data].count("status") == 2
    hub.tick(time.monotonic())
    (message,) = low.wire.take()
    assert "more" not in message
    assert {(piece["type"], piece["symbol"]) for piece in message["data"]} == {("quote", A), ("quote", B)}


def test_a_slower_frequency_of_high_priority_misses_nothing_that_others_have_held_back(hub: Hub) -> None:
    _, _, high = clients(hub, frequency=Frequency.S1)
    hub.hold_back(2, 0.5)
    publish(hub, 1, 2)
    hub.tick(time.monotonic() + 2)
    assert seqs(high) == [2]


def test_a_feed_that_lags_behind_is_merged_for_all_but_high_priority(hub: Hub) -> None:
    low, normal, high = clients(hub)
    publish(hub, 1)
    late = time.time() - 2 * MERGE_AFTER
    for number in (2, 3, 4):
        hub.receive(blob([quote(A, number)], number, published=late))
    assert (seqs(low), seqs(normal), seqs(high)) == ([1], [1], [1, 2, 3, 4])
    hub.tick(time.monotonic())
    assert (seqs(low), seqs(normal), seqs(high)) == ([4], [4], [])
    hub.receive(blob([quote(A, 5)], 5, published=time.time() - MERGE_AFTER / 2))
    assert seqs(normal) == []
    assert hub.counters.lagged == 4
    publish(hub, 6)
    assert seqs(normal)[-1] == 6
    assert hub.counters.lagged == 4


def test_who_gets_a_plan_of_high_priority_misses_nothing_that_was_held_back(hub: Hub) -> None:
    low, _, _ = clients(hub)
    hub.hold_back(2, 0.5)
    publish(hub, 1)
    low.connection.principal = principal(priority=2)
    low.cover(None, DataType.QUOTE)
    publish(hub, 2, symbol=B)
    assert {piece["symbol"] for piece in low.wire.data} == {A, B}


# Relief: the level, and what it does to the hub


class Under:
    """A hub's relief under a load that the test says."""

    def __init__(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hub = hub
        self.relief = Relief(hub)
        self.load = Load(0.0, 0.0, 0.0)
        self.now = 1000.0
        monkeypatch.setattr(self.relief, "measure", lambda now, due: self.load)

    def go(self, load: Load, seconds: float) -> Level:
        self.load = load
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            self.relief.tick(self.now, self.now)
        return self.relief.level


CALM = Load(0.0, 0.0, 0.0)
TOO_BUSY = Load(BUSY, 0.0, 0.0)
TOO_LATE = Load(0.5, LATE, LAG)


@pytest.fixture
def under(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Under:
    return Under(hub, monkeypatch)


def test_each_level_holds_back_whom_it_says(hub: Hub, under: Under) -> None:
    low, normal, high = clients(hub)
    number = 0

    def immediate() -> list[bool]:
        nonlocal number
        number += 1
        hub.tick(time.monotonic() + number)
        for client in (low, normal, high):
            client.wire.take()
        publish(hub, number)
        return [bool(seqs(client)) for client in (low, normal, high)]

    assert immediate() == [True, True, True]
    assert under.go(TOO_LATE, 1.5 * RISE) is Level.MERGE_LOW
    assert immediate() == [False, True, True]
    assert under.go(TOO_LATE, RISE) is Level.MERGE_NORMAL
    assert immediate() == [False, False, True]
    assert hub.counters.overload == 2
    under.go(CALM, 3 * FALL)
    assert immediate() == [True, True, True]
    assert hub.counters.overload == 0


def test_a_busy_hub_sends_nobody_away(hub: Hub, under: Under) -> None:
    low, _, _ = clients(hub)
    assert under.go(TOO_BUSY, 60) is Level.MERGE_LOW
    assert low.wire.closed is None


def test_those_of_low_priority_are_sent_away_those_behind_first_then_the_youngest(hub: Hub, under: Under) -> None:
    _, normal, high = clients(hub)
    many = [Client(hub, f"low {number}", principal=principal(priority=0)) for number in range(20)]
    for number, client in enumerate(many):
        client.connection.opened = float(number)
    stuck = many[3]
    stuck.cover(None)
    stuck.wire.stop()
    publish(hub, 1)
    gone: list[int] = []
    for number, client in enumerate(many):
        client.wire.close = lambda code, reason, number=number: gone.append(number)  # type: ignore[method-assign]
    under.go(TOO_LATE, 30)
    assert gone == [3, *(number for number in reversed(range(20)) if number != 3)]
    assert normal.wire.closed is high.wire.closed is None
    assert hub.counters.shed == len(many) + 1


def test_they_are_told_to_come_back_at_different_times(hub: Hub, under: Under) -> None:
    many = [Client(hub, f"low {number}", principal=principal(priority=0)) for number in range(20)]
    under.go(TOO_LATE, 10)
    told = [message["reconnect_after_ms"] for client in many for message in client.wire.messages]
    assert [message["reason"] for client in many for message in client.wire.messages] == ["overload"] * 20
    assert all(RECONNECT_AFTER_MS[0] <= delay <= RECONNECT_AFTER_MS[1] for delay in told)
    assert len(set(told)) > 10


def test_nobody_is_sent_away_whose_key_is_not_known_yet(hub: Hub, under: Under) -> None:
    stranger = Client(hub, "stranger")
    under.go(TOO_LATE, 10)
    assert stranger.wire.closed is None


def test_while_some_are_sent_away_no_more_of_their_kind_are_let_in(hub: Hub, under: Under) -> None:
    under.go(TOO_LATE, 2.5 * RISE)
    under.relief.require_room(0)
    assert under.go(TOO_LATE, RISE) is Level.SHED_LOW
    with pytest.raises(ArgusError) as caught:
        under.relief.require_room(0)
    assert caught.value.problem is OVERLOADED
    assert RECONNECT_AFTER_MS[0] <= caught.value.params["retry_after"] * 1000 <= RECONNECT_AFTER_MS[1]
    under.relief.require_room(1)
    under.relief.require_room(2)
    under.go(CALM, FALL + 1)
    under.relief.require_room(0)

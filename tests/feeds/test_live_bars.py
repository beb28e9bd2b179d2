"""Bars on their way from a feed into messages: what goes out, what stays owed, and who is asked for the lease."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marketdata import klines
from marketdata.batch import Batch, bars_of, decode, encode
from marketdata.klines import KEPT, among, group, then
from marketdata.lease import TTL, MemoryLease
from marketdata.publish import PublishError
from marketdata.types import Period
from tests.feeds.test_publisher import Wire, publisher
from tests.hub.market import EPOCH, bar

M1, M5 = Period.M1, Period.M5


def said(batch: Batch, period: Period = M1) -> dict[str, list[tuple[int, bool, int, int]]]:
    """Symbol -> minute, closed, volume and seq of each of its bars."""
    symbols, fragments = batch.bars.get(period, ([], []))
    return {
        symbol: [(*_stamp(piece), piece["volume"], piece["seq"]) for piece in json.loads(b"[" + fragment + b"]")]
        for symbol, fragment in zip(symbols, fragments, strict=True)
    }


def _stamp(piece: dict[str, Any]) -> tuple[int, bool]:
    return (piece["time"] - EPOCH) // 60_000, piece["closed"]


def test_a_message_has_a_symbols_closed_bars_in_order_and_then_the_forming_one() -> None:
    wire = Wire()
    bars = [bar("A", n, closed=True) for n in range(1, 40)] + [bar("A", 40, volume=5), bar("B", 40, period=M5)]
    publisher(wire, MemoryLease()).publish([{"A": b'{"v":1}'}], canary=1, bars=group(bars))
    (batch,) = wire.sent
    assert said(batch) == {"A": [(n, True, 100, 1) for n in range(1, 40)] + [(40, False, 5, 1)]}
    assert said(batch, M5) == {"B": [(40, False, 100, 1)]}


def test_the_bars_of_a_fragment_are_told_apart() -> None:
    bars = [bar("A", 1, closed=True), bar("A", 2, closed=True), bar("A", 3)]
    _, (fragment,) = klines.numbered(group(bars), b',"seq":7}')[M1]
    pieces = list(bars_of(fragment))
    assert [((stamp.time - EPOCH) // 60_000, stamp.closed) for stamp, _ in pieces] == [(1, True), (2, True), (3, False)]
    assert b",".join(piece for _, piece in pieces) == fragment


def test_bars_go_out_with_the_last_of_several_messages() -> None:
    wire = Wire()
    publisher(wire, MemoryLease()).publish([{"A": b'{"v":1}'}, {"A": b'{"v":2}'}], canary=1, bars=group([bar("A", 1)]))
    assert [said(batch) for batch in wire.sent] == [{}, {"A": [(1, False, 100, 2)]}]


def test_bars_that_the_layer_refused_stay_owed_newest_of_each() -> None:
    wire = Wire()
    it = publisher(wire, MemoryLease())
    it.publish([], canary=1)
    wire.broken = True
    for bars in ([bar("A", 1), bar("B", 1)], [bar("A", 1, closed=True)], [bar("A", 2, volume=3)], [bar("A", 2, volume=4)]):
        with pytest.raises(PublishError):
            it.publish([{"A": b'{"v":1}'}], canary=None, bars=group(bars))
    wire.broken = False
    it.publish([], canary=2, bars={})
    seq = wire.sent[-1].seq
    assert said(wire.sent[-1]) == {"A": [(1, True, 100, seq), (2, False, 4, seq)], "B": [(1, False, 100, seq)]}
    it.publish([], canary=3, bars={})
    assert wire.sent[-1].bars == {}


def test_what_is_owed_of_a_symbol_is_bounded() -> None:
    owed: klines.Group = {}
    for n in range(100):
        owed = then(owed, group([bar("A", n, closed=True)]))
    assert len(owed[M1]["A"].closed) == KEPT
    assert max(owed[M1]["A"].closed) == EPOCH + 99 * 60_000


def test_bars_that_nobody_wants_any_more_are_not_owed() -> None:
    both = group([bar("A", 1), bar("B", 1), bar("A", 1, period=M5)])
    assert {period: set(symbols) for period, symbols in among(both, {M1: frozenset({"B"})}).items()} == {M1: {"B"}}
    assert among(both, {M5: None}) == {M5: both[M5]}


def test_bars_alone_neither_take_the_lease_nor_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, lease = Wire(), MemoryLease()
    mute, standby = publisher(wire, lease, "a"), publisher(wire, lease, "b")
    mute.publish([], None, group([bar("A", 1)]))
    assert wire.sent == []
    mute.publish([], canary=1)
    held = mute._held_at
    mute.publish([], None, group([bar("A", 1)]))
    assert said(wire.sent[-1]) == {"A": [(1, False, 100, 2)]}
    monkeypatch.setattr("time.monotonic", lambda: held + 1.1 * TTL)
    mute.publish([], None, group([bar("A", 2)]))
    assert len(wire.sent) == 2
    standby.publish([], canary=2)
    assert standby.active
    mute.publish([], canary=3)
    assert wire.sent[-1].bars == {}


def test_a_message_without_bars_is_as_it_was_but_for_one_byte() -> None:
    batch = Batch("main", 1, 1, 1, "test", None, None, False, ["A"], [b"{}"])
    assert decode(encode(batch)) == batch
    assert encode(batch).endswith(b"\x80")


def test_bars_whose_lists_do_not_fit_are_refused() -> None:
    batch = Batch("main", 1, 1, 1, "test", None, None, False, [], [], {M1: (["A", "B"], [b"{}"])})
    with pytest.raises(ValueError, match="bars of 2 symbols"):
        decode(encode(batch))

"""What the ingest takes, drops and orders."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from marketdata.ingest import Ingest
from marketdata.types import Quote


def quote(symbol: str = "600000.SH", time: int = 1, price: float | None = 10.0, volume: int = 100) -> Quote:
    return Quote(symbol=symbol, time=time, price=price, volume=volume, source="test")


def prices(groups: list[dict[str, bytes]]) -> list[dict[str, float]]:
    return [{symbol: msgspec.json.decode(body, type=Quote).price for symbol, body in group.items()} for group in groups]


def test_the_same_snapshot_from_push_and_poll_is_taken_once() -> None:
    ingest = Ingest()
    assert ingest.take([quote()]).accepted == 1
    again = ingest.take([quote()])
    assert (again.accepted, again.duplicates, again.groups) == (0, 1, [])


def test_a_change_of_the_book_alone_is_new() -> None:
    ingest = Ingest()
    ingest.take([quote()])
    changed = Quote(symbol="600000.SH", time=1, price=10.0, volume=100, bid_price=(9.99,), bid_volume=(100,), source="test")
    assert ingest.take([changed]).accepted == 1


def test_an_older_quote_is_late_and_the_newer_stays() -> None:
    ingest = Ingest()
    ingest.take([quote(time=2)])
    assert ingest.take([quote(time=1, price=9.0)]).late == 1
    assert ingest.take([quote(time=2, volume=99)]).late == 1
    assert ingest.take([quote(time=2)]).duplicates == 1


def test_ahead_is_what_time_or_volume_says_to_be_newer() -> None:
    ingest = Ingest()
    ingest.take([quote(time=2)])
    equal, older, less = quote(time=2, price=11.0), quote(time=1, volume=101), quote(time=2, volume=99)
    newer = [quote(time=3, volume=0), quote(time=2, volume=101), quote("000001.SZ")]
    assert ingest.ahead([equal, older, less, *newer]) == newer


def test_two_quotes_of_one_symbol_go_into_two_groups_in_order() -> None:
    taken = Ingest().take([quote(time=1), quote("000001.SZ", time=1, price=5.0), quote(time=2, price=11.0)])
    assert prices(taken.groups) == [{"600000.SH": 10.0, "000001.SZ": 5.0}, {"600000.SH": 11.0}]


def test_a_quote_from_the_future_does_not_mute_its_symbol() -> None:
    ingest = Ingest()
    ingest.take([quote(time=10_000_000)])
    results = [ingest.take([quote(time=time, price=float(time))]) for time in (1, 2, 3, 4)]
    assert [result.late for result in results] == [1, 1, 0, 0]
    assert [result.clock_resets for result in results] == [0, 0, 1, 0]
    assert results[3].accepted == 1


def test_one_stale_poll_repeated_is_never_a_clock_reset() -> None:
    ingest = Ingest()
    ingest.take([quote(time=5)])
    assert [ingest.take([quote(time=1, price=1.0)]).late for _ in range(5)] == [1] * 5


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 5), st.integers(0, 5))))
def test_groups_hold_each_symbol_once_and_replay_to_the_accepted_sequence(rows: list[tuple[str, int, int]]) -> None:
    quotes = [quote(f"{symbol}.SH", time=time, volume=volume) for symbol, time, volume in rows]
    taken = Ingest().take(quotes)
    assert taken.accepted + taken.duplicates + taken.late == len(quotes)
    flat = [msgspec.json.decode(body, type=Quote) for group in taken.groups for body in group.values()]
    assert len(flat) == taken.accepted
    remaining = iter(quotes)
    for symbol in "ABC":
        remaining = iter([q for q in quotes if q.symbol == f"{symbol}.SH"])
        for accepted in (q for q in flat if q.symbol == f"{symbol}.SH"):
            assert any(candidate == accepted for candidate in remaining)

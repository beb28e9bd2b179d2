"""What selections add up to, and the places that their symbols have in a sweep."""

from __future__ import annotations

import pytest

from marketdata.types import DataType
from streaming.coverage import Symbols, cover, merged
from streaming.filters import Filter
from streaming.frame import Frame
from streaming.rows import Rows
from streaming.selection import Frequency, Selection

QUOTE, PRICE = DataType.QUOTE, DataType.PRICE


NOW = (Frequency.REALTIME, None)
DEAR, BUSY = Filter(min_price=100), Filter(min_volume=10**6)


def chosen(
    symbols: str | None, *types: DataType, frequency: Frequency = Frequency.REALTIME, filter: Filter | None = None
) -> Selection:
    names = None if symbols is None else frozenset(symbols)
    return Selection(symbols=names, data_types=frozenset(types or (QUOTE,)), frequency=frequency, filter=filter)


def test_selections_of_one_frequency_are_united_per_data_type() -> None:
    parts = cover([chosen("AB"), chosen("BC", QUOTE, PRICE)])
    assert parts == {NOW: {QUOTE: Symbols(frozenset("ABC")), PRICE: Symbols(frozenset("BC"))}}


def test_each_symbol_stands_at_its_fastest_frequency_alone() -> None:
    parts = cover([chosen("AB", frequency=Frequency.S5), chosen("BC"), chosen("ACD", frequency=Frequency.M1)])
    assert {frequency: "".join(sorted(part[QUOTE].names or ())) for (frequency, _), part in parts.items()} == {
        Frequency.REALTIME: "BC",
        Frequency.S5: "A",
        Frequency.M1: "D",
    }


def test_everything_at_one_frequency_leaves_out_what_comes_faster_and_leaves_nothing_to_slower_ones() -> None:
    parts = cover([chosen(None, frequency=Frequency.S1), chosen("A"), chosen("B", frequency=Frequency.S5)])
    assert parts == {
        NOW: {QUOTE: Symbols(frozenset("A"))},
        (Frequency.S1, None): {QUOTE: Symbols(None, frozenset("A"))},
    }
    whole = merged(parts.values(), QUOTE)
    assert whole == Symbols(None)
    assert merged(parts.values(), PRICE) is None


def test_a_filter_covers_what_nothing_brings_unfiltered_as_fast() -> None:
    parts = cover(
        [
            chosen("ABC", filter=DEAR),
            chosen("A"),
            chosen("B", frequency=Frequency.S1),
            chosen("ABCD", frequency=Frequency.S1, filter=DEAR),
            chosen("BE", frequency=Frequency.S5, filter=DEAR),
        ]
    )
    assert parts == {
        NOW: {QUOTE: Symbols(frozenset("A"))},
        (Frequency.S1, None): {QUOTE: Symbols(frozenset("B"))},
        (Frequency.REALTIME, DEAR): {QUOTE: Symbols(frozenset("BC"))},
        (Frequency.S1, DEAR): {QUOTE: Symbols(frozenset("D"))},
        (Frequency.S5, DEAR): {QUOTE: Symbols(frozenset("E"))},
    }


def test_filters_cover_a_symbol_each_for_itself() -> None:
    parts = cover([chosen("AB", filter=DEAR), chosen("BC", QUOTE, PRICE, filter=BUSY)])
    assert parts == {
        (Frequency.REALTIME, DEAR): {QUOTE: Symbols(frozenset("AB"))},
        (Frequency.REALTIME, BUSY): {QUOTE: Symbols(frozenset("BC")), PRICE: Symbols(frozenset("BC"))},
    }


def test_everything_unfiltered_leaves_a_filter_what_is_faster() -> None:
    parts = cover([chosen(None, frequency=Frequency.S1), chosen(None, PRICE, QUOTE, filter=DEAR), chosen("A", PRICE)])
    assert parts == {
        (Frequency.S1, None): {QUOTE: Symbols(None)},
        NOW: {PRICE: Symbols(frozenset("A"))},
        (Frequency.REALTIME, DEAR): {QUOTE: Symbols(None), PRICE: Symbols(None, frozenset("A"))},
    }
    assert cover([chosen(None), chosen("AB", filter=DEAR), chosen(None, frequency=Frequency.S5, filter=BUSY)]) == {
        NOW: {QUOTE: Symbols(None)}
    }


@pytest.mark.parametrize("symbols", [Symbols(frozenset("AC")), Symbols(None, frozenset("BD"))])
def test_among_is_the_same_as_asking_for_each(symbols: Symbols) -> None:
    for others in ({"A"}, set("ABCDEF"), set()):
        assert symbols.among(others) == {symbol for symbol in others if symbol in symbols}


def test_places_are_shared_given_back_and_used_again() -> None:
    rows = Rows()
    first, second = rows.getter("AB"), rows.getter("BC")
    assert len(rows) == 3
    row = rows.lay_out({QUOTE: {"A": b"a", "B": b"b", "C": b"c"}})[QUOTE]
    assert row.complete
    assert (first(row.cells), second(row.cells)) == ((b"a", b"b"), (b"b", b"c"))
    rows.release("AB")
    assert len(rows) == 2
    third = rows.getter("Z")
    row = rows.lay_out({QUOTE: {"C": b"c", "Z": b"z"}})[QUOTE]
    assert not row.complete
    assert (second(row.cells), third(row.cells)) == ((None, b"c"), (b"z",))
    assert len(row.cells) == 3


@pytest.mark.parametrize(("size", "header"), [(2, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)])
def test_a_frame_has_the_shortest_header_for_its_length(size: int, header: int) -> None:
    frame = Frame(b"[" + b"1" * (size - 2), b"", b"]")
    framed = b"".join(frame.parts)
    assert len(framed) == header + size
    assert framed[0] == 0x81
    assert frame.payload() == b"[" + b"1" * (size - 2) + b"]"
    length = framed[1] if header == 2 else int.from_bytes(framed[2:header], "big")
    assert length == size

"""What selections add up to, and the places that their symbols have in a sweep."""

from __future__ import annotations

import pytest

from marketdata.types import DataType
from streaming.coverage import Symbols, cover, merged
from streaming.frame import Frame
from streaming.rows import Rows
from streaming.selection import Frequency, Selection

QUOTE, PRICE = DataType.QUOTE, DataType.PRICE


def chosen(symbols: str | None, *types: DataType, frequency: Frequency = Frequency.REALTIME) -> Selection:
    names = None if symbols is None else frozenset(symbols)
    return Selection(symbols=names, data_types=frozenset(types or (QUOTE,)), frequency=frequency)


def test_selections_of_one_frequency_are_united_per_data_type() -> None:
    parts = cover([chosen("AB"), chosen("BC", QUOTE, PRICE)])
    assert parts == {Frequency.REALTIME: {QUOTE: Symbols(frozenset("ABC")), PRICE: Symbols(frozenset("BC"))}}


def test_each_symbol_stands_at_its_fastest_frequency_alone() -> None:
    parts = cover([chosen("AB", frequency=Frequency.S5), chosen("BC"), chosen("ACD", frequency=Frequency.M1)])
    assert {frequency: "".join(sorted(part[QUOTE].names or ())) for frequency, part in parts.items()} == {
        Frequency.REALTIME: "BC",
        Frequency.S5: "A",
        Frequency.M1: "D",
    }


def test_everything_at_one_frequency_leaves_out_what_comes_faster_and_leaves_nothing_to_slower_ones() -> None:
    parts = cover([chosen(None, frequency=Frequency.S1), chosen("A"), chosen("B", frequency=Frequency.S5)])
    assert parts == {
        Frequency.REALTIME: {QUOTE: Symbols(frozenset("A"))},
        Frequency.S1: {QUOTE: Symbols(None, frozenset("A"))},
    }
    whole = merged(parts.values(), QUOTE)
    assert whole == Symbols(None)
    assert merged(parts.values(), PRICE) is None


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

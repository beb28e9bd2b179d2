"""Pages: every row once, in order, whatever their size and whatever comes in between; and cursors that cannot be bent."""

from __future__ import annotations

import json as parser
from datetime import date

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus.errors import CURSOR_INVALID, ArgusError
from marketdata.api import cursor
from marketdata.api.formats import json
from marketdata.api.formats.json import Position
from marketdata.calendar import midnight
from marketdata.history.query import HistoryQuery
from marketdata.series import Series, merge
from marketdata.types import Adjust, Period
from tests.api.bars import FIRST, daily, prepared

NOW = midnight(date(2026, 11, 20)) + 14 * 3_600_000


def query(*symbols: str, **changes: object) -> HistoryQuery:
    asked = HistoryQuery(symbols=symbols or ("600000.SH",), period=Period.D1, start=midnight(FIRST))
    return msgspec.structs.replace(asked, **changes)


def page(asked: HistoryQuery, text: str | None, held: dict[str, Series], limit: int) -> tuple[list[tuple[str, int]], str | None]:
    pages, begin = (cursor.fixed(asked, NOW), Position(0, None)) if text is None else cursor.read(text, asked)
    following = min(len(asked.symbols), begin.symbol + cursor.per_page(pages, limit))
    part = msgspec.structs.replace(pages, symbols=pages.symbols[begin.symbol : following])

    def about(end: Position | None) -> bytes:
        if end is None and following < len(asked.symbols):
            end = Position(following, None)
        return msgspec.json.encode({"cursor": None if end is None else cursor.write(asked, pages, end)})

    parts = prepared(part, held).parts()
    found = parser.loads(b"".join(json.write(parts, asked.symbols, asked.fields, limit=limit, begin=begin, about=about)))
    return [(row["symbol"], row["time"]) for row in found["data"]], found["cursor"]


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6), limit=st.integers(1, 12), count=st.none() | st.integers(1, 6))
def test_pages_together_are_the_whole_answer(lengths: list[int], limit: int, count: int | None) -> None:
    symbols = tuple(f"{600000 + number}.SH" for number in range(len(lengths)))
    held = {symbol: daily(length) for symbol, length in zip(symbols, lengths, strict=True) if length}
    asked = query(*symbols, count=count)
    whole = [(symbol, int(time)) for symbol, series in prepared(asked, held).parts() for time in series.time]
    rows: list[tuple[str, int]] = []
    text = None
    for _ in range(len(whole) + len(symbols) + 1):
        found, text = page(asked, text, held, limit)
        assert len(found) <= limit
        rows += found
        if text is None:
            break
    assert text is None
    assert rows == whole


def test_bars_that_arrive_between_two_pages_shift_nothing() -> None:
    asked = query("600000.SH", "600001.SH", count=5)
    days = (NOW - midnight(FIRST)) // 86_400_000
    held = {symbol: daily(days) for symbol in asked.symbols}
    first, text = page(asked, None, held, 3)
    later = daily(30, first=date(2026, 11, 20))
    held = {symbol: merge(series, later) for symbol, series in held.items()}
    rows = list(first)
    while text is not None:
        found, text = page(asked, text, held, 3)
        rows += found
    assert [symbol for symbol, _ in rows] == ["600000.SH"] * 5 + ["600001.SH"] * 5
    assert [time for _, time in rows[:5]] == [time for _, time in rows[5:]]


def test_the_ends_that_were_open_are_fixed_and_come_back() -> None:
    asked = query(adjust=Adjust.FRONT)
    pages = cursor.fixed(asked, NOW)
    assert (pages.end, pages.as_of) == (NOW, date(2026, 11, 20))
    assert cursor.read(cursor.write(asked, pages, Position(0, 5)), asked) == (pages, Position(0, 5))
    assert cursor.fixed(query(end=midnight(FIRST) + 1), NOW).end == midnight(FIRST) + 1


@pytest.mark.parametrize(
    "other",
    [query("600001.SH"), query(period=Period.W1), query(adjust=Adjust.BACK), query(count=3), query(fields=("time",))],
)
def test_a_cursor_of_another_query_is_refused(other: HistoryQuery) -> None:
    text = cursor.write(query(), cursor.fixed(query(), NOW), Position(0, 5))
    with pytest.raises(ArgusError) as refused:
        cursor.read(text, other)
    assert (refused.value.problem, refused.value.params["parameter"]) == (CURSOR_INVALID, "cursor")
    assert "another query" in refused.value.message


@given(st.text() | st.integers(0, 200))
def test_a_damaged_cursor_is_refused(damage: str | int) -> None:
    good = cursor.write(query(), cursor.fixed(query(), NOW), Position(0, 5))
    text = damage if isinstance(damage, str) else good[: damage % len(good)] + "!" + good[damage % len(good) + 1 :]
    with pytest.raises(ArgusError) as refused:
        cursor.read(text, query())
    assert (refused.value.problem, refused.value.params["parameter"]) == (CURSOR_INVALID, "cursor")


def test_a_page_takes_as_many_symbols_as_fill_it() -> None:
    many = query(*(f"{600000 + number}.SH" for number in range(500)))
    assert cursor.per_page(msgspec.structs.replace(many, count=250), 10_000) == 41
    minutes = msgspec.structs.replace(cursor.fixed(many, NOW), period=Period.M1)
    assert cursor.per_page(minutes, 10_000) == 1

"""Recordings merged into one timeline."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from marketdata.sources.replay.formats import open_recording
from marketdata.sources.replay.recording import Reason, Recording, Row, Span, refused
from marketdata.sources.replay.timeline import DAY_MS, days_per_pass, steps, together
from marketdata.types import ParseError, Quote, Trade
from tests.sources.replay.raw import ETH, FUTURES, SPOT, SZ


class Rows:
    """A recording of given rows, which says how far it was read."""

    def __init__(self, *rows: Row, trades: bool = False) -> None:
        self._rows = rows
        self.trades = trades
        self.read = 0

    def scan(self) -> Span:
        raise NotImplementedError

    def rows(self) -> Iterator[Row]:
        for row in self._rows:
            self.read += 1
            yield row


def quote(symbol: str, time: int, volume: int = 0) -> Row:
    return time, Quote(symbol=symbol, time=time, volume=volume, source="replay")


def test_what_happened_at_the_same_ms_is_one_step_in_the_order_of_files_and_rows() -> None:
    one = Rows(quote("A", 1), quote("A", 2, 1), quote("A", 2, 2), quote("A", 5))
    two = Rows(quote("B", 2), (2, refused("B", Reason.PRICE, "x")), quote("B", 4))
    found = [(step.time, [(quote.symbol, quote.volume) for quote in step.parsed.quotes]) for step in steps([one, two])]
    assert found == [(1, [("A", 0)]), (2, [("A", 1), ("A", 2), ("B", 0)]), (4, [("B", 0)]), (5, [("A", 0)])]
    assert [len(step.parsed.errors) for step in steps([one, two])] == [0, 1, 0, 0]


def test_trades_stand_in_the_steps_beside_quotes_and_what_was_refused_with_its_own_kind() -> None:
    trade = Trade(symbol="A", time=2, index=7, price=1.0, volume=100, source="replay")
    trades = Rows((2, trade), (2, refused("B", Reason.CANCEL, "8")), (4, trade), trades=True)
    quotes = Rows(quote("A", 2), (2, refused("B", Reason.PRICE, "x")), quote("A", 3))
    found = list(steps([trades, quotes], shift_days=1))
    assert [step.time - DAY_MS for step in found] == [2, 3, 4]
    assert [len(step.parsed.quotes) for step in found] == [1, 1, 0]
    assert [[trade.time - DAY_MS for trade in step.trades.trades] for step in found] == [[2], [], [2]]
    assert [[error.reason for error in step.parsed.errors] for step in found] == [["price"], [], []]
    assert [[error.reason for error in step.trades.errors] for step in found] == [["cancel"], [], []]


def test_rows_are_read_as_they_are_needed() -> None:
    recording = Rows(*(quote("A", time) for time in range(1000)))
    timeline = steps([recording])
    for _ in range(10):
        next(timeline)
    assert recording.read <= 12


def test_a_pass_is_moved_by_whole_days_that_clear_the_recording() -> None:
    assert days_per_pass(Span(("A",), 0, DAY_MS - 1, 2)) == 1
    assert days_per_pass(Span(("A",), 0, DAY_MS, 2)) == 2
    (step,) = steps([Rows((5, Quote(symbol="A", time=7, source="replay")))], shift_days=2)
    assert (step.time, step.parsed.quotes[0].time) == (5 + 2 * DAY_MS, 7 + 2 * DAY_MS)


@pytest.mark.parametrize("names", [(SPOT, ETH), (SZ, FUTURES[0])], ids=["crypto", "china"])
def test_merged_recordings_lose_nothing_and_keep_each_symbols_order(data_dir: Path, names: tuple[str, ...]) -> None:
    recordings: list[Recording] = [open_recording(data_dir / name) for name in names]
    alone: dict[str, list[Quote | ParseError]] = defaultdict(list)
    for name in names:
        for _, value in open_recording(data_dir / name).rows():
            alone[value.symbol].append(value)
    merged, times = defaultdict(list), []
    for step in steps(recordings):
        times.append(step.time)
        for value in (*step.parsed.quotes, *step.parsed.errors):
            merged[value.symbol].append(value)
    assert all(earlier < later for earlier, later in pairwise(times))
    assert Counter(merged.pop("", [])) == Counter(alone.get("", []))
    for symbol, values in merged.items():
        for kind in (Quote, ParseError):
            assert [value for value in values if isinstance(value, kind)] == [v for v in alone[symbol] if isinstance(v, kind)]
    assert merged.keys() == alone.keys() - {""}
    assert together([recording.scan() for recording in recordings]).rows == sum(map(len, alone.values()))

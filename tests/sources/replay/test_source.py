"""The replay as a source: who gets what, when, and how it ends."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from marketdata.sources.base import Capability, SourceTimeout, SourceUnavailable, State, Unsupported
from marketdata.sources.replay.formats import open_recording
from marketdata.sources.replay.pace import Clock
from marketdata.sources.replay.recording import RecordingError
from marketdata.sources.replay.source import ReplaySource
from marketdata.types import Parsed, ParseError, Period, Quote
from tests.sources.conformance import eventually
from tests.sources.replay.clocks import JumpingClock, StandingClock
from tests.sources.replay.raw import ETH, FUTURES, SH, SPOT, SZ, csv_text, excerpt, ticks, write_dsb, write_zip

DAY_MS = 86_400_000
WAIT = 30.0


class Taker:
    """A subscriber that keeps everything, and may be held."""

    def __init__(self) -> None:
        self.quotes: list[Quote] = []
        self.errors: list[ParseError] = []
        self.batches: list[Parsed] = []
        self.free = threading.Event()
        self.free.set()
        self.held = threading.Event()

    def __call__(self, parsed: Parsed) -> None:
        self.batches.append(parsed)
        self.quotes += parsed.quotes
        self.errors += parsed.errors
        if not self.free.is_set():
            self.held.set()
            assert self.free.wait(WAIT)

    def of(self, symbol: str) -> list[Quote]:
        return [quote for quote in self.quotes if quote.symbol == symbol]


@contextmanager
def replay(*files: Path, speed: float = 0.0, loop: bool = False, clock: Clock | None = None) -> Iterator[ReplaySource]:
    source = ReplaySource(files=files, speed=speed, loop=loop, clock=clock)
    source.start()
    try:
        yield source
    finally:
        source.close()


def finished(source: ReplaySource) -> Callable[[], bool]:
    return lambda: source.status().state == State.FINISHED


def small(data_dir: Path, tmp_path: Path, rows: int = 200) -> Path:
    """Three instruments' first rows."""
    return excerpt(data_dir, SZ, tmp_path, rows)


@pytest.mark.parametrize(
    ("names", "rows"),
    [((SZ,), 20_980), ((SH,), 32_972), (FUTURES, 56_209), ((SPOT, ETH), 74_867)],
    ids=["sz", "sh", "futures", "binance"],
)
def test_every_row_of_the_files_reaches_a_subscriber_and_the_state_ends_exact(
    data_dir: Path, names: tuple[str, ...], rows: int
) -> None:
    taker = Taker()
    with replay(*(data_dir / name for name in names)) as source:
        source.subscribe(None, taker)
        eventually(finished(source))
        state = source.fetch_quotes(timeout=WAIT).quotes
        assert len(taker.quotes) + len(taker.errors) == rows
        recorded = defaultdict(list)
        for name in names:
            for _, value in open_recording(data_dir / name).rows():
                if isinstance(value, Quote):
                    recorded[value.symbol].append(value)
        assert {symbol: taker.of(symbol) for symbol in source.universe(timeout=WAIT)} == recorded
        assert state == tuple(recorded[symbol][-1] for symbol in source.universe(timeout=WAIT))


def test_the_clock_does_not_run_before_the_first_subscriber(data_dir: Path, tmp_path: Path) -> None:
    clock = JumpingClock()
    with replay(small(data_dir, tmp_path), speed=1.0, clock=clock) as source:
        first = source.universe(timeout=WAIT)
        assert source.status().state == State.UP
        assert source.fetch_quotes(timeout=WAIT) == Parsed()
        clock.time += 86400
        taker = Taker()
        source.subscribe(None, taker)
        eventually(finished(source))
        assert len(taker.of(first[0])) == 200
        assert clock.waits


@pytest.mark.parametrize("speed", [1.0, 60.0, 1000.0])
def test_a_session_takes_its_own_length_divided_by_the_speed(data_dir: Path, speed: float) -> None:
    clock, taker = JumpingClock(), Taker()
    with replay(data_dir / SZ, speed=speed, clock=clock) as source:
        source.subscribe(None, taker)
        eventually(finished(source))
        recorded = (taker.quotes[-1].time - taker.quotes[0].time) / 1000
        assert recorded == 20_850
        assert clock.time - 1000.0 == pytest.approx(recorded / speed)
        assert sum(clock.waits) == pytest.approx(recorded / speed)


def test_nothing_comes_before_it_is_due(data_dir: Path, tmp_path: Path) -> None:
    clock, taker = StandingClock(), Taker()
    with replay(small(data_dir, tmp_path), speed=10.0, clock=clock) as source:
        source.subscribe(None, taker)
        assert clock.waiting.wait(WAIT)
        start = taker.quotes[0].time
        assert {quote.time for quote in taker.quotes} == {start}
        for _ in range(50):
            clock.advance(1.0)
            eventually(lambda: clock.waiting.is_set() and source.status().time is not None)
            assert max(quote.time for quote in taker.quotes) - start <= (clock.now() - 1000.0) * 10_000
        eventually(lambda: source.status().time == taker.quotes[-1].time)


def test_rows_of_the_same_time_come_together_in_the_order_of_the_file(data_dir: Path) -> None:
    taker = Taker()
    with replay(data_dir / SH) as source:
        source.subscribe(None, taker)
        eventually(finished(source))
        times = [{quote.time for quote in batch.quotes} for batch in taker.batches]
        assert {len(found) for found in times} == {1}
        assert all(min(earlier) < min(later) for earlier, later in pairwise(times))
        assert sum(len(batch.quotes) > len({quote.symbol for quote in batch.quotes}) for batch in taker.batches) > 50


def test_a_subscriber_that_blocks_is_waited_for_and_loses_nothing(data_dir: Path, tmp_path: Path) -> None:
    clock, slow, other = JumpingClock(), Taker(), Taker()
    with replay(small(data_dir, tmp_path), speed=1.0, clock=clock) as source:
        slow.free.clear()
        source.subscribe(None, slow)
        assert slow.held.wait(WAIT)
        source.subscribe(None, other)
        clock.time += 600
        assert source.fetch_quotes(timeout=WAIT) == Parsed()
        assert source.status().state == State.UP
        slow.free.set()
        eventually(finished(source))
        assert len(slow.quotes) == 600
        assert slow.quotes == other.quotes
        # What was overdue came at once: the wait left is that of the rest of the recording.
        recorded = (slow.quotes[-1].time - slow.quotes[0].time) / 1000
        assert sum(clock.waits) == pytest.approx(recorded - 600)


def test_who_comes_later_gets_the_state_first_and_then_every_change(data_dir: Path, tmp_path: Path) -> None:
    clock, first, later = StandingClock(), Taker(), Taker()
    with replay(small(data_dir, tmp_path), speed=1.0, clock=clock) as source:
        source.subscribe(None, first)
        eventually(lambda: len(first.quotes) > 50, lambda: clock.advance(10))
        source.subscribe(None, later)
        eventually(finished(source), lambda: clock.advance(100))
        state, *changes = later.batches
        seen = len(first.batches) - len(changes)
        newest = {quote.symbol: quote for batch in first.batches[:seen] for quote in batch.quotes}
        assert set(state.quotes) == set(newest.values())
        assert changes == first.batches[seen:]


def test_after_the_end_a_subscriber_still_gets_the_last_state(data_dir: Path, tmp_path: Path) -> None:
    taker = Taker()
    with replay(small(data_dir, tmp_path)) as source:
        source.subscribe(None, Taker())
        eventually(finished(source))
        source.subscribe(None, taker)
        eventually(lambda: taker.batches)
        assert set(taker.quotes) == set(source.fetch_quotes(timeout=WAIT).quotes)
        assert source.status().time == max(quote.time for quote in taker.quotes)
        assert Capability.QUOTES in source.capabilities()


def test_errors_reach_subscribers_of_their_symbol_and_nameless_ones_all(data_dir: Path, tmp_path: Path) -> None:
    header, *rows = csv_text(small(data_dir, tmp_path, 20)).splitlines()
    broken = [rows[0] + ",more", rows[1].replace("2022.06.01", "2022-06-01"), rows[2].replace(",0,", ",x,", 1)]
    path = write_zip(tmp_path / "broken.zip", "\n".join([header, *broken, *rows[3:]]))
    everything, mine, others = Taker(), Taker(), Taker()
    with replay(path) as source:
        symbols = source.universe(timeout=WAIT)
        subscriptions = [
            source.subscribe(None, everything),
            source.subscribe(symbols[:1], mine),
            source.subscribe(symbols[1:], others),
        ]
        eventually(finished(source))
        assert len(subscriptions) == 3
    assert [error.reason for error in everything.errors] == ["columns", "time", "volume"]
    assert len(everything.quotes) == len(rows) - 3
    assert {quote.symbol for quote in mine.quotes} == set(symbols[:1])
    assert {error.symbol for error in others.errors} <= {"", *symbols[1:]}


def test_a_loop_moves_time_forward_by_whole_days_and_says_so(data_dir: Path, tmp_path: Path) -> None:
    clock, taker = JumpingClock(), Taker()
    rows = 600
    with replay(small(data_dir, tmp_path), speed=1.0, loop=True, clock=clock) as source:
        source.subscribe(None, taker)
        eventually(lambda: len(taker.quotes) >= 3 * rows)
        eventually(lambda: "moved forward by" in source.status().detail)
        assert source.status().state == State.UP
    first, second, third = (taker.quotes[start : start + rows] for start in (0, rows, 2 * rows))
    assert [quote.time + DAY_MS for quote in first] == [quote.time for quote in second]
    assert [quote.time + 2 * DAY_MS for quote in first] == [quote.time for quote in third]
    assert [(quote.symbol, quote.price, quote.volume) for quote in first] == [(q.symbol, q.price, q.volume) for q in second]


def test_the_night_between_two_days_is_not_waited_out(data_dir: Path, tmp_path: Path) -> None:
    clock, taker = JumpingClock(), Taker()
    with replay(*(excerpt(data_dir, name, tmp_path, 500) for name in FUTURES), speed=1.0, clock=clock) as source:
        source.subscribe(None, taker)
        eventually(finished(source))
    assert taker.quotes[-1].time - taker.quotes[0].time > DAY_MS
    assert sum(clock.waits) < 1000


@pytest.mark.parametrize("begun", [False, True])
def test_close_ends_a_replay_in_a_long_pause_at_once(data_dir: Path, tmp_path: Path, begun: bool) -> None:
    taker = Taker()
    source = ReplaySource(files=[small(data_dir, tmp_path)], speed=0.0001)
    source.start()
    if begun:
        source.subscribe(None, taker)
        eventually(lambda: taker.quotes)
    source.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "replay"]
    assert source.status().state == State.DOWN
    seen = len(taker.batches)
    with pytest.raises(SourceUnavailable):
        source.subscribe(None, taker)
    assert len(taker.batches) == seen


def test_close_does_not_wait_for_ever_for_a_subscriber_that_blocks(data_dir: Path, tmp_path: Path) -> None:
    taker = Taker()
    taker.free.clear()
    with replay(small(data_dir, tmp_path)) as source:
        source.subscribe(None, taker)
        assert taker.held.wait(WAIT)
        source.close()
        taker.free.set()
        eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "replay"])
        assert len(taker.batches) == 1


def test_a_damaged_file_makes_the_source_down_with_the_reason(data_dir: Path, tmp_path: Path) -> None:
    path = write_dsb(tmp_path / "damaged.dsb", ticks(data_dir / FUTURES[0])[:10], tail=b"x")
    with replay(small(data_dir, tmp_path), path) as source:
        eventually(lambda: source.status().state == State.DOWN)
        assert "damaged.dsb: the last record has 1 bytes" in source.status().detail
        assert source.capabilities() == frozenset()
        for call in (source.universe, source.fetch_quotes):
            with pytest.raises(SourceUnavailable, match=r"damaged\.dsb"):
                call(timeout=WAIT)
        with pytest.raises(SourceUnavailable):
            source.subscribe(None, Taker())


def test_wrong_arguments_are_refused_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for files, speed, said in (
        ([], 1.0, "at least one file"),
        ([tmp_path / "missing.zip"], 1.0, "missing.zip"),
        ([tmp_path / "notes.txt"], 1.0, "format is not known"),
    ):
        with pytest.raises(ValueError, match=said):
            ReplaySource(files=files, speed=speed)
    assert issubclass(RecordingError, ValueError)


@pytest.mark.parametrize("speed", [-1.0, float("nan")])
def test_a_speed_below_zero_is_refused(data_dir: Path, speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        ReplaySource(files=[data_dir / SZ], speed=speed)


def test_instruments_are_what_the_codes_tell_and_the_rest_is_unsupported(data_dir: Path) -> None:
    with replay(data_dir / SZ, data_dir / FUTURES[0]) as source:
        instruments = {item.symbol: item for item in source.fetch_instruments(["000400.SZ", "IF2101.IF", "X"], timeout=WAIT)}
        assert {symbol: (item.kind, item.price_tick) for symbol, item in instruments.items()} == {
            "000400.SZ": ("stock", 0.01),
            "IF2101.IF": ("future", 0.2),
        }
        for call in (lambda: source.fetch_sectors(timeout=WAIT), lambda: source.fetch_trading_dates("SH", timeout=WAIT)):
            with pytest.raises(Unsupported):
                call()


def test_bars_are_those_of_the_recorded_day_up_to_the_replays_clock(data_dir: Path) -> None:
    symbol = "300122.SZ"
    with replay(data_dir / SZ, speed=0) as source:
        source.subscribe(None, Taker())
        eventually(lambda: source.status().state == State.FINISHED)
        minutes = source.fetch_bars([symbol, "X"], Period.M1, timeout=60).series
        days = source.fetch_bars([symbol], Period.D1, timeout=60).series
        [quote] = source.fetch_quotes([symbol], timeout=60).quotes
        with pytest.raises(Unsupported):
            source.fetch_bars([symbol], Period.M5, timeout=60)
        with pytest.raises(SourceTimeout):
            source.fetch_bars([symbol], Period.M1, timeout=1e-3)
    assert set(minutes) == {symbol}
    [day] = days[symbol].bars(symbol, Period.D1, "replay")
    assert (day.open, day.high, day.low, day.close, day.volume) == (quote.open, quote.high, quote.low, quote.price, quote.volume)
    assert minutes[symbol].time[0] % 86_400_000 == int(1.5 * 3_600_000)
    assert minutes[symbol].high.max() == day.high

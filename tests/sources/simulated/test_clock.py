"""The simulated market's clocks."""

from __future__ import annotations

import time

import pytest

from argus.config import Config
from marketdata.calendar import CHINA, day_of, phase
from marketdata.sources import registry
from marketdata.sources.base import State
from marketdata.sources.simulated.clock import LiveClock, ManualClock, VirtualClock, forward
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.types import TradingStatus
from tests.sources.conformance import eventually, wait_up
from tests.sources.simulated.moments import market, moment


def test_the_virtual_clock_begins_just_before_continuous_trading_on_a_trading_day_up_to_today() -> None:
    now = VirtualClock().now()
    assert phase("SH", now + 5000) in (TradingStatus.CONTINUOUS, TradingStatus.UNKNOWN)
    assert day_of(now) <= day_of(time.time_ns() // 1_000_000)


@pytest.mark.parametrize(
    ("start", "seconds", "end"),
    [
        ("2026-03-04 10:00:00", 60, "2026-03-04 10:01:00"),
        ("2026-03-04 09:25:20", 20, "2026-03-04 09:30:00"),
        ("2026-03-04 11:30:00", 60, "2026-03-04 13:00:00"),
        ("2026-03-04 12:00:00", 0, "2026-03-04 12:59:30"),
        ("2026-03-06 15:00:00", 30, "2026-03-09 09:15:00"),
        ("2026-02-13 15:00:20", 15, "2026-02-24 09:15:05"),
        ("2026-12-31 15:00:20", 15, "2027-01-01 09:15:05"),
        ("2026-03-04 09:15:00", 630 + 7240 + 7260, "2026-03-05 09:15:00"),
    ],
)
def test_the_virtual_clock_jumps_from_session_to_session(start: str, seconds: int, end: str) -> None:
    assert forward(moment(start), seconds * 1000) == moment(end)


@pytest.mark.parametrize("speed", [1, 0.5, 500])
def test_the_virtual_clock_runs_at_its_speed_and_loses_nothing_between_calls(speed: float) -> None:
    start, real = moment("2026-03-04 09:30:00"), iter(step * 0.0007 for step in range(10_001))
    clock = VirtualClock(start, speed, lambda: next(real))
    times = [clock.now() for _ in range(10_000)]
    assert times == sorted(times)
    assert times[-1] - start == pytest.approx(7000 * speed, abs=2)


@pytest.mark.parametrize("speed", [0, -1])
def test_a_clock_that_does_not_run_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        VirtualClock(speed=speed)


def test_the_live_clock_is_the_time_of_day() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= LiveClock().now() <= time.time_ns() // 1_000_000
    assert LiveClock().delay(before - 1000) == 0
    assert 0 < LiveClock().delay(before + 60_000) <= 1


def test_a_manual_clock_stands_still() -> None:
    clock = ManualClock(1000)
    assert (clock.now(), clock.delay(1000), clock.delay(1001) > 0) == (1000, 0, True)


@pytest.mark.parametrize("clock", ["virtual", "live"])
def test_a_source_runs_on_either_clock(clock: str) -> None:
    source = SimulatedSource(symbols=5, clock=clock)  # type: ignore[arg-type]
    source.start()
    wait_up(source)
    assert {quote.symbol for quote in source.fetch_quotes(timeout=10).quotes} == set(source.universe(timeout=10))
    source.close()


def test_a_virtual_market_is_trading_at_any_hour() -> None:
    source = SimulatedSource(symbols=20, speed=20)
    source.start()
    wait_up(source)
    volumes = {quote.symbol: quote.volume for quote in source.fetch_quotes(timeout=10).quotes}
    eventually(lambda: any(quote.volume != volumes[quote.symbol] for quote in source.fetch_quotes(timeout=10).quotes))
    source.close()


def test_after_the_last_known_trading_day_the_status_says_so() -> None:
    with market("2026-12-31 10:00:00") as (source, clock):
        assert source.status().detail == ""
        clock.set(moment("2027-03-01 10:00:00"))
        assert "2026-12-31" in source.status().detail
        assert source.status().state is State.UP
        assert source.fetch_trading_dates("SH", timeout=10)[-1] == "2027-03-01"


def test_the_trading_dates_are_the_real_ones_where_they_are_known() -> None:
    with market("2026-03-04 10:00:00") as (source, _):
        dates = source.fetch_trading_dates("SZ", timeout=10)
        assert (dates[0], dates[-1]) == ("2025-01-02", CHINA.last.isoformat())
        assert "2026-02-18" not in dates
        assert source.fetch_trading_dates("HK", timeout=10) == ()


def test_the_terminals_of_a_process_show_the_same_market_at_the_same_time() -> None:
    config = Config(source="simulated", simulated_symbols=5, simulated_clock="virtual")
    first, second = registry.build(config, "first", ""), registry.build(config, "second", "")
    try:
        first.start()
        time.sleep(0.05)
        second.start()
        times = [source.status().time or 0 for source in (first, second, first)]
        assert times == sorted(times)
        assert times[0] > 0
    finally:
        first.close()
        second.close()

"""Pushing is the same market as polling."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from marketdata.sources.base import SourceTimeout, SourceUnavailable
from marketdata.types import Parsed, Quote
from tests.sources.conformance import Collector, eventually
from tests.sources.simulated.moments import market, moment, quotes


def shows(pushed: Collector, state: dict[str, Quote]) -> bool:
    """Whether the last quotes that were pushed are the market's state."""
    return {symbol: series[-1] for symbol, series in pushed.quotes.items()} == state


def test_what_was_pushed_last_is_what_a_poll_gives() -> None:
    with market("2026-03-04 10:00:00", symbols=200) as (source, clock):
        pushed = Collector()
        source.subscribe(None, pushed)
        eventually(lambda: len(pushed.quotes) == 200)
        for _ in range(30):
            clock.advance(1000)
            state = quotes(source)
            eventually(partial(shows, pushed, state))


def test_only_changes_follow_the_current_state() -> None:
    with market("2026-03-04 10:00:00", symbols=200) as (source, clock):
        pushed = Collector()
        source.subscribe(None, pushed)
        eventually(lambda: sum(map(len, pushed.quotes.values())) > 400, lambda: clock.advance(1000))
        for series in pushed.quotes.values():
            assert len(set(series)) == len(series)
        assert source.status().dropped == 0


def test_while_a_callback_blocks_quotes_are_merged_to_the_newest_and_counted() -> None:
    with market("2026-03-04 10:00:00", symbols=20) as (source, clock):
        entered, release, pushed = threading.Event(), threading.Event(), Collector()

        def slow(parsed: Parsed) -> None:
            pushed(parsed)
            entered.set()
            release.wait(30)

        source.subscribe(None, slow)
        entered.wait(30)
        clock.advance(60_000)
        release.set()
        state = quotes(source)
        eventually(partial(shows, pushed, state))
        assert pushed.deliveries == 2
        # 600000.SH has an event in nearly each of the minute's twenty snapshots; the newest alone came.
        assert len(pushed.quotes["600000.SH"]) == 2
        dropped = source.status().dropped
        assert dropped >= 18
    assert source.status().dropped == dropped


def test_a_callback_that_blocks_for_ever_does_not_hold_up_the_close() -> None:
    with market("2026-03-04 10:00:00") as (source, _):
        entered, release = threading.Event(), threading.Event()

        def stuck(parsed: Parsed) -> None:
            entered.set()
            release.wait(60)

        subscription = source.subscribe(None, stuck)
        entered.wait(30)
        source.close()
        with pytest.raises(SourceUnavailable):
            source.fetch_quotes(timeout=1)
        release.set()
        subscription.close()


def test_a_day_that_is_not_made_in_time_is_a_timeout_and_the_next_poll_goes_on() -> None:
    with market("2026-03-04 09:00:05", symbols=1500) as (source, clock):
        clock.set(moment("2026-03-05 10:30:00"))
        with pytest.raises(SourceTimeout, match="not ready"):
            source.fetch_quotes(timeout=1e-3)
        resumed = quotes(source)
    with market("2026-03-05 10:30:00", symbols=1500) as (other, _):
        assert quotes(other) == resumed

"""A simulated market under a clock that the test sets, its tasks in the caller's thread, tiers of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argus.celery import app
from argus.config import Config, config
from marketdata import feeds
from marketdata.cache import tiers as tiers_module
from marketdata.calendar import CHINA, midnight
from marketdata.feed import Feed
from marketdata.history import dividends, fetch
from marketdata.history.query import HistoryQuery, make
from marketdata.latest import FeedState, store
from marketdata.lease import MemoryLease
from marketdata.publisher import Publisher
from marketdata.sources.base import Bars, SourceUnavailable
from marketdata.sources.simulated.clock import ManualClock
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.terminals import dispatch
from marketdata.types import Period

MINUTE = 60_000
SYMBOLS = 40


class Terminal(SimulatedSource):
    """The simulated market, which remembers what it was asked and does what a test wants instead."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(symbols=SYMBOLS, clock=clock)
        self.asked: list[tuple[tuple[str, ...], Period, date, date]] = []
        self.down = False
        self.without_ratios = False
        self.change: Any = None
        self.hold = threading.Event()
        self.hold.set()
        self.fetching = threading.Event()

    def fetch_bars(self, symbols: Sequence[str], period: Period, **options: Any) -> Bars:
        from marketdata.calendar import day_of

        self.asked.append((tuple(symbols), Period(period), day_of(options["start"]), day_of(options["end"] - 1)))
        self.fetching.set()
        self.hold.wait(options["timeout"])
        if self.down:
            raise SourceUnavailable("the test has taken it down")
        bars = super().fetch_bars(symbols, period, **options)
        return self.change(bars) if self.change else bars

    def fetch_dividends(self, symbols: Sequence[str], *, timeout: float) -> Any:
        self.asked_dividends = getattr(self, "asked_dividends", 0) + 1
        if self.down:
            raise SourceUnavailable("the test has taken it down")
        given = super().fetch_dividends(symbols, timeout=timeout)
        if not self.without_ratios:
            return given
        return {symbol: tuple(msgspec.structs.replace(paid, ratio=None) for paid in told) for symbol, told in given.items()}


class Market:
    """What a test sets and looks at."""

    def __init__(self, terminal: Terminal, clock: ManualClock) -> None:
        self.terminal = terminal
        self._clock = clock
        self.set(clock.now())

    @property
    def now(self) -> int:
        """The market's time."""
        return self._clock.now()

    def set(self, ms: int) -> None:
        """The market's time, at the terminal and in this process."""
        self._clock.set(ms)
        store.feeds["main"] = FeedState(clock=ms)

    def at(self, day: str, hours: int = 16, minutes: int = 0) -> None:
        """The market's time by day and time of day."""
        self.set(midnight(date.fromisoformat(day)) + (hours * 60 + minutes) * MINUTE)

    def query(self, *symbols: str, **parameters: Any) -> HistoryQuery:
        """A query of these words."""
        return make(symbols=symbols, calendar=CHINA, **parameters)


@pytest.fixture(autouse=True)
def _own_tiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tiers_module.forget()
    monkeypatch.setattr(tiers_module, "config", Config(archive_url=str(tmp_path / "archive")))
    dividends.memory.clear()
    dispatch.forget()
    fetch.ending.clear()
    yield
    tiers_module.forget()


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[Market]:
    """The market on 2026-06-30 at 16:00: the day has closed."""
    app.conf.task_always_eager = True
    clock = ManualClock(midnight(date(2026, 6, 30)) + 16 * 60 * MINUTE)
    terminal = Terminal(clock)
    publisher = Publisher(
        feed="main", source="simulated", owner="t", lease=MemoryLease(), send=lambda *_: None, save_snapshot=lambda *_: None
    )
    feed = Feed(terminal="main", source=terminal, publisher=publisher, config=config)
    monkeypatch.setitem(feeds._feeds, "main", feed)
    terminal.start()
    terminal.universe(timeout=60)
    yield Market(terminal, clock)
    terminal.close()
    app.conf.task_always_eager = False


@pytest.fixture
def symbols(market: Market) -> list[str]:
    """The symbols of the market."""
    return list(market.terminal.universe(timeout=60))

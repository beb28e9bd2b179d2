"""The replay's cases of the shared conformance tests: an excerpt of a recorded file of every format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from marketdata.sources.base import State
from marketdata.sources.replay.bars import PERIODS
from marketdata.sources.replay.source import ReplaySource
from tests.sources.conformance import CaseContext, SourceCase
from tests.sources.replay import raw
from tests.sources.replay.clocks import StandingClock

ROWS = 2000
_excerpts: dict[str, Path] = {}
"""Made once a session."""


class _Replay:
    """Replays of one file whose clocks stand still until the test lets the market move on."""

    def __init__(self, paths: tuple[Path, ...], seconds: float) -> None:
        self._paths = paths
        self._seconds = seconds
        self._running: list[tuple[ReplaySource, StandingClock, list[object]]] = []

    def make(self) -> ReplaySource:
        clock = StandingClock()
        source = ReplaySource(files=self._paths, clock=clock)
        self._running.append((source, clock, []))
        return source

    def advance(self) -> None:
        """A replay moves for its subscribers only; where a test just polls, it gets one."""
        for source, clock, subscriptions in self._running:
            if source.status().state == State.UP:
                if not subscriptions:
                    subscriptions.append(source.subscribe(None, lambda parsed: None))
                clock.advance(self._seconds)


@contextmanager
def _case(
    name: str, symbols: tuple[str, ...], seconds: float, trades: tuple[str, ...], request: pytest.FixtureRequest
) -> Iterator[SourceCase]:
    data_dir: Path = request.getfixturevalue("data_dir")
    files: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    if name not in _excerpts:
        _excerpts[name] = raw.excerpt(data_dir, name, files.mktemp("replay"), ROWS)
    paths = [_excerpts[name]]
    if trades:
        if raw.SH_TRADES not in _excerpts:
            excerpt = raw.excerpt(data_dir, raw.SH_TRADES, files.mktemp("replay"), ROWS)
            _excerpts[raw.SH_TRADES] = raw.move(excerpt, "2023.07.11", "2022.06.01")
        paths.append(_excerpts[raw.SH_TRADES])
    replay = _Replay(tuple(paths), seconds)
    yield SourceCase(name="replay", make=replay.make, symbols=symbols, advance=replay.advance, periods=PERIODS, trades=trades)


def _context(name: str, symbols: tuple[str, ...], seconds: float, trades: tuple[str, ...] = ()) -> CaseContext:
    def context(request: pytest.FixtureRequest) -> AbstractContextManager[SourceCase]:
        return partial(_case, name, symbols, seconds, trades)(request)

    return context


CASES: dict[str, CaseContext] = {
    "replay-sz": _context(raw.SZ, ("300918.SZ", "300122.SZ", "300288.SZ"), 30),
    "replay-trades": _context(raw.SZ, ("300918.SZ", "300122.SZ", "300288.SZ"), 30, ("605580.SH", "600536.SH")),
    "replay-sh": _context(raw.SH, ("600103.SH", "600107.SH", "600133.SH"), 30),
    "replay-futures": _context(raw.FUTURES[0], ("IF2101.IF",), 30),
    "replay-binance": _context(raw.SPOT, ("BTCUSDT.BINANCE",), 0.5),
    "replay-binance-usdm": _context(raw.USD_M, ("BTCUSDT.BINANCEUM",), 0.5),
}

"""The terminal's cases of the shared conformance tests: one that pushes, and an old one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from marketdata.sources.qmt.source import QmtSource
from marketdata.types import Period
from tests.emulator import EmulatedTerminal, child_environment
from tests.sources.conformance import CaseContext, SourceCase

TIMEOUT = 30.0


def _context(**modes: Any) -> CaseContext:
    """A terminal in these modes: started once a module, and its market begins anew with every test."""
    terminal = EmulatedTerminal()
    terminal.set_mode(**modes)

    @contextmanager
    def context(request: pytest.FixtureRequest) -> Iterator[SourceCase]:
        monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        for name, value in child_environment().items():
            monkeypatch.setenv(name, value)
        if not terminal.runs:
            terminal.start()
            request.node.getparent(pytest.Module).addfinalizer(terminal.kill)
        terminal.go_to(0)
        yield SourceCase(
            name="qmt",
            make=lambda: QmtSource(name="main", address=terminal.address, timeout=TIMEOUT),
            symbols=("600000.SH", "000001.SZ"),
            advance=terminal.advance,
            periods=tuple(Period),
            trades=("600000.SH", "000001.SZ"),
        )

    return context


CASES: dict[str, CaseContext] = {
    "qmt": _context(),
    "qmt-old": _context(
        old=True,
        levels=1,
        missing=["subscribe_whole_quote", "subscribe_quote", "supply_history_data2", "get_instrument_detail", "get_sector_list"],
    ),
}

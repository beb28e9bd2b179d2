"""The simulated market as a case of the conformance tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest

from marketdata.calendar import midnight
from marketdata.sources.simulated.clock import ManualClock
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.types import Period
from tests.sources.conformance import SourceCase

MORNING = midnight(date(2026, 3, 4)) + (9 * 60 + 45) * 60_000


@contextmanager
def simulated(request: pytest.FixtureRequest) -> Iterator[SourceCase]:
    clock = ManualClock(MORNING)
    yield SourceCase(
        name="simulated",
        make=lambda: SimulatedSource(symbols=60, seed=7, clock=clock),
        symbols=("600000.SH", "000001.SZ", "920000.BJ"),
        advance=lambda: clock.advance(3000),
        periods=(Period.M1, Period.D1),
        trades=("600000.SH", "000001.SZ"),
    )


CASES = {"simulated": simulated}

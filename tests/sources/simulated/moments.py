"""Times of the simulated market, and a source that stands at one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from marketdata.calendar import SHANGHAI
from marketdata.sources.simulated.clock import ManualClock
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.types import Quote
from tests.sources.conformance import PATIENCE, wait_up


def moment(text: str) -> int:
    """Beijing time, such as ``2026-03-04 09:45:00``, in ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).timestamp() * 1000)


@contextmanager
def market(time: str, *, symbols: int = 60, seed: int = 7) -> Iterator[tuple[SimulatedSource, ManualClock]]:
    """A running source and its clock."""
    clock = ManualClock(moment(time))
    source = SimulatedSource(symbols=symbols, seed=seed, clock=clock)
    source.start()
    wait_up(source)
    yield source, clock
    source.close()


def quotes(source: SimulatedSource) -> dict[str, Quote]:
    """The state of the whole market."""
    return {quote.symbol: quote for quote in source.fetch_quotes(timeout=PATIENCE).quotes}

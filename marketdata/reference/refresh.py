"""The refresh of reference data: what a terminal says goes into the database, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import structlog

from marketdata import metrics, models, universe
from marketdata.exchanges import Kind
from marketdata.feeds import Feed
from marketdata.reference import days, store
from marketdata.sources.base import Capability, Source, SourceError, Unsupported
from marketdata.types import Instrument

log = structlog.get_logger(__name__)

REFRESH_EVERY = 6 * 3600.0
"""Seconds; sectors and listings change over night."""
TIMEOUT = 60.0
"""Seconds for one of the refresh's calls, which are long and few."""
CHUNK = 500
"""Instruments of one call and one transaction: what was told stays although a later call fails; nobody waits long to write."""
KINDS = (Kind.INDEX, Kind.FUND, Kind.FUTURE, Kind.OPTION)
"""What is kept whether the feed quotes it or not."""
WEIGHTED = (
    "000016.SH",
    "000300.SH",
    "000688.SH",
    "000852.SH",
    "000905.SH",
    "000906.SH",
    "399001.SZ",
    "399006.SZ",
    "399330.SZ",
    "899050.BJ",
)
"""The indices whose weights are kept: SSE 50, CSI 300, STAR 50, CSI 1000, CSI 500, CSI 800, SZSE Component, ChiNext, SZSE 100,
BSE 50."""

Told = TypeVar("Told")


def due(feed: Feed) -> bool:
    """Whether the terminal's reference data is missing or old. Only the feed's active publisher refreshes."""
    if not feed.publisher.active:
        return False
    return feed.reference_at is None or time.monotonic() - feed.reference_at > REFRESH_EVERY


def refresh(feed: Feed) -> int:
    """Fetch and store; the number of symbols that the source quotes. Raises ``SourceError`` if it does not tell these.

    Symbols come first, so that subscribers are not kept waiting for the rest. Every later step stands alone: one that
    fails or that the terminal does not have is logged and counted, what is stored of it stays, and the next one begins.
    """
    source = feed.source
    symbols = feed.universe = source.universe(timeout=TIMEOUT)
    steps = _Steps(feed.terminal, source)
    no_sectors: dict[str, tuple[str, ...]] = {}
    sectors = steps.take("sectors", Capability.SECTORS, partial(source.fetch_sectors, timeout=TIMEOUT), no_sectors)
    bare = [Instrument(symbol=symbol, source=source.name) for symbol in symbols]
    universe.save_reference(source=source.name, instruments=bare, sectors=sectors, complete=True)
    steps.take("instruments", Capability.INSTRUMENTS, partial(_save_details, source, symbols, quoted=True))
    for kind in KINDS:
        steps.take(f"{kind}s", Capability.INSTRUMENTS, partial(_save_kind, source, kind, frozenset(symbols)))
    for market in sorted(set(models.Instrument.objects.values_list("market", flat=True)) - days.CRYPTO):
        fetch_dates = partial(source.fetch_trading_dates, market, timeout=TIMEOUT)
        if dates := steps.take("trading_dates", Capability.TRADING_DATES, fetch_dates):
            store.save_trading_dates(source=source.name, market=market, dates=dates)
    no_contracts: dict[str, str] = {}
    fetch_contracts = partial(source.fetch_main_contracts, timeout=TIMEOUT)
    contracts = steps.take("main_contracts", Capability.MAIN_CONTRACTS, fetch_contracts, no_contracts)
    if contracts is not None:
        store.save_main_contracts(source=source.name, contracts=contracts)
    for index in WEIGHTED:
        fetch_weights = partial(source.fetch_index_weights, index, timeout=TIMEOUT)
        if weights := steps.take("weights", Capability.INDEX_WEIGHTS, fetch_weights):
            store.save_weights(source=source.name, index=index, weights=weights)
    days.load()
    log.info("reference_refreshed", terminal=feed.terminal, instruments=len(symbols), failed=sorted(steps.failed))
    return len(symbols)


class _Steps:
    """The steps of one refresh: each is tried, timed out and answered for on its own."""

    def __init__(self, terminal: str, source: Source) -> None:
        self._terminal = terminal
        self._can = source.capabilities()
        self.failed: set[str] = set()

    def take(self, step: str, needs: Capability, fetch: Callable[[], Told], without: Told | None = None) -> Told | None:
        """What a step brought; ``without`` where the terminal does not have it, None where it failed."""
        if needs not in self._can:
            return self._came_to(step, "unsupported", without)
        try:
            told = fetch()
        except Unsupported as error:
            log.info("reference_unsupported", terminal=self._terminal, step=step, detail=str(error))
            return self._came_to(step, "unsupported", without)
        except SourceError as error:
            self.failed.add(step)
            log.warning(
                "reference_step_failed", terminal=self._terminal, step=step, error=type(error).__name__, detail=str(error)
            )
            return self._came_to(step, "failed", None)
        return self._came_to(step, "ok", told)

    def _came_to(self, step: str, outcome: str, told: Told | None) -> Told | None:
        metrics.REFERENCE_STEPS.labels(self._terminal, step, outcome).inc()
        return told


def _save_kind(source: Source, kind: Kind, quoted: frozenset[str]) -> None:
    """Store all of a kind: first that there are such, then what is known of those that the step for quoted ones left out."""
    symbols = source.fetch_codes(kind, timeout=TIMEOUT)
    stored = set(models.Instrument.objects.filter(kind=kind).values_list("symbol", flat=True))
    for chunk in _chunks([symbol for symbol in symbols if symbol not in stored]):
        # The terminal's list of a kind says what they are where a code alone does not.
        bare = [Instrument(symbol=symbol, kind=kind.value, source=source.name) for symbol in chunk]
        universe.save_reference(source=source.name, instruments=bare, quoted=False)
    _save_details(source, [symbol for symbol in symbols if symbol not in quoted], quoted=False)


def _save_details(source: Source, symbols: Sequence[str], *, quoted: bool) -> None:
    for chunk in _chunks(symbols):
        detailed = list(source.fetch_instruments(chunk, timeout=TIMEOUT))
        universe.save_reference(source=source.name, instruments=detailed, quoted=quoted)


def _chunks(symbols: Sequence[str]) -> Iterator[Sequence[str]]:
    return (symbols[start : start + CHUNK] for start in range(0, len(symbols), CHUNK))

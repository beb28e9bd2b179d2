"""The refresh of reference data: what a terminal says goes into the database, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TypeVar

import structlog

from marketdata import metrics, models, universe
from marketdata.exchanges import Kind
from marketdata.feed import Feed
from marketdata.reference import days, store
from marketdata.sources.base import Capability, Source, SourceError, Unsupported
from marketdata.terminals import gate, roster, states
from marketdata.terminals.slots import Priority
from marketdata.types import Instrument

log = structlog.get_logger(__name__)

REFRESH_EVERY = 6 * 3600.0
"""Seconds; sectors and listings change over night."""
SETTLED_IN = 30.0
"""Seconds after a takeover."""
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

STEPS = frozenset(
    {
        Capability.SECTORS,
        Capability.INSTRUMENTS,
        Capability.TRADING_DATES,
        Capability.MAIN_CONTRACTS,
        Capability.INDEX_WEIGHTS,
    }
)
"""What a refresh needs beside the symbols."""

Told = TypeVar("Told")


def due(feed: Feed) -> bool:
    """Whether the terminal's reference data is missing or old. Only the feed's active publisher refreshes, and one that has just
    taken over has more urgent things to do, unless there is nothing yet. Raises Django's database errors."""
    if not feed.publisher.active:
        return False
    if time.monotonic() - feed.publisher.since < SETTLED_IN and models.Instrument.objects.filter(quoted=True).exists():
        return False
    return feed.reference_at is None or time.monotonic() - feed.reference_at > REFRESH_EVERY


def elsewhere(feed: Feed) -> dict[Capability, str]:
    """What this terminal cannot tell -> another terminal of its pool that is up and can. Raises Django's database errors."""
    pool = roster.current().pools.get(feed.publisher.feed)
    if pool is None or len(pool.terminals) < 2:
        return {}
    told = states.terminals()
    others = [spec.name for spec in pool.terminals if spec.serving and spec.name in told and spec.name != feed.terminal]
    found: dict[Capability, str] = {}
    for lacking in STEPS - feed.source.capabilities():
        if able := next((name for name in others if lacking in told[name].capabilities), None):
            found[lacking] = able
    return found


def refresh(feed: Feed, *, others: Collection[Capability] = ()) -> int:
    """Fetch and store; the number of symbols that the source quotes. Raises ``SourceError`` if it does not tell these.

    Symbols come first, so that subscribers are not kept waiting for the rest. Every later step stands alone: one that
    fails or that the terminal does not have is logged and counted, what is stored of it stays, and the next one begins. Steps
    that need one of ``others`` are left to another terminal of the pool.
    """
    source = gate.in_turns(feed.source, feed.terminal, Priority.BULK)
    feed.universe = source.universe(timeout=TIMEOUT)
    steps = _Steps(feed, others)
    symbols = list(filter(steps.mine, feed.universe))
    bare = [Instrument(symbol=symbol, source=source.name) for symbol in symbols]
    sectors = steps.sectors()
    universe.save_reference(source=source.name, instruments=bare, sectors=sectors, complete=True, among=steps.mine)
    steps.take("instruments", Capability.INSTRUMENTS, partial(_save_details, source, symbols, quoted=True))
    steps.rest(frozenset(symbols))
    days.load()
    log.info("reference_refreshed", terminal=feed.terminal, instruments=len(symbols), failed=sorted(steps.failed))
    return len(symbols)


def refresh_steps(feed: Feed, needs: Collection[Capability]) -> None:
    """The steps that need these, in the place of the publisher's terminal, which cannot."""
    source = gate.in_turns(feed.source, feed.terminal, Priority.BULK)
    steps = _Steps(feed, STEPS.difference(needs))
    if Capability.SECTORS in needs and (sectors := steps.sectors()):
        universe.save_reference(source=source.name, instruments=(), sectors=sectors, complete=True, among=lambda _: False)
    quoted = models.Instrument.objects.filter(quoted=True).values_list("symbol", flat=True)
    symbols = list(filter(steps.mine, quoted))
    steps.take("instruments", Capability.INSTRUMENTS, partial(_save_details, source, symbols, quoted=True))
    steps.rest(frozenset(symbols))
    days.load()
    log.info("reference_steps_refreshed", terminal=feed.terminal, needs=sorted(needs), failed=sorted(steps.failed))


class _Steps:
    """The steps of one refresh: each is tried, timed out and answered for on its own. ``others`` are not taken here.

    Of several pools each tells of its own markets; the sectors, which lie across them, are told by the one that serves all other
    markets, or else by the first.
    """

    def __init__(self, feed: Feed, others: Collection[Capability]) -> None:
        self._terminal = feed.terminal
        self._source = gate.in_turns(feed.source, feed.terminal, Priority.BULK)
        self._others = frozenset(others)
        self._can = feed.source.capabilities()
        self.failed: set[str] = set()
        everything, pool = roster.current(), feed.publisher.feed
        accepts = everything.accepts(pool) if pool in everything.pools else None
        self.mine: Callable[[str], bool] = accepts or (lambda _: True)
        first = min(everything.pools.values(), key=lambda one: (bool(one.markets), one.name))
        self._leads = accepts is None or pool == first.name

    def sectors(self) -> dict[str, tuple[str, ...]] | None:
        """The sectors; None where those that are stored are to stay."""
        if not self._leads or Capability.SECTORS in self._others:
            return None
        none: dict[str, tuple[str, ...]] = {}
        return self.take("sectors", Capability.SECTORS, partial(self._source.fetch_sectors, timeout=TIMEOUT), none)

    def rest(self, quoted: frozenset[str]) -> None:
        """What is kept beside the instruments that are quoted."""
        source = self._source
        for kind in KINDS:
            self.take(f"{kind}s", Capability.INSTRUMENTS, partial(_save_kind, source, kind, quoted, self.mine))
        for market in sorted(set(models.Instrument.objects.values_list("market", flat=True)) - days.CRYPTO):
            fetch_dates = partial(source.fetch_trading_dates, market, timeout=TIMEOUT)
            if self.mine(f".{market}") and (dates := self.take("trading_dates", Capability.TRADING_DATES, fetch_dates)):
                store.save_trading_dates(source=source.name, market=market, dates=dates)
        no_contracts: dict[str, str] = {}
        fetch_contracts = partial(source.fetch_main_contracts, timeout=TIMEOUT)
        contracts = self.take("main_contracts", Capability.MAIN_CONTRACTS, fetch_contracts, no_contracts)
        if contracts is not None:
            own = {product: symbol for product, symbol in contracts.items() if self.mine(product)}
            store.save_main_contracts(source=source.name, contracts=own, among=self.mine)
        for index in filter(self.mine, WEIGHTED):
            fetch_weights = partial(source.fetch_index_weights, index, timeout=TIMEOUT)
            if weights := self.take("weights", Capability.INDEX_WEIGHTS, fetch_weights):
                store.save_weights(source=source.name, index=index, weights=weights)

    def take(self, step: str, needs: Capability, fetch: Callable[[], Told], without: Told | None = None) -> Told | None:
        """What a step brought; ``without`` where the terminal does not have it, None where it failed or is another's."""
        if needs in self._others:
            return None
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


def _save_kind(source: Source, kind: Kind, quoted: frozenset[str], mine: Callable[[str], bool]) -> None:
    """Store all of a kind: first that there are such, then what is known of those that the step for quoted ones left out."""
    symbols = list(filter(mine, source.fetch_codes(kind, timeout=TIMEOUT)))
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

"""The refresh of reference data: what a terminal says of its instruments and sectors goes into the database."""

from __future__ import annotations

import time

import structlog

from marketdata import universe
from marketdata.feeds import Feed
from marketdata.sources.base import Capability, Unsupported
from marketdata.types import Instrument

log = structlog.get_logger(__name__)

REFRESH_EVERY = 6 * 3600.0
"""Seconds; sectors and listings change over night."""
TIMEOUT = 60.0
"""Seconds for one of the refresh's calls, which are long and few."""


def due(feed: Feed) -> bool:
    """Whether the terminal's reference data is missing or old. Only the feed's active publisher refreshes."""
    if not feed.publisher.active:
        return False
    return feed.reference_at is None or time.monotonic() - feed.reference_at > REFRESH_EVERY


def refresh(feed: Feed) -> int:
    """Fetch and store. Symbols come first, so that subscribers are not kept waiting for the details."""
    source = feed.source
    symbols = feed.universe = source.universe(timeout=TIMEOUT)
    can = source.capabilities()
    sectors = source.fetch_sectors(timeout=TIMEOUT) if Capability.SECTORS in can else {}
    bare = [Instrument(symbol=symbol, source=source.name) for symbol in symbols]
    universe.save_reference(source=source.name, instruments=bare, sectors=sectors, complete=True)
    if Capability.INSTRUMENTS in can:
        try:
            detailed = list(source.fetch_instruments(symbols, timeout=TIMEOUT))
        except Unsupported as error:
            log.info("instruments_unsupported", terminal=feed.terminal, detail=str(error))
        else:
            universe.save_reference(source=source.name, instruments=detailed, sectors=sectors)
    log.info("reference_refreshed", terminal=feed.terminal, instruments=len(symbols), sectors=len(sectors))
    return len(symbols)

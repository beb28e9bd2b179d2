"""Which source stands behind a terminal, by the settings."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from argus.config import Config
from marketdata.sources.base import Source

if TYPE_CHECKING:
    from marketdata.sources.simulated.clock import Clock


def build(config: Config, terminal: str, address: str) -> Source:
    """The source of one terminal at ``address``, not started. Raises ``ValueError`` where something that it needs is missing."""
    if config.source == "replay":
        from marketdata.sources.replay.source import ReplaySource

        if not config.replay_files:
            raise ValueError("a replay needs files: set ARGUS_REPLAY_FILES or give --file")
        return ReplaySource(files=config.replay_files, speed=config.replay_speed, loop=config.replay_loop)
    if config.source == "qmt":
        from marketdata.sources.qmt.source import QmtSource

        if not address:
            raise ValueError(f"the terminal {terminal} needs an address: give --terminal {terminal}=HOST:PORT")
        return QmtSource(name=terminal, address=address, timeout=config.source_timeout)
    from marketdata.sources.simulated.source import SimulatedSource

    clock = _virtual_clock if config.simulated_clock == "virtual" else config.simulated_clock
    return SimulatedSource(symbols=config.simulated_symbols, seed=config.simulated_seed, clock=clock)


@cache
def _virtual_clock() -> Clock:
    """One for the whole process, so that its terminals show the same market at the same time."""
    from marketdata.sources.simulated.clock import VirtualClock

    return VirtualClock()

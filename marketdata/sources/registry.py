"""Which source stands behind a terminal, by the settings."""

from __future__ import annotations

from argus.config import Config
from marketdata.sources.base import Source


def build(config: Config, terminal: str) -> Source:
    """The source of one terminal, not started. Raises ``ValueError`` where a setting that it needs is missing."""
    if config.source == "replay":
        from marketdata.sources.replay.source import ReplaySource

        if not config.replay_files:
            raise ValueError("a replay needs files: set ARGUS_REPLAY_FILES or give --file")
        return ReplaySource(files=config.replay_files, speed=config.replay_speed, loop=config.replay_loop)
    if config.source == "qmt":
        from marketdata.sources.qmt.source import QmtSource

        address = config.addresses[terminal]
        if not address:
            raise ValueError(f"the terminal {terminal} needs an address: give --terminal {terminal}=HOST:PORT")
        return QmtSource(name=terminal, address=address, timeout=config.source_timeout)
    from marketdata.sources.simulated.source import SimulatedSource

    return SimulatedSource(symbols=config.simulated_symbols, seed=config.simulated_seed, clock=config.simulated_clock)

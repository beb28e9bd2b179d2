"""What time it is on the market: this machine's clock, or the source's where that one's days are not today's."""

from __future__ import annotations

import time

from marketdata.latest import store


def now() -> int:
    """The market's time in ms: that of a simulated or recorded market as far as it has come here, else the wall clock."""
    clocks = [feed.clock for feed in store.feeds.values() if feed.clock is not None]
    return max(clocks) if clocks else time.time_ns() // 1_000_000

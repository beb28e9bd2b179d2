"""What is merged instead of sent message by message, while a feed lags behind or there is too much to do."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from marketdata.batch import Batch
from marketdata.types import DataType
from streaming.filters import Filter

MERGE_AFTER = 2.0
"""Seconds of lag from which on messages are merged instead of sent one by one."""
MERGED_INTERVAL = 0.25
"""Seconds between two sends while messages are merged."""
SPARED = 2
"""The priority from which on nothing is merged, whatever the load."""
LAG_WINDOW = 64
"""Messages among which the quickest one says what a message takes when there is no lag (the clocks may differ)."""


class Pool(NamedTuple):
    """What a feed has changed and the plans of a priority ``below`` have not been told; ``passing``: what of the quotes a filter
    has been asked of."""

    below: int
    symbols: dict[DataType, set[str]]
    passing: dict[Filter, set[str]]


class Merging:
    """The pools of one hub, one for each feed. ``lag``: by how many seconds the last message was later than the quickest."""

    def __init__(self) -> None:
        self.lag = 0.0
        self._pools: dict[str, Pool] = {}
        self._sent_at = 0.0
        self._lagging: set[str] = set()
        self._below = 0
        self._interval = MERGED_INTERVAL
        self._offsets: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LAG_WINDOW))

    def hold_back(self, below: int, interval: float) -> None:
        """From now on merge what goes to plans of a priority below this (0: none), and send it each so many seconds."""
        self._below, self._interval = below, interval

    def begin(self, feed: str) -> None:
        """Another publisher, perhaps on another host: what its clock differs by is not a lag."""
        self._offsets.pop(feed, None)

    def judge(self, batch: Batch) -> int:
        """Below which priority a message is to be merged (0: for nobody)."""
        feed = batch.feed
        offsets = self._offsets[feed]
        offsets.append(time.time() - batch.published / 1000)
        self.lag = offsets[-1] - min(offsets)
        if self.lag > MERGE_AFTER or (feed in self._lagging and self.lag > MERGE_AFTER / 4):
            self._lagging.add(feed)
            return SPARED
        self._lagging.discard(feed)
        return self._below

    def below(self, feed: str) -> int:
        """Below which priority something of a feed has not been told; 0 where nothing waits."""
        pool = self._pools.get(feed)
        return 0 if pool is None else pool.below

    def keep(self, feed: str, below: int, changed: Iterable[tuple[DataType, Collection[str]]]) -> None:
        """A message's changes are to be told later."""
        symbols = self._pools.setdefault(feed, Pool(below, {}, {})).symbols
        for data_type, names in changed:
            symbols.setdefault(data_type, set()).update(names)

    def keep_passing(self, feed: str, passing: Mapping[Filter, set[str]]) -> None:
        """So do those of them that pass a filter."""
        kept = self._pools[feed].passing
        for filter, names in passing.items():
            kept.setdefault(filter, set()).update(names)

    def waiting(self) -> list[str]:
        """The feeds of which something waits."""
        return list(self._pools)

    def due(self, now: float) -> list[str]:
        """Those of which it is to be sent now (monotonic), once an interval."""
        if not self._pools or now - self._sent_at < self._interval:
            return []
        self._sent_at = now
        return list(self._pools)

    def take(self, feed: str) -> Pool | None:
        """What waits of a feed; it waits no longer."""
        return self._pools.pop(feed, None)

    def quotes_for(self, priority: int) -> set[str]:
        """The symbols whose quotes have changed and have not been told to plans of a priority."""
        return set().union(*(pool.symbols[DataType.QUOTE] for pool in self._pools.values() if priority < pool.below))

    def forget(self, feed: str) -> None:
        """A feed is no more."""
        self._pools.pop(feed, None)
        self._lagging.discard(feed)
        self._offsets.pop(feed, None)

"""What each tier counts in this process, and how Prometheus is told of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


class Counted(msgspec.Struct, frozen=True):
    """A tier's counts since the process started.

    ``refused``: blocks too large to be kept; ``corrupt``: values or files that were damaged or foreign and were put away;
    ``errors``: times that the tier could not be reached or written.
    """

    hits: int = 0
    misses: int = 0
    writes: int = 0
    evictions: int = 0
    refused: int = 0
    corrupt: int = 0
    errors: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Hits among lookups; None before the first."""
        asked = self.hits + self.misses
        return round(self.hits / asked, 4) if asked else None


class Counts:
    """The same while they count up, from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted = dict.fromkeys(Counted.__struct_fields__, 0)

    def add(self, **more: int) -> None:
        """Count."""
        with self._lock:
            for name, number in more.items():
                self._counted[name] += number

    def read(self) -> Counted:
        """As it stands."""
        with self._lock:
            return Counted(**self._counted)


Reading = tuple[Mapping[str, Counted], int, int, int]
"""Tier -> counts; the blocks in memory, their bytes, the bound."""


class CacheCollector(Collector):
    """The tiers' numbers, read when a scrape asks: nothing is counted twice for it."""

    def __init__(self, read: Callable[[], Reading | None]) -> None:
        self._read = read

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Families without a number before the tiers are first used."""
        events = CounterMetricFamily("argus_cache_events", "What became of the blocks of each tier", labels=["tier", "event"])
        blocks = GaugeMetricFamily("argus_cache_memory_blocks", "Blocks of bars in this process' memory")
        taken = GaugeMetricFamily("argus_cache_memory_bytes", "Bytes that they take")
        bound = GaugeMetricFamily("argus_cache_memory_limit_bytes", "Bytes that they may take")
        if (reading := self._read()) is not None:
            counts, entries, size, limit = reading
            for tier, counted in counts.items():
                for event in Counted.__struct_fields__:
                    events.add_metric([tier, event], getattr(counted, event))
            for family, value in ((blocks, entries), (taken, size), (bound, limit)):
                family.add_metric([], value)
        yield from (events, blocks, taken, bound)

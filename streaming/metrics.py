"""What the stream counts: plain integers on the hot path, turned into Prometheus' metrics when somebody asks."""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from argus.errors import Problem

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Times:
    """Durations in seconds, counted in buckets."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus wants them."""
        total = 0
        result: list[tuple[str, float]] = []
        for bound, count in zip([*BUCKETS, "+Inf"], self.counts, strict=True):
            total += count
            result.append((str(bound), float(total)))
        return result


class Refusals:
    """Errors that clients were told, by name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}


@dataclass(slots=True, weakref_slot=True, eq=False)
class Counters:
    """One hub's counts since its start."""

    batches: int = field(default=0, metadata={"help": "Messages of feeds that were taken in"})
    refused: int = field(default=0, metadata={"help": "Messages of feeds that were fenced off, repeated or unreadable"})
    lagged: int = field(default=0, metadata={"help": "Messages that were merged because the hub lagged behind"})
    gaps: int = field(default=0, metadata={"help": "Gaps in a feed's sequence"})
    frames: int = field(default=0, metadata={"help": "Data frames delivered to connections"})
    quotes: int = field(default=0, metadata={"help": "Fragments delivered to connections"})
    bytes: int = field(default=0, metadata={"help": "Bytes of data frames delivered to connections"})
    missed: int = field(default=0, metadata={"help": "Data frames that had no room and were owed instead"})
    merged: int = field(default=0, metadata={"help": "Fragments that a newer one replaced before they were sent"})
    slow: int = field(default=0, metadata={"help": "Connections that were cut off because they did not read"})
    healed: int = field(default=0, metadata={"help": "Gaps in a feed's sequence whose events were found in the journal"})
    resumed: int = field(default=0, metadata={"help": "Clients that came back and received all that they had missed"})
    not_resumed: int = field(default=0, metadata={"help": "Clients that came back and received a snapshot instead"})
    overflowed: int = field(default=0, metadata={"help": "Connections that were closed because they were owed too many events"})
    admitted: int = field(default=0, metadata={"help": "Handshakes that were let in by the bounded rate"})
    shed: int = field(default=0, metadata={"help": "Connections of low priority that were sent away under overload"})
    refusals: Refusals = field(default_factory=Refusals, metadata={"help": "Errors that clients were told, by name"})
    fan_out: Times = field(default_factory=Times, metadata={"help": "Seconds from a message's arrival to its last frame"})
    age: Times = field(default_factory=Times, metadata={"help": "Seconds from the publisher's stamp to the last frame"})
    connections: int = field(default=0, metadata={"help": "Connections that are open"})
    behind: int = field(default=0, metadata={"help": "Connections that have no room at present"})
    views: int = field(default=0, metadata={"help": "Different coverages among the connections"})
    lag: float = field(default=0.0, metadata={"help": "Seconds by which the last message came later than the quickest of late"})
    busy: float = field(default=0.0, metadata={"help": "Share of the last seconds that was spent in fan-out"})
    late: float = field(default=0.0, metadata={"help": "Seconds by which the event loop came too late of late, in the mean"})
    overload: int = field(default=0, metadata={"help": "0 calm, 1 and 2 merging for low and normal priority, 3 shedding"})

    def refuse(self, problem: Problem) -> None:
        """Count an error that a client is told."""
        counts = self.refusals.counts
        counts[problem.name] = counts.get(problem.name, 0) + 1


_GAUGES = {"connections", "behind", "views", "lag", "busy", "late", "overload"}


class StreamCollector(Collector):
    """The sum over this process's hubs."""

    def __init__(self) -> None:
        self._sources: weakref.WeakSet[Counters] = weakref.WeakSet()

    def watch(self, counters: Counters) -> None:
        """Count a hub in, for as long as it lives."""
        self._sources.add(counters)

    def total(self, name: str) -> int:
        """One count, over all hubs."""
        return sum(getattr(source, name) for source in self._sources)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known when they are collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client``."""
        sources = list(self._sources)
        for item in fields(Counters):
            name, text = f"argus_stream_{item.name}", item.metadata["help"]
            values = [getattr(source, item.name) for source in sources]
            if item.type == "Times":
                metric = HistogramMetricFamily(f"{name}_seconds", text)
                total = Times()
                for times in values:
                    total.counts = [a + b for a, b in zip(total.counts, times.counts, strict=True)]
                    total.sum += times.sum
                metric.add_metric([], total.cumulative(), total.sum)
                yield metric
            elif item.type == "Refusals":
                refusals = CounterMetricFamily(name, text, labels=["name"])
                for problem in sorted({problem for value in values for problem in value.counts}):
                    refusals.add_metric([problem], sum(value.counts.get(problem, 0) for value in values))
                yield refusals
            elif item.name in _GAUGES:
                yield GaugeMetricFamily(name, text, value=sum(values))
            else:
                yield CounterMetricFamily(name, text, value=sum(values))


collector = StreamCollector()
REGISTRY.register(collector)

"""``/metrics`` in Prometheus' text format, for keys with the scope to operate: all that this process counts."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from argus.access.principal import SCOPE_OPERATE, Principal
from argus.guard import guarded
from argus.requestid import Scope
from marketdata.latest import LatestStore, store


class StoreCollector(Collector):
    """What the latest store knows, read when asked: nothing is counted on the hot path for it."""

    def __init__(self, latest: LatestStore) -> None:
        self._latest = latest

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges of every feed."""
        epoch = GaugeMetricFamily("argus_feed_epoch", "The feed's publisher's fencing token", labels=["feed"])
        seq = GaugeMetricFamily("argus_feed_seq", "The last message of the feed that reached this process", labels=["feed"])
        symbols = GaugeMetricFamily("argus_feed_symbols", "Symbols of the feed with a quote in this process", labels=["feed"])
        for name, feed in list(self._latest.feeds.items()):
            epoch.add_metric([name], feed.epoch)
            seq.add_metric([name], feed.seq)
            symbols.add_metric([name], len(feed.symbols))
        yield from (epoch, seq, symbols)
        age = self._latest.age()
        if age is not None:
            yield GaugeMetricFamily("argus_canary_age_seconds", "Seconds since the source's last word came here", value=age)


REGISTRY.register(StoreCollector(store))


def _respond(scope: Scope, principal: Principal) -> bytes:
    return generate_latest()


metrics = guarded(SCOPE_OPERATE, CONTENT_TYPE_LATEST, _respond)
"""Answers a scrape."""

"""What a process knows of one terminal that it asks, and its slots there: how its requests went, how long they took."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import structlog

from marketdata.sources.base import Capability
from marketdata.terminals import metrics
from marketdata.terminals.breaker import Breaker, State
from marketdata.terminals.latency import Window
from marketdata.terminals.roster import PoolSpec, TerminalSpec
from marketdata.terminals.scaling import Scaler
from marketdata.terminals.slots import Priority, Slots
from marketdata.terminals.states import SlotsReport

log = structlog.get_logger(__name__)

AVOIDED: Final = 10.0
"""Seconds for which a terminal that has just failed is asked after the others."""
SAMPLES: Final = 20
"""Answers below which nobody knows how long a terminal takes nearly always."""
NOBODYS: Final = frozenset({"busy", "broker", "ending"})
"""Outcomes that say nothing of the terminal."""
SHUT: Final = (State.CLOSED, State.HALF_OPEN, State.OPEN)
"""The values of the breaker's gauge: 0, 1, 2."""


@dataclass(frozen=True, slots=True)
class Lack:
    """That a terminal said it does not have a function: as what it said so, and until when (monotonic) that is believed."""

    by: tuple[Any, ...]
    until: float


class Line:
    """What this process knows of one terminal, and its slots there. All but the slots is taken under ``lock``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.breaker = Breaker()
        self.took = Window()
        self.waited = Window()
        self.slots = Slots(1)
        self.scaler = Scaler(1, 1)
        self.failed_at = -AVOIDED
        self.lacks: dict[Capability, Lack] = {}
        self.answered = self.failed = self.hedged = 0
        self._ok = metrics.FETCHES.labels(name, "ok")
        self._seconds = metrics.FETCH_SECONDS.labels(name)
        self._queue = {priority: metrics.QUEUE_SECONDS.labels(name, priority.name.lower()) for priority in Priority}
        metrics.IN_FLIGHT.labels(name).set_function(lambda: self.slots.in_flight)
        metrics.WAITING.labels(name).set_function(lambda: self.slots.waiting)
        metrics.SLOTS.labels(name).set_function(lambda: self.slots.size)
        metrics.BREAKER.labels(name).set_function(lambda: SHUT.index(self.breaker.state))

    def fit(self, pool: PoolSpec, spec: TerminalSpec, now: float) -> None:
        """Have as many slots as the pool wants, the terminal stands and the rule says; to be called once a second."""
        with self.lock:
            self.scaler.bounds(pool.min_size, pool.max_size, spec.concurrent)
            self.scaler.fixed = pool.size
            size = self.scaler.decide(now)
        if size != self.slots.size:
            log.info("terminal_slots", terminal=self.name, slots=size, before=self.slots.size)
            self.slots.resize(size)

    def has_free(self, priority: Priority) -> bool:
        """Whether there is a slot for a request of that class at this moment."""
        size = self.slots.size
        kept = 1 if priority is Priority.BULK and size > 1 else 0
        return size - self.slots.in_flight > kept

    def queued(self, priority: Priority, waited: float, now: float) -> None:
        """It was waited so long for a slot."""
        self._queue[priority].observe(waited)
        with self.lock:
            self.waited.add(waited, now)

    def ended(self, outcome: str, waited: float, began: float, *, expected: bool = False) -> None:
        """A request that began then (monotonic) has ended. ``expected``: that it would not be answered, at this time."""
        now = time.monotonic()
        took = now - began
        with self.lock:
            if outcome == "ok":
                self.answered += 1
                self.failed_at = now - AVOIDED
                self.took.add(took, now)
                self.breaker.succeeded(now)
            elif outcome == "unsupported":
                self.breaker.succeeded(now)
            elif outcome in NOBODYS:
                self.breaker.cancelled(now)
            elif expected:
                self.failed += 1
                self.breaker.cancelled(now)
            else:
                self.failed += 1
                self.failed_at = now
                self.breaker.failed(now)
            if outcome in ("ok", "timeout"):
                self.scaler.observe(waited, took, now)
        if outcome == "ok":
            self._ok.inc()
            self._seconds.observe(took)
        else:
            metrics.FETCHES.labels(self.name, outcome).inc()

    def nearly_always(self, now: float) -> float | None:
        """Within how many seconds 99 of 100 answers came; None while there are too few."""
        with self.lock:
            return self.took.quantile(0.99, now) if self.took.count(now) >= SAMPLES else None

    def report(self, now: float) -> SlotsReport:
        """As operators are told."""
        with self.lock:
            return SlotsReport(
                size=self.slots.size,
                in_flight=self.slots.in_flight,
                waiting=self.slots.waiting,
                breaker=str(self.breaker.state),
                answered=self.answered,
                failed=self.failed,
                hedged=self.hedged,
                p50=self.took.quantile(0.5, now),
                p99=self.took.quantile(0.99, now),
                waited_p90=self.waited.quantile(0.9, now),
            )

    def close(self) -> None:
        """Take its gauges away."""
        for gauge in (metrics.IN_FLIGHT, metrics.WAITING, metrics.SLOTS, metrics.BREAKER):
            gauge.remove(self.name)

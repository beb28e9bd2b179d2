"""Which of the terminals that could serve a request gets it.

A strategy remembers the past picks and is not safe for threads by itself: the caller holds one lock per strategy.
Who is absent from a pick (busy, open breaker, lacks the function) keeps its turn or its credit, so that it is not passed over
for being absent now and then; of those gone for good at most ``KEPT`` are remembered.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

KEPT = 64
"""Absent names of which a strategy keeps what it remembers, those longest not served (or not seen) going first."""
_EVEN = 1e-9
"""Credits this close to each other are equal: what sums of fractions lose stays far below, a share of a weight far above."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A terminal that could serve the request. ``name`` is unique among the candidates, ``weight`` at least 1."""

    name: str
    weight: int
    in_flight: int

    def __post_init__(self) -> None:
        if self.weight < 1:
            raise ValueError(f"the weight of {self.name} must be at least 1, not {self.weight}")


class Strategy(Protocol):
    """A rule for picking."""

    def pick(self, candidates: Sequence[Candidate]) -> str:
        """The name of the one to take. Counts as its turn. Raises ``ValueError`` where there are none."""


class _Turns:
    """A queue of names: whoever is served goes to its end, and so does a newcomer, who thus keeps nobody waiting."""

    def __init__(self) -> None:
        self._queue: dict[str, None] = {}

    def next(self, present: Sequence[Candidate]) -> str:
        names = {candidate.name for candidate in present}
        for candidate in present:
            self._queue.setdefault(candidate.name)
        chosen = next(name for name in self._queue if name in names)
        del self._queue[chosen]
        self._queue[chosen] = None
        return chosen

    def forget(self, present: Sequence[Candidate]) -> None:
        surplus = len(self._queue) - len(present) - KEPT
        if surplus > 0:
            names = {candidate.name for candidate in present}
            for name in [name for name in self._queue if name not in names][:surplus]:
                del self._queue[name]


class RoundRobin:
    """Everybody in turn; weights and load have no say. Of those always present, counts differ by one at most."""

    def __init__(self) -> None:
        self._turns = _Turns()

    def pick(self, candidates: Sequence[Candidate]) -> str:
        """See ``Strategy``."""
        _some(candidates)
        chosen = self._turns.next(candidates)
        self._turns.forget(candidates)
        return chosen


class LeastConnections:
    """Whoever has the fewest requests in flight, in turn where several have. Not relative to the weight."""

    def __init__(self) -> None:
        self._turns = _Turns()

    def pick(self, candidates: Sequence[Candidate]) -> str:
        """See ``Strategy``."""
        _some(candidates)
        fewest = min(candidate.in_flight for candidate in candidates)
        chosen = self._turns.next([candidate for candidate in candidates if candidate.in_flight == fewest])
        self._turns.forget(candidates)
        return chosen


class WeightedRoundRobin:
    """By weight and evenly spread, as nginx's smooth weighted round robin: the load has no say.

    At each pick everybody's credit grows by its share of the weights present; the largest credit (the first of equals) is
    picked and pays 1. With a stable set everybody gets exactly its weight in every ``sum(weights)`` picks and is never a
    whole pick ahead of its share. Nginx counts in weights; shares give the same picks, and nobody owes hundreds of picks
    after a weight has changed or a heavy terminal has gone.
    """

    def __init__(self) -> None:
        self._credits: dict[str, float] = {}

    def pick(self, candidates: Sequence[Candidate]) -> str:
        """See ``Strategy``."""
        _some(candidates)
        total = sum(candidate.weight for candidate in candidates)
        for candidate in candidates:
            self._credits[candidate.name] = self._credits.pop(candidate.name, 0.0) + candidate.weight / total
        most = max(self._credits[candidate.name] for candidate in candidates) - _EVEN
        chosen = next(candidate.name for candidate in candidates if self._credits[candidate.name] >= most)
        self._credits[chosen] -= 1.0
        while len(self._credits) > len(candidates) + KEPT:
            del self._credits[next(iter(self._credits))]  # the first is the one not seen for longest
        return chosen


class Random:
    """Any of them with the same chance; weights and load have no say."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = random.Random() if rng is None else rng

    def pick(self, candidates: Sequence[Candidate]) -> str:
        """See ``Strategy``."""
        _some(candidates)
        return self._rng.choice(candidates).name


STRATEGIES: Mapping[str, Callable[[], Strategy]] = MappingProxyType(
    {
        "round_robin": RoundRobin,
        "least_connections": LeastConnections,
        "weighted_round_robin": WeightedRoundRobin,
        "random": Random,
    }
)
"""By the names that pools give them."""


def _some(candidates: Sequence[Candidate]) -> None:
    if not candidates:
        raise ValueError("no candidates to pick from")

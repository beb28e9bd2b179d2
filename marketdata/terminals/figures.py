"""The live figures of pools: what the workers say of their terminals, and what the asking processes say of their slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from marketdata.terminals import roster, states
from marketdata.terminals.states import PoolReport, SlotsReport, TerminalReport

_BREAKERS: Final = ("closed", "half_open", "open")
"""The better ones first."""


class ProcessFigures(msgspec.Struct, frozen=True):
    """A terminal's slots in one asking process: counts since its start, durations in seconds."""

    process: str
    size: int
    in_flight: int
    waiting: int
    breaker: str
    answered: int
    failed: int
    hedged: int
    p50: float | None
    p99: float | None
    waited_p90: float | None


class TerminalFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal: all asking processes together; ``p50`` and ``p99`` (seconds) as its own worker measures them.

    ``state`` is empty and what a worker would know is null where no worker reports. ``breaker`` is the worst of any process,
    ``waited_p90`` (seconds in the queue) the longest.
    """

    name: str
    state: str
    publishing: bool
    in_step: bool
    epoch: int | None
    size: int
    in_flight: int
    waiting: int
    waited_p90: float | None
    breaker: str
    answered: int
    failed: int
    hedged: int
    p50: float | None
    p99: float | None
    processes: list[ProcessFigures]


class PoolFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A pool; ``publishing`` names the terminal whose feed clients see, null while there is none."""

    name: str
    strategy: str
    publishing: str | None
    epoch: int | None
    size: int
    in_flight: int
    waiting: int
    terminals: list[TerminalFigures]


def current() -> dict[str, PoolFigures]:
    """Pool -> its figures. Raises Django's database errors."""
    told, used = states.terminals(), states.pools()
    found: dict[str, PoolFigures] = {}
    for name, pool in roster.current().pools.items():
        rows = [_terminal(terminal.name, told.get(terminal.name), used.get(name, ())) for terminal in pool.terminals]
        first = next((row for row in rows if row.publishing), None)
        found[name] = PoolFigures(
            name=name,
            strategy=pool.strategy,
            publishing=first.name if first else None,
            epoch=first.epoch if first else None,
            size=sum(row.size for row in rows),
            in_flight=sum(row.in_flight for row in rows),
            waiting=sum(row.waiting for row in rows),
            terminals=rows,
        )
    return found


def _terminal(name: str, told: TerminalReport | None, used: Sequence[PoolReport]) -> TerminalFigures:
    processes = [_process(report.process, report.terminals[name]) for report in used if name in report.terminals]
    waited = [one.waited_p90 for one in processes if one.waited_p90 is not None]
    return TerminalFigures(
        name=name,
        state=told.state if told else "",
        publishing=bool(told and told.publishing),
        in_step=bool(told and told.in_step),
        epoch=told.epoch if told else None,
        size=sum(one.size for one in processes),
        in_flight=sum(one.in_flight for one in processes),
        waiting=sum(one.waiting for one in processes),
        waited_p90=max(waited, default=None),
        breaker=max((one.breaker for one in processes), key=_badness, default=_BREAKERS[0]),
        answered=sum(one.answered for one in processes),
        failed=sum(one.failed for one in processes),
        hedged=sum(one.hedged for one in processes),
        p50=told.p50 if told else None,
        p99=told.p99 if told else None,
        processes=processes,
    )


def _process(process: str, slots: SlotsReport) -> ProcessFigures:
    return ProcessFigures(
        process,
        slots.size,
        slots.in_flight,
        slots.waiting,
        slots.breaker,
        slots.answered,
        slots.failed,
        slots.hedged,
        slots.p50,
        slots.p99,
        slots.waited_p90,
    )


def _badness(breaker: str) -> int:
    return _BREAKERS.index(breaker) if breaker in _BREAKERS else len(_BREAKERS)

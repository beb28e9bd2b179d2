"""A request's way to a terminal: who can answer, who of them is asked, who after that, and what is said where nobody answers.

The order: active terminals, then standbys, then those that failed just now, that are in maintenance, whose breaker is open,
that are said to be down, that said they do not have the function. Within one of these the pool's strategy picks, among those
with a free slot where any has one. Nobody is refused while a terminal might answer; but only who is not known to be away may
take half of the time that is left, or all of it as the last one.

A live request that takes longer than a terminal's answers nearly always do goes to a second one as well, at most every
twentieth; the first answer counts. What is asked for must therefore be a mere question: asked twice it changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

import structlog
from django.db import Error as DatabaseError

from argus.errors import DEADLINE, SOURCE_UNAVAILABLE, UNSUPPORTED
from marketdata.sources.base import Capability, State
from marketdata.terminals import hands, metrics, roster, states, windows
from marketdata.terminals.balance import STRATEGIES, Candidate, Strategy
from marketdata.terminals.breaker import State as Breaking
from marketdata.terminals.line import AVOIDED, Lack, Line
from marketdata.terminals.models import Role
from marketdata.terminals.roster import PoolSpec, TerminalSpec
from marketdata.terminals.slots import Priority, SlotsFull
from marketdata.terminals.states import PoolReport, TerminalReport

log = structlog.get_logger(__name__)
T = TypeVar("T")
Call = Callable[[str, float], T]
"""Asks a terminal, by its name, and must come back within so many seconds. Raises ``Failure``."""

LEAST: Final = 0.2
"""Seconds that must be left for it to be worth asking."""
LOOK: Final = 1.0
"""Seconds between two looks at a pool."""
UNTOLD: Final = 5.0
"""Seconds after which a request reads by itself what the workers report: where nobody in this process does it."""
LACKING: Final = 600.0
"""Seconds for which a terminal that did not have a function is asked last for it, unless it is probed before."""
SOONEST: Final = 0.1
"""Seconds after which a second terminal is asked at the earliest."""
PATIENCE: Final = 1.0
"""Seconds after which a second one is asked where the first is only tried whether it is back."""
HEDGED: Final = 0.05
"""The share of a pool's requests that may go to a second terminal for being late, and how many of them may pile up."""
HEDGES_SAVED: Final = 5.0

GOOD, STANDBY, FAILED, MAINTENANCE, BROKEN, DOWN, LACKS = range(7)
"""How good a choice a terminal is. From ``MAINTENANCE`` on it is known to be away."""


class Failure(Exception):
    """A terminal did not answer. ``outcome`` is one word: down, timeout, unsupported, busy and so on, as the metric has it."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome

    @property
    def reason(self) -> str:
        """The row of the error table that a client is told."""
        return _REASONS.get(self.outcome, SOURCE_UNAVAILABLE.name)


class NoAnswer(Exception):
    """No terminal answered: each is named with its own reason; ``reason`` is the one that is most likely to pass."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


_REASONS: Final[Mapping[str, str]] = {"unsupported": UNSUPPORTED.name, "timeout": DEADLINE.name, "busy": DEADLINE.name}


@dataclass(frozen=True, slots=True)
class _Standing:
    """A terminal that may be asked, and how good a choice it is but for what changes from one request to the next."""

    spec: TerminalSpec
    line: Line
    rank: int
    why: str
    expected: bool
    """It is in a maintenance window: where it does not answer, that is held against nobody."""
    by: tuple[Any, ...]
    """As what it answers: another version, another start or another probe may have what this one lacks."""


@dataclass(frozen=True, slots=True)
class _View:
    """A pool at one moment (monotonic): who may be asked, and why the others may not."""

    pool: PoolSpec
    at: float
    standings: tuple[_Standing, ...]
    kept_out: Mapping[str, str]


class Dispatcher:
    """All requests of one process. ``told`` reads what the workers report, and may raise Django's database errors; who reads it
    anyway hands it over by ``tell``, so that no request has to wait for the database."""

    def __init__(self, told: Callable[[], Mapping[str, TerminalReport]] = states.terminals) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._lines: dict[str, Line] = {}
        self._strategies: dict[str, tuple[str, Strategy]] = {}
        self._saved: dict[str, float] = {}
        self._views: dict[str, _View] = {}
        self._reported: Mapping[str, TerminalReport] = {}
        self._read_at = -UNTOLD
        self._reading = threading.Lock()

    def ask(
        self, pool: PoolSpec, capability: Capability | None, call: Call[T], *, priority: Priority, deadline: float
    ) -> tuple[str, T]:
        """The terminal that answered, and its answer. ``deadline`` is on the monotonic clock. Raises ``NoAnswer``."""
        return _Request(self, pool, capability, call, priority, deadline).answer()

    def able(self, pool: PoolSpec, capability: Capability | None) -> int:
        """How many terminals of the pool would be asked side by side: those of the best choice that there is."""
        now = time.monotonic()
        ranks = [rank for rank, _ in self.choices(self.view(pool, now), capability, now)]
        return ranks.count(min(ranks)) if ranks else 0

    def tell(self, reported: Mapping[str, TerminalReport]) -> None:
        """What the workers report, as of now."""
        self._reported, self._read_at = reported, time.monotonic()

    def reports(self) -> Iterator[tuple[str, PoolReport]]:
        """Of each pool that this process has asked, how it uses the terminals."""
        pools = roster.current().pools
        now = time.monotonic()
        present = {terminal.name for pool in pools.values() for terminal in pool.terminals}
        with self._lock:
            for name in [name for name, line in self._lines.items() if name not in present and not line.slots.in_flight]:
                self._lines.pop(name).close()
            lines = dict(self._lines)
        for name, pool in pools.items():
            if any(terminal.name in lines for terminal in pool.terminals):
                # Without requests, too, the slots follow the pool.
                told = {standing.spec.name: standing.line.report(now) for standing in self.view(pool, now).standings}
                yield name, PoolReport(process=states.PROCESS, strategy=pool.strategy, terminals=told)

    def view(self, pool: PoolSpec, now: float) -> _View:
        """The pool as it is now, made anew when it has changed and once a second."""
        view = self._views.get(pool.name)
        if view is None or now - view.at >= LOOK or (view.pool is not pool and view.pool != pool):
            view = self._views[pool.name] = self._look(pool, now)
        return view

    def _look(self, pool: PoolSpec, now: float) -> _View:
        reported, clock = self._reports(now), time.time_ns() // 1_000_000
        standings: list[_Standing] = []
        kept_out: dict[str, str] = {}
        for spec in pool.terminals:
            if not spec.serving:
                kept_out[spec.name] = "it is drained" if spec.enabled else "it is switched off"
                continue
            report = reported.get(spec.name)
            rank, why = STANDBY if spec.role == Role.STANDBY else GOOD, ""
            if expected := windows.inside(spec.maintenance, clock) is not None:
                rank, why = MAINTENANCE, "it is in maintenance"
            if report is None and reported:
                rank, why = DOWN, "it has no worker"
            elif report is not None and report.state == State.DOWN:
                rank, why = DOWN, f"it is down: {report.detail}"
            by = spec.version, spec.capabilities, report and (report.process, report.restarts)
            line = self._line(spec.name)
            line.fit(pool, spec, now)
            standings.append(_Standing(spec, line, rank, why, expected, by))
        return _View(pool, now, tuple(standings), kept_out)

    def _reports(self, now: float) -> Mapping[str, TerminalReport]:
        """As last told, or as of the look that another thread is taking."""
        if now - self._read_at >= UNTOLD and self._reading.acquire(blocking=False):
            try:
                self._reported = self._told()
            except DatabaseError as error:
                log.warning("reports_not_read", error=type(error).__name__)
                self._reported = {}
            finally:
                self._read_at = now
                self._reading.release()
        return self._reported

    def _line(self, name: str) -> Line:
        with self._lock:
            if (line := self._lines.get(name)) is None:
                line = self._lines[name] = Line(name)
            return line

    def choices(self, view: _View, capability: Capability | None, now: float) -> list[tuple[int, _Standing]]:
        """Who may be asked, with how good a choice each is at this moment."""
        found: list[tuple[int, _Standing]] = []
        for standing in view.standings:
            line, rank = standing.line, standing.rank
            if _never_had(standing.spec, capability):
                continue
            if now - line.failed_at < AVOIDED:
                rank = max(rank, FAILED)
            if not line.breaker.ready(now):
                rank = max(rank, BROKEN)
            lack = line.lacks.get(capability) if line.lacks and capability is not None else None
            if lack is not None and lack.by == standing.by and now < lack.until:
                rank = LACKS
            found.append((rank, standing))
        return found

    def pick(self, pool: PoolSpec, standings: Sequence[_Standing], priority: Priority) -> tuple[_Standing, bool]:
        """One of them by the pool's strategy, and whether a slot of it has been taken."""
        with self._lock:
            name, strategy = self._strategies.get(pool.name, ("", None))
            if strategy is None or name != pool.strategy:
                strategy = STRATEGIES[pool.strategy]()
                self._strategies[pool.name] = pool.strategy, strategy
            free = [standing for standing in standings if standing.line.has_free(priority)]
            candidates = [_candidate(standing) for standing in free or standings]
            chosen = strategy.pick(candidates) if len(candidates) > 1 else candidates[0].name
            standing = next(standing for standing in standings if standing.spec.name == chosen)
            try:
                return standing, bool(free) and standing.line.slots.acquire(priority, 0.0) is not None
            except SlotsFull:
                return standing, False

    def save(self, pool: PoolSpec, part: float = HEDGED) -> None:
        """A request has been made: a part of one may go to a second terminal."""
        with self._lock:
            self._saved[pool.name] = min(HEDGES_SAVED, self._saved.get(pool.name, 1.0) + part)

    def spend(self, pool: PoolSpec) -> bool:
        """Whether one may now."""
        with self._lock:
            if self._saved.get(pool.name, 1.0) < 1.0:
                return False
            self._saved[pool.name] -= 1.0
            return True


class _Asked(NamedTuple):
    """A terminal that is being asked: until when (monotonic) it may take, how long the slot was waited for.

    ``patience``: seconds after which a second one is asked as well; None: never. ``trial``: it is only tried whether it is back.
    """

    standing: _Standing
    until: float
    waited: float
    patience: float | None = None
    trial: bool = False
    second: bool = False

    @property
    def name(self) -> str:
        return self.standing.spec.name


class _Request(Generic[T]):
    """One request on its way, in its caller's thread."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        pool: PoolSpec,
        capability: Capability | None,
        call: Call[T],
        priority: Priority,
        deadline: float,
    ) -> None:
        self._dispatcher = dispatcher
        self._pool = pool
        self._capability = capability
        self._call = call
        self._priority = priority
        self._deadline = deadline
        self._asked: set[str] = set()
        self._failures: dict[str, Failure] = {}
        self._running: dict[str, _Asked] = {}
        self._ended: SimpleQueue[tuple[_Asked, T | None, BaseException | None]] = SimpleQueue()

    def answer(self) -> tuple[str, T]:
        if self._hedges:
            self._dispatcher.save(self._pool)
        while (asked := self._next()) is not None:
            if asked.patience is not None and self._begin(asked):
                if (found := self._first_of_them(asked)) is not None:
                    return found
            else:
                try:
                    return asked.name, self._perform(asked)
                except Failure as failure:
                    self._fail(asked, failure)
        raise self._no_answer()

    @property
    def _hedges(self) -> bool:
        return self._pool.hedge and self._priority is Priority.LIVE

    def _next(self) -> _Asked | None:
        """Who is asked now, with a slot; None where there is nobody, or no time."""
        while (now := time.monotonic()) + LEAST <= self._deadline:
            left = self._choices(now)
            if not left:
                return None
            best = min(rank for rank, _ in left)
            several = [standing for rank, standing in left if rank == best]
            standing, taken = self._dispatcher.pick(self._pool, several, self._priority)
            line = standing.line
            with line.lock:
                allowed = line.breaker.allow(now)
                trial = allowed and line.breaker.state is Breaking.HALF_OPEN
            if not allowed and best < BROKEN:
                # Somebody else tries just now whether it is back.
                if taken:
                    line.slots.release(self._priority)
                continue
            self._asked.add(standing.spec.name)
            others = sum((rank < MAINTENANCE) == (best < MAINTENANCE) for rank, _ in left) - 1
            part = 0.25 if best == DOWN else 0.5 if others else 1.0
            waited = 0.0 if taken else self._wait(standing, max(0.0, part * (self._deadline - now) - LEAST))
            if waited is None:
                continue
            line.queued(self._priority, waited, now)
            patience = self._patience(line, trial, now) if self._hedges and len(left) > 1 else None
            now += waited
            return _Asked(standing, now + part * (self._deadline - now), waited, patience, trial)
        return None

    def _choices(self, now: float) -> list[tuple[int, _Standing]]:
        view = self._dispatcher.view(self._pool, now)
        choices = self._dispatcher.choices(view, self._capability, now)
        return [choice for choice in choices if choice[1].spec.name not in self._asked] if self._asked else choices

    def _wait(self, standing: _Standing, seconds: float) -> float | None:
        """How long it took until there was a slot; None without one."""
        line = standing.line
        try:
            waited = line.slots.acquire(self._priority, seconds)
            detail = f"{line.name} was busy with other requests for {seconds:.1f} s"
        except SlotsFull as full:
            waited, detail = None, f"{line.name}: {full}"
        if waited is None:
            line.ended("busy", seconds, time.monotonic())
            self._note(standing, Failure("busy", detail))
        return waited

    def _patience(self, line: Line, trial: bool, now: float) -> float | None:
        usual = line.nearly_always(now)
        if trial:
            return PATIENCE if usual is None else max(SOONEST, min(PATIENCE, usual))
        return None if usual is None else max(SOONEST, usual)

    def _perform(self, asked: _Asked) -> T:
        """Ask, and give the slot back."""
        line = asked.standing.line
        began = time.monotonic()
        outcome = "failed"
        try:
            answer = self._call(line.name, asked.until - began)
            outcome = "ok"
        except Failure as failure:
            outcome = failure.outcome
            if outcome == "unsupported" and self._capability is not None:
                lack = Lack(asked.standing.by, time.monotonic() + LACKING)
                with line.lock:
                    line.lacks[self._capability] = lack
            raise
        finally:
            line.slots.release(self._priority)
            line.ended(outcome, asked.waited, began, expected=asked.standing.expected)
        return answer

    def _begin(self, asked: _Asked) -> bool:
        """Ask beside this thread; False where nobody is free for it."""
        self._running[asked.name] = asked
        if hands.spare.take(partial(self._perform_beside, asked)):
            return True
        del self._running[asked.name]
        return False

    def _perform_beside(self, asked: _Asked) -> None:
        try:
            self._ended.put((asked, self._perform(asked), None))
        except BaseException as error:
            self._ended.put((asked, None, error))
            if not isinstance(error, Failure):
                raise

    def _first_of_them(self, asked: _Asked) -> tuple[str, T] | None:
        """The first answer of those that are being asked; None once all of them have failed. Who is late is left alone."""
        patience = asked.patience or PATIENCE
        look_at: float | None = time.monotonic() + patience
        while self._running:
            now = time.monotonic()
            if now >= self._deadline:
                for late in self._running.values():
                    self._note(late.standing, Failure("timeout", f"{late.name}: no answer before the deadline"))
                return None
            until = self._deadline if look_at is None else min(look_at, self._deadline)
            try:
                ended, answer, error = self._ended.get(timeout=max(0.0, until - now))
            except Empty:
                if look_at is not None and time.monotonic() >= look_at:
                    look_at = None if self._ask_a_second(asked) else time.monotonic() + patience
                continue
            del self._running[ended.name]
            if error is None:
                if ended.second:
                    metrics.HEDGES.labels(ended.name, "won").inc()
                return ended.name, cast("T", answer)
            if not isinstance(error, Failure):
                raise error
            self._fail(ended, error)
        return None

    def _ask_a_second(self, first: _Asked) -> bool:
        """Ask another terminal as well, if one has a free slot and enough has been saved for it. One that is only tried may
        always be left behind: else nobody could afford to try it."""
        now = time.monotonic()
        left = self._choices(now)
        well = [choice for choice in left if choice[0] <= FAILED and choice[1].line.has_free(self._priority)]
        well = [choice for choice in well if choice[1].line.breaker.state is Breaking.CLOSED]
        if not well or self._deadline - now < LEAST or not (first.trial or self._dispatcher.spend(self._pool)):
            return False
        # Where it hangs as well, there must be time for a third one.
        others = sum(rank < MAINTENANCE for rank, _ in left) - 1
        if name := self._begin_second(well, now + (0.5 if others else 1.0) * (self._deadline - now)):
            log.info("hedged", terminal=name, late=first.name, patience=first.patience)
            return True
        if not first.trial:
            self._dispatcher.save(self._pool, 1.0)
        return False

    def _begin_second(self, well: Sequence[tuple[int, _Standing]], until: float) -> str:
        """Ask the best of them; its name, none where it could not be done."""
        best = min(rank for rank, _ in well)
        standing, taken = self._dispatcher.pick(self._pool, [s for rank, s in well if rank == best], self._priority)
        if not taken:
            return ""
        second = _Asked(standing, until, 0.0, second=True)
        if not self._begin(second):
            standing.line.slots.release(self._priority)
            return ""
        self._asked.add(second.name)
        with standing.line.lock:
            standing.line.hedged += 1
        metrics.HEDGES.labels(second.name, "asked").inc()
        return second.name

    def _fail(self, asked: _Asked, failure: Failure) -> None:
        self._note(asked.standing, failure)
        if failure.outcome == "ending":
            raise self._no_answer()

    def _note(self, standing: _Standing, failure: Failure) -> None:
        name = standing.spec.name
        self._failures[name] = failure
        write = log.info if standing.expected else log.warning
        write("terminal_failed", terminal=name, outcome=failure.outcome, detail=str(failure))

    def _no_answer(self) -> NoAnswer:
        view = self._dispatcher.view(self._pool, time.monotonic())
        ranks = {standing.spec.name: standing.why for standing in view.standings}
        told = [(failure.reason, str(failure)) for failure in self._failures.values()]
        for spec in self._pool.terminals:
            if spec.name in self._failures:
                continue
            if not spec.serving:
                told.append((SOURCE_UNAVAILABLE.name, f"{spec.name} was not asked: {view.kept_out.get(spec.name)}"))
            elif _never_had(spec, self._capability):
                told.append((UNSUPPORTED.name, f"{spec.name} was not asked: it has no {self._capability}"))
            else:
                why = f" ({ranks[spec.name]})" if ranks.get(spec.name) else ""
                told.append((DEADLINE.name, f"{spec.name} was not asked: no time was left{why}"))
        if not told:
            told.append((SOURCE_UNAVAILABLE.name, f"the pool {self._pool.name} has no terminals"))
        reasons = {reason for reason, _ in told}
        reason = next(name for name in (SOURCE_UNAVAILABLE.name, DEADLINE.name, UNSUPPORTED.name) if name in reasons)
        return NoAnswer(reason, "; ".join(text for _, text in told))


def _never_had(spec: TerminalSpec, capability: Capability | None) -> bool:
    """Whether its last probe did not find the function; one that was never probed may have it."""
    return capability is not None and bool(spec.capabilities) and capability not in spec.capabilities


def _candidate(standing: _Standing) -> Candidate:
    slots = standing.line.slots
    return Candidate(standing.spec.name, standing.spec.weight, slots.in_flight + slots.waiting)


_own = Dispatcher()


def ask(pool: PoolSpec, capability: Capability | None, call: Call[T], *, priority: Priority, deadline: float) -> tuple[str, T]:
    """Ask one of the pool's terminals, another where that one fails: who answered, and what. ``deadline`` is on the monotonic
    clock. Raises ``NoAnswer``."""
    return _own.ask(pool, capability, call, priority=priority, deadline=deadline)


def able(pool: PoolSpec, capability: Capability | None) -> int:
    """See ``Dispatcher.able``."""
    return _own.able(pool, capability)


def tell(reported: Mapping[str, TerminalReport]) -> None:
    """See ``Dispatcher.tell``."""
    _own.tell(reported)


def reports() -> Iterator[tuple[str, PoolReport]]:
    """See ``Dispatcher.reports``."""
    return _own.reports()


def forget() -> None:
    """Begin anew, as after a start."""
    global _own
    _own = Dispatcher()

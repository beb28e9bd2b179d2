"""Asking terminals for bars and dividends: a Celery task on the queue of the terminal that ``dispatch`` chooses, waited for up to
a deadline. Many symbols are divided among the terminals that can serve them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from celery import Task
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult
from django.core.cache import cache

from argus.broker import BrokerAway, carried
from argus.celery import CLOCK_TOLERANCE, queue_of
from argus.config import config
from argus.errors import DEADLINE, SOURCE_UNAVAILABLE, UNSUPPORTED, ArgusError, Problem
from marketdata import market_time
from marketdata.history import parcel, tasks
from marketdata.history.plan import Chunk
from marketdata.latest import store
from marketdata.series import Series
from marketdata.sources.base import Capability
from marketdata.symbols import market_of
from marketdata.terminals import dispatch, hands, roster
from marketdata.terminals.dispatch import LEAST, Failure, NoAnswer
from marketdata.terminals.roster import PoolSpec
from marketdata.terminals.slots import Priority
from marketdata.types import Dividend

log = structlog.get_logger(__name__)

PART: Final = 25
"""Symbols below which it is not worth asking one more terminal."""
LOOK: Final = 0.5
"""Seconds between two looks whether this process ends while it waits for an answer."""
COARSE: Final = 1.5
"""Seconds before the deadline from which on it is looked every ``FINE`` seconds: over Redis Celery waits in whole seconds."""
FINE: Final = 0.02

ending = threading.Event()
"""Set when this worker is told to end: it takes no more tasks, so the answer may be one that it owes itself."""


class FetchError(Exception):
    """No terminal answered: ``reason`` is unsupported, deadline or source_unavailable (names of rows of the error table).

    Where several were asked the text names each with its own reason, and ``reason`` is the one that is most likely to pass.
    """

    PROBLEMS: Final[Mapping[str, Problem]] = {p.name: p for p in (UNSUPPORTED, DEADLINE, SOURCE_UNAVAILABLE)}

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def as_error(self, **params: Any) -> ArgusError:
        """As a client is told."""
        return ArgusError(self.PROBLEMS[self.reason], str(self), **params)


@dataclass(frozen=True, slots=True)
class Fetched:
    """``now`` is the market's time (ms) before the terminals were asked; ``refused`` what their source left out, by reason."""

    bars: Mapping[str, Series]
    refused: Mapping[str, int]
    now: int
    source: str
    terminals: tuple[str, ...]


def bars(chunk: Chunk, *, deadline: float, priority: Priority = Priority.LIVE) -> Fetched:
    """The chunk's bars. ``deadline`` is on the monotonic clock. Raises ``FetchError``."""
    asked = chunk.period.value, chunk.start, chunk.end
    answers = _ask(tasks.fetch_bars, chunk.symbols, asked, Capability.BARS, deadline, priority)
    found: dict[str, Series] = {}
    refused: Counter[str] = Counter()
    for _, answer in answers:
        found |= parcel.unpack(answer["parcel"])
        refused.update(answer["refused"])
    now, source = min(int(answer["now"]) for _, answer in answers), str(answers[0][1]["source"])
    return Fetched(found, refused, now, source, tuple(terminal for terminal, _ in answers))


def dividends(symbols: Sequence[str], *, deadline: float) -> tuple[dict[str, tuple[Dividend, ...]], str]:
    """What the symbols have given, and the source that told. Raises ``FetchError``."""
    found: dict[str, tuple[Dividend, ...]] = {}
    answers = _ask(tasks.fetch_dividends, symbols, (), Capability.DIVIDENDS, deadline, Priority.LIVE)
    for _, answer in answers:
        found |= msgspec.msgpack.decode(answer["parcel"], type=dict[str, tuple[Dividend, ...]])
    return found, str(answers[0][1]["source"])


def by_pool(symbols: Sequence[str]) -> dict[str, list[str]]:
    """The symbols by the pool that serves their market; "" where none does."""
    everything, found = roster.current(), dict[str, list[str]]()
    pools = {market: everything.pool_of(market) for market in set(map(market_of, symbols))}
    for symbol in symbols:
        pool = pools[market_of(symbol)]
        found.setdefault(pool.name if pool else "", []).append(symbol)
    return found


def market_now(market: str, *, deadline: float) -> int:
    """The market's time in ms. A process without a stream (a worker of backfills) asks a terminal where the market's days may
    be others than today's. Raises ``FetchError``."""
    if store.feeds or config.source == "qmt":
        return market_time.now()
    call = partial(_run, tasks.fetch_bars, ([], "1d", 0, 0), Priority.BULK)
    return int(_ask_pool(_pool_of(market), None, call, deadline, Priority.BULK)[1]["now"])


def _ask(
    task: Task[Any, Any],
    symbols: Sequence[str],
    args: tuple[Any, ...],
    capability: Capability,
    deadline: float,
    priority: Priority,
) -> list[tuple[str, dict[str, Any]]]:
    """The answers to the parts, each with the terminal that gave it. Raises ``FetchError`` where one of them is lacking."""
    works: list[Callable[[], tuple[str, dict[str, Any]]]] = []
    for wanted in by_pool(symbols).values():
        pool = _pool_of(market_of(wanted[0]))
        count = max(1, min(dispatch.able(pool, capability), len(wanted) // PART)) if len(wanted) >= 2 * PART else 1
        for number in range(count):
            part = wanted[number * len(wanted) // count : (number + 1) * len(wanted) // count]
            call = partial(_run, task, (part, *args), priority)
            works.append(partial(_ask_pool, pool, capability, call, deadline, priority))
    return hands.side_by_side(works)


def _pool_of(market: str) -> PoolSpec:
    pool = roster.current().pool_of(market)
    if pool is None:
        raise FetchError(UNSUPPORTED.name, f"no pool of terminals serves the market {market}")
    return pool


def _ask_pool(
    pool: PoolSpec,
    capability: Capability | None,
    call: Callable[[str, float], dict[str, Any]],
    deadline: float,
    priority: Priority,
) -> tuple[str, dict[str, Any]]:
    began = time.monotonic()
    try:
        terminal, answer = dispatch.ask(pool, capability, call, priority=priority, deadline=deadline)
    except NoAnswer as nobody:
        raise FetchError(nobody.reason, str(nobody)) from None
    log.info("fetched", terminal=terminal, seconds=round(time.monotonic() - began, 3))
    return terminal, answer


def _run(task: Task[Any, Any], args: tuple[Any, ...], priority: Priority, terminal: str, timeout: float) -> dict[str, Any]:
    """The task's answer with its parcel in it. Raises ``Failure``."""
    options: dict[str, Any] = {"queue": queue_of(terminal), "expires": timeout + CLOCK_TOLERANCE}
    try:
        with carried():
            result = task.apply_async(
                args=(terminal, *args, max(LEAST, timeout - LEAST)), kwargs={"priority": int(priority)}, **options
            )
            try:
                answer = _wait(result, timeout)
            except CeleryTimeout:
                if ending.is_set():
                    raise Failure("ending", f"{terminal}: this worker ends") from None
                raise Failure("timeout", f"{terminal}: no answer within {timeout:.1f} s") from None
            finally:
                result.forget()
            if not isinstance(answer, dict):
                raise Failure("down", f"{terminal}: the task ended with {type(answer).__name__}")
            if failed := answer.get("failed"):
                raise Failure(failed, f"{terminal}: {answer['detail']}")
            if key := answer.get("key"):
                answer["parcel"] = cache.get(key)
                cache.delete(key)
                if answer["parcel"] is None:
                    raise Failure("down", f"{terminal}: the answer was lost on its way")
    except BrokerAway as away:
        raise Failure("broker", f"{terminal}: {away}") from None
    return answer


def _wait(result: AsyncResult[Any], timeout: float) -> Any:
    """What the task returned. Raises Celery's ``TimeoutError`` after so many seconds, or when this process ends."""
    until = time.monotonic() + timeout
    while True:
        left = until - time.monotonic()
        try:
            if left > COARSE or result.ready():
                # Under the embedded service Celery takes every thread of the process for a task's; this one is a request's.
                return result.get(timeout=LOOK, interval=0.01, propagate=False, disable_sync_subtasks=False)
        except CeleryTimeout:
            left = until - time.monotonic()
        if left <= 0 or ending.is_set():
            raise CeleryTimeout
        if left <= COARSE:
            time.sleep(min(left, FINE))

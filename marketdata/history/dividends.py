"""What instruments have given, for adjustment: kept in the database, asked for again once per trading day."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import Final

import msgspec
import structlog

from marketdata import models
from marketdata.calendar import day_of
from marketdata.history import fetch
from marketdata.history.fetch import FetchError
from marketdata.terminals import hands
from marketdata.types import Dividend

log = structlog.get_logger(__name__)

PART: Final = 500
"""Symbols in one question to the database or to a terminal."""
PATIENCE: Final = 0.3
"""The part of the time left that is spent on asking again where older rows would do."""
FAILED: Final = 30.0
"""Seconds after a failure in which older rows are used without asking."""
KEPT: Final = 20_000
"""Symbols that a process keeps in memory; when there are more it begins anew."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a source said of one symbol, and when by the market's clock, in ms."""

    dividends: tuple[Dividend, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Known:
    """Symbol -> what was told. ``stale`` symbols have not been asked about today, of ``unknown`` ones nothing was told ever."""

    told: Mapping[str, Told]
    stale: frozenset[str] = frozenset()
    unknown: Mapping[str, str] = field(default_factory=dict)
    error: FetchError | None = None


class _Question:
    """The one question to a pool that is under way, and why the last one failed, and when (monotonic)."""

    def __init__(self) -> None:
        self.asking = threading.Lock()
        self._failure: tuple[float, FetchError] | None = None

    def fail(self, error: FetchError | None) -> None:
        """How the last question ended."""
        self._failure = None if error is None else (time.monotonic(), error)

    def failed(self) -> FetchError | None:
        """Why the last question failed, if that was just now."""
        failure = self._failure
        return failure[1] if failure is not None and time.monotonic() - failure[0] < FAILED else None


class _Memory:
    """This process's copy of the rows, and the question to each pool."""

    def __init__(self) -> None:
        self.told: dict[str, Told] = {}
        self._questions: defaultdict[str, _Question] = defaultdict(_Question)

    def clear(self) -> None:
        """Forget everything."""
        self.told.clear()
        self._questions.clear()

    def question(self, pool: str) -> _Question:
        """That to a pool."""
        return self._questions[pool]

    def fresh(self, symbols: Iterable[str], today: date) -> dict[str, Told]:
        """Those that were asked about today."""
        return {symbol: told for symbol in symbols if (told := self.told.get(symbol)) is not None and day_of(told.at) == today}

    def keep(self, told: Mapping[str, Told]) -> None:
        """Keep them."""
        if len(self.told) + len(told) > KEPT:
            self.told.clear()
        self.told.update(told)


memory = _Memory()


def known_now(symbols: Sequence[str], now: int) -> Known | None:
    """Everything, if this process has it in memory as of the market's today."""
    fresh = memory.fresh(symbols, day_of(now))
    return Known(fresh) if len(fresh) == len(symbols) else None


def known(symbols: Sequence[str], now: int, *, deadline: float) -> Known:
    """Everything: from memory, the database, or the source where that has not been asked today.

    Where the source does not answer, older rows are used and the symbols are called stale; as those would do, little of the
    time is spent on asking for newer ones, and none just after a failure. Pools are asked side by side, and one that does not
    answer takes nothing from the others' symbols. ``deadline`` is on the monotonic clock.
    """
    today = day_of(now)
    found = memory.fresh(symbols, today)
    if len(found) == len(symbols):
        return Known(found)
    old = _stored([symbol for symbol in symbols if symbol not in found])
    newer = {symbol: told for symbol, told in old.items() if day_of(told.at) == today}
    memory.keep(newer)
    found |= newer
    pools = fetch.by_pool([symbol for symbol in symbols if symbol not in found])
    asking = [partial(_learn, memory.question(pool), several, old, found, now, deadline) for pool, several in pools.items()]
    errors = dict(zip(pools, hands.side_by_side(asking), strict=True))
    error = next((error for error in errors.values() if error is not None), None)
    if error is None:
        return Known(found)
    stale = {symbol: told for symbol, told in old.items() if symbol not in found}
    reasons = {symbol: error.reason for pool, error in errors.items() if error is not None for symbol in pools[pool]}
    unknown = {symbol: reasons[symbol] for symbol in symbols if symbol not in found and symbol not in old}
    log.warning("dividends_stale", stale=len(stale), unknown=len(unknown), reason=error.reason)
    return Known({**found, **stale}, frozenset(stale), unknown, error)


def _learn(
    question: _Question, symbols: Sequence[str], old: Mapping[str, Told], found: dict[str, Told], now: int, deadline: float
) -> FetchError | None:
    """Add to ``found`` what a pool says of the symbols, those first of which there are no older rows."""
    error = _ask(question, [symbol for symbol in symbols if symbol not in old], found, now, deadline)
    if error is None:
        error = _ask(question, [symbol for symbol in symbols if symbol in old], found, now, deadline, older=True)
    return error


def _ask(
    question: _Question, symbols: Sequence[str], found: dict[str, Told], now: int, deadline: float, *, older: bool = False
) -> FetchError | None:
    """Add to ``found`` what the source says of the symbols, or has said to others meanwhile; why it does not say it all.

    ``older``: there are older rows of all of them.
    """
    if not symbols:
        return None
    if older and (failed := question.failed()):
        return failed
    began = time.monotonic()
    until = began + PATIENCE * (deadline - began) if older else deadline
    if not question.asking.acquire(timeout=max(0.0, until - began)):
        return FetchError("deadline", "The dividends were being fetched for others.")
    try:
        found |= memory.fresh(symbols, day_of(now))
        lacking = [symbol for symbol in symbols if symbol not in found]
        if not lacking:
            return None
        if older and (failed := question.failed()):
            return failed
        for start in range(0, len(lacking), PART):
            part = _fetched(lacking[start : start + PART], now, until)
            found |= part
            memory.keep(part)
        question.fail(None)
    except FetchError as error:
        question.fail(error)
        return error
    finally:
        question.asking.release()
    return None


def _stored(symbols: Sequence[str]) -> dict[str, Told]:
    found: dict[str, Told] = {}
    for start in range(0, len(symbols), PART):
        for row in models.Dividends.objects.filter(symbol__in=symbols[start : start + PART]):
            at = int(row.refreshed_at.timestamp() * 1000)
            found[row.symbol] = Told(msgspec.convert(row.rows, tuple[Dividend, ...]), at)
    return found


def _fetched(symbols: Sequence[str], now: int, deadline: float) -> dict[str, Told]:
    given, source = fetch.dividends(symbols, deadline=deadline)
    # By the market's clock, as everything here: a simulated market's days are not today's.
    at = datetime.fromtimestamp(now / 1000, UTC)
    rows = [
        models.Dividends(symbol=symbol, rows=msgspec.to_builtins(given.get(symbol, ())), source=source, refreshed_at=at)
        for symbol in symbols
    ]
    models.Dividends.objects.bulk_create(
        rows, batch_size=PART, update_conflicts=True, unique_fields=["symbol"], update_fields=["rows", "source", "refreshed_at"]
    )
    return {symbol: Told(given.get(symbol, ()), now) for symbol in symbols}

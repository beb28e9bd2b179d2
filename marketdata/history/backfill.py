"""Backfills: long fetches of bars as jobs that go on where they stopped, chunk by chunk, with what was refused written down.

A job fetches only what the tiers lack, so it can be stopped anywhere and begun again. One runs per worker at a time, a chunk at
a time, and its requests stand back for those that somebody waits for. While the terminal is away it waits; it gives up when
nothing has come for ``PATIENCE`` seconds. Days that came incomplete are looked at a second time at the end.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any, Final

import structlog
from django.db import close_old_connections, connection
from django.db.models import F, Q
from django.utils import timezone
from kombu.exceptions import OperationalError

from argus import requestid
from argus.config import config
from argus.errors import DEADLINE, INVALID_ARGUMENT, NOT_FOUND, OUTSIDE_CALENDAR, UNSUPPORTED, ArgusError
from marketdata import periods
from marketdata.cache.block import BlockKey
from marketdata.cache.tiers import tiers
from marketdata.calendar import OutsideCalendar, TradingCalendar
from marketdata.history import fetch, loader, tasks
from marketdata.history.fetch import FetchError
from marketdata.history.plan import CHUNK_SYMBOLS, Chunk, chunks, is_closed, keys_of
from marketdata.models import Backfill
from marketdata.reference.days import calendar_of
from marketdata.symbols import market_of
from marketdata.terminals.slots import Priority
from marketdata.types import Period

log = structlog.get_logger(__name__)

State = Backfill.State
GOES_ON: Final = (State.WAITING, State.RUNNING)
PERIODS: Final = (Period.M1, Period.D1)
BEAT: Final = 5.0
"""Seconds between two signs of life of a job."""
ABANDONED: Final = 30.0
"""Seconds without one after which another worker takes the job."""
PATIENCE: Final = 3600.0
"""Seconds without a chunk after which a job has failed."""
PAUSES: Final = (1.0, 2.0, 5.0, 10.0)
"""Seconds between tries while the terminal does not answer."""
TRIES: Final = 3
"""A chunk that comes too late so often is a problem, and the next one is asked for."""
CHUNK_TIMEOUT: Final = 60.0
PROBLEMS: Final = 100

_one = threading.Lock()


class Stopped(Exception):
    """The job has been cancelled meanwhile."""


class Ending(Exception):
    """This worker has been told to end."""


def start(*, symbols: Sequence[str], period: Period, first: date, last: date, request_id: str = "") -> Backfill:
    """Make a job and hand it to a worker. Raises ``ArgusError`` that names the parameter."""
    if not symbols:
        raise ArgusError(INVALID_ARGUMENT, "Name at least one symbol or a sector.", parameter="symbols")
    if period not in PERIODS:
        detail = f"Bars of {period} are made from those of {periods.base_of(period)}: backfill these."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="period")
    if first > last:
        raise ArgusError(INVALID_ARGUMENT, f"The start, {first}, is after the end, {last}.", parameter="start")
    for hours in {periods.hours_of(symbol) for symbol in symbols}:
        _check_days(hours, period, first, last)
    job = Backfill.objects.create(symbols=list(symbols), period=period, start=first, end=last, request_id=request_id)
    log.info("backfill_made", backfill=job.pk, symbols=len(symbols), period=period, start=str(first), end=str(last))
    hand_over(job.pk)
    return job


def _check_days(hours: str, period: Period, first: date, last: date) -> None:
    """``hours``: the market whose hours symbols keep (``periods.hours_of``). Raises ``ArgusError``."""
    try:
        calendar = _calendar(hours)
        calendar.is_trading_day(first)
        periods.bar_ends(hours, period)
    except OutsideCalendar as error:
        raise ArgusError(OUTSIDE_CALENDAR, f"{error}.", parameter="start") from None
    except periods.UnknownHours as error:
        raise ArgusError(UNSUPPORTED, f"{error}.", parameter="symbols") from None
    if last > calendar.last:
        detail = f"{last} lies outside the trading calendar, which covers {calendar.first} to {calendar.last}."
        raise ArgusError(OUTSIDE_CALENDAR, detail, parameter="end")


def _calendar(hours: str) -> TradingCalendar:
    return calendar_of(hours.partition("/")[0])


def hand_over(number: int) -> None:
    """Ask a worker to run the job. Where the broker is away the job waits for ``resume_abandoned``."""
    try:
        tasks.run_backfill.apply_async(args=(number,))
    except OperationalError as error:
        log.warning("backfill_not_handed_over", backfill=number, error=type(error).__name__)


def find(number: int) -> Backfill:
    """The job. Raises ``ArgusError``."""
    job = Backfill.objects.filter(pk=number).first() if 0 < number < 2**63 else None
    if job is None:
        raise ArgusError(NOT_FOUND, f"There is no backfill {number}.", parameter="id")
    return job


def cancel(number: int) -> Backfill:
    """End a job that goes on; what it has fetched stays. One that has ended stays as it is. Raises ``ArgusError``."""
    Backfill.objects.filter(pk=number, state__in=GOES_ON).update(state=State.CANCELLED, finished_at=timezone.now())
    return find(number)


def resume(number: int) -> Backfill:
    """Go on with a job that has failed, was cancelled or lost its worker. Raises ``ArgusError``."""
    job = find(number)
    Backfill.objects.filter(Q(pk=number) & (~Q(state__in=GOES_ON) | _abandoned())).exclude(state=State.DONE).update(
        state=State.WAITING, finished_at=None, detail=""
    )
    hand_over(job.pk)
    return find(number)


def resume_abandoned() -> int:
    """Hand over the jobs that wait and those whose worker has died; how many."""
    numbers = list(Backfill.objects.filter(Q(state=State.WAITING) | _abandoned()).order_by("pk").values_list("pk", flat=True))
    for number in numbers:
        hand_over(number)
    return len(numbers)


def _abandoned() -> Q:
    return Q(state=State.RUNNING) & Q(beat_at__lt=timezone.now() - timedelta(seconds=ABANDONED))


def run(number: int) -> str:
    """Run a job to its end, unless this process runs another or another process runs this one; the state it is in then."""
    if not _one.acquire(blocking=False):
        return str(State.WAITING)
    try:
        taken = Backfill.objects.filter(Q(pk=number) & (Q(state=State.WAITING) | _abandoned())).update(
            state=State.RUNNING, beat_at=timezone.now()
        )
        if not taken:
            return "taken"
        job = Backfill.objects.get(pk=number)
        with _alive(number):
            ended = _Run(job).to_its_end()
    finally:
        _one.release()
    waiting = Backfill.objects.filter(state=State.WAITING).order_by("pk").values_list("pk", flat=True).first()
    if waiting is not None:
        hand_over(waiting)
    return ended


@contextmanager
def _alive(number: int) -> Iterator[None]:
    """Signs of life from a thread of its own: a call to a terminal may take longer than they may be apart."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            try:
                close_old_connections()
                Backfill.objects.filter(pk=number, state=State.RUNNING).update(beat_at=timezone.now())
            except Exception:
                # The edge of this thread: a database that is away for a moment must not end the job.
                log.exception("backfill_beat_failed", backfill=number)
        connection.close()

    thread = threading.Thread(target=beat, name=f"backfill-{number}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(BEAT)


class _Run:
    """One worker's work on a job."""

    def __init__(self, job: Backfill) -> None:
        self._job = job
        self._refused = Counter[str](job.refused)
        self._problems: list[dict[str, Any]] = []
        self._moved = time.monotonic()
        self._landed = False

    def to_its_end(self) -> str:
        state, detail = State.FAILED, ""
        try:
            incomplete = self._pass(again=False)
            if incomplete:
                self._sleep(loader.SECOND_LOOK + 1)
                self._problems.clear()
                incomplete = self._pass(again=True)
            if incomplete and not self._landed:
                raise FetchError(DEADLINE.name, "No chunk has come in time.")
            state = State.DONE
            detail = f"{incomplete} days of symbols stayed incomplete" if incomplete else ""
        except Stopped:
            return str(State.CANCELLED)
        except Ending:
            self._update(state=State.WAITING, detail="")
            log.info("backfill_given_back", backfill=self._job.pk)
            return str(State.WAITING)
        except FetchError as error:
            detail = f"{error.reason}: {error}"
        except Exception as error:
            # The edge of a job: it must not look as if it went on.
            log.exception("backfill_failed", backfill=self._job.pk)
            detail = f"{type(error).__name__}: {error}"
        self._update(state=state, detail=detail[:2000], finished_at=timezone.now(), problems=self._problems)
        log.info("backfill_ended", backfill=self._job.pk, state=state, detail=detail)
        return str(state)

    def _pass(self, *, again: bool) -> int:
        """Fetch all that is missing; of how many days of symbols something is missing still."""
        work = list(self._plan())
        self._job.refresh_from_db(fields=["chunks_done"])
        self._update(chunks_total=self._job.chunks_done + len(work))
        return sum(self._fetch(chunk) for chunk in work)

    def _plan(self) -> Iterator[Chunk]:
        market = market_of(self._job.symbols[0])
        now = self._patiently(lambda: fetch.market_now(market, deadline=time.monotonic() + CHUNK_TIMEOUT))
        by_hours: dict[str, list[str]] = {}
        for symbol in self._job.symbols:
            by_hours.setdefault(periods.hours_of(symbol), []).append(symbol)
        period = Period(self._job.period)
        for hours, symbols in by_hours.items():
            calendar = _calendar(hours)
            days = tuple(d for d in calendar.between(self._job.start, self._job.end) if is_closed(hours, d, now))
            for begin in range(0, len(symbols), CHUNK_SYMBOLS):
                self._check()
                missing: dict[BlockKey, Sequence[date]] = {}
                for symbol in symbols[begin : begin + CHUNK_SYMBOLS]:
                    wanted = keys_of(config.market, symbol, period, days)
                    held = tiers().cover_many(wanted, wanted)
                    for key, needed in wanted.items():
                        if lacking := held[key].lacking(needed) if key in held else needed:
                            missing[key] = lacking
                yield from chunks(missing, calendar.days)

    def _fetch(self, chunk: Chunk) -> int:
        """Of how many days of its symbols something is missing still."""
        self._check()
        calendar = calendar_of(market_of(chunk.symbols[0]))
        try:
            fetched = self._patiently(
                lambda: fetch.bars(chunk, deadline=time.monotonic() + CHUNK_TIMEOUT, priority=Priority.BULK)
            )
        except _TooLate as late:
            self._problem(" ".join(chunk.symbols), chunk, f"deadline: {late}")
            self._update(problems=self._problems)
            return len(chunk.symbols) * len(calendar.between(chunk.first, chunk.last))
        stored = loader.store(fetched, chunk, calendar, asked=False)
        self._refused.update(stored.refused)
        for symbol, days in stored.incomplete.items():
            self._problem(symbol, chunk, f"incomplete: {days} days")
        self._moved = time.monotonic()
        self._landed = True
        self._update(
            chunks_done=F("chunks_done") + 1,
            bars=F("bars") + stored.bars,
            refused=dict(self._refused),
            problems=self._problems,
            detail="",
        )
        return sum(stored.incomplete.values())

    def _patiently(self, ask: Any) -> Any:
        """What the terminal answers, waiting while it does not. Raises what ends a job, or ``_TooLate``, which ends a chunk."""
        late = 0
        for attempt in range(1_000_000):
            try:
                return ask()
            except FetchError as error:
                self._check()
                late += error.reason == "deadline"
                if error.reason == UNSUPPORTED.name or time.monotonic() - self._moved > PATIENCE:
                    raise
                if late >= TRIES:
                    raise _TooLate(str(error)) from None
                self._update(detail=f"waiting for the terminal: {error}"[:2000])
            self._sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
        return None

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check()
            time.sleep(min(1.0, left))

    def _check(self) -> None:
        if fetch.ending.is_set():
            raise Ending
        if not Backfill.objects.filter(pk=self._job.pk, state=State.RUNNING).exists():
            raise Stopped

    def _problem(self, symbol: str, chunk: Chunk, reason: str) -> None:
        if len(self._problems) < PROBLEMS:
            self._problems.append(
                {"symbol": symbol[:200], "first": chunk.first.isoformat(), "last": chunk.last.isoformat(), "reason": reason}
            )

    def _update(self, **fields: Any) -> None:
        Backfill.objects.filter(pk=self._job.pk, state=State.RUNNING).update(beat_at=timezone.now(), **fields)


class _TooLate(Exception):
    """A chunk did not come in time, several times."""


def progress(job: Backfill) -> dict[str, Any]:
    """A job as operators are shown it. ``eta`` is seconds from now, None where it cannot be told."""
    done, total = job.chunks_done, job.chunks_total
    goes_on = job.state in GOES_ON
    percent = 100.0 if job.state == State.DONE else round(100 * done / total, 1) if total else 0.0
    elapsed = (timezone.now() - job.created_at).total_seconds()
    return {
        "id": job.pk,
        "state": job.state,
        "symbols": len(job.symbols),
        "period": job.period,
        "start": job.start.isoformat(),
        "end": job.end.isoformat(),
        "chunks_done": done,
        "chunks_total": total,
        "percent": percent,
        "eta": round(elapsed / done * (total - done), 1) if goes_on and done and total else None,
        "bars": job.bars,
        "refused": job.refused,
        "problems": job.problems,
        "detail": job.detail,
        "created_at": timezone.localtime(job.created_at).isoformat(timespec="seconds"),
        "finished_at": job.finished_at and timezone.localtime(job.finished_at).isoformat(timespec="seconds"),
        "request_id": job.request_id or requestid.current(),
    }

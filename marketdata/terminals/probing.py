"""A real sign of life: each terminal's own worker makes a cheap call to it, timed; what it can do is written down.

Processes share a broker where Redis is set. Without it the service is one process, and whoever asks from another one (a
management command) leaves a row in the database, which that process finds on its rounds.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import structlog
from celery.exceptions import TimeoutError as CeleryTimeout
from django.db import Error as DatabaseError
from django.db import connection
from django.utils import timezone

from argus import requestid
from argus.broker import BrokerAway, carried
from argus.celery import CLOCK_TOLERANCE, queue_of
from argus.config import config
from marketdata import feeds
from marketdata.feed import Feed
from marketdata.sources.base import Source, SourceError, SourceTimeout, State, Unsupported
from marketdata.terminals.models import Report, Terminal

log = structlog.get_logger(__name__)

SYMBOLS: Final = 10
"""What is asked for: of a single one the terminal may have nothing (halted since long)."""
LOOK: Final = 0.1
"""Seconds between two looks for an answer in the database."""
LONGEST_VERSION: Final = 100
"""Characters of a version that are written down."""
MOST: Final = 300.0
"""Seconds for which a question in the database is worth answering."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a probe. ``outcome``: ok, or what is wrong, in a word; ``detail`` says more, for people.

    Words: ``empty`` (it answered without one usable quote), ``down``, ``starting``, ``timeout``, ``unsupported``, ``no_feed``
    (its worker runs no feed for it), ``no_answer`` (its worker did not answer), ``no_broker``. ``seconds`` are those of the
    call to the terminal; None where it came to none.
    """

    ok: bool
    outcome: str
    detail: str = ""
    state: str = ""
    version: str = ""
    capabilities: tuple[str, ...] = ()
    seconds: float | None = None


def probe(names: Collection[str], timeout: float) -> dict[str, Probe]:
    """Ask the worker of each terminal, side by side, within ``timeout`` seconds. Raises Django's database errors."""
    if not names:
        return {}
    if config.redis_url:
        return _ask_workers(names, timeout)
    if any(feeds.running(name) for name in names):
        return _ask_here(names, timeout)
    return _ask_by_rows(names, timeout)


def probe_here(terminal: str) -> Probe:
    """The same of a terminal whose feed runs in this process. What it can do is written down.

    The call has a poll's deadline, whoever asks: past its deadline a call costs the terminal's child process its life.
    """
    feed = feeds.running(terminal)
    if feed is None:
        return Probe(ok=False, outcome="no_feed", detail="its worker runs no feed for it")
    status = feed.source.status()
    found = Probe(
        ok=False,
        outcome=str(status.state),
        detail=status.detail,
        state=str(status.state),
        version=status.version or "",
        capabilities=tuple(sorted(feed.source.capabilities())),
    )
    if status.state in (State.UP, State.FINISHED):
        found = _call(feed, found)
    try:
        note_probe(terminal, found.version, found.capabilities)
    except DatabaseError as error:
        log.warning("probe_not_noted", terminal=terminal, error=type(error).__name__)
    return found


def _call(feed: Feed, found: Probe) -> Probe:
    """The call, and what came of it."""
    timeout = config.source_timeout
    began = time.monotonic()
    try:
        symbols = _some_symbols(feed, timeout)
        began = time.monotonic()
        answer = feed.source.fetch_quotes(symbols, timeout=timeout, request_id=requestid.current())
    except SourceError as error:
        outcome = "timeout" if isinstance(error, SourceTimeout) else "unsupported" if isinstance(error, Unsupported) else "down"
        return msgspec.structs.replace(found, outcome=outcome, detail=str(error), seconds=_since(began))
    if not answer.quotes:
        detail = f"it answered without a usable quote of {', '.join(symbols)}; is it logged in?"
        return msgspec.structs.replace(found, outcome="empty", detail=detail, seconds=_since(began))
    return msgspec.structs.replace(found, ok=True, outcome="ok", seconds=_since(began))


def _some_symbols(feed: Feed, timeout: float) -> list[str]:
    source: Source = feed.source
    universe = feed.universe or source.universe(timeout=timeout)
    return list(universe[:: max(1, len(universe) // SYMBOLS)][:SYMBOLS])


def _since(began: float) -> float:
    return round(time.monotonic() - began, 4)


def note_probe(terminal: str, version: str, capabilities: Iterable[str]) -> bool:
    """Write down what a terminal that is up can do, and when that was found; whether it differs from what stood there.

    Nothing is written of one without capabilities: it is not up, and what it had still holds. Raises Django's database errors.
    """
    told = sorted(capabilities)
    if not told:
        return False
    version = version[:LONGEST_VERSION]
    rows = Terminal.objects.filter(name=terminal)
    before = rows.values_list("version", "capabilities").first()
    if before is None:
        return False
    changed = before != (version, told)
    rows.update(version=version, capabilities=told, probed_at=timezone.now())
    if changed:
        log.info("terminal_probed", terminal=terminal, version=version, capabilities=told)
    return changed


def _ask_workers(names: Collection[str], timeout: float) -> dict[str, Probe]:
    from marketdata.terminals.tasks import probe_terminal

    deadline = time.monotonic() + timeout
    try:
        with carried():
            asked = {
                name: probe_terminal.apply_async(args=(name,), queue=queue_of(name), expires=timeout + CLOCK_TOLERANCE)
                for name in names
            }
            return {name: _answer_of(result, deadline, timeout) for name, result in asked.items()}
    except BrokerAway as away:
        return {name: Probe(ok=False, outcome="no_broker", detail=str(away)) for name in names}


def _answer_of(result: Any, deadline: float, timeout: float) -> Probe:
    try:
        left = max(0.01, deadline - time.monotonic())
        answer = result.get(timeout=left, interval=0.01, propagate=False, disable_sync_subtasks=False)
    except CeleryTimeout:
        return _no_answer(timeout)
    finally:
        result.forget()
    if not isinstance(answer, dict):
        return Probe(ok=False, outcome="no_answer", detail=f"the task ended with {type(answer).__name__}")
    return msgspec.convert(answer, Probe)


def _no_answer(timeout: float) -> Probe:
    return Probe(ok=False, outcome="no_answer", detail=f"its worker did not answer within {timeout:g} s")


def _ask_here(names: Collection[str], timeout: float) -> dict[str, Probe]:
    deadline = time.monotonic() + timeout
    # Not as a context: leaving it would wait for a call that hangs.
    pool = ThreadPoolExecutor(len(names), thread_name_prefix="probe")
    asked = {name: pool.submit(_probe_and_close, name) for name in names}
    pool.shutdown(wait=False)
    found = {}
    for name, future in asked.items():
        try:
            found[name] = future.result(max(0.0, deadline - time.monotonic()))
        except NotYet:
            found[name] = _no_answer(timeout)
    return found


def _probe_and_close(name: str) -> Probe:
    try:
        return probe_here(name)
    finally:
        connection.close()


def _ask_by_rows(names: Collection[str], timeout: float) -> dict[str, Probe]:
    """Leave a question for each, and wait for the answers."""
    question = f"probe:{secrets.token_hex(8)}"
    mine = Report.objects.filter(subject=Report.Subject.PROBE, process=question)
    now = timezone.now()
    Report.objects.bulk_create(
        Report(subject=Report.Subject.PROBE, name=name, process=question, seen_at=now, body={}) for name in names
    )
    deadline = time.monotonic() + timeout
    found: dict[str, Probe] = {}
    try:
        while len(found) < len(names) and time.monotonic() < deadline:
            time.sleep(LOOK)
            answers: Mapping[str, Any] = dict(mine.values_list("name", "body"))
            found = {name: msgspec.convert(told["answer"], Probe) for name, told in answers.items() if "answer" in told}
    finally:
        mine.delete()
    return {name: found.get(name) or _no_answer(timeout) for name in names}


_answering: set[int] = set()


def answer_rows() -> None:
    """Begin to answer what was left in the database, on threads of their own. Raises Django's database errors."""
    since = datetime.now(UTC) - timedelta(seconds=MOST)
    for row in Report.objects.filter(subject=Report.Subject.PROBE, seen_at__gte=since):
        if not row.body and row.pk not in _answering and feeds.running(row.name) is not None:
            _answering.add(row.pk)
            threading.Thread(target=_answer_row, args=(row,), name=f"probe-{row.name}", daemon=True).start()


def _answer_row(row: Report) -> None:
    try:
        found = probe_here(row.name)
        Report.objects.filter(pk=row.pk).update(body={"answer": msgspec.to_builtins(found)})
    except DatabaseError as error:
        log.warning("probe_not_answered", terminal=row.name, error=type(error).__name__)
    finally:
        _answering.discard(row.pk)
        connection.close()

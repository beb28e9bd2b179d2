"""What processes report: a worker of its terminal, an asking process of its pool's slots; rows that everybody reads.

The database carries them because embedded and scaled services and management commands all see it. A report is a sign of life
as well: one that is older than ``FRESH`` counts for nothing. Reporting is best effort, no request and no feed waits for it.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec
from django.utils import timezone

from marketdata.terminals.models import Report

REPEAT: Final = 3.0
"""Seconds after which a report is told again that does not differ in what matters."""
FRESH: Final = 10.0
"""Seconds after which a report counts for nothing."""
KEPT: Final = timedelta(days=1)
"""Old ones still say when a terminal was last heard of."""

PURGE: Final = 600.0
"""Seconds between two purges of older ones by one process."""

PROCESS: Final = f"{socket.gethostname()[:48]}:{os.getpid()}:{secrets.token_hex(4)}"
"""This process, in its reports."""


class TerminalReport(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal as its worker sees it. Times are wall-clock ms, durations seconds; None: not known.

    ``state`` is the source's own (starting, up, down, finished); ``publishing``: whether it holds its pool's lease;
    ``in_step``: whether it could take over without a loss; ``canary``: when the source last answered with a usable quote;
    ``quoted``: the newest exchange time among its quotes; ``p50`` and ``p99`` are of its answers to requests and polls.
    """

    pool: str
    process: str
    source: str
    state: str
    detail: str = ""
    address: str = ""
    version: str = ""
    capabilities: tuple[str, ...] = ()
    restarts: int = 0
    dropped: int = 0
    publishing: bool = False
    in_step: bool = False
    epoch: int | None = None
    canary: int | None = None
    quoted: int | None = None
    clock: int | None = None
    in_flight: int = 0
    p50: float | None = None
    p99: float | None = None


class SlotsReport(msgspec.Struct, frozen=True, kw_only=True):
    """One terminal's request slots as one asking process has them: counts since its start, durations in seconds."""

    size: int
    in_flight: int
    waiting: int
    breaker: str
    answered: int = 0
    failed: int = 0
    hedged: int = 0
    p50: float | None = None
    p99: float | None = None
    waited_p90: float | None = None


class PoolReport(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as one asking process uses it."""

    process: str
    strategy: str
    terminals: dict[str, SlotsReport]


Body = TerminalReport | PoolReport
Told = TypeVar("Told", TerminalReport, PoolReport)
_SUBJECT: Final[Mapping[type, str]] = {TerminalReport: Report.Subject.TERMINAL, PoolReport: Report.Subject.POOL}


def tell(name: str, body: Body) -> None:
    """Write a report of this process. Raises Django's database errors."""
    values = {"seen_at": timezone.now(), "body": msgspec.to_builtins(body)}
    Report.objects.update_or_create(subject=_SUBJECT[type(body)], name=name, process=body.process, defaults=values)


def terminals() -> dict[str, TerminalReport]:
    """Terminal -> its worker's newest report, if that is fresh. Raises Django's database errors."""
    found: dict[str, TerminalReport] = {}
    for name, report in _fresh(TerminalReport):
        found[name] = report
    return found


def pools() -> dict[str, list[PoolReport]]:
    """Pool -> the fresh reports of the processes that use it. Raises Django's database errors."""
    found: dict[str, list[PoolReport]] = {}
    for name, report in _fresh(PoolReport):
        found.setdefault(name, []).append(report)
    return found


def heard() -> dict[str, tuple[datetime, TerminalReport | None]]:
    """Terminal -> when its worker last reported, and that report if it is fresh; one read. Raises Django's database errors."""
    since = datetime.now(UTC) - timedelta(seconds=FRESH)
    found: dict[str, tuple[datetime, TerminalReport | None]] = {}
    rows = Report.objects.filter(subject=Report.Subject.TERMINAL).order_by("seen_at").values_list("name", "seen_at", "body")
    for name, seen_at, body in rows:
        found[name] = seen_at, _read(TerminalReport, body) if seen_at >= since else None
    return found


def _fresh(kind: type[Told]) -> Iterable[tuple[str, Told]]:
    """The oldest first."""
    since = datetime.now(UTC) - timedelta(seconds=FRESH)
    rows = Report.objects.filter(subject=_SUBJECT[kind], seen_at__gte=since).order_by("seen_at").values_list("name", "body")
    for name, body in rows:
        if (told := _read(kind, body)) is not None:
            yield name, told


def _read(kind: type[Told], body: object) -> Told | None:
    """A report, or None where it is of a process that runs another version."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError:
        return None


class Reports:
    """This process' reports, told as they change."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], tuple[float, Body]] = {}
        self._purge_at = 0.0

    def tell(self, gathered: Iterable[tuple[str, Body]]) -> None:
        """Write what is new, or was said long ago, and take away what is no more. Raises Django's database errors."""
        now = time.monotonic()
        bodies = {(str(_SUBJECT[type(body)]), name): body for name, body in gathered}
        for key, body in bodies.items():
            at, before = self._told.get(key, (-REPEAT, None))
            if now - at >= REPEAT or _differs(before, body):
                tell(key[1], body)
                self._told[key] = now, body
        for subject, name in self._told.keys() - bodies.keys():
            Report.objects.filter(process=PROCESS, subject=subject, name=name).delete()
            del self._told[subject, name]
        if bodies and now >= self._purge_at:
            # Every write keeps other writers waiting.
            self._purge_at = now + PURGE
            Report.objects.filter(seen_at__lt=datetime.now(UTC) - KEPT).delete()

    def withdraw(self) -> None:
        """Take all of them away. Raises Django's database errors."""
        if self._told:
            self._told.clear()
            Report.objects.filter(process=PROCESS).delete()


def _differs(before: Body | None, body: Body) -> bool:
    """Whether somebody would want to know at once."""
    if isinstance(before, TerminalReport) and isinstance(body, TerminalReport):
        told = ("state", "detail", "publishing", "in_step", "epoch", "version", "capabilities", "address")
        return any(getattr(before, name) != getattr(body, name) for name in told)
    return before is None or isinstance(before, TerminalReport) is not isinstance(body, TerminalReport)

"""What every process does about the pools beside its work, once a second: follows the roster, and reports.

A web process does its rounds on its runtime's task, every other process on a thread of its own.
"""

from __future__ import annotations

import sys
import threading
import time
from itertools import chain
from typing import Final

import structlog
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection

from marketdata import metrics as feed_metrics
from marketdata.terminals import crew, declare, dispatch, metrics, roster, states
from marketdata.terminals.crew import Crew
from marketdata.terminals.declare import DeclarationError
from marketdata.terminals.roster import Roster

log = structlog.get_logger(__name__)

INTERVAL: Final = 1.0
"""Seconds between two rounds."""
STOP_TIMEOUT: Final = 1.5
ECHO: Final = 60.0
"""Seconds for which what is gone may still be counted by what ends with it."""

_turn = threading.Lock()
_reports = states.Reports()
_owed = False
"""Whether the declaration waits for the database."""
_seen = Roster()
"""As of the last round."""
_gone: dict[tuple[str, str], float] = {}
"""What was there and is no more -> until when (monotonic) its figures are taken away."""


def begin() -> None:
    """Apply the declaration and look. A database that does not answer is no reason not to start: until it does, what the
    settings name holds, and a later round applies the declaration. Raises ``DeclarationError``."""
    global _owed
    _owed = False
    try:
        declare.apply()
        roster.look()
    except DatabaseError as error:
        _owed = True
        log.warning("roster_not_read", error=type(error).__name__)


def begin_or_end() -> None:
    """``begin`` of a process that has not started anything yet: a wrong declaration ends it, with one line that says why."""
    try:
        begin()
    except DeclarationError as error:
        sys.exit(f"argus: the pools cannot be declared: {error}.")


def go_round(mine: Crew | None = None) -> None:
    """One round; ``mine`` are the feeds of this process. Who has none leaves it at one that is under way, which may wait for a
    source that hangs. Raises Django's database errors."""
    if not _turn.acquire(blocking=mine is not None):
        return
    try:
        close_old_connections()
        if _owed:
            _make_good()
        roster.look()
        if mine is not None:
            mine.follow()
        _forget_what_is_gone()
        crew.note_probes()
        dispatch.tell(states.terminals())
        _reports.tell(chain(crew.reports(), dispatch.reports()))
    finally:
        _turn.release()


def _make_good() -> None:
    """What ``begin`` could not do. Nobody is there any more who could be refused the start."""
    global _owed
    try:
        declare.apply()
    except DeclarationError as error:
        log.error("pools_not_declared", detail=str(error))
    _owed = False


def _forget_what_is_gone() -> None:
    """Take the figures of pools and terminals that are no more out of the metrics; for a while, as what still ends may count."""
    global _seen
    before, _seen = _seen, roster.current()
    now = time.monotonic()
    for kind, there, here in (
        ("terminal", before.terminals.keys(), _seen.terminals.keys()),
        ("pool", before.pools.keys(), _seen.pools.keys()),
    ):
        _gone.update(((kind, name), now + ECHO) for name in there - here)
        for key in [(kind, name) for name in here if (kind, name) in _gone]:
            del _gone[key]
    for (kind, name), until in list(_gone.items()):
        if kind == "pool":
            feed_metrics.forget_pool(name)
        else:
            feed_metrics.forget_terminal(name)
            metrics.forget_terminal(name)
        if now >= until:
            del _gone[kind, name]


def leave() -> None:
    """Take away what this process has reported. Raises Django's database errors."""
    with _turn:
        _reports.withdraw()


class Keeper:
    """The thread of a process that has no runtime."""

    def __init__(self, mine: Crew | None = None) -> None:
        self._mine = mine
        self._stopping = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="argus-keeper", daemon=True)

    def start(self) -> None:
        """Start what is to run, as of ``begin``, then the rounds."""
        if self._mine is not None:
            self._mine.follow()
        self._thread.start()

    def stop(self) -> None:
        """End the rounds, within ``STOP_TIMEOUT`` seconds. Idempotent."""
        self._stopping.set()
        if self._mine is not None:
            self._mine.end()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            try:
                go_round(self._mine)
                self._away = False
            except DatabaseError as error:
                if not self._away:
                    log.warning("round_failed", error=type(error).__name__)
                self._away = True
                connection.close()
            except Exception:
                # The edge of this thread: whatever it was, the next round comes.
                log.exception("round_failed")
        try:
            leave()
        except DatabaseError as error:
            log.warning("reports_not_withdrawn", error=type(error).__name__)
        connection.close()

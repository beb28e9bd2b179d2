"""The feeds of this process as the roster wants them: started, stopped, moved to another address, drained."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial

import structlog

from marketdata import feeds
from marketdata.feed import Feed
from marketdata.terminals import gate, probing, roster
from marketdata.terminals.models import Role
from marketdata.terminals.roster import TerminalSpec
from marketdata.terminals.states import PROCESS, TerminalReport

log = structlog.get_logger(__name__)


class Crew:
    """Those terminals of ``names`` (None: all there are) that are enabled. ``on_joined`` and ``on_left`` are told of each that
    comes or goes; ``follow`` may be called from any thread."""

    def __init__(
        self,
        names: Collection[str] | None = None,
        *,
        on_joined: Callable[[str], None] = lambda _: None,
        on_left: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._names = names
        self._on_joined = on_joined
        self._on_left = on_left
        self._as_started: dict[str, TerminalSpec] = {}
        self._refused: dict[str, str] = {}
        """Terminal -> why it could not be started, so that it is said once."""
        self._lock = threading.Lock()
        self._ended = False

    def follow(self) -> None:
        """Bring the feeds to what the roster wants now. One that cannot be started is logged, and the others are."""
        with self._lock:
            if self._ended:
                return
            everything = roster.current()
            wanted = {
                name: spec
                for name, spec in everything.terminals.items()
                if spec.enabled and (self._names is None or name in self._names)
            }
            over = [name for name, before in self._as_started.items() if not _same_feed(before, wanted.get(name))]
            feeds.stop(over)
            for name in over:
                del self._as_started[name]
                if name not in wanted:
                    self._on_left(name)
            self._refused = {name: why for name, why in self._refused.items() if name in wanted}
            for name, spec in wanted.items():
                prepare = partial(_set, spec, everything.accepts(spec.pool))
                if name in self._as_started:
                    if feed := feeds.running(name):
                        prepare(feed)
                else:
                    self._start(spec, prepare)

    def _start(self, spec: TerminalSpec, prepare: Callable[[Feed], None]) -> None:
        if self._ended:
            return
        try:
            feeds.start(spec.name, spec.address, spec.pool, prepare)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one terminal, the others run
            # It is tried again in the next round.
            if self._refused.get(spec.name) != str(error):
                log.error("feed_not_started", terminal=spec.name, error=type(error).__name__, detail=str(error))
                self._refused[spec.name] = str(error)
            return
        if self._ended:
            # Whoever ends the process may have stopped the others while this one was starting.
            feeds.stop([spec.name])
            return
        self._refused.pop(spec.name, None)
        self._as_started[spec.name] = spec
        self._on_joined(spec.name)

    def end(self) -> None:
        """Start none any more; whoever ends the process stops those that run."""
        self._ended = True


def _set(spec: TerminalSpec, accepts: Callable[[str], bool] | None, feed: Feed) -> None:
    """Tell a feed what is wanted of it."""
    feed.drained = spec.drained
    feed.reserve = spec.role is Role.STANDBY
    feed.excused = spec.excused
    feed.accepts = accepts


def _same_feed(before: TerminalSpec, now: TerminalSpec | None) -> bool:
    return now is not None and (now.address, now.pool) == (before.address, before.pool)


def reports() -> Iterator[tuple[str, TerminalReport]]:
    """What is to be said of each feed of this process."""
    for feed in feeds.all_running():
        yield feed.terminal, report_of(feed)


def note_probes() -> None:
    """Write into the terminals' rows what their sources have found out of them, where another thing stands there. Raises
    Django's database errors."""
    known = roster.current().terminals
    for name, report in reports():
        spec = known.get(name)
        found = report.version[: probing.LONGEST_VERSION], frozenset(report.capabilities)
        if spec is not None and report.capabilities and found != (spec.version, spec.capabilities):
            probing.note_probe(name, report.version, report.capabilities)


def report_of(feed: Feed) -> TerminalReport:
    """How a terminal is, as its feed sees it; never waits."""
    status = feed.source.status()
    return TerminalReport(
        pool=feed.publisher.feed,
        process=PROCESS,
        source=feed.source.name,
        state=status.state,
        detail=status.detail,
        address=status.address or "",
        version=status.version or "",
        capabilities=tuple(sorted(feed.source.capabilities())),
        restarts=status.restarts,
        dropped=status.dropped,
        publishing=feed.publisher.active,
        in_step=feed.in_step,
        epoch=feed.publisher.epoch,
        canary=feed.canary,
        quoted=feed.quoted,
        clock=status.time,
        in_flight=gate.inside(feed.terminal),
        p50=feed.latency(0.5),
        p99=feed.latency(0.99),
    )

"""``terminals``: how the terminals are, probed if wanted, and taken out of use and back."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseError
from django.utils import timezone

from argus.access.management.examples import CommandWithExamples
from argus.config import config
from argus.errors import ArgusError
from marketdata.calendar import SHANGHAI
from marketdata.terminals import health, keeper, probing, roster, services, states
from marketdata.terminals.health import REASONS, TerminalHealth
from marketdata.terminals.roster import TerminalSpec

COLUMNS: Final = ("TERMINAL", "POOL", "ROLE", "LEVEL", "FEED", "FRESH", "P50", "P99", "SEEN", "ADDRESS", "VERSION", "WHY")
PROBED: Final = ("TERMINAL", "OUTCOME", "STATE", "SECONDS", "VERSION", "CAPABILITIES", "DETAIL")
DRAIN_TIMEOUT: Final = 60.0
LOOK: Final = 0.5
SETTLED: Final = states.REPEAT + 2 * keeper.INTERVAL
"""Seconds after which all that was under way when a terminal was drained stands in its worker's report."""
UNKNOWN: Final = 2
"""Exit code where a name is not known; 1 is for a probe that failed and a wait in vain."""
BY: Final = "manage.py terminals"
NONE: Final = "no terminal is set up: add one in the admin, over REST or in ARGUS_TERMINALS"


class Command(CommandWithExamples):
    help = (
        "Show the terminals of all pools, probe them, drain them and use them again. drain waits until the terminal publishes "
        "nothing and has nothing in flight. Exit codes: 0; 1 where a probe failed or a terminal did not come to rest; 2 where a "
        "name is not known."
    )
    examples = """\
  manage.py terminals list
  manage.py terminals list --json
  manage.py terminals probe
  manage.py terminals probe guojin --timeout 5
  manage.py terminals drain guojin --timeout 120
  manage.py terminals resume guojin
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=("list", "probe", "drain", "resume"))
        parser.add_argument(
            "names", nargs="*", default=[], metavar="NAME", help="terminals; list and probe take all where none is named"
        )
        parser.add_argument("--json", action="store_true", help="answer as JSON")
        parser.add_argument(
            "--timeout",
            type=float,
            metavar="SECONDS",
            help=f"how long probe ({config.source_timeout + 2:g}) and drain ({DRAIN_TIMEOUT:g}) wait",
        )

    def handle(self, *_args: Any, action: str, names: list[str], **options: Any) -> None:
        try:
            roster.look()
            self._do(action, list(dict.fromkeys(names)), options["json"], options["timeout"])
        except ArgusError as error:
            raise CommandError(error.message) from None
        except DatabaseError as error:
            raise CommandError(f"The database does not answer: {error}") from None

    def _do(self, action: str, names: list[str], as_json: bool, timeout: float | None) -> None:
        known = roster.current().terminals
        there = ", ".join(known) or "none"
        if unknown := [name for name in names if name not in known]:
            raise CommandError(f"There is no terminal {', '.join(unknown)}; there is: {there}.", returncode=UNKNOWN)
        if action in ("drain", "resume") and not names:
            raise CommandError(f"Name the terminals to {action}; there is: {there}.", returncode=UNKNOWN)
        if not known:
            self.stderr.write(NONE)
        chosen = [known[name] for name in names or known]
        match action:
            case "list":
                self._list(chosen, as_json)
            case "probe":
                self._probe(chosen, as_json, config.source_timeout + 2 if timeout is None else timeout)
            case "drain":
                self._drain(chosen, DRAIN_TIMEOUT if timeout is None else timeout)
                self._list(chosen, as_json)
            case "resume":
                for spec in chosen:
                    services.resume(spec.name, by=BY)
                self._list(chosen, as_json)

    def _list(self, chosen: Sequence[TerminalSpec], as_json: bool) -> None:
        roster.look()
        judged = health.current()
        specs = roster.current().terminals
        pairs = [(specs[spec.name], judged[spec.name]) for spec in chosen]
        if as_json:
            self.stdout.write(json.dumps([_document(spec, one) for spec, one in pairs], ensure_ascii=False, indent=1))
        else:
            self._table(COLUMNS, [_row(spec, one) for spec, one in pairs])

    def _probe(self, chosen: Sequence[TerminalSpec], as_json: bool, timeout: float) -> None:
        found = probing.probe([spec.name for spec in chosen], timeout)
        if as_json:
            self.stdout.write(json.dumps({name: msgspec.to_builtins(one) for name, one in found.items()}, indent=1))
        else:
            rows = [
                (name, one.outcome, one.state, _seconds(one.seconds), one.version, " ".join(one.capabilities), one.detail)
                for name, one in found.items()
            ]
            self._table(PROBED, rows)
        if failed := [name for name, one in found.items() if not one.ok]:
            raise CommandError(f"The probe failed: {', '.join(failed)}.")

    def _drain(self, chosen: Sequence[TerminalSpec], timeout: float) -> None:
        began, since = time.monotonic(), timezone.now()
        for spec in chosen:
            services.drain(spec.name, by=BY)
        for pool in {spec.pool for spec in chosen}:
            if not any(spec.serving for spec in roster.current().pools[pool].terminals):
                self.stderr.write(f"The pool {pool} has no other terminal in use: its feed falls silent.")
        told: dict[str, str] = {}
        while still := {spec.name: why for spec in chosen if (why := _still(spec.name, since))}:
            passed = time.monotonic() - began
            for name, why in still.items():
                if told.get(name) != why:
                    self.stderr.write(f"{passed:5.1f} s  {name}: {why}")
            told = still
            if passed > timeout:
                raise CommandError(
                    f"After {timeout:g} s not at rest: {', '.join(still)}. It stays drained; use it again with: "
                    f"manage.py terminals resume {' '.join(still)}"
                )
            time.sleep(LOOK)

    def _table(self, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        lines = [head, *(tuple(cell or "-" for cell in row) for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        for line in lines:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _still(name: str, since: datetime) -> str:
    """What a drained terminal still does; nothing where its worker does not report, for then nobody has it."""
    seen_at, report = states.heard().get(name, (None, None))
    if report is None or seen_at is None:
        return ""
    asked = (pool.terminals[name].in_flight for pools in states.pools().values() for pool in pools if name in pool.terminals)
    in_flight = max(report.in_flight, sum(asked))
    if report.publishing:
        return "it publishes"
    if in_flight:
        return f"{in_flight} in flight"
    if (seen_at - since).total_seconds() < SETTLED:
        return "waiting for its worker's word"
    return ""


def _row(spec: TerminalSpec, one: TerminalHealth) -> tuple[str, ...]:
    feed = "publishing" if one.publishing else "in step" if one.in_step else ""
    fresh = {None: "", True: "yes", False: "no"}[one.fresh]
    address = one.report.address if one.report and one.report.address else spec.address
    why = " ".join(REASONS[reason] for reason in one.reasons)
    seen = "" if one.last_seen is None else f"{_ago(one.last_seen)} ago"
    p50, p99 = _seconds(one.p50), _seconds(one.p99)
    return (spec.name, spec.pool, spec.role, one.level, feed, fresh, p50, p99, seen, address, spec.version, why)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _ago(ms: int) -> str:
    seconds = max(0, int(time.time() - ms / 1000))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def _document(spec: TerminalSpec, one: TerminalHealth) -> dict[str, Any]:
    """A terminal as wanted and as it is; times in ISO 8601, durations in seconds."""
    return {
        "name": spec.name,
        "pool": spec.pool,
        "role": str(spec.role),
        "address": spec.address,
        "weight": spec.weight,
        "concurrent": spec.concurrent,
        "per_second": spec.per_second,
        "version": spec.version,
        "capabilities": sorted(spec.capabilities),
        "level": str(one.level),
        "reasons": list(one.reasons),
        "detail": one.report.detail if one.report else "",
        "state": one.report.state if one.report else "",
        "process": one.report.process if one.report else "",
        "publishing": one.publishing,
        "in_step": one.in_step,
        "fresh": one.fresh,
        "in_flight": one.report.in_flight if one.report else 0,
        "p50": one.p50,
        "p99": one.p99,
        "last_seen": _moment(one.last_seen),
        "maintenance_until": _moment(one.until),
    }


def _moment(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).astimezone(SHANGHAI).isoformat(timespec="seconds")

"""How a terminal is, judged from its worker's report: connected, logged in, capable, quick, fresh by the trading calendar.

A quiet market is no fault. While a market of the pool trades continuously its newest quote must be of now; in the auctions, the
break, before and after the session and on closed days nothing is asked of it. In a maintenance window a terminal that is away
is expected to be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Final

import msgspec
from django.utils.translation import gettext_noop

from argus.config import config
from marketdata.calendar import OutsideCalendar, TradingCalendar, phase
from marketdata.reference.days import calendar_of
from marketdata.sources.base import Capability, State
from marketdata.terminals import roster, states, windows
from marketdata.terminals.roster import Roster, TerminalSpec
from marketdata.terminals.states import TerminalReport
from marketdata.types import TradingStatus

BEHIND: Final = 30_000
"""Milliseconds by which the newest exchange time may lie behind the worker's clock: a snapshot of some symbol comes each 3 s, and
clocks may differ (``argus.celery.CLOCK_TOLERANCE``)."""
SLOW: Final = 2.0
"""Seconds: half of a terminal's answers, nearly all of which are to polls, come sooner."""
QUOTED: Final = ("SH", "SZ", "BJ")
"""The markets whose quotes a terminal has where its pool names none: the others' hours say nothing of it."""

Calendar = Callable[[str], TradingCalendar]
"""A market's trading days. Raises ``OutsideCalendar``."""


class Level(StrEnum):
    """How a terminal is, in a word."""

    UP = "up"
    DEGRADED = "degraded"
    """It answers, and something is wrong with it."""
    DOWN = "down"
    MAINTENANCE = "maintenance"
    """Away, as it is expected to be at this time."""
    DRAINED = "drained"
    DISABLED = "disabled"
    UNKNOWN = "unknown"
    """Nobody has reported of it for a day."""


REASONS: Final[Mapping[str, str]] = {
    "disabled": gettext_noop("It is disabled."),
    "drained": gettext_noop("It is drained: it is asked nothing and publishes nothing."),
    "maintenance": gettext_noop("It is in its maintenance window."),
    "never_seen": gettext_noop("No worker has reported of it lately; start one with: manage.py terminal_worker NAME"),
    "no_worker": gettext_noop("Its worker does not report any more."),
    "starting": gettext_noop("It is starting."),
    "disconnected": gettext_noop("Its worker has no connection to it."),
    "no_quotes": gettext_noop("It is connected and answers no usable quote; see whether it is logged in to its broker."),
    "incapable": gettext_noop("It does not have the function for quotes."),
    "not_fresh": gettext_noop("A market is trading, and its newest quotes are old."),
    "slow": gettext_noop("Its answers take long."),
    "other_address": gettext_noop("Its worker is still at another address."),
    "finished": gettext_noop("Its recording has come to its end."),
}
"""Reason -> what it means; pages translate it."""


class TerminalHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal, judged. Times are wall-clock ms, durations seconds; None: not known.

    ``fresh``: whether its newest quotes are of now; None where silence is expected. ``until``: when the maintenance window
    that it is in ends.
    """

    name: str
    pool: str
    level: Level
    reasons: tuple[str, ...] = ()
    publishing: bool = False
    in_step: bool = False
    fresh: bool | None = None
    p50: float | None = None
    p99: float | None = None
    last_seen: int | None = None
    until: int | None = None
    report: TerminalReport | None = None

    @property
    def answers(self) -> bool:
        """Whether it can be asked."""
        return self.level in (Level.UP, Level.DEGRADED)


def judge(
    spec: TerminalSpec,
    report: TerminalReport | None,
    now: int,
    calendar: Calendar,
    *,
    markets: Collection[str] = QUOTED,
    last_seen: int | None = None,
) -> TerminalHealth:
    """How the terminal is at ``now`` (wall-clock ms). ``report``: its worker's, None where there is no fresh one.

    ``markets`` are those whose trading its quotes must follow; ``last_seen`` when its worker last reported.
    """
    window = windows.inside(spec.maintenance, now)
    # The report's times are its worker's: what is old in it was old when it was made.
    at = now if last_seen is None else min(now, last_seen)
    fresh = None if report is None else _fresh(report, at, calendar, markets)
    level, reasons = _level(spec, report, at, fresh, last_seen)
    if window is not None and level in (Level.DOWN, Level.UNKNOWN):
        level, reasons = Level.MAINTENANCE, ("maintenance", *reasons)
    return TerminalHealth(
        name=spec.name,
        pool=spec.pool,
        level=level,
        reasons=reasons,
        publishing=report is not None and report.publishing,
        in_step=report is not None and report.in_step,
        fresh=fresh,
        p50=None if report is None else report.p50,
        p99=None if report is None else report.p99,
        last_seen=last_seen,
        until=None if window is None else windows.ends(window, now),
        report=report,
    )


def _level(
    spec: TerminalSpec, report: TerminalReport | None, at: int, fresh: bool | None, last_seen: int | None
) -> tuple[Level, tuple[str, ...]]:
    """As if no maintenance were expected; ``at`` is when the report was made, or now."""
    if not spec.enabled:
        return Level.DISABLED, ("disabled",)
    if spec.drained:
        return Level.DRAINED, ("drained",)
    if report is None:
        return (Level.UNKNOWN, ("never_seen",)) if last_seen is None else (Level.DOWN, ("no_worker",))
    if report.state == State.FINISHED:
        return Level.UP, ("finished",)
    if report.state != State.UP:
        return Level.DOWN, ("starting" if report.state == State.STARTING else "disconnected",)
    if report.capabilities and Capability.QUOTES not in report.capabilities:
        return Level.DEGRADED, ("incapable",)
    if report.canary is None or at - report.canary > 1000 * max(config.stale_after, 3 * config.poll_interval):
        return Level.DOWN, ("no_quotes",)
    found = {
        "not_fresh": fresh is False,
        "slow": report.p50 is not None and report.p50 > SLOW,
        "other_address": bool(spec.address and report.address) and spec.address != report.address,
    }
    reasons = tuple(reason for reason, holds in found.items() if holds)
    return (Level.DEGRADED if reasons else Level.UP), reasons


def _fresh(report: TerminalReport, at: int, calendar: Calendar, markets: Collection[str]) -> bool | None:
    """See ``TerminalHealth.fresh``."""
    if report.state != State.UP:
        return None
    # A simulated or recorded market has a time of its own.
    clock = at if report.clock is None or report.source == "qmt" else report.clock
    if report.quoted is not None and clock - report.quoted <= BEHIND:
        return True
    return False if any(_trades_on(market, clock, calendar) for market in markets) else None


def _trades_on(market: str, clock: int, calendar: Calendar) -> bool:
    """Whether a market trades continuously, and has so for longer than ``BEHIND``."""
    try:
        days = calendar(market)
    except OutsideCalendar:
        return False
    continuous = TradingStatus.CONTINUOUS
    return all(phase(market, at, calendar=days) == continuous for at in (clock, clock - BEHIND))


def current() -> dict[str, TerminalHealth]:
    """Every terminal of the roster, judged now. Raises Django's database errors."""
    everything, heard, now = roster.current(), states.heard(), time.time_ns() // 1_000_000
    found = {}
    for name, spec in everything.terminals.items():
        seen_at, report = heard.get(name, (None, None))
        found[name] = judge(
            spec,
            report,
            now,
            calendar_of,
            markets=_markets(everything, spec.pool),
            last_seen=None if seen_at is None else int(seen_at.timestamp() * 1000),
        )
    return found


def _markets(everything: Roster, pool: str) -> tuple[str, ...]:
    """Those whose quotes a pool's terminals must have."""
    named = everything.pools[pool].markets
    others = {market for other in everything.pools.values() for market in other.markets}
    return named or tuple(market for market in QUOTED if market not in others)


_known: dict[str, TerminalHealth] = {}
_known_at = -math.inf


def refresh() -> None:
    """Judge, and keep it for ``known``. Raises Django's database errors."""
    global _known, _known_at
    _known, _known_at = current(), time.monotonic()


def known() -> dict[str, TerminalHealth] | None:
    """What ``refresh`` last found in this process, without waiting; None where that is too long ago to count."""
    return _known if time.monotonic() - _known_at <= states.FRESH else None


def forget() -> None:
    """Know nothing."""
    global _known_at
    _known_at = -math.inf

"""What terminals' states are called where people read."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from marketdata.terminals.health import REASONS, Level, TerminalHealth
from marketdata.terminals.probing import Probe

LEVELS: Final = {
    Level.UP: _("up"),
    Level.DEGRADED: _("degraded"),
    Level.DOWN: _("down"),
    Level.MAINTENANCE: pgettext_lazy("state of a terminal", "maintenance"),
    Level.DRAINED: _("drained"),
    Level.DISABLED: _("disabled"),
    Level.UNKNOWN: _("unknown"),
}
BREAKERS: Final = {
    "closed": pgettext_lazy("circuit breaker", "closed"),
    "half_open": pgettext_lazy("circuit breaker", "half open"),
    "open": pgettext_lazy("circuit breaker", "open"),
}

OUTCOMES: Final = {
    "ok": _("It answers."),
    "empty": _("It answered without one usable quote; see whether it is logged in to its broker."),
    "down": _("It is down."),
    "starting": _("It is starting."),
    "finished": _("Its recording has come to its end."),
    "timeout": _("It did not answer in time."),
    "unsupported": _("It does not have the function for quotes."),
    "no_feed": _("Its worker runs no feed for it."),
    "no_answer": _("Its worker did not answer in time."),
    "no_broker": _("The broker between the processes does not answer."),
}


def probed(found: Probe) -> str:
    """What came of a probe."""
    seconds = "" if found.seconds is None else f"{found.seconds:.3f} s"
    facts = " · ".join(word for word in (seconds, found.version) if word)
    return f"{OUTCOMES.get(found.outcome, found.outcome)} {facts}".rstrip()


def reasons(health: TerminalHealth) -> str:
    """Why it is not simply up, in the reader's language."""
    return " ".join(gettext(REASONS[reason]) for reason in health.reasons)

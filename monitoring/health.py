"""Whether the service lives and whether it is ready: plain ASGI, open to everybody, and no database on the way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from argus.config import config
from argus.errors import ArgusError
from argus.http import answer_json, answer_problem, require_get
from argus.requestid import Receive, Scope, Send
from marketdata.calendar import SHANGHAI
from marketdata.latest import LatestStore, store
from marketdata.terminals import health as terminals
from marketdata.terminals.health import REASONS, TerminalHealth
from streaming import runtime


class Check(NamedTuple):
    """One condition of being ready, in words."""

    name: str
    ok: bool
    detail: str


def hub_check(running: bool) -> Check:
    """The hub of this process runs: what is published reaches clients."""
    return Check("hub", running, "the hub is running" if running else "the hub has not started in this process")


def canary_check(latest: LatestStore, stale_after: float) -> Check:
    """A word of a source has lately come all the way: source, Celery, channel layer, hub. Where one pool of several is silent the
    others are still served: that is said, and is no reason to turn clients away."""
    age = latest.age()
    if age is not None and age <= stale_after:
        return Check("canary", True, f"the source's last word came {age:.1f} s ago")
    now = time.monotonic()
    heard = {name: feed.canary_arrived for name, feed in latest.feeds.items()}
    if not any(heard.values()):
        return Check("canary", False, "nothing has come from the source through the channel layer to this process yet")
    silent = [
        f"{name} has said nothing yet" if at is None else f"the last word of {name} came {now - at:.0f} s ago"
        for name, at in heard.items()
        if at is None or now - at > stale_after
    ]
    some = len(silent) < len(heard)
    whole = "" if some else "no terminal delivers: "
    return Check("canary", some, f"{whole}{', '.join(silent)}; {stale_after:g} s are allowed")


def terminals_away(known: Mapping[str, TerminalHealth] | None) -> str:
    """Each terminal that does not answer, and why, or that there is none: what stands behind a canary that does not come."""
    if known is None:
        return "nothing is known here of the terminals: the database does not answer"
    if not known:
        return "no terminal is set up"
    return "; ".join(f"the terminal {name} is {_words(one)}" for name, one in known.items() if not one.answers)


def _words(one: TerminalHealth) -> str:
    until = "" if one.until is None else f" until {_time(one.until):%H:%M}"
    return f"{one.level}{until}: {_detail(one)}"


def _detail(one: TerminalHealth) -> str:
    return " ".join(REASONS[reason] for reason in one.reasons)


def _terminal(one: TerminalHealth) -> dict[str, Any]:
    """What everybody may know of a terminal: no addresses."""
    return {
        "pool": one.pool,
        "level": one.level,
        "reasons": one.reasons,
        "detail": _detail(one),
        "publishing": one.publishing,
        "fresh": one.fresh,
        "last_seen": None if one.last_seen is None else _time(one.last_seen).isoformat(timespec="seconds"),
        "maintenance_until": None if one.until is None else _time(one.until).isoformat(timespec="minutes"),
    }


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, SHANGHAI)


def checks() -> list[Check]:
    """All conditions of being ready."""
    return [hub_check(runtime.current() is not None), canary_check(store, config.stale_after)]


async def health(scope: Scope, receive: Receive, send: Send) -> None:
    """``/health``: always 200 while the process lives, and says whether it is ready; ``/health/live`` says that alone.

    ``/health/ready`` answers 503 until it is, for load balancers.
    """
    try:
        require_get(scope)
    except ArgusError as error:
        await answer_problem(scope, send, error)
        return
    if scope["path"] == "/health/live":
        await answer_json(scope, send, 200, {"status": "ok", "live": True})
        return
    found = checks()
    ready = all(check.ok for check in found)
    age = store.age()
    known = terminals.known()
    reasons = [check.detail for check in found if not check.ok]
    if not ready and (away := terminals_away(known)):
        reasons.append(away)
    document = {
        "status": "ok" if ready else "not_ready",
        "live": True,
        "ready": ready,
        "reason": "; ".join(reasons),
        "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in found},
        "canary_age_seconds": None if age is None else round(age, 3),
        "streams": store.streams(),
        "terminals": None if known is None else {name: _terminal(one) for name, one in known.items()},
    }
    await answer_json(scope, send, 503 if scope["path"] == "/health/ready" and not ready else 200, document)

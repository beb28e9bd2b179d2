"""Whether the service lives and whether it is ready: plain ASGI, open to everybody, and no database on the way."""

from __future__ import annotations

from typing import NamedTuple

from argus.config import config
from argus.errors import ArgusError
from argus.http import answer_json, answer_problem, require_get
from argus.requestid import Receive, Scope, Send
from marketdata.latest import LatestStore, store
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
    """A word of the source has lately come all the way: source, Celery, channel layer, hub."""
    age = latest.age()
    if age is None:
        return Check("canary", False, "nothing has come from the source through the channel layer to this process yet")
    if age > stale_after:
        return Check("canary", False, f"the source's last word came {age:.0f} s ago; {stale_after:g} s are allowed")
    return Check("canary", True, f"the source's last word came {age:.1f} s ago")


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
    document = {
        "status": "ok" if ready else "not_ready",
        "live": True,
        "ready": ready,
        "reason": "; ".join(check.detail for check in found if not check.ok),
        "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in found},
        "canary_age_seconds": None if age is None else round(age, 3),
        "streams": store.streams(),
    }
    await answer_json(scope, send, 503 if scope["path"] == "/health/ready" and not ready else 200, document)

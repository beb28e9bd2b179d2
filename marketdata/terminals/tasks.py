"""What Celery does for a terminal's place in its pool, on that terminal's own queue: thin shells."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog
from celery import shared_task

from marketdata.terminals import probing

log = structlog.get_logger(__name__)


@shared_task(ignore_result=False)
def probe_terminal(terminal: str) -> dict[str, Any]:
    """Make a cheap call to the terminal; a ``probing.Probe`` as builtins."""
    found = probing.probe_here(terminal)
    log.info("probed", terminal=terminal, ok=found.ok, outcome=found.outcome, seconds=found.seconds)
    return dict(msgspec.to_builtins(found))

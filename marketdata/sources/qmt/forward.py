"""The parent's end of the child's standard error: our JSON lines and whatever the vendor's code prints go into the log."""

from __future__ import annotations

import json
from typing import IO

import structlog

log = structlog.get_logger(__name__)

LONGEST = 2000
"""Characters of a line of vendor output that are kept."""


def forward(lines: IO[bytes], terminal: str) -> None:
    """Log each line until the child has closed its end."""
    for raw in lines:
        text = raw.decode("utf-8", "replace").strip()
        if text:
            _log(text, terminal)


def _log(text: str, terminal: str) -> None:
    try:
        event = json.loads(text)
        level, name = event.pop("level"), event.pop("event")
    except (ValueError, AttributeError, KeyError, TypeError):
        log.warning("qmt_output", terminal=terminal, text=text[:LONGEST])
        return
    fields = {key: value for key, value in event.items() if key != "terminal"}
    write = {"debug": log.debug, "warning": log.warning, "error": log.error}.get(level, log.info)
    write(str(name), terminal=terminal, **fields)

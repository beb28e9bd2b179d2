"""The child's own log: JSON lines on its standard error, which the parent forwards (``forward.py``)."""

from __future__ import annotations

import json
import sys
from typing import Any


def write(level: str, event: str, **fields: Any) -> None:
    """One event. Levels: debug, info, warning, error."""
    line = json.dumps({"level": level, "event": event, **fields}, ensure_ascii=True, default=str)
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()

"""What a server offers of an HTTP connection beyond ASGI: an end at once, and how much has not been sent yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

EXTENSION: Final = "argus.line"
"""The scope's extension that is a server's ``Line``."""
PIECE: Final = 64 * 1024
"""Bytes that a client must take within ``ARGUS_SEND_TIMEOUT``; streamed answers are handed to the server by so many."""
GRACE: Final = 1.0
"""Seconds beyond a deadline for whoever keeps it to say so himself."""


class Line(NamedTuple):
    """``abort`` ends the connection where a close would wait for a client that does not read; ``unsent`` counts the bytes
    that a server whose ``send`` never waits still holds, and is None where it waits."""

    abort: Callable[[], object]
    unsent: Callable[[], int] | None = None

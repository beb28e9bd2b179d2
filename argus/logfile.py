"""The log file of one process, which no other process writes.

A file that several processes write cannot be rotated safely: on Windows an open file cannot be renamed at all, elsewhere
the others go on writing into the renamed one. So every process takes a file of its own: ``<role>.jsonl``, or
``<role>-2.jsonl`` and so on while the first is taken. A lock that the system releases when the process ends says which are
taken, so the number of files is bounded by the number of processes that ever ran at the same time.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

MAX_BYTES = 10_000_000
BACKUPS = 5
"""A file and its predecessors take at most 60 MB."""
SLOTS = 256
"""Processes of one role on one machine; more share nothing and write no file."""

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _claim(directory: Path, role: str, lock: Callable[[IO[bytes]], None] = _lock) -> tuple[Path, IO[bytes]]:
    """The first free file of the role, and the lock that must stay open as long as it is ours."""
    directory.mkdir(parents=True, exist_ok=True)
    for slot in range(1, SLOTS + 1):
        name = role if slot == 1 else f"{role}-{slot}"
        file = (directory / f".{name}.lock").open("ab")
        try:
            lock(file)
        except OSError:
            file.close()
            continue
        return directory / f"{name}.jsonl", file
    raise OSError(f"{SLOTS} processes of the role {role} write logs to {directory} already")


class OwnFileHandler(logging.handlers.RotatingFileHandler):
    """A rotating file that this process alone writes."""

    def __init__(self, directory: str, role: str) -> None:
        path, self._claim = _claim(Path(directory), role)
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8", delay=True)

    def close(self) -> None:
        super().close()
        self._claim.close()

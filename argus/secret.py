"""Django's secret key, made once and kept in the data directory."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from pathlib import Path

# Both give a complete file its name in one step and refuse when the name is taken (os.rename does so on Windows only).
_give_name = os.rename if sys.platform == "win32" else os.link


def load(data_dir: Path) -> str:
    """The key in ``data_dir``, made now if there is none. Processes that start together agree on one."""
    path = data_dir / "secret_key"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        _make(path)
    return path.read_text(encoding="ascii")


def _make(path: Path) -> None:
    """Write a key under a name of its own first, so that nobody can read half of it. The file is its owner's alone."""
    handle, draft = tempfile.mkstemp(prefix=".secret_key-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(50))
        try:
            _give_name(draft, path)
        except FileExistsError:
            return  # Another process was first: its key is the one.
    finally:
        Path(draft).unlink(missing_ok=True)

"""Django's secret key, made once and kept in the data directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def load(data_dir: Path) -> str:
    """The key in ``data_dir``, made now if there is none. Two processes that start together agree on one."""
    path = data_dir / "secret_key"
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(50))
    except FileExistsError:
        pass
    return path.read_text(encoding="ascii")

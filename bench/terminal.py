"""A terminal of fixed latency behind a real worker: ``python -m bench.terminal NAME SECONDS``. It has no feed, and no bars."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any


class Fixed:
    """A source that answers after so many seconds, however many ask."""

    name = "fixed"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def status(self) -> Any:
        """Up."""
        from marketdata.sources.base import SourceStatus, State

        return SourceStatus(state=State.UP)

    def capabilities(self) -> frozenset[Any]:
        """Not known."""
        return frozenset()

    def fetch_bars(self, symbols: Sequence[str], period: Any, **_: Any) -> Any:
        """None, after a while."""
        from marketdata.sources.base import Bars

        time.sleep(self._seconds)
        return Bars({})


def main() -> None:
    """Consume the terminal's queue until a signal comes."""
    import django

    name, seconds = sys.argv[1], float(sys.argv[2])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    django.setup()
    from celery.signals import worker_ready

    from argus.celery import app, queue_of
    from marketdata import feeds

    # Instead of the feeds that a worker has.
    worker_ready.receivers.clear()
    feed: Any = SimpleNamespace(source=Fixed(seconds))
    feeds._feeds[name] = feed
    app.worker_main(["worker", "-Q", queue_of(name), "-n", f"{name}@bench", "-P", "threads", "-c", "8", "--without-mingle"])


if __name__ == "__main__":
    main()

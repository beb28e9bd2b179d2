"""Loads a feed's snapshot from the cache when the hub starts or has missed messages, until it covers what was missed."""

from __future__ import annotations

import asyncio
import time

import structlog
from django.core.cache import cache

from marketdata.publish import feed_names, snapshot_key
from streaming.hub import Hub

log = structlog.get_logger(__name__)

RETRY = 0.25
"""Seconds between two looks; the publisher writes a snapshot at most once a second."""
PATIENCE = 15.0
"""Seconds after which a missed message is given up: no publisher has written it down."""
DEADLINE = 5.0
"""Seconds for one look into the cache."""

Position = tuple[int, int]
"""Epoch and seq."""


class Snapshots:
    """At most one task per feed; what is wanted meanwhile only moves its goal."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._wanted: dict[str, Position] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.loaded = asyncio.Event()
        """Set while nothing is missing of what there was of every feed at the start, and of what came since."""

    def load_all(self) -> None:
        """Load what there is of every feed, until it covers what has been heard of it: some of that may have been dropped."""
        for feed in feed_names():
            self.want(feed, *self._hub.position(feed))
        if not self._tasks:
            self.loaded.set()

    def want(self, feed: str, epoch: int, seq: int) -> None:
        """Load the feed's snapshot until it covers ``seq``."""
        self._wanted[feed] = max(self._wanted.get(feed, (0, 0)), (epoch, seq))
        if feed not in self._tasks:
            self.loaded.clear()
            self._tasks[feed] = asyncio.create_task(self._load(feed))

    async def stop(self) -> None:
        """End all tasks."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, feed: str) -> None:
        try:
            give_up = time.monotonic() + PATIENCE
            while True:
                reached = await self._load_once(feed)
                if reached >= self._wanted[feed]:
                    return
                if time.monotonic() > give_up:
                    log.warning("snapshot_incomplete", feed=feed, wanted=self._wanted[feed], reached=reached)
                    return
                await asyncio.sleep(RETRY)
        finally:
            del self._tasks[feed]
            self._wanted.pop(feed, None)
            if not self._tasks:
                self.loaded.set()

    async def _load_once(self, feed: str) -> Position:
        try:
            async with asyncio.timeout(DEADLINE):
                blob = await asyncio.to_thread(cache.get, snapshot_key(feed))
        except Exception as error:  # noqa: BLE001 - the cache's errors are its backend's; each means "not now"
            log.warning("snapshot_not_loaded", feed=feed, error=type(error).__name__)
            return (-1, 0)
        # No publisher has written one yet: enough where nothing was missed.
        return self._hub.restore(blob) if blob is not None else (0, 0)

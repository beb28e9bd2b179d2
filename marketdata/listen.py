"""Hears what is published on a feed, whoever publishes it, for the thread that may have to go on with it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import Any, NamedTuple

import structlog
from channels.layers import get_channel_layer

from marketdata.publish import MESSAGE_TYPE, Bridge, group_name

log = structlog.get_logger(__name__)

REJOIN = 3600.0
"""Seconds after which the group is joined again: the layers forget a membership after a day."""
RETRY = 0.2
"""Seconds until the group is joined again after an error of the channel layer."""
WAITING = 1024
"""Messages that may wait for the thread; one more, and all are dropped and counted as missed."""
STOP_TIMEOUT = 0.5


class Item(NamedTuple):
    """A message, or None where some may have been missed. ``at``: its arrival, of the monotonic clock."""

    blob: bytes | None
    at: float


class Heard:
    """Where the messages wait. Putting never blocks.

    ``joined``: what is published now arrives here, as far as is known.
    """

    def __init__(self) -> None:
        self.joined = False
        self._changed = threading.Condition()
        self._waiting: deque[Item] = deque()

    def put(self, blob: bytes) -> None:
        """Leave a message."""
        with self._changed:
            if len(self._waiting) >= WAITING:
                self._waiting.clear()
                self._waiting.append(Item(None, time.monotonic()))
            self._waiting.append(Item(blob, time.monotonic()))
            self._changed.notify()

    def join(self, joined: bool) -> None:
        """Whether messages arrive from now on; those before may have been missed."""
        with self._changed:
            self.joined = joined
            self._waiting.append(Item(None, time.monotonic()))
            self._changed.notify()

    def take(self, timeout: float = 0.0) -> Item | None:
        """The next one, as soon as there is one; None at the timeout (seconds)."""
        with self._changed:
            if not self._waiting and timeout > 0:
                self._changed.wait_for(lambda: self._waiting, timeout)
            return self._waiting.popleft() if self._waiting else None


class Listener:
    """Listens to one feed on the loop that the channel layer belongs to, through all its errors, until it is stopped."""

    def __init__(self, feed: str, heard: Heard, bridge: Bridge) -> None:
        self._feed = feed
        self._heard = heard
        self._bridge = bridge
        self._ended = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        self._loop = self._bridge.loop()
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"listen-{self._feed}")
        self._task.add_done_callback(lambda _: self._ended.set())

    def stop(self) -> None:
        """Leave the group, within half a second. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(self._cancel)
        self._ended.wait(STOP_TIMEOUT)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - the layer's errors are its backend's own; each means "join again"
                log.warning("listening_failed", feed=self._feed, error=type(error).__name__, detail=str(error))
            finally:
                self._heard.join(False)
            await asyncio.sleep(RETRY)

    async def _listen(self) -> None:
        layer: Any = get_channel_layer()
        group = group_name(self._feed)
        channel = await layer.new_channel()
        try:
            await layer.group_add(group, channel)
            self._heard.join(True)
            joined = time.monotonic()
            while True:
                # A cancelled receive costs some layers the channel: this one waits for its message, however long.
                message = await layer.receive(channel)
                if message["type"] == MESSAGE_TYPE:
                    self._heard.put(message["blob"])
                # The layer may have more at hand and not let go of the loop.
                await asyncio.sleep(0)
                if time.monotonic() - joined >= REJOIN:
                    await layer.group_add(group, channel)
                    joined = time.monotonic()
        finally:
            await layer.group_discard(group, channel)

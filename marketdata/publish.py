"""From a worker thread into the channel layer: the one bridge, and the message that a feed's group receives.

A feed is the unit of publication: one active publisher, one (epoch, seq) stream, one channel-layer group.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from channels.layers import get_channel_layer

from marketdata.terminals import roster

MESSAGE_TYPE = "feed.batch"
SEND_TIMEOUT = 5.0
"""Seconds that one message may take into the channel layer."""


class PublishError(Exception):
    """The channel layer did not take a message; the quotes in it stay owed to the next one."""


def feed_names() -> tuple[str, ...]:
    """The feeds of this service: one for each pool."""
    return tuple(roster.current().pools)


def group_name(feed: str) -> str:
    """The channel-layer group that a feed's batches are sent to."""
    return f"feed.{feed}"


def snapshot_key(feed: str) -> str:
    """The cache key under which a feed's newest snapshot (an encoded ``Batch``) lies."""
    return f"feed:{feed}:snapshot"


class Bridge:
    """Runs the channel layer's coroutines on one loop, whoever asks from whatever thread.

    The in-memory layer is not thread-safe and belongs to the web server's loop, so the embedded service binds that loop;
    a worker process of its own binds none and gets a loop thread here. (A fresh ``async_to_sync`` per message would build
    a loop and a Redis connection each time: 2.5 ms against 0.1 ms.)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send on this loop, which somebody else runs."""
        with self._lock:
            self._loop = loop

    def unbind(self) -> None:
        """Forget the loop; one that was made here is stopped."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if thread is not None and loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=2)

    def send(self, feed: str, blob: bytes) -> None:
        """Send one batch to a feed's group and wait until the layer has taken it. Raises ``PublishError``."""
        loop = self.loop()
        future: Future[None] | None = None
        try:
            future = asyncio.run_coroutine_threadsafe(self._group_send(feed, blob), loop)
            future.result(SEND_TIMEOUT)
        except FutureTimeout:
            if future is not None:
                future.cancel()
            raise PublishError(f"the channel layer did not take a message of {feed} within {SEND_TIMEOUT:g} s") from None
        except Exception as error:
            # The layer's errors are its backend's own; each means "not sent".
            raise PublishError(f"the channel layer refused a message of {feed}: {type(error).__name__}: {error}") from error

    @staticmethod
    async def _group_send(feed: str, blob: bytes) -> None:
        layer: Any = get_channel_layer()
        await layer.group_send(group_name(feed), {"type": MESSAGE_TYPE, "blob": blob})

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the channel layer is used on; it runs."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(loop,), name="argus-publish", daemon=True)
                self._loop = loop
                self._thread.start()
            return self._loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        if tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


bridge = Bridge()
bind = bridge.bind
unbind = bridge.unbind

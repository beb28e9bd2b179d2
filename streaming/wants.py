"""Tells the feeds which bars and trades the clients here cover: at once when it changes, and again before it is forgotten."""

from __future__ import annotations

import asyncio
import time

from marketdata.demand import RENEW, Announcer
from streaming.hub import Hub

LOOK = 0.2
"""Seconds between two looks whether something has changed."""
RETRY = 1.0
"""Seconds after which the cache is asked again where it did not answer."""


class Wants:
    """The word of one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lost = 0

    def lost(self) -> None:
        """Messages have been missed: all that is covered is wanted anew."""
        self._lost += 1

    async def run(self) -> None:
        """Look and announce until cancelled. What was said last holds for a while: the clients may come back elsewhere."""
        announcer = Announcer()
        said: tuple[int, int] | None = None
        again = 0.0
        while True:
            now = (self._hub.demand, self._lost)
            if now != said or time.monotonic() >= again:
                if now != said:
                    wanted = self._hub.wanted()
                taken = await asyncio.to_thread(announcer.announce, wanted, now[1])
                said = now
                again = time.monotonic() + (RENEW if taken else RETRY)
            await asyncio.sleep(LOOK)

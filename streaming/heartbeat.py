"""Heartbeats for all connections from one task: spread over the interval so that they do not come in one burst, and to everybody
at once when the data has become stale or fresh again."""

from __future__ import annotations

import asyncio
import time

from argus.config import config
from streaming.codecs import Announcement
from streaming.hub import Hub
from streaming.protocol import Heartbeat

MAX_STEP = 1.0
"""Seconds between two groups of connections at most; in a shorter interval there are four groups."""


class Heartbeats:
    """One message to every connection in each interval. A connection keeps its place in the round by its id."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._groups = max(4, round(config.heartbeat_interval / MAX_STEP))
        self._stale = hub.store.stale(config.stale_after)

    async def run(self) -> None:
        """Beat until cancelled."""
        step = config.heartbeat_interval / self._groups
        group = 0
        while True:
            await asyncio.sleep(step)
            self.step(group)
            group = (group + 1) % self._groups

    def step(self, group: int) -> None:
        """Send it to one group, or to all where something has become stale or fresh since the last step."""
        stale = self._hub.store.stale(config.stale_after)
        turned, self._stale = stale != self._stale, stale
        self.beat(None if turned else group)

    def beat(self, group: int | None) -> None:
        """Send it to one group, or to all (None): the newest of what each feed has brought, and whether the source is silent.

        A client that is behind gets none, as it would tell of data that is still to come; nor does one that has not been
        greeted yet, nor one whose data comes from a replay's hub. A feed of which it is to be sent more is left out.
        """
        messages: dict[frozenset[str], Announcement] = {}
        for connection in self._hub.connections.values():
            if connection.home is not self._hub or (group is not None and hash(connection.id) % self._groups != group):
                continue
            if connection.frames and connection.behind_since is None:
                partial = self._hub.partial_for(connection.priority)
                if partial not in messages:
                    messages[partial] = self._message(partial)
                connection.say(messages[partial])

    def _message(self, partial: frozenset[str]) -> Announcement:
        store = self._hub.store
        streams = {name: at for name, at in store.streams().items() if name not in partial}
        return Announcement(
            Heartbeat(server_time=time.time_ns() // 1_000_000, streams=streams, stale=store.stale(config.stale_after))
        )

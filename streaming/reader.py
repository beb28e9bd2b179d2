"""From the channel layer to the hub: one channel for the whole process, in the group of every feed there is at present."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import Any

import structlog
from channels.layers import get_channel_layer

from marketdata.publish import MESSAGE_TYPE, group_name
from marketdata.terminals import roster
from streaming.hub import Hub

log = structlog.get_logger(__name__)

LOOK = 1.0
"""Seconds between two looks which feeds there are."""
REJOIN = 3600.0
"""Seconds after which the groups are joined again: the layers forget a membership after a day."""


class Reader:
    """Reads until cancelled; on an error of the layer it ends, and whoever supervises it starts it again.

    ``on_joined`` is called when nothing that is published from now on will be missed, at the start and whenever other feeds
    are there or bring other markets.
    """

    def __init__(self, hub: Hub, on_joined: Callable[[], None]) -> None:
        self._hub = hub
        self._on_joined = on_joined
        self._joined: dict[str, float] = {}
        """Feed -> when its group was joined (monotonic)."""
        self._markets: dict[str, tuple[str, ...]] | None = None

    async def run(self) -> None:
        """Join the groups, then hand every batch to the hub."""
        layer: Any = get_channel_layer()
        channel = await layer.new_channel()
        self._joined, self._markets = {}, None
        await self._follow(layer, channel)
        keeper = asyncio.create_task(self._keep_joined(layer, channel))
        try:
            while True:
                message = await layer.receive(channel)
                if message["type"] == MESSAGE_TYPE:
                    self._hub.receive(message["blob"])
                # The layer may have more at hand and not let go of the loop, but the transports must get their turn.
                await asyncio.sleep(0)
                if keeper.done():
                    keeper.result()
        finally:
            keeper.cancel()
            for feed in self._joined:
                await layer.group_discard(group_name(feed), channel)

    async def _follow(self, layer: Any, channel: str) -> None:
        """Join the groups of the feeds that there are, and leave and forget the others."""
        known, now = roster.current(), time.monotonic()
        for feed in known.pools:
            if now - self._joined.get(feed, -inf) >= REJOIN:
                await layer.group_add(group_name(feed), channel)
                self._joined[feed] = now
        for feed in self._joined.keys() - known.pools.keys():
            await layer.group_discard(group_name(feed), channel)
            del self._joined[feed]
        # Its last messages may have come after it was forgotten.
        for feed in self._hub.store.feeds.keys() - known.pools.keys():
            self._hub.forget(feed)
        markets = {name: pool.markets for name, pool in known.pools.items()}
        if markets != self._markets:
            self._markets = markets
            self._hub.store.accepts = {name: known.accepts(name) for name in known.pools}
            self._on_joined()

    async def _keep_joined(self, layer: Any, channel: str) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self._follow(layer, channel)
            except Exception as error:  # noqa: BLE001 - the layer's errors are its backend's own; each means "not now"
                log.warning("feeds_not_joined", error=type(error).__name__)

"""From the channel layer to the hub: one channel for the whole process, in the group of every feed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from channels.layers import get_channel_layer

from marketdata.publish import MESSAGE_TYPE, feed_names, group_name
from streaming.hub import Hub

REJOIN = 3600.0
"""Seconds after which the groups are joined again: the layers forget a membership after a day."""


class Reader:
    """Reads until cancelled; on an error of the layer it ends, and whoever supervises it starts it again.

    ``on_joined`` is called when nothing that is published from now on will be missed.
    """

    def __init__(self, hub: Hub, on_joined: Callable[[], None]) -> None:
        self._hub = hub
        self._on_joined = on_joined

    async def run(self) -> None:
        """Join the groups, then hand every batch to the hub."""
        layer: Any = get_channel_layer()
        channel = await layer.new_channel()
        await self._join(layer, channel)
        self._on_joined()
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
            for feed in feed_names():
                await layer.group_discard(group_name(feed), channel)

    @staticmethod
    async def _join(layer: Any, channel: str) -> None:
        for feed in feed_names():
            await layer.group_add(group_name(feed), channel)

    async def _keep_joined(self, layer: Any, channel: str) -> None:
        while True:
            await asyncio.sleep(REJOIN)
            await self._join(layer, channel)

"""More than a client that does not read can be owed."""

from __future__ import annotations

import asyncio

import msgspec

from marketdata.types import DataType, Trade
from streaming import outbox
from tests.streaming.server import Server, until

TRADES = 500
"""In one message, some 100 KB in anybody's words."""


async def overflow(server: Server, symbol: str) -> None:
    """Publish a symbol's trades until the one client, which has subscribed to them and reads nothing, is to go."""
    (connection,) = server.connections.values()
    await until(lambda: connection.views, "the subscription")
    index = 0
    while not connection.closed:
        made = []
        for _ in range(TRADES):
            index += 1
            trade = Trade(symbol=symbol, time=1_782_441_002_123 + index, index=index, price=10.01, volume=200, source="test")
            made.append(msgspec.json.encode(trade)[:-1] + b',"seq":1}')
        await server.feed.publish(events={DataType.TRADE: ([symbol] * TRADES, made)})
        await asyncio.sleep(0)
        assert index < 100 * outbox.EVENT_LIMIT, "the client is still there"

"""The stream's addresses."""

from __future__ import annotations

from typing import Any

from channels.routing import URLRouter
from django.urls import re_path

from argus.requestid import Receive, Scope, Send
from streaming.consumers import StreamConsumer
from streaming.dialects.alpaca_consumer import AlpacaConsumer
from streaming.dialects.massive_consumer import MassiveConsumer
from streaming.door import Door


async def nowhere(scope: Scope, receive: Receive, send: Send) -> Any:
    """Refuse the handshake of any other address."""
    await receive()
    if "websocket.http.response" in scope.get("extensions", {}):
        await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})
    else:
        await send({"type": "websocket.close"})


application = Door(
    URLRouter(
        [
            re_path(r"^ws(?:/market_data)?/?$", StreamConsumer.as_asgi()),
            re_path(r"^compat/alpaca/v2/(?P<feed>[^/]+)/?$", AlpacaConsumer.as_asgi()),
            re_path(r"^compat/massive/stocks/?$", MassiveConsumer.as_asgi()),
            re_path("", nowhere),
        ]
    )
)

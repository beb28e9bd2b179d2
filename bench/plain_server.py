"""The same service without its own WebSocket protocol class: ``python -m bench.plain_server PORT [deflate]``.

Frames leave through uvicorn's ``send``; with ``deflate`` uvicorn compresses each of them for each connection (RFC 7692), which
Argus never does. Only for the benchmark.
"""

from __future__ import annotations

import os
import socket
import sys

import django


def main() -> None:
    """Serve until a signal comes."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    django.setup()
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    from argus import serving
    from argus.asgi import application
    from marketdata.terminals import keeper
    from streaming import runtime
    from streaming.servers.uvicorn import uvicorn_config

    async def nothing() -> None:
        """There is nothing else to start."""

    keeper.begin_or_end()
    config = uvicorn_config(application, ws=WebSocketsSansIOProtocol, ws_per_message_deflate="deflate" in sys.argv[2:])
    bound = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    serving.run(config, [bound], on_started=nothing, on_stopping=runtime.stop)


if __name__ == "__main__":
    main()

"""Argus on a port under uvicorn or Daphne, with pings in quick succession: ``python -m tests.conformance.target SERVER PORT``."""

from __future__ import annotations

import socket
import sys

from argus.asgi import application

PING = 1
"""Seconds between two pings, and those in which a client has to answer one."""


def serve_uvicorn(port: int) -> None:
    """As ``manage.py serve`` does."""
    import uvicorn

    from streaming.servers.uvicorn import uvicorn_config

    config = uvicorn_config(application, ws_ping_interval=PING, ws_ping_timeout=PING)
    uvicorn.Server(config).run([socket.create_server(("127.0.0.1", port))])


def serve_daphne(port: int) -> None:
    """As ``manage.py serve --server daphne`` does."""
    from daphne.server import Server

    Server(application, endpoints=[f"tcp:port={port}:interface=127.0.0.1"], ping_interval=PING, ping_timeout=PING).run()


if __name__ == "__main__":
    {"uvicorn": serve_uvicorn, "daphne": serve_daphne}[sys.argv[1]](int(sys.argv[2]))

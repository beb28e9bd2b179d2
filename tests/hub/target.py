"""A process that serves one hub with uvicorn or Daphne, told by its clients what to publish: ``python -m tests.hub.target``."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any

from marketdata.types import DataType
from streaming.connection import Connection
from streaming.frame import Frame
from streaming.selection import Selection
from streaming.wire import wire_for
from tests.hub.market import blob, make_hub, quote

hub = make_hub()
tasks: list[asyncio.Task[None]] = []


async def tick() -> None:
    """What the runtime does for a hub."""
    while True:
        await asyncio.sleep(0.05)
        hub.tick(time.monotonic())


async def publish(symbols: int, rounds: int, pause: float) -> None:
    """Sweeps of so many symbols."""
    names = [f"{n:06d}.SZ" for n in range(symbols)]
    for _ in range(rounds):
        seq = hub.counters.batches + 1
        hub.receive(blob([quote(name, seq) for name in names], seq))
        await asyncio.sleep(pause)


def report() -> bytes:
    """How this process is."""
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if sys.platform == "linux" else 0
    return json.dumps(
        {
            "type": "report",
            "rss": pages * resource.getpagesize(),
            "connections": len(hub.connections),
            "behind": len(hub.behind),
            "pending": sum(connection.wire.pending() for connection in hub.connections.values()),
            "slow": hub.counters.slow,
            "wires": sorted({type(connection.wire).__name__ for connection in hub.connections.values()}),
        }
    ).encode()


def obey(connection: Connection, command: str, *arguments: Any) -> None:
    """Do what a client wants."""
    if command == "cover":
        everything = Selection(symbols=None, data_types=frozenset({DataType.QUOTE}))
        hub.cover(connection, {"main": everything})
    elif command == "publish":
        tasks.append(asyncio.create_task(publish(*arguments)))
    elif command == "close":
        connection.close(*arguments)
    elif command == "close_others":
        for other in hub.connections.values():
            if other is not connection:
                other.close(*arguments)
    elif command == "report":
        connection.send(Frame(report()))


async def application(scope: Any, receive: Any, send: Any) -> None:
    """A connection whose messages are commands. ``/plain`` does without the server's wire."""
    if scope["type"] != "websocket":
        return
    if not tasks:
        tasks.append(asyncio.create_task(tick()))
    await receive()
    await send({"type": "websocket.accept"})
    wire = wire_for({} if scope["path"] == "/plain" else scope, send)
    connection = Connection(str(id(scope)), None, wire, None)
    hub.attach(connection)
    connection.send(Frame(b'{"type":"connected"}'))
    try:
        while (message := await receive())["type"] == "websocket.receive":
            obey(connection, *json.loads(message["text"]))
    finally:
        hub.detach(connection)


def serve_uvicorn() -> None:
    """As ``manage.py serve`` does, with quicker pings."""
    import uvicorn

    from streaming.servers.uvicorn import uvicorn_config

    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(uvicorn_config(application, lifespan="off", ws_ping_interval=4.0, ws_ping_timeout=4.0)).run([listener])


def serve_daphne() -> None:
    """As ``manage.py serve --server daphne`` does."""
    from daphne.server import Server

    from streaming.servers import daphne

    daphne.install()

    def ready() -> None:
        sys.stdout.write(f"{server.listening_addresses[0][1]}\n")
        sys.stdout.flush()

    server = Server(application, endpoints=["tcp:port=0:interface=127.0.0.1"], ready_callable=ready)
    server.run()


if __name__ == "__main__":
    {"uvicorn": serve_uvicorn, "daphne": serve_daphne}[sys.argv[1]]()

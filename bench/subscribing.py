"""A client that subscribes to every symbol by its name, again and again: ``python -m bench.subscribing PORT KEY ROUNDS``.

Writes the milliseconds from the request to its answer, and to the last quote of the snapshot, of each round.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import msgspec
import picows

from bench.market import SYMBOLS

PAUSE = 0.3
"""Seconds between two rounds."""


class Client(picows.WSListener):  # type: ignore[misc]
    """Counts the snapshot's quotes."""

    def __init__(self) -> None:
        self.answered = 0.0
        self.complete: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.quotes = 0

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type != picows.WSMsgType.TEXT:
            return
        now, payload = time.perf_counter(), frame.get_payload_as_bytes()
        if payload.startswith(b'{"type":"subscribed"'):
            self.answered = now
        elif payload.startswith(b'{"type":"error"'):
            self.complete.set_exception(RuntimeError(payload[:400].decode()))
        elif b'"snapshot":true' in payload[:160]:
            self.quotes += payload.count(b'"type":"quote"')
            if self.quotes == len(SYMBOLS):
                self.complete.set_result(now)


async def main() -> None:
    """Subscribe, wait, unsubscribe, so many times."""
    port, key, rounds = sys.argv[1:]
    transport, client = await picows.ws_connect(
        Client, f"ws://127.0.0.1:{port}/ws/market_data", extra_headers={"X-API-Key": key}, max_frame_size=1 << 26
    )
    answered, complete = [], []
    subscribe = msgspec.json.encode({"action": "subscribe", "id": 1, "symbols": SYMBOLS, "data_types": ["quote"]})
    for _ in range(int(rounds)):
        client.quotes = 0
        client.complete = asyncio.get_running_loop().create_future()
        await asyncio.sleep(PAUSE)
        start = time.perf_counter()
        transport.send(picows.WSMsgType.TEXT, subscribe)
        end = await asyncio.wait_for(client.complete, 10)
        answered.append((client.answered - start) * 1000)
        complete.append((end - start) * 1000)
        transport.send(picows.WSMsgType.TEXT, b'{"action":"unsubscribe","id":2}')
    transport.disconnect()
    sys.stdout.write(msgspec.json.encode({"answered_ms": answered, "complete_ms": complete}).decode())


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())

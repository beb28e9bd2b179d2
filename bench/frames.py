"""Connections that count what they are sent and decode none of it: whatever it is written in, for however many of them.

``python -m bench.frames`` reads a ``Task`` as one JSON line, connects, says ``ready``, and then does what each line tells it:
``sweep``, ``sweeps SECONDS``, ``watch SECONDS``. Each answer is a JSON line.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from typing import Any

import msgspec

from bench.load import Sweeps
from bench.market import choose
from bench.skim import MASKED, frame, handshake

SHORT = 1000
"""Bytes below which a message that cannot be read here is not one with 50 quotes, however it is compressed."""
AT_ONCE = 50
"""Handshakes under way."""
PATIENCE = 30.0
"""Seconds that a sweep may take to reach everybody."""
QUIET = 0.5
"""Seconds without a byte after which all has come."""


class Task(msgspec.Struct):
    """``protocol`` is the subprotocol, "" for none. ``each`` symbols for a connection: 0 for none, -1 for one and the same."""

    port: int
    key: str
    connections: int
    each: int
    protocol: str = ""
    deflate: bool = False


class Counts:
    """What all connections were sent."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.bytes = 0
        self.data_bytes = 0
        self.wanted = 0
        self.heard: set[int] = set()
        self.closed = 0
        self.at = 0.0
        self.complete = asyncio.Event()

    def add(self, kind: str, size: int, number: int) -> None:
        """One message has begun to arrive at a connection."""
        self.messages[kind] += 1
        if kind == "data":
            self.data_bytes += size
            if self.messages["data"] == self.wanted:
                self.complete.set()
        elif kind == "heartbeat":
            self.heard.add(number)


class Listener(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_counts", "_head", "_number", "_skip", "_subscribe", "open", "transport")

    def __init__(self, counts: Counts, number: int, request: bytes, subscribe: bytes) -> None:
        self._counts = counts
        self._number = number
        self._subscribe = subscribe
        self._head = request
        self._skip = -1
        self.open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._head)
        self._head = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts.closed += 1
        if not self.open.done():
            self.open.set_exception(ConnectionError("the server closed a connection"))

    def data_received(self, data: bytes) -> None:
        counts = self._counts
        counts.bytes += len(data)
        counts.at = time.perf_counter()
        if self._skip >= len(data) and not self._head:
            self._skip -= len(data)
            return
        if self._skip < 0:
            answer = self._head + data
            end = answer.find(b"\r\n\r\n")
            if end < 0:
                self._head = answer
                return
            if not answer.startswith(b"HTTP/1.1 101"):
                self.open.set_exception(ConnectionError(answer[:200].decode("latin-1")))
                return
            data, self._head, self._skip = answer[end + 4 :], b"", 0
            if self._subscribe:
                self.transport.write(self._subscribe)
            self.open.set_result(None)
        self._frames(self._head + data)

    def _frames(self, data: bytes) -> None:
        at = self._skip
        size = len(data)
        while size - at >= 2:
            first, length = data[at], data[at + 1]
            head = 2 if length < 126 else 4 if length == 126 else 10
            if size - at < head:
                break
            if head > 2:
                length = int.from_bytes(data[at + 2 : at + head])
            # Enough of it to tell what it is.
            if size - at < head + min(length, 20):
                break
            self._take(first, data[at + head : at + head + 20], length)
            at += head + length
        self._head, self._skip = (data[at:], 0) if at < size else (b"", at - size)

    def _take(self, first: int, begin: bytes, length: int) -> None:
        if first == 0x89:
            # A pong says what the ping said, which is short.
            self.transport.write(bytes((0x8A, 0x80 | length)) + MASKED + begin[:length])
        elif first == 0x81 and begin.startswith(b'{"type":"'):
            kind = begin[9:].split(b'"')[0].decode()
            self._counts.add("heartbeat" if kind.startswith("heartb") else kind, length, self._number)
        else:
            self._counts.add("data" if length >= SHORT else "short", length, self._number)


async def connect(task: Task, counts: Counts) -> list[Listener]:
    """Open all connections, and wait until nothing more comes of that."""
    request = handshake(task.key, task.protocol, deflate=task.deflate)
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(AT_ONCE)
    chosen = choose(task.connections, max(task.each, 1), seed=7 if task.each > 0 else 0)

    async def one(number: int) -> Listener:
        symbols = chosen[0] if task.each < 0 else chosen[number]
        asked = msgspec.json.encode({"action": "subscribe", "id": 1, "symbols": symbols, "data_types": ["quote"]})
        subscribe = frame(asked) if task.each else b""
        async with slots:
            _, listener = await loop.create_connection(
                lambda: Listener(counts, number, request, subscribe), "127.0.0.1", task.port
            )
            await asyncio.wait_for(listener.open, 30)
        return listener

    listeners = await asyncio.gather(*map(one, range(task.connections)))
    while time.perf_counter() - counts.at < QUIET:
        await asyncio.sleep(QUIET / 5)
    return listeners


async def sweep(sweeps: Sweeps, counts: Counts, connections: int) -> float:
    """One sweep to everybody; milliseconds until the last of them has it."""
    counts.complete.clear()
    counts.wanted = counts.messages["data"] + connections
    blob = sweeps.next_blob()
    start = time.perf_counter()
    await sweeps.send(blob)
    try:
        await asyncio.wait_for(counts.complete.wait(), PATIENCE)
    except TimeoutError:
        missing = counts.wanted - counts.messages["data"]
        sys.exit(f"bench: {missing} of {connections} connections were not sent the sweep; {counts.closed} were closed")
    return (time.perf_counter() - start) * 1000


async def run(task: Task) -> None:
    """Connect, then do as told until the input ends."""
    counts, sweeps = Counts(), Sweeps()
    await sweeps.send(sweeps.next_blob())
    began = time.perf_counter()
    listeners = await connect(task, counts)
    answer({"ready": len(listeners), "seconds": time.perf_counter() - began})
    while line := (await asyncio.to_thread(sys.stdin.readline)).split():
        counts.bytes = counts.data_bytes = 0
        counts.heard.clear()
        count, start = 0, time.perf_counter()
        slowest = 0.0
        if line[0] == "sweep":
            slowest, count = await sweep(sweeps, counts, task.connections), 1
        elif line[0] == "sweeps":
            while time.perf_counter() - start < float(line[1]):
                slowest = max(slowest, await sweep(sweeps, counts, task.connections))
                count += 1
        else:
            await asyncio.sleep(float(line[1]))
        answer(
            {
                "sweeps": count,
                "seconds": time.perf_counter() - start,
                "slowest_ms": slowest,
                "data_bytes": counts.data_bytes,
                "heard": len(counts.heard),
                "closed": counts.closed,
            }
        )


def answer(result: dict[str, Any]) -> None:
    """Tell who asked."""
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    """Reads its ``Task``, then its orders."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    django.setup()
    import uvloop

    uvloop.run(run(msgspec.json.decode(sys.stdin.readline(), type=Task)))


if __name__ == "__main__":
    main()

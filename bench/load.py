"""The load: WebSocket clients that count every quote, and the publisher that feeds the hub, in one process.

Every quote of a sweep has the same length, so a frame's size tells how many quotes it holds once a frame of that size has
been counted: the client costs little more than reading.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import msgspec
import picows

from bench.market import SYMBOLS, VARIANTS, choose, sweep
from bench.skim import Skimmer, frame, handshake
from marketdata.batch import Batch, encode


class Run(msgspec.Struct):
    """What one run is asked to do."""

    ports: list[int]
    """Where the connections go, in turns."""
    key: str
    connections: int
    each: int | None
    seconds: float
    interval: float
    """Seconds between sweeps; 0 is flat out, two sweeps in flight."""
    filters: int = 0
    """So many distinct filters, each of which lets the same symbols through; the connections ask for the whole market."""
    frequency: str = "realtime"


LEAST = 79.0
"""The price that a filter asks for."""
PASSING = sum(msgspec.json.decode(body)["price"] >= LEAST for body in sweep(0).values())
"""Quotes of a sweep that have it; the same of every sweep."""
SLOTS = 20
"""Parts of a second, to see when connections are sent something."""


class Arrivals:
    """All connections' deliveries: per sweep how many quotes, and how long after its start."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.started: dict[int, float] = {}
        self.counts: dict[int, int] = {}
        self.latencies: list[tuple[float, int]] = []
        self.complete = asyncio.Event()
        self.total = 0
        self.slots = [0] * SLOTS

    def add(self, seq: int, quotes: int) -> None:
        self.slots[int(time.perf_counter() * SLOTS) % SLOTS] += 1
        start = self.started.get(seq)
        if start is None:
            return
        self.total += quotes
        self.latencies.append((time.perf_counter() - start, quotes))
        count = self.counts.get(seq, 0) + quotes
        self.counts[seq] = count
        if count >= self.expected:
            self.complete.set()

    def done(self, seq: int) -> bool:
        return self.counts.get(seq, 0) >= self.expected

    def percentile(self, share: float) -> float:
        """Milliseconds within which this share of the quotes arrived."""
        ranked = sorted(self.latencies)
        wanted = share * sum(quotes for _, quotes in ranked)
        seen = 0
        for latency, quotes in ranked:
            seen += quotes
            if seen >= wanted:
                return latency * 1000
        return float("nan")


class Client(picows.WSListener):  # type: ignore[misc]
    """One subscriber."""

    sizes: dict[tuple[int, int], int]

    def __init__(self, arrivals: Arrivals, subscribe: bytes) -> None:
        self.arrivals = arrivals
        self.subscribe = subscribe
        self.ready = asyncio.get_running_loop().create_future()
        self.sizes = {}
        self.closed = False

    def on_ws_connected(self, transport: Any) -> None:
        transport.send(picows.WSMsgType.TEXT, self.subscribe)

    def on_ws_disconnected(self, transport: Any) -> None:
        self.closed = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the server closed a connection"))

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type != picows.WSMsgType.TEXT:
            return
        head = bytes(frame.get_payload_as_memoryview()[:160])
        if not head.startswith(b'{"type":"data"'):
            if head.startswith(b'{"type":"subscribed"'):
                self.ready.set_result(None)
            elif head.startswith(b'{"type":"error"'):
                self.ready.set_exception(RuntimeError(frame.get_payload_as_utf8_text()))
            return
        at = head.index(b'"seq":') + 6
        seq = int(head[at : head.index(b",", at)])
        if b'"snapshot":true' in head:
            return
        size = (frame.payload_size, len(str(seq)))
        quotes = self.sizes.get(size)
        if quotes is None:
            quotes = self.sizes[size] = frame.get_payload_as_bytes().count(b'"type":"quote"')
        self.arrivals.add(seq, quotes)


class Sweeps:
    """Publishes whole sweeps straight into the channel layer, numbered like a feed's publisher does."""

    def __init__(self) -> None:
        from channels.layers import get_channel_layer

        from marketdata.publish import MESSAGE_TYPE, group_name

        self._layer: Any = get_channel_layer()
        self._group, self._type = group_name("main"), MESSAGE_TYPE
        self._bodies = [sweep(variant) for variant in range(VARIANTS)]
        self.epoch = int(time.time() * 1000)
        self.seq = 0

    def next_blob(self) -> bytes:
        """The next sweep, encoded."""
        self.seq += 1
        tail = b',"seq":%d}' % self.seq
        bodies = self._bodies[self.seq % VARIANTS].values()
        now = int(time.time() * 1000)
        fragments = [body[:-1] + tail for body in bodies]
        return encode(Batch("main", self.epoch, self.seq, now, "simulated", now, None, False, list(SYMBOLS), fragments))

    async def send(self, blob: bytes) -> None:
        await self._layer.group_send(self._group, {"type": self._type, "blob": blob})


async def run(job: Run) -> dict[str, Any]:
    """Connect everybody, sweep for so long, and say what arrived."""
    chosen = choose(job.connections, job.each)
    whole = PASSING if job.filters else len(SYMBOLS)
    arrivals = Arrivals(sum(whole if symbols is None else len(symbols) for symbols in chosen))
    sweeps = Sweeps()
    await sweeps.send(sweeps.next_blob())
    clients: list[Client | Skimmer] = []
    for start in range(0, len(chosen), 50):
        group: list[Client | Skimmer] = []
        for number, symbols in enumerate(chosen[start : start + 50], start):
            message = request(job, number, symbols)
            large = symbols is None and not job.filters
            group.append(Skimmer(arrivals.add, handshake(job.key), frame(message)) if large else Client(arrivals, message))
        await asyncio.gather(
            *(connect(client, job.ports[number % len(job.ports)], job.key) for number, client in enumerate(group))
        )
        await asyncio.wait_for(asyncio.gather(*(client.ready for client in group)), 60)
        clients += group
    # A sweep that is not counted: caches warm, buffers grown.
    await _warm_up(sweeps, arrivals, job)
    arrivals.latencies.clear()
    arrivals.total = 0
    arrivals.slots = [0] * SLOTS
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    cpu, start = time.process_time(), time.perf_counter()
    if job.frequency != "realtime":
        count = await _merged(sweeps, arrivals, job)
    else:
        count = await (_paced(sweeps, arrivals, job) if job.interval else _flat_out(sweeps, arrivals, job))
    elapsed = time.perf_counter() - start
    return {
        "sweeps": count,
        "elapsed": elapsed,
        "quotes": arrivals.total,
        "expected": count * arrivals.expected,
        "quotes_per_second": arrivals.total / elapsed,
        "p50_ms": arrivals.percentile(0.50),
        "p99_ms": arrivals.percentile(0.99),
        "client_cpu_share": (time.process_time() - cpu) / elapsed,
        "dropped_connections": sum(client.closed for client in clients),
        "slots": arrivals.slots,
    }


async def connect(client: Client | Skimmer, port: int, key: str) -> None:
    """Open a client's connection."""
    if isinstance(client, Skimmer):
        await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
    else:
        url = f"ws://127.0.0.1:{port}/ws/market_data"
        await picows.ws_connect(lambda: client, url, extra_headers={"X-API-Key": key}, max_frame_size=1 << 26)


def request(job: Run, number: int, symbols: list[str] | None) -> bytes:
    """What a connection subscribes to."""
    asked: dict[str, Any] = {"action": "subscribe", "id": "1", "symbols": symbols or ["*"], "data_types": ["quote"]}
    if job.filters:
        asked["filters"] = {"min_price": LEAST, "min_volume": 1 + number % job.filters}
    if job.frequency != "realtime":
        asked["update_frequency"] = job.frequency
    return msgspec.json.encode(asked)


async def _publish(sweeps: Sweeps, arrivals: Arrivals, blob: bytes | None = None) -> int:
    blob = blob or sweeps.next_blob()
    arrivals.started[sweeps.seq] = time.perf_counter()
    await sweeps.send(blob)
    return sweeps.seq


async def _arrived(arrivals: Arrivals, seq: int, *, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not arrivals.done(seq):
            arrivals.complete.clear()
            await arrivals.complete.wait()


async def _warm_up(sweeps: Sweeps, arrivals: Arrivals, job: Run) -> None:
    """Sweep until one arrives whole: what comes while a client is still being sent its snapshot becomes part of that."""
    if job.frequency != "realtime":
        await asyncio.sleep(1.5)
        return
    for _ in range(12):
        try:
            await _arrived(arrivals, await _publish(sweeps, arrivals), seconds=5)
            return
        except TimeoutError:
            continue
    raise TimeoutError("no sweep arrived at all clients")


async def _paced(sweeps: Sweeps, arrivals: Arrivals, job: Run) -> int:
    count = max(1, round(job.seconds / job.interval))
    start = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number * job.interval - time.perf_counter()))
        await _publish(sweeps, arrivals)
    await _arrived(arrivals, sweeps.seq)
    return count


async def _merged(sweeps: Sweeps, arrivals: Arrivals, job: Run) -> int:
    """Sweeps that are merged on their way: what arrives is the newest of several."""
    count = round(job.seconds / job.interval)
    start = time.perf_counter()
    for number in range(count):
        await _publish(sweeps, arrivals)
        await asyncio.sleep(max(0.0, start + (number + 1) * job.interval - time.perf_counter()))
    return count


async def _flat_out(sweeps: Sweeps, arrivals: Arrivals, job: Run) -> int:
    end = time.perf_counter() + job.seconds
    in_flight: list[int] = []
    count = 0
    while time.perf_counter() < end:
        in_flight.append(await _publish(sweeps, arrivals))
        count += 1
        if len(in_flight) == 2:
            await _arrived(arrivals, in_flight.pop(0))
    for seq in in_flight:
        await _arrived(arrivals, seq)
    return count


def main() -> None:
    """Reads a ``Run`` as one JSON line, says ``ready``, waits for a line, runs, and writes the result as JSON."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    django.setup()
    import uvloop

    job = msgspec.json.decode(sys.stdin.readline(), type=Run)
    result = uvloop.run(run(job))
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()

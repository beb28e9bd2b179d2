"""The load of REST: keep-alive connections that ask for one path, as fast as they are answered or at a given rate.

``python -m bench.http_load`` reads a ``Job`` as one JSON line and writes what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from typing import Any

import httptools
import msgspec


class Job(msgspec.Struct):
    """``rate`` requests per second over all connections; 0: each connection asks again as soon as it is answered."""

    port: int
    paths: list[str]
    headers: dict[str, str]
    connections: int
    seconds: float
    rate: float = 0.0


class Asking(asyncio.Protocol):
    """One connection; answers are counted by status and timed."""

    def __init__(self, requests: list[bytes], seen: list[float], statuses: Counter[int], again: bool) -> None:
        self._requests = requests
        self._seen = seen
        self._statuses = statuses
        self._again = again
        self.asked = 0
        self._parser: Any = httptools.HttpResponseParser(self)
        self._since: list[float] = []
        self._transport: Any = None
        self.bytes = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self) -> None:
        """Send the next request."""
        self._since.append(time.perf_counter())
        self._transport.write(self._requests[self.asked % len(self._requests)])
        self.asked += 1

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """The parser's word: an answer has come to its end."""
        self._statuses[self._parser.get_status_code()] += 1
        self._seen.append(time.perf_counter() - self._since.pop(0))
        if self._again:
            self.ask()


async def run(job: Job) -> dict[str, Any]:
    """Ask for so long, and say what came of it."""
    head = "".join(f"{name}: {value}\r\n" for name, value in job.headers.items())
    requests = [f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{head}\r\n".encode() for path in job.paths]
    seen: list[float] = []
    statuses: Counter[int] = Counter()
    loop = asyncio.get_running_loop()
    asking = []
    for number in range(job.connections):
        turned = requests[number % len(requests) :] + requests[: number % len(requests)]
        _, protocol = await loop.create_connection(
            lambda turned=turned: Asking(turned, seen, statuses, not job.rate), "127.0.0.1", job.port
        )
        asking.append(protocol)
    start = time.perf_counter()
    if job.rate:
        for number in range(round(job.rate * job.seconds)):
            await asyncio.sleep(max(0.0, start + number / job.rate - time.perf_counter()))
            asking[number % len(asking)].ask()
        while len(seen) < round(job.rate * job.seconds) and time.perf_counter() - start < job.seconds + 10:
            await asyncio.sleep(0.01)
    else:
        for one in asking:
            one.ask()
        await asyncio.sleep(job.seconds)
    elapsed = time.perf_counter() - start
    ranked = sorted(seen)
    asked = sum(one.asked for one in asking)
    # Of a flood each connection's last request may be under way; at a rate all must have come back, or the worst are left out.
    if not ranked or (job.rate and len(ranked) < asked):
        sys.exit(f"bench: {len(ranked)} of {asked} requests were answered")
    return {
        "requests": len(ranked),
        "per_second": len(ranked) / elapsed,
        "p50_ms": ranked[len(ranked) // 2] * 1000,
        "p99_ms": ranked[int(len(ranked) * 0.99)] * 1000,
        "statuses": {str(status): count for status, count in statuses.items()},
        "bytes": sum(one.bytes for one in asking),
    }


def main() -> None:
    """Read the job, run it, write the result."""
    import uvloop

    job = msgspec.json.decode(sys.stdin.readline(), type=Job)
    sys.stdout.write(msgspec.json.encode(uvloop.run(run(job))).decode() + "\n")


if __name__ == "__main__":
    main()

"""Many connections, and one in every encoding: memory, heartbeats, bytes and processor time, counted by ``bench.frames``."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from bench.frames import Task
from bench.machine import cpu_seconds, memory
from bench.service import LOAD_CORE, Service, say, start

EACH = 50
HEARTBEAT = 32.0
"""Seconds in which every connection is sent one."""
SETTLED = 6.0
"""Seconds for which the processor time of those that do nothing is taken where no heartbeats are counted."""
ROUNDS = 12
"""Subscriptions of everything by name."""
ENCODINGS = {
    "JSON": ("argus.v1.json", ""),
    "MessagePack": ("argus.v1.msgpack", ""),
    "JSON, compressed once for all who share it": ("argus.v1.json.deflate", ""),
    "JSON, through the server's own `send`": ("", "plain"),
    "the same with permessage-deflate": ("", "deflate"),
}
"""What they are called -> the subprotocol, and which other server speaks it."""

Order = Callable[[str], dict[str, Any]]


@contextlib.contextmanager
def crowd(service: Service, task: Task) -> Iterator[tuple[dict[str, Any], Order]]:
    """Connections that count: what their coming took, and how to tell them what to do."""
    command, log = [sys.executable, "-m", "bench.frames"], service.directory / "frames.log"
    process = start(command, service.env, LOAD_CORE, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def order(line: str) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            sys.exit(f"bench: the load failed:\n{log.read_text()[-4000:]}")
        return dict(json.loads(answer))

    try:
        yield order(msgspec.json.encode(task).decode()), order
    finally:
        process.kill()
        process.wait(10)


def idle(service: Service, connections: int, each: int, *, hold: bool) -> dict[str, Any]:
    """Connections that are sent nothing but heartbeats: memory, and (``hold``) whether each gets one; then a sweep for all."""
    with service.web() as web:
        # A first connection loads what any needs.
        with crowd(service, Task(service.port, service.key, 1, EACH)):
            empty = memory(web)
        say(f"{connections:,} connections, {'one symbol for all' if each < 0 else f'{each} symbols each'}")
        with crowd(service, Task(service.port, service.key, connections, each)) as (ready, order):
            full, before = memory(web), cpu_seconds([web])
            held = order(f"watch {HEARTBEAT if hold else SETTLED}")
            cpu = (cpu_seconds([web]) - before) / held["seconds"]
            descriptors = web.num_fds() if hasattr(web, "num_fds") else 0
            told = order("sweep") if each else None
            return {
                "connections": ready["ready"],
                "kib_per_connection": (full - empty) / 1024 / connections,
                "connected_in": ready["seconds"],
                "heartbeats": held["heard"] if hold else None,
                "cpu_share": cpu,
                "descriptors": descriptors,
                "all_told_ms": told["slowest_ms"] if told else None,
                "lost": (told or held)["closed"],
            }


def encoding(service: Service, protocol: str, server: str, connections: int, seconds: float) -> dict[str, Any]:
    """One encoding: a sweep at a time, the next when all have it, so that none is merged on any server."""
    command = [sys.executable, "-m", "bench.plain_server", str(service.port), server] if server else None
    with service.web(command=command) as web:
        with crowd(service, Task(service.port, service.key, 1, EACH, protocol, server == "deflate")):
            empty = memory(web)
        task = Task(service.port, service.key, connections, EACH, protocol, server == "deflate")
        with crowd(service, task) as (_, order):
            order("sweep")
            full, before = memory(web), cpu_seconds([web])
            found = order(f"sweeps {seconds}")
            quotes = found["sweeps"] * connections * EACH
            return {
                "cpu_per_million": (cpu_seconds([web]) - before) / quotes * 1e6,
                "bytes_per_quote": found["data_bytes"] / quotes,
                "kib_per_connection": (full - empty) / 1024 / connections,
                "quotes_per_second": quotes / found["seconds"],
            }


def subscribing(service: Service) -> dict[str, Any]:
    """Every symbol by its name, on a connection that has none."""
    with service.web() as web:
        service.publish()
        command = [sys.executable, "-m", "bench.subscribing", str(service.port), service.key, str(ROUNDS)]
        log = service.directory / "subscribing.log"
        before = cpu_seconds([web])
        process = start(command, service.env, LOAD_CORE, log, stdout=subprocess.PIPE)
        output, _ = process.communicate(timeout=120)
        if process.returncode:
            sys.exit(f"bench: the subscriptions failed:\n{log.read_text()[-4000:]}")
        cpu = cpu_seconds([web]) - before
    found = json.loads(output)
    return {name: [times[0], statistics.median(times), max(times[1:])] for name, times in found.items()} | {"cpu": cpu / ROUNDS}


def report_idle(results: list[dict[str, Any]]) -> list[str]:
    """The figures as a Markdown table."""
    lines = [
        "| connections | KiB each | connected in, s | had a heartbeat | CPU, idle | descriptors | one sweep to all, ms | lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        told = "" if one["all_told_ms"] is None else f"{one['all_told_ms']:.0f}"
        heard = "" if one["heartbeats"] is None else f"{one['heartbeats']:,}"
        lines.append(
            f"| {one['name']} | **{one['kib_per_connection']:.0f}** | {one['connected_in']:.0f} | {heard} "
            f"| {one['cpu_share'] * 100:.1f} % | {one['descriptors']:,} | {told} | {one['lost']} |"
        )
    return lines


def report_encodings(results: list[dict[str, Any]]) -> list[str]:
    """The figures as a Markdown table."""
    lines = ["| encoding | CPU s per million | bytes per quote | KiB per connection | 1000 quotes/s |", "|---|---|---|---|---|"]
    for one in results:
        lines.append(
            f"| {one['name']} | **{one['cpu_per_million']:.2f}** | {one['bytes_per_quote']:.0f} "
            f"| {one['kib_per_connection']:.0f} | {one['quotes_per_second'] / 1000:,.0f} |"
        )
    return lines


def report_subscribing(result: dict[str, Any]) -> list[str]:
    """The figures as a Markdown table."""
    lines = ["| 5,500 symbols by name, ms | first | median | worst after the first |", "|---|---|---|---|"]
    for name, text in (("answered_ms", "to the answer"), ("complete_ms", "to the end of the snapshot")):
        first, median, worst = result[name]
        lines.append(f"| {text} | {first:.0f} | **{median:.0f}** | {worst:.0f} |")
    return [*lines, f"| the web process's own time, with the unsubscription | | {result['cpu'] * 1000:.0f} | |"]

"""The fan-out against the machine's limit: the same bytes written to as many sockets by a plain loop, before and after it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import msgspec
import psutil

from bench import limit
from bench.load import Run
from bench.machine import cpu_seconds, memory
from bench.service import LOAD_CORE, SERVER_CORE, Service, free_port, say, start

PACED = 10.0
"""Seconds at one sweep per second, at least."""


def measure_limit(service: Service, connections: int, each: int | None, seconds: float) -> dict[str, Any]:
    """The plain loop: written on the server's processor, read here on the load's."""
    with socket.create_server(("127.0.0.1", 0), backlog=connections) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "bench.limit", *map(str, (port, connections, each or 0, seconds, SERVER_CORE))]
        writer = start(command, service.env, SERVER_CORE, service.directory / "limit.log", stdout=subprocess.PIPE)
        limit.read(listener, connections)
        output, _ = writer.communicate(timeout=60)
    return dict(json.loads(output))


def measure_hub(
    service: Service,
    connections: int,
    each: int | None,
    seconds: float,
    interval: float,
    *,
    processes: int = 1,
    filters: int = 0,
    frequency: str = "realtime",
) -> dict[str, Any]:
    """One run of the hub: fresh web processes, all of them on the server's processor, their clients, their figures."""
    with ExitStack() as stack:
        ports = [service.port, *(free_port() for _ in range(processes - 1))]
        webs = [stack.enter_context(service.web(port)) for port in ports]
        redis = psutil.Process(service.processes[0].pid)
        idle = sum(map(memory, webs))
        command, log = [sys.executable, "-m", "bench.load"], service.directory / "load.log"
        load = start(command, service.env, LOAD_CORE, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert load.stdin is not None
        assert load.stdout is not None
        job = Run(ports, service.key, connections, each, seconds, interval, filters, frequency)
        load.stdin.write(msgspec.json.encode(job).decode() + "\n")
        load.stdin.flush()
        if load.stdout.readline().strip() != "ready":
            sys.exit(f"bench: the load did not get ready:\n{log.read_text()[-4000:]}")
        connected = sum(map(memory, webs))
        before = cpu_seconds(webs), cpu_seconds([redis])
        load.stdin.write("go\n")
        load.stdin.flush()
        line = load.stdout.readline()
        after = cpu_seconds(webs), cpu_seconds([redis])
        load.wait(60)
        if not line:
            sys.exit(f"bench: the load failed:\n{log.read_text()[-4000:]}")
        result = dict(json.loads(line))
        result["web_cpu"], result["redis_cpu"] = after[0] - before[0], after[1] - before[1]
        result["web_cpu_per_million"] = result["web_cpu"] / result["quotes"] * 1e6
        result["redis_cpu_per_million"] = result["redis_cpu"] / result["quotes"] * 1e6
        result["kib_per_connection"] = (connected - idle) / 1024 / connections
        result["peak_mib"] = sum(map(memory, webs)) / 1024 / 1024
        return result


def measure(service: Service, name: str, connections: int, each: int | None, seconds: float) -> dict[str, Any]:
    """Limit, hub flat out, limit again, hub at one sweep per second."""
    say(f"{name}: the machine's limit")
    limits = [measure_limit(service, connections, each, seconds / 2)]
    say(f"{name}: the hub, flat out")
    flat = measure_hub(service, connections, each, seconds, 0)
    limits.append(measure_limit(service, connections, each, seconds / 2))
    say(f"{name}: the hub, one sweep per second")
    paced = measure_hub(service, connections, each, max(seconds, PACED), 1.0)
    machine = sum(one["quotes_per_second"] for one in limits) / 2
    ratio = flat["quotes_per_second"] / machine
    return {"name": name, "limit": machine, "limits": limits, "flat_out": flat, "paced": paced, "ratio": ratio}


def report(results: list[dict[str, Any]]) -> list[str]:
    """The figures as a Markdown table."""
    lines = [
        "| scenario | limit, 1000 quotes/s | hub, 1000 quotes/s | **% of limit** | CPU s per million: web, Redis, limit "
        "| p50 / p99 ms flat out | p50 / p99 ms at one sweep/s | KiB per connection | lost | client busy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        flat, paced = result["flat_out"], result["paced"]
        lost = flat["expected"] - flat["quotes"] + paced["expected"] - paced["quotes"]
        limit_cpu = sum(one["cpu_per_million"] for one in result["limits"]) / len(result["limits"])
        lines.append(
            f"| {result['name']} | {result['limit'] / 1000:,.0f} | {flat['quotes_per_second'] / 1000:,.0f} "
            f"| **{result['ratio'] * 100:.1f}** "
            f"| {flat['web_cpu_per_million']:.3f}, {flat['redis_cpu_per_million']:.3f}, {limit_cpu:.3f} "
            f"| {flat['p50_ms']:.0f} / {flat['p99_ms']:.0f} | {paced['p50_ms']:.0f} / {paced['p99_ms']:.0f} "
            f"| {flat['kib_per_connection']:.0f} | {lost} | {flat['client_cpu_share'] * 100:.0f} % |"
        )
    return lines

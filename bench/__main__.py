"""The benchmark of the fan-out: ``python -m bench``. One command, one machine, one run; the figure that counts is a ratio.

Server and Redis run on the first processor, the load on the second. Each scenario is measured twice around the hub's run
by the machine's own limit: the same bytes written to as many sockets by a plain loop.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench import limit
from bench.load import Run
from bench.machine import cpu_seconds, memory, pin
from bench.market import SYMBOLS
from bench.service import LOAD_CORE, SERVER_CORE, Service, raise_descriptor_limit, say, start


def measure_limit(service: Service, connections: int, each: int | None, seconds: float) -> dict[str, Any]:
    """The plain loop: written on the server's processor, read here on the load's."""
    with socket.create_server(("127.0.0.1", 0), backlog=connections) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "bench.limit", *map(str, (port, connections, each or 0, seconds, SERVER_CORE))]
        writer = start(command, service.env, SERVER_CORE, service.directory / "limit.log", stdout=subprocess.PIPE)
        limit.read(listener, connections)
        output, _ = writer.communicate(timeout=60)
    return dict(json.loads(output))


def measure_hub(service: Service, connections: int, each: int | None, seconds: float, interval: float) -> dict[str, Any]:
    """One run of the hub: a fresh server, its clients, its figures."""
    with service.web() as web:
        redis_process = psutil.Process(service.processes[0].pid)
        idle = memory(web)
        load = start(
            [sys.executable, "-m", "bench.load"],
            service.env,
            LOAD_CORE,
            service.directory / "load.log",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert load.stdin is not None
        assert load.stdout is not None
        url = f"ws://127.0.0.1:{service.port}/ws/market_data"
        job = Run(url=url, key=service.key, connections=connections, each=each, seconds=seconds, interval=interval)
        load.stdin.write(msgspec.json.encode(job).decode() + "\n")
        load.stdin.flush()
        if load.stdout.readline().strip() != "ready":
            sys.exit(f"bench: the load did not get ready:\n{(service.directory / 'load.log').read_text()[-4000:]}")
        connected = memory(web)
        before = cpu_seconds([web]), cpu_seconds([redis_process])
        load.stdin.write("go\n")
        load.stdin.flush()
        line = load.stdout.readline()
        after = cpu_seconds([web]), cpu_seconds([redis_process])
        load.wait(60)
        if not line:
            sys.exit(f"bench: the load failed:\n{(service.directory / 'load.log').read_text()[-4000:]}")
        result = dict(json.loads(line))
        millions = result["quotes"] / 1e6
        result["web_cpu_per_million"] = (after[0] - before[0]) / millions
        result["redis_cpu_per_million"] = (after[1] - before[1]) / millions
        result["kib_per_connection"] = (connected - idle) / 1024 / connections
        result["peak_mib"] = memory(web) / 1024 / 1024
        return result


def scenario(service: Service, name: str, connections: int, each: int | None, seconds: float) -> dict[str, Any]:
    """Limit, hub flat out, limit again, hub at one sweep per second."""
    say(f"{name}: the machine's limit")
    limits = [measure_limit(service, connections, each, seconds / 2)]
    say(f"{name}: the hub, flat out")
    flat = measure_hub(service, connections, each, seconds, 0)
    limits.append(measure_limit(service, connections, each, seconds / 2))
    say(f"{name}: the hub, one sweep per second")
    paced = measure_hub(service, connections, each, max(seconds, 5), 1.0)
    machine = sum(one["quotes_per_second"] for one in limits) / 2
    return {
        "scenario": name,
        "limit": machine,
        "limits": limits,
        "flat_out": flat,
        "paced": paced,
        "ratio": flat["quotes_per_second"] / machine,
    }


def report(results: list[dict[str, Any]], server: str) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors, {server}; "
        f"{len(SYMBOLS):,} quotes a sweep, through Redis and the channel layer.",
        "",
        "| scenario | limit, 1000 quotes/s | hub, 1000 quotes/s | **% of limit** | CPU s per million: web, Redis, limit "
        "| p50 / p99 ms flat out | p50 / p99 ms at one sweep/s | KiB per connection | lost | client busy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        flat, paced = result["flat_out"], result["paced"]
        lost = flat["expected"] - flat["quotes"] + paced["expected"] - paced["quotes"]
        limit_cpu = sum(one["cpu_per_million"] for one in result["limits"]) / len(result["limits"])
        lines.append(
            f"| {result['scenario']} | {result['limit'] / 1000:,.0f} | {flat['quotes_per_second'] / 1000:,.0f} "
            f"| **{result['ratio'] * 100:.1f}** "
            f"| {flat['web_cpu_per_million']:.3f}, {flat['redis_cpu_per_million']:.3f}, {limit_cpu:.3f} "
            f"| {flat['p50_ms']:.0f} / {flat['p99_ms']:.0f} | {paced['p50_ms']:.0f} / {paced['p99_ms']:.0f} "
            f"| {flat['kib_per_connection']:.0f} | {lost} | {flat['client_cpu_share'] * 100:.0f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog="examples:\n  python -m bench\n  python -m bench --seconds 20 --json out.json\n  python -m bench --server daphne",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement (default 10)")
    parser.add_argument("--connections", type=int, default=1000, help="connections with 50 symbols each (default 1000)")
    parser.add_argument("--whole", type=int, default=100, help="connections with the whole market (default 100)")
    parser.add_argument("--server", choices=["uvicorn", "daphne"], default="uvicorn", help="the ASGI server (default uvicorn)")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    options = parser.parse_args()
    raise_descriptor_limit(2 * (options.connections + options.whole) + 200)
    pin(LOAD_CORE)
    with tempfile.TemporaryDirectory(prefix="argus-bench-") as directory:
        service = Service(Path(directory), options.server)
        try:
            results = [
                scenario(service, f"{options.connections:,} x 50 symbols", options.connections, 50, options.seconds),
                scenario(service, f"{options.whole:,} x the whole market", options.whole, None, options.seconds),
            ]
        finally:
            service.close()
    print(report(results, options.server))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

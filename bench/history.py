"""The benchmark of the ask path: ``python -m bench.history``. Latest quotes against a peer, bars against the machine.

* The latest quotes of ten symbols, key and quota checked, against a plain Django REST framework view of the same quotes.
* A symbol-year of one-minute bars as an Arrow stream from the archive, against pyarrow reading the Parquet file alone.
* History from memory at 100 requests per second while the stream runs.
* 500 symbols with a year of daily bars in one streamed answer: by how much the server grows.
* The access pattern of strategies against the three tiers: how much of it needs no terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench.bars import DAYS, LONG, WIDE, YEAR
from bench.http_load import Job
from bench.load import Run
from bench.machine import memory, pin, step_back
from bench.market import SYMBOLS
from bench.service import LOAD_CORE, SERVER_CORE, Service, free_port, raise_descriptor_limit, say, start

TEN = SYMBOLS[:2000:200]
ROUNDS = 3
STREAM = 100, 50, 1.0
"""Connections, symbols each, seconds between sweeps: what the stream does while history is asked for."""


def child(service: Service, module: str) -> dict[str, Any]:
    """Run a part of the benchmark that needs no server, alone on the server's processor."""
    log = service.directory / "child.log"
    process = start([sys.executable, "-m", module], service.env, SERVER_CORE, log, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=300)
    if process.returncode:
        sys.exit(f"bench: {module} failed:\n{log.read_text()[-4000:]}")
    return dict(json.loads(output)) if output else {}


def ask(service: Service, job: Job) -> dict[str, Any]:
    """One run of the load of REST."""
    command = [sys.executable, "-m", "bench.http_load"]
    done = subprocess.run(
        command, input=msgspec.json.encode(job).decode() + "\n", env=service.env, capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        sys.exit(f"bench: the load failed:\n{done.stderr[-4000:]}")
    result = dict(json.loads(done.stdout))
    if set(result["statuses"]) != {"200"}:
        sys.exit(f"bench: not all answers were good: {result['statuses']}")
    return result


@contextlib.contextmanager
def stream(service: Service, seconds: float) -> Iterator[None]:
    """Subscribers and sweeps beside what is measured."""
    connections, each, interval = STREAM
    load = start(
        [sys.executable, "-m", "bench.load"],
        service.env,
        LOAD_CORE,
        service.directory / "load.log",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    # Publisher and subscribers share a processor with the requests: what is taken is the server's time, not theirs.
    step_back(load.pid)
    assert load.stdin is not None
    assert load.stdout is not None
    job = Run([service.port], service.key, connections, each, seconds, interval)
    try:
        load.stdin.write(msgspec.json.encode(job).decode() + "\n")
        load.stdin.flush()
        load.stdout.readline()
        load.stdin.write("go\n")
        load.stdin.flush()
        yield
        load.communicate(timeout=120)
    finally:
        load.kill()
        load.wait()


@contextlib.contextmanager
def peer(service: Service) -> Iterator[int]:
    """The plain view, up and answering; its port."""
    port = free_port()
    process = start([sys.executable, "-m", "bench.peer", str(port)], service.env, SERVER_CORE, service.directory / "peer.log")
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/latest?symbols={TEN[0]}", timeout=1):
                    break
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit(f"bench: the peer did not start:\n{(service.directory / 'peer.log').read_text()}")
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def latest(service: Service, seconds: float) -> dict[str, Any]:
    """Both in turns, a few rounds; the median of the ratios."""
    symbols = ",".join(TEN)
    rounds = []
    with service.web(), peer(service) as port:
        service.publish()
        for _ in range(ROUNDS):
            ours = ask(
                service,
                Job(
                    port=service.port,
                    paths=[f"/api/v1/market_data/latest?symbols={symbols}"],
                    headers={"x-api-key": service.key},
                    connections=16,
                    seconds=seconds,
                ),
            )
            theirs = ask(
                service, Job(port=port, paths=[f"/latest?symbols={symbols}"], headers={}, connections=16, seconds=seconds)
            )
            rounds.append({"argus": ours, "drf": theirs, "times": ours["per_second"] / theirs["per_second"]})
    return sorted(rounds, key=lambda one: float(one["times"]))[len(rounds) // 2]


def hits(service: Service, seconds: float) -> dict[str, Any]:
    """History from memory while the stream runs."""
    symbols = [SYMBOLS[number] for number in range(1, 40)]
    base = f"/api/v1/market_data/history?period=1d&start={DAYS[-60]}&end={DAYS[-1]}&symbols="
    job = Job(
        port=service.port,
        paths=[base + symbol for symbol in symbols],
        headers={"x-api-key": service.key},
        connections=8,
        seconds=1,
    )
    with service.web(), stream(service, seconds + 3):
        ask(service, job)
        job.rate, job.seconds = 100.0, seconds
        result = ask(service, job)
        request = urllib.request.Request(f"http://127.0.0.1:{service.port}{job.paths[0]}", headers=job.headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            tiers = json.loads(answer.read())["tiers"]
    if set(tiers) != {"l1"}:
        sys.exit(f"bench: the answers did not come from memory: {tiers}")
    return result


def wide(service: Service) -> dict[str, Any]:
    """One large answer, read as it comes."""
    symbols = [LONG, *(symbol for symbol in SYMBOLS if symbol != LONG)][:WIDE]
    results = {}
    for form in ("arrow", "csv"):
        query = f"symbols={','.join(symbols)}&period=1d&start={YEAR[0]}&end={YEAR[1]}&format={form}"
        with service.web() as web:
            # A small answer first: what is loaded once is not what the large one takes.
            _read(service, f"symbols={LONG}&period=1d&start={YEAR[0]}&end={YEAR[1]}&format={form}")
            before = memory(web)
            peak = Peak(web)
            began = time.perf_counter()
            size = _read(service, query)
            results[form] = {
                "bytes": size,
                "seconds": time.perf_counter() - began,
                "growth_mib": (peak.stop() - before) / 1024 / 1024,
            }
    return results


def _read(service: Service, query: str) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}/api/v1/market_data/history?{query}", headers={"x-api-key": service.key}
    )
    size = 0
    with urllib.request.urlopen(request, timeout=120) as answer:
        while part := answer.read(64 * 1024):
            size += len(part)
    return size


class Peak:
    """The most memory that a process has while it is looked at, every 5 ms."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self._most = max(self._most, memory(self._process))

    def stop(self) -> int:
        """Bytes."""
        self._over.set()
        self._thread.join()
        return self._most


def report(found: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    ratio, arrow, hot, pattern = found["latest"], found["arrow"], found["hits"], found["pattern"]
    by_tier = ", ".join(f"{name} {tier['hits'] / pattern['requests']:.0%}" for name, tier in pattern["tiers"].items())
    lines = [
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors.",
        "",
        "| what | figure | beside it |",
        "|---|---|---|",
        f"| latest, 10 symbols, against a plain DRF view | **{ratio['times']:.1f} times** "
        f"| {ratio['argus']['per_second']:,.0f} and {ratio['drf']['per_second']:,.0f} requests/s |",
        f"| a symbol-year of 1m bars ({arrow['rows']:,} rows) as Arrow from L3, against pyarrow alone "
        f"| **{arrow['times']:.2f} times** "
        f"| {arrow['argus_ms']:.1f} and {arrow['pyarrow_ms']:.1f} ms |",
        f"| history from L1 at 100 requests/s, {STREAM[0]} x {STREAM[1]} symbols streaming | **p99 {hot['p99_ms']:.1f} ms** "
        f"| p50 {hot['p50_ms']:.1f} ms, {hot['requests']:,} requests |",
    ]
    lines += [
        f"| {WIDE} symbols x {len(DAYS)} daily bars as {form} | **{one['growth_mib']:.0f} MiB** of growth "
        f"| {one['bytes'] / 1e6:.1f} MB in {one['seconds']:.2f} s |"
        for form, one in found["wide"].items()
    ]
    lines.append(
        f"| the access pattern of strategies, {pattern['requests']:,} requests | **{pattern['hit_rate']:.1%} hits** "
        f"| {by_tier}; p50 {pattern['p50_us']:.0f} us |"
    )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.history",
        description=__doc__,
        epilog="examples:\n  python -m bench.history\n  python -m bench.history --seconds 10 --json out.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=5, help="length of each measurement (default 5)")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    options = parser.parse_args()
    raise_descriptor_limit(1000)
    pin(LOAD_CORE)
    with tempfile.TemporaryDirectory(prefix="argus-bench-") as directory:
        service = Service(Path(directory), "uvicorn")
        try:
            say("filling the archive")
            child(service, "bench.bars")
            found: dict[str, Any] = {}
            say("latest quotes against a plain view")
            found["latest"] = latest(service, options.seconds)
            say("a symbol-year from the archive")
            found["arrow"] = child(service, "bench.arrow")
            say("history from memory while the stream runs")
            found["hits"] = hits(service, 2 * options.seconds)
            say("a wide answer")
            found["wide"] = wide(service)
            say("the access pattern of strategies")
            service.env["ARGUS_DATA_DIR"] = str(Path(directory) / "pattern")
            service.env["ARGUS_CACHE_MEMORY"] = "64"
            found["pattern"] = child(service, "bench.pattern")
        finally:
            service.close()
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

"""The benchmark of the terminal pool: ``python -m bench.pool``. What choosing a terminal costs, and what more terminals bring.

* Overhead: a call that does nothing, by itself and through the dispatch over four terminals, with hedging (in a thread beside the
  caller's) and without.
* Throughput: more callers than slots ask 1, 2 and 4 terminals that take a fixed time for each request and stand two at a time; in
  this process, where only the dispatch is between them, and as production has it: through Celery, Redis and a worker each.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.redis_server import find_redis
from bench.service import LOAD_CORE, ROOT, SERVER_CORE, free_port, say, start

ROUNDS = 5
CALLS = 5_000
LATENCY = 0.1
"""Seconds that an emulated terminal takes for a request."""
CONCURRENT = 2
COUNTS = (1, 2, 4)
NAMES = tuple(f"t{number}" for number in range(max(COUNTS)))


def pool(count: int, *, hedge: bool) -> Any:
    """A pool of so many terminals with all the slots that they stand."""
    from marketdata.terminals.roster import PoolSpec, TerminalSpec

    terminals = tuple(TerminalSpec(name, "main", concurrent=CONCURRENT) for name in NAMES[:count])
    return PoolSpec("main", size=CONCURRENT, hedge=hedge, terminals=terminals)


def overhead() -> dict[str, float]:
    """Microseconds per request: the median of some rounds, in turns."""
    from marketdata.sources.base import Capability
    from marketdata.terminals.dispatch import Dispatcher
    from marketdata.terminals.slots import Priority

    def nothing(_name: str, _timeout: float) -> int:
        return 1

    def through(wanted: Any) -> Callable[[], None]:
        dispatcher = Dispatcher(dict)

        def ask() -> None:
            dispatcher.ask(wanted, Capability.BARS, nothing, priority=Priority.LIVE, deadline=time.monotonic() + 10)

        return ask

    kinds: dict[str, Callable[[], None]] = {
        "direct": lambda: nothing("t0", 10.0) and None,
        "dispatch": through(pool(4, hedge=False)),
        "hedging": through(pool(4, hedge=True)),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS + 1):
        for name, ask in kinds.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                ask()
            found[name].append((time.perf_counter() - began) / CALLS * 1e6)
    # The first round makes threads and fills the windows.
    return {name: sorted(times[1:])[ROUNDS // 2] for name, times in found.items()}


def rate(ask: Callable[[int], None], callers: int, seconds: float) -> float:
    """Requests per second that so many callers get answered, each asking again at once."""
    done = [0] * callers
    begin, end = threading.Barrier(callers + 1), threading.Event()

    def call(number: int) -> None:
        ask(number)
        begin.wait()
        while not end.is_set():
            ask(number)
            done[number] += 1

    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(callers)]
    for thread in threads:
        thread.start()
    begin.wait()
    began = time.perf_counter()
    end.wait(seconds)
    total, took = sum(done), time.perf_counter() - began
    end.set()
    for thread in threads:
        thread.join(30)
    return total / took


def in_process(seconds: float) -> dict[int, float]:
    """Terminals that are a lock and a sleep in this process."""
    from marketdata.sources.base import Capability
    from marketdata.terminals.dispatch import Dispatcher
    from marketdata.terminals.slots import Priority

    def take_a_while(_name: str, _timeout: float) -> None:
        time.sleep(LATENCY)

    found = {}
    for count in COUNTS:
        dispatcher, wanted = Dispatcher(dict), pool(count, hedge=False)

        def ask(_: int, dispatcher: Dispatcher = dispatcher, wanted: Any = wanted) -> None:
            dispatcher.ask(wanted, Capability.BARS, take_a_while, priority=Priority.LIVE, deadline=time.monotonic() + 30)

        found[count] = rate(ask, 2 * CONCURRENT * count, seconds)
    return found


def through_celery(seconds: float) -> dict[int, float]:
    """Terminals with a worker each; the fetch of bars is the one that requests make."""
    from datetime import date

    from marketdata.history import fetch
    from marketdata.history.plan import Chunk
    from marketdata.terminals import dispatch, roster
    from marketdata.types import Period

    day = date(2026, 6, 30)
    found = {}
    for count in COUNTS:
        dispatch.forget()
        roster._current = roster.Roster({"main": pool(count, hedge=False)})

        def ask(number: int) -> None:
            chunk = Chunk((f"{600000 + number}.SH",), Period.D1, day, day)
            fetch.bars(chunk, deadline=time.monotonic() + 30)

        found[count] = rate(ask, 2 * CONCURRENT * count, seconds)
    return found


@contextlib.contextmanager
def workers(directory: Path, redis_port: int) -> Iterator[None]:
    """Redis, and a worker for each terminal."""
    env = dict(os.environ)
    server = [find_redis(), "--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""]
    processes = [start(server, env, SERVER_CORE, directory / "redis.log", stdout=subprocess.DEVNULL)]
    try:
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], env=env, cwd=ROOT, check=True)
        for name in NAMES:
            command = [sys.executable, "-m", "bench.terminal", name, str(LATENCY)]
            processes.append(start(command, env, SERVER_CORE, directory / f"{name}.log", stdout=subprocess.DEVNULL))
        yield
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait(10)


def report(found: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    cost = found["overhead"]
    lines = [
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors.",
        "",
        "| a request | us | beside a call alone |",
        "|---|---|---|",
        f"| called directly | {cost['direct']:.2f} | |",
        f"| through the dispatch, 4 terminals | **{cost['dispatch']:.0f}** | {cost['dispatch'] - cost['direct']:.0f} us more |",
        f"| the same, ready to hedge | **{cost['hedging']:.0f}** | {cost['hedging'] - cost['direct']:.0f} us more |",
        "",
        f"| terminals of {LATENCY * 1000:.0f} ms, {CONCURRENT} at a time | possible | in this process | through Celery, Redis |",
        "|---|---|---|---|",
    ]
    for count in COUNTS:
        possible = count * CONCURRENT / LATENCY
        cells = [
            f"{rates[count]:.1f}/s ({rates[count] / rates[1]:.2f} times)" for rates in (found["in_process"], found["celery"])
        ]
        lines.append(f"| {count} | {possible:.0f}/s | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.pool",
        description=__doc__,
        epilog="examples:\n  python -m bench.pool\n  python -m bench.pool --seconds 20 --json out.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=8, help="length of each measurement (default 8)")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    options = parser.parse_args()
    from bench.machine import pin

    pin(LOAD_CORE)
    with tempfile.TemporaryDirectory(prefix="argus-bench-") as name:
        directory, redis_port = Path(name), free_port()
        os.environ |= {
            "ARGUS_DATA_DIR": name,
            "ARGUS_LOG_LEVEL": "WARNING",
            "ARGUS_TERMINALS": ",".join(NAMES),
            "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "DJANGO_SETTINGS_MODULE": "argus.settings",
        }
        import django

        django.setup()
        found: dict[str, Any] = {}
        say("what choosing costs")
        found["overhead"] = overhead()
        say("terminals in this process")
        found["in_process"] = in_process(options.seconds)
        say("terminals behind workers")
        with workers(directory, redis_port):
            found["celery"] = through_celery(options.seconds)
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

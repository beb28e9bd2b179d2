"""The benchmark of the streams: ``python -m bench``. One command, one machine, one run; the figures that count are ratios.

Web process and Redis run on the first processor, the load on the second. Scenarios:

  fan        1,000 connections with 50 symbols each, against the machine's limit in the same run
  whole      100 connections with the whole market, against the limit
  idle       connections that are sent nothing but heartbeats: their memory, and 10,000 of them
  subscribe  5,500 symbols by name: to the answer, and to the end of the snapshot
  processes  two web processes against one, by what a quote costs each
  encodings  JSON, MessagePack, compressed JSON, and what permessage-deflate would cost
  filters    1,000 connections with the whole market through 1, 10 and 1,000 distinct filters
  merge      1,000 connections at one message per second against every change, and whether they come in a burst
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import choices, crowd, fan_out
from bench.machine import pin
from bench.market import SYMBOLS
from bench.service import LOAD_CORE, Service, raise_descriptor_limit, say

EXAMPLES = """examples:
  python -m bench                              everything, some seven minutes
  python -m bench fan whole                    the fan-out alone, a minute and a half
  python -m bench fan --seconds 20 --json out.json
  python -m bench idle --held 2000             where fewer descriptors are allowed
  python -m bench fan --server daphne"""
ONE_SYMBOL = -1
SPARE = 500
"""Descriptors for everything that is not a connection."""

Scenario = Callable[[Service, argparse.Namespace], tuple[Any, list[str]]]


def fan(service: Service, options: argparse.Namespace) -> tuple[Any, list[str]]:
    """See ``fan_out``."""
    name = f"{options.connections:,} x 50 symbols"
    result = fan_out.measure(service, name, options.connections, 50, options.seconds)
    return result, fan_out.report([result])


def whole(service: Service, options: argparse.Namespace) -> tuple[Any, list[str]]:
    """The same with everything for everybody."""
    result = fan_out.measure(service, f"{options.whole:,} x the whole market", options.whole, None, options.seconds)
    return result, fan_out.report([result])


def idle(service: Service, options: argparse.Namespace) -> tuple[Any, list[str]]:
    """See ``crowd``."""
    crowds = [
        (f"{options.connections:,} without a subscription", options.connections, 0, False),
        (f"{options.connections:,} x 50 symbols", options.connections, 50, False),
        (f"{options.held:,} x 1 symbol", options.held, ONE_SYMBOL, True),
    ]
    results = [{"name": name, **crowd.idle(service, count, each, hold=hold)} for name, count, each, hold in crowds]
    return results, crowd.report_idle(results)


def subscribe(service: Service, options: argparse.Namespace) -> tuple[Any, list[str]]:
    """See ``crowd``."""
    say("subscribing by name")
    result = crowd.subscribing(service)
    return result, crowd.report_subscribing(result)


def processes(service: Service, options: argparse.Namespace) -> tuple[Any, list[str]]:
    """See ``choices``."""
    result = choices.processes(service, options.connections, options.seconds)
    return result, choices.report_processes(result)


def encodings(service: Service, options: argparse.Namespace) -> tuple[Any, list[str]]:
    """See ``crowd``."""
    results = []
    for name, (protocol, server) in crowd.ENCODINGS.items():
        say(name)
        results.append({"name": name, **crowd.encoding(service, protocol, server, options.connections, options.seconds / 2)})
    return results, crowd.report_encodings(results)


def filters(service: Service, options: argparse.Namespace) -> tuple[Any, list[str]]:
    """See ``choices``."""
    results = choices.filters(service, options.connections, options.seconds / 2)
    return results, choices.report_filters(results)


def merge(service: Service, options: argparse.Namespace) -> tuple[Any, list[str]]:
    """See ``choices``."""
    results = choices.frequencies(service, options.connections, options.seconds)
    return results, choices.report_frequencies(results)


SCENARIOS: dict[str, Scenario] = {
    one.__name__: one for one in (fan, whole, idle, subscribe, processes, encodings, filters, merge)
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)}; without any, all of them")
    parser.add_argument("--seconds", type=float, default=8, help="length of each measurement (default 8)")
    parser.add_argument("--connections", type=int, default=1000, help="connections with 50 symbols each (default 1000)")
    parser.add_argument("--whole", type=int, default=100, help="connections with the whole market (default 100)")
    parser.add_argument("--held", type=int, default=10_000, help="connections to hold in the scenario idle (default 10000)")
    parser.add_argument("--server", choices=["uvicorn", "daphne"], default="uvicorn", help="the ASGI server (default uvicorn)")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    options = parser.parse_args()
    if unknown := [name for name in options.scenarios if name not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    chosen = [name for name in SCENARIOS if name in options.scenarios or not options.scenarios]
    held = options.held if "idle" in chosen else 0
    raise_descriptor_limit(max(held, 2 * (options.connections + options.whole)) + SPARE)
    pin(LOAD_CORE)
    print(
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors, "
        f"{options.server}; {len(SYMBOLS):,} quotes a sweep, through Redis and the channel layer.",
        flush=True,
    )
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="argus-bench-") as directory:
        service = Service(Path(directory), options.server)
        try:
            for name in chosen:
                figures[name], lines = SCENARIOS[name](service, options)
                print("", *lines, sep="\n", flush=True)
        finally:
            service.close()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

"""The benchmark of the live feed's failover: ``python -m bench.failover``. How long a client is without the feed.

Redis, a web process, beat, and a worker for each of three emulated terminals that show one session. The active one is killed,
and apart from it its worker, so many times each, whenever all three are in step again.

* Detected: from the kill until the feed's lease is no longer the victim's.
* Over: from the kill until a client of everything has the first quotes of the next term.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from bench.machine import pin
from bench.service import LOAD_CORE, SERVER_CORE, Service, raise_descriptor_limit, say, start
from tests.emulator import EmulatedTerminal, child_environment

BEHIND = {"t0": 0.0, "t1": 0.1, "t2": 0.2}
"""Terminal -> the seconds by which it shows everything later than the first."""
CODES = 30
SNAPSHOTS = 1800
"""Of each code, one every three seconds: ninety minutes."""
SPEED = 3.0
"""Times as fast as a market: each code changes every second."""
LEASE = "argus:feed:main:lease"
PATIENCE = 60.0


def record(path: Path) -> None:
    """A session as a vendor of recordings has it: every code at its own moment within the three seconds."""
    levels = range(5)
    sides = [f"{side}{what}{level}" for side in ("Bid", "Offer") for what in ("Price", "OrderQty") for level in levels]
    prices = ["PreClosePx", "OpenPx", "HighPx", "LowPx", "LastPx"]
    totals = ["TotalVolumeTrade", "TotalValueTrade", "NumTrades"]
    rows = [",".join(["SecurityID", "DateTime", "InstrumentStatus", *prices, *totals, *sides])]
    for number in range(SNAPSHOTS):
        for code in range(CODES):
            seconds, milliseconds = divmod(number * 3000 + code * 100, 1000)
            clock = f"{9 + (1800 + seconds) // 3600:02}:{(1800 + seconds) // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"
            price = 10 + (number + code) % 100 / 100
            head = [600000 + code, f"2021.12.01T{clock}", "TRADE", 10, 10, 11, 10, price]
            book = [[f"{price + sign * 0.01 * (level + 1):.2f}" for level in levels] + [1000] * 5 for sign in (-1, 1)]
            rows.append(",".join(map(str, [*head, (number + 1) * 100, number * 1000, number, *book[0], *book[1]])))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("session.csv", "\n".join(rows))


class Client:
    """Reads all that comes on a thread: when quotes of an epoch first came, and what is told of it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.first: dict[int, float] = {}
        self.told: dict[int, bool] = {}
        self._connection = connection
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for text in self._connection:
                message = json.loads(text)
                if message["type"] == "data":
                    self.first.setdefault(message["epoch"], time.monotonic())
                elif message["type"] == "epoch":
                    self.told[message["epoch"]] = message["recovered"]


def wait_until(condition: Any, what: str, pause: float = 0.05) -> Any:
    """The condition's first true value; the benchmark ends where it does not come."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(pause)
    return sys.exit(f"bench: waited {PATIENCE:g} s in vain for {what}")


@contextlib.contextmanager
def watching(service: Service) -> Iterator[Client]:
    """A client of everything."""
    url = f"ws://127.0.0.1:{service.port}/ws/market_data"
    with connect(url, additional_headers={"X-API-Key": service.key}, max_size=None) as connection:
        connection.send(json.dumps({"action": "subscribe", "symbols": ["*"]}))
        client = Client(connection)
        wait_until(lambda: client.first, "the first quotes")
        yield client


class Pool:
    """Three terminals and their workers beside the service."""

    def __init__(self, service: Service, session: Path) -> None:
        self.service = service
        anchor = time.time() + 5
        replay = [f"--replay={session}", "--from=09:30:00", f"--speed={SPEED}"]
        self.terminals = {
            name: EmulatedTerminal(name=name, replay=[*replay, f"--anchor={anchor + behind!r}"])
            for name, behind in BEHIND.items()
        }
        self._workers: dict[str, subprocess.Popen[str]] = {}
        self._others: list[subprocess.Popen[str]] = []
        self._lease = redis.Redis.from_url(service.env["REDIS_URL"], protocol=2)
        self._doubtful: dict[str, float] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Terminals first; the service, with a key for all that there is; then the workers."""
        service = self.service
        try:
            for terminal in self.terminals.values():
                terminal.start()
            del service.env["ARGUS_STALE_AFTER"]
            service.env |= child_environment() | {
                "ARGUS_SOURCE": "qmt",
                "ARGUS_TERMINALS": ",".join(f"{name}={terminal.address}" for name, terminal in self.terminals.items()),
            }
            service.key = service.manage("create_key", "failover", "--plan", "unlimited", "--scopes", "read", "operate").strip()
            with service.web():
                self._others.append(self._start("beat", "-m", "celery", "-A", "argus", "beat"))
                for name in self.terminals:
                    self._start_worker(name)
                yield
        finally:
            for process in [*self._workers.values(), *self._others]:
                process.kill()
                process.wait(10)
            for terminal in self.terminals.values():
                terminal.kill()

    def _start(self, name: str, *command: str) -> subprocess.Popen[str]:
        log = self.service.directory / f"{name}.log"
        return start([sys.executable, *command], self.service.env, SERVER_CORE, log, stdout=subprocess.DEVNULL)

    def _start_worker(self, name: str) -> None:
        self._workers[name] = self._start(name, "manage.py", "terminal_worker", name, "--force")

    def active(self) -> str:
        """Whose lease the feed is; empty where it is nobody's."""
        owner = self._lease.get(LEASE)
        return owner.decode().partition("@")[0] if isinstance(owner, bytes) else ""

    def in_step(self) -> bool:
        """Whether every terminal could take over without a loss, by the service's own word since its last start."""
        url = f"http://127.0.0.1:{self.service.port}/api/v1/connection_pool/pools/main/health_check"
        request = urllib.request.Request(url, headers={"X-API-Key": self.service.key})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                (pool,) = json.loads(answer.read())["pools"]
        except OSError:
            return False
        return all(
            one["in_step"] and one["last_seen"] > self._doubtful.get(one["name"], 0) and not one["reasons"]
            for one in pool["terminals"]
        )

    def fail_over(self, kind: str, client: Client) -> dict[str, Any]:
        """Kill what is active at a random moment, see what comes of it, and start it again."""
        wait_until(self.in_step, "every terminal to be in step", 0.3)
        time.sleep(random.uniform(0.0, 1.0))
        victim, before = self.active(), max(client.first)
        killed = time.monotonic()
        if kind == "terminal":
            self.terminals[victim].kill()
        else:
            self._workers[victim].kill()
        wait_until(lambda: self.active() != victim, "the lease to be free", 0.002)
        detected = time.monotonic() - killed
        epoch = wait_until(lambda: next((epoch for epoch in list(client.first) if epoch > before), 0), "the next term", 0.01)
        wait_until(lambda: epoch in client.told, "what is told of it")
        self._doubtful[victim] = time.time() * 1000
        if kind == "terminal":
            self.terminals[victim].start()
        else:
            self._workers[victim].wait(10)
            self._start_worker(victim)
        return {"kind": kind, "detected": detected, "over": client.first[epoch] - killed, "recovered": client.told[epoch]}


def report(takeovers: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors.",
        "",
        "| killed | detected, median / worst | over, median / worst | recovered |",
        "|---|---|---|---|",
    ]
    for kind in ("terminal", "worker"):
        mine = [one for one in takeovers if one["kind"] == kind]
        detected, over = ([one[name] for one in mine] for name in ("detected", "over"))
        lines.append(
            f"| the active {kind}, {len(mine)} times | {median(detected):.2f} / {max(detected):.2f} s "
            f"| **{median(over):.2f}** / {max(over):.2f} s | {sum(one['recovered'] for one in mine)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.failover",
        description=__doc__,
        epilog="examples:\n  python -m bench.failover\n  python -m bench.failover --times 50 --json out.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=10, help="how often each is killed (default 10)")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    options = parser.parse_args()
    raise_descriptor_limit(1000)
    pin(LOAD_CORE)
    with tempfile.TemporaryDirectory(prefix="argus-bench-") as directory:
        session = Path(directory) / "session.zip"
        record(session)
        service = Service(Path(directory), "uvicorn")
        pool = Pool(service, session)
        takeovers = []
        try:
            say("starting three terminals and their workers")
            with pool.running():
                wait_until(pool.in_step, "every terminal to be in step", 0.3)
                with watching(service) as client:
                    for number in range(options.times):
                        say(f"kill {2 * number + 1} and {2 * number + 2} of {2 * options.times}")
                        takeovers += [pool.fail_over("terminal", client), pool.fail_over("worker", client)]
        finally:
            service.close()
    print(report(takeovers))
    if options.json:
        options.json.write_text(json.dumps(takeovers, indent=2))


if __name__ == "__main__":
    main()

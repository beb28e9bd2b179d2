"""What an operator changes of pools and terminals acts while the service runs, in one process or many: nothing is restarted."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.sync.client import ClientConnection

from tests.e2e.embedded import embedded
from tests.e2e.service import ROOT, Service, call, get, over_terminal, receive, stream, wait_for
from tests.emulator import EmulatedTerminal, child_environment

pytestmark = [pytest.mark.timeout(240)]

POOLS = "/api/v1/connection_pool/pools"
MAIN = f"{POOLS}/main"
SECOND = f"{MAIN}/terminals/second"
WORKERS = {"main": ("manage.py", "terminal_worker", "main"), "second": ("manage.py", "terminal_worker", "second")}
SETTINGS = {"ARGUS_STALE_AFTER": "20", "ARGUS_SOURCE_TIMEOUT": "5", "ARGUS_HEARTBEAT_INTERVAL": "1"}

Terminals = dict[str, EmulatedTerminal]


class Operator:
    """Somebody who changes things over REST, and looks."""

    def __init__(self, service: Any, scaled: bool) -> None:
        self.service = service
        self.scaled = scaled

    def ask(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        headers = {"X-API-Key": self.service.key, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.service.port}{path}"
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == expect
            return json.loads(answer.read() or b"null")

    def figures(self, pool: str = "main") -> dict[str, Any]:
        found = self.ask("GET", f"{POOLS}/{pool}/metrics")
        return {terminal["name"]: terminal for terminal in found["terminals"]}

    def publisher(self, pool: str = "main") -> str:
        found = self.ask("GET", f"{POOLS}/{pool}/metrics")
        return found["publishing"] or ""

    def metrics(self) -> str:
        return str(get(self.service.port, "/metrics", self.service.key)[1])

    def poll(self, terminal: str) -> str:
        status, body, _ = call("POST", self.service.port, f"/api/v1/terminals/{terminal}/poll", self.service.key)
        return str(body["outcome"] if status == 200 else body["name"])

    def bars(self, symbol: str, day: int) -> tuple[int, Any]:
        """Days that nobody has asked for: a terminal must be asked."""
        path = f"/api/v1/market_data/history?symbols={symbol}&period=1m&start=2025-07-{day:02}&end=2025-07-{day:02}"
        return get(self.service.port, path, self.service.key)[:2]

    def children(self) -> int:
        """Processes that the service's own have started: one for each QMT terminal."""
        return sum(len(psutil.Process(process.pid).children()) for process in self.service.processes.values())

    def add_second(self, address: str, pool: str = "main", **fields: Any) -> None:
        self.ask("PUT", f"{POOLS}/{pool}/terminals/second", {"address": address, **fields}, expect=201)
        self.start_worker()

    def start_worker(self) -> None:
        if self.scaled:
            self.service.start("second", *WORKERS["second"])

    def forget_second(self) -> None:
        """Back to the pool ``main`` with its terminal ``main``."""
        pools = {pool["name"]: [t["name"] for t in pool["terminals"]] for pool in self.ask("GET", POOLS)["pools"]}
        for pool, names in pools.items():
            if pool != "main":
                self.ask("DELETE", f"{POOLS}/{pool}", expect=204)
            elif "second" in names:
                self.ask("DELETE", SECOND, expect=204)
        if "second" in self.service.processes:
            self.service.stop("second")
        self.ask("PATCH", f"{MAIN}/terminals/main", {"drained": False})
        wait_for(lambda: self.publisher() == "main", "main to publish again")


@pytest.fixture(scope="module")
def terminals() -> Iterator[Terminals]:
    with contextlib.ExitStack() as undo:
        yield {name: undo.enter_context(EmulatedTerminal(interval=0.5, name=name)) for name in ("first", "second", "third")}


@pytest.fixture(scope="module", params=[False, True], ids=["embedded", "scaled"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, terminals: Terminals) -> Iterator[Operator]:
    directory = tmp_path_factory.mktemp("pools")
    settings = SETTINGS | child_environment()
    with over_terminal(
        directory, terminals["first"].address, scaled=request.param, worker=WORKERS["main"], **settings
    ) as service:
        yield Operator(service, request.param)


@pytest.fixture
def operator(running: Operator) -> Iterator[Operator]:
    """With the pool ``main`` and its terminal ``main``, over the first one that is emulated."""
    wait_for(lambda: running.publisher() == "main", "main to publish")
    yield running
    running.forget_second()


def connected(terminal: EmulatedTerminal) -> bool:
    return bool(terminal.clients()["connections"])


def next_of(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of a kind; until then nothing says that the stream is stale."""
    while True:
        message = receive(client, 30)
        assert not message.get("stale")
        if message["type"] == kind:
            return message


def ready_to_take_over(operator: Operator, name: str) -> bool:
    figures = operator.figures()[name]
    return figures["state"] == "up" and figures["in_step"]


def test_a_terminal_that_is_added_works_moves_takes_over_and_leaves(operator: Operator, terminals: Terminals) -> None:
    children = operator.children()
    with stream(operator.service.port, operator.service.key, symbols=["*"]) as client:
        operator.add_second(terminals["second"].address)
        wait_for(lambda: ready_to_take_over(operator, "second"), "the new terminal to be up and in step")
        assert connected(terminals["second"])
        wait_for(lambda: operator.poll("second") == "ok", "a poll of it")
        assert json.loads(operator.service.manage("terminals", "probe", "second", "--json"))["second"]["ok"]

        operator.ask("PATCH", SECOND, {"address": terminals["third"].address})
        wait_for(lambda: connected(terminals["third"]) and not connected(terminals["second"]), "it to go to its new address")
        wait_for(lambda: ready_to_take_over(operator, "second"), "it to be in step again")
        assert get(operator.service.port, "/health")[1]["terminals"]["second"]["level"] == "up"
        assert operator.publisher() == "main"

        operator.ask("PATCH", f"{MAIN}/terminals/main", {"drained": True})
        told = next_of(client, "epoch")
        assert (told["feed"], told["recovered"]) == ("main", True), told
        assert next_of(client, "data")["epoch"] == told["epoch"]
        wait_for(lambda: operator.publisher() == "second", "the other terminal to publish")
        assert get(operator.service.port, "/health")[1]["terminals"]["main"]["level"] == "drained"

        operator.ask("PATCH", f"{MAIN}/terminals/main", {"drained": False})
        wait_for(lambda: ready_to_take_over(operator, "main"), "main to be in step")
        operator.ask("PATCH", SECOND, {"enabled": False})
        assert next_of(client, "epoch")["recovered"] is True
        wait_for(lambda: operator.publisher() == "main", "main to publish again")
        wait_for(lambda: not connected(terminals["third"]), "what is disabled to be left alone")
        wait_for(lambda: operator.children() == children, "its child process to be gone")

        operator.ask("PATCH", SECOND, {"enabled": True})
        wait_for(lambda: connected(terminals["third"]), "it to be back")
        operator.ask("DELETE", SECOND, expect=204)
        wait_for(lambda: not connected(terminals["third"]), "what is deleted to be left alone")
        wait_for(lambda: operator.children() == children, "its child process to be gone")
        wait_for(lambda: 'terminal="second"' not in operator.metrics(), "its figures to be gone")
        assert operator.poll("second") == "not_found"
        wait_for(lambda: "second" not in get(operator.service.port, "/health")[1]["terminals"], "nobody to speak of it any more")
        assert next_of(client, "data")["feed"] == "main"


def test_a_pool_with_markets_publishes_them_answers_for_them_and_gives_them_back(
    operator: Operator, terminals: Terminals
) -> None:
    port, key = operator.service.port, operator.service.key

    def feeds_of(client: ClientConnection) -> dict[str, set[str]]:
        """Market -> the feeds that have brought it, over a round of both."""
        found: dict[str, set[str]] = {}
        while {"SH", "SZ"} - found.keys():
            message = next_of(client, "data")
            for quote in message["data"]:
                found.setdefault(quote["symbol"].rpartition(".")[2], set()).add(message["feed"])
        return found

    def asked(terminal: str) -> bool:
        return f'argus_fetch_total{{outcome="ok",terminal="{terminal}"}}' in operator.metrics()

    with stream(port, key, symbols=["*"]) as client:
        before = feeds_of(client)
        assert (before["SH"], before["SZ"]) == ({"main"}, {"main"})
        pool = {"name": "shenzhen", "markets": "SZ", "terminals": [{"name": "second", "address": terminals["second"].address}]}
        operator.ask("POST", POOLS, pool, expect=201)
        operator.start_worker()
        wait_for(lambda: operator.publisher("shenzhen") == "second", "the new pool to publish")
        wait_for(lambda: feeds_of(client)["SZ"] == {"shenzhen"}, "its feed to bring its market")
        assert feeds_of(client)["SH"] == {"main"}
        streams = get(port, "/health")[1]["streams"]
        assert streams.keys() == {"main", "shenzhen"}
        full = get(port, "/api/v1/market_data/full", key)[1]
        assert {quote["symbol"].rpartition(".")[2] for quote in full["data"]} >= {"SH", "SZ"}
        assert not full["stale"]

        assert not asked("second")
        assert operator.bars("000001.SZ", 21)[0] == 200
        assert asked("second")

        operator.ask("DELETE", f"{POOLS}/shenzhen", expect=204)
        wait_for(lambda: feeds_of(client)["SZ"] == {"main"}, "the other pool to bring the market again")
        wait_for(lambda: get(port, "/health")[1]["streams"].keys() == {"main"}, "the feed to be gone")
        wait_for(lambda: not connected(terminals["second"]), "its terminal to be left alone")
        assert operator.bars("000001.SZ", 22)[0] == 200
        assert get(port, "/health/ready")[0] == 200
        wait_for(lambda: "shenzhen" not in operator.metrics(), "its figures to be gone")


def test_strategy_and_slots_change_under_requests_that_run(operator: Operator, terminals: Terminals) -> None:
    operator.add_second(terminals["second"].address)
    wait_for(lambda: ready_to_take_over(operator, "second"), "the new terminal to be up")
    symbols = [quote["symbol"] for quote in operator.ask("GET", "/api/v1/market_data/full")["data"]][:8]
    failed: list[Any] = []
    days = iter([(symbol, day) for day in (14, 15, 16, 17, 18, 23, 24, 25, 28) for symbol in symbols])
    taking, changed = threading.Lock(), threading.Event()

    def ask() -> None:
        while not changed.is_set():
            with taking:
                wanted = next(days, None)
            if wanted is None:
                return
            status, body = operator.bars(*wanted)
            if status != 200 or body["missing"]:
                failed.append((wanted, status, body["missing"] if status == 200 else body))

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    try:
        for strategy, size in (("round_robin", 3), ("weighted_round_robin", 2), ("random", 4), ("least_connections", None)):
            operator.ask("PATCH", MAIN, {"strategy": strategy, "hedge": strategy != "random"})
            operator.ask("POST", f"{MAIN}/scale", {"size": size})
            before = answered(operator)
            wait_for(lambda before=before: answered(operator) > before or next_is_over(asking), "requests under it")
    finally:
        changed.set()
        for thread in asking:
            thread.join(60)
    assert failed == []
    assert operator.ask("GET", MAIN)["strategy"] == "least_connections"
    # What processes report is up to a second old.
    wait_for(lambda: all(terminal["answered"] for terminal in operator.figures().values()), "both to have been asked", 30)


def answered(operator: Operator) -> int:
    return sum(terminal["answered"] for terminal in operator.figures().values())


def next_is_over(asking: list[threading.Thread]) -> bool:
    return not any(thread.is_alive() for thread in asking)


FILE = """
[[pools]]
name = "main"
[[pools.terminals]]
name = "{main}"

[[pools]]
name = "shenzhen"
markets = ["SZ"]
[[pools.terminals]]
name = "deep"
"""


def test_pools_of_a_file_run_and_another_file_is_applied_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "pools.toml"
    path.write_text(FILE.format(main="wide"), encoding="utf-8")
    with embedded(tmp_path, ARGUS_POOLS=str(path)) as found:
        service, port = found.service, found.port

        def there() -> dict[str, str]:
            return {
                name: one["pool"] for name, one in (get(port, "/health")[1]["terminals"] or {}).items() if one["level"] == "up"
            }

        wait_for(lambda: there() == {"wide": "main", "deep": "shenzhen"}, "both pools")
        assert get(port, "/health")[1]["streams"].keys() == {"main", "shenzhen"}
        path.write_text(FILE.format(main="new"), encoding="utf-8")
        assert service.stop("up") == 0
        service.start("up", "manage.py", "up", "--port", str(port))
        service.ready(port, "up")
        wait_for(lambda: there() == {"new": "main", "deep": "shenzhen"}, "the terminals of the new file")


@pytest.mark.parametrize(
    "command",
    [
        ("manage.py", "up", "--port", "0"),
        ("manage.py", "serve", "--port", "0"),
        ("-m", "celery", "-A", "argus", "worker", "-Q", "terminal.main"),
        ("-m", "celery", "-A", "argus", "beat"),
        ("manage.py", "terminal_worker", "main"),
    ],
    ids=["up", "serve", "worker", "beat", "terminal_worker"],
)
def test_a_broken_declaration_stops_every_process_with_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "pools.toml"
    path.write_text('[[pools]]\nname = "main"\nstrateggy = "random"', encoding="utf-8")
    service = Service(tmp_path, ARGUS_POOLS=str(path), ARGUS_LOG_LEVEL="WARNING", REDIS_URL="redis://127.0.0.1:1")
    if command[1] in ("up", "beat"):
        # They say first that there is no Redis.
        del service.env["REDIS_URL"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=service.env, capture_output=True, text=True, timeout=60)
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "strateggy is not known" in line]
    assert len(lines) == 1, done.stdout + done.stderr
    assert str(path) in lines[0]

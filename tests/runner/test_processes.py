"""Several web processes on one port: kept running, replaced without a gap, and ended together."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from argus import cli
from tests.conftest import RedisServer
from tests.e2e.service import Service, free_port, get, stream, wait_for
from tests.runner.test_refusals import assert_one_line
from tests.runner.test_up import goodbye_of
from tests.runner.trees import ROOT, environment

LINUX = sys.platform == "linux"
pytestmark = pytest.mark.timeout(180)


class Several(Service):
    """Two processes on ``port``, and each on one of ``own``."""

    port: int
    own: tuple[int, int]
    key: str

    def begin(self, *options: str) -> psutil.Process:
        """Start the supervisor and wait until both serve; it."""
        command = ("manage.py", "serve", "--port", str(self.port), "--processes", "2", "--own-port", str(self.own[0]), *options)
        process = self.start("web", *command)
        try:
            wait_for(lambda: process.poll() is not None or all(map(self.lives, self.own)), "both to serve")
        except pytest.fail.Exception as error:
            pytest.fail(f"{error}; its log ends:\n{self.log('web')[-3000:]}")
        assert process.poll() is None, self.log("web")
        return psutil.Process(process.pid)

    @staticmethod
    def lives(port: int) -> bool:
        return get(port, "/health/live")[0] == 200


def connections(port: int, key: str) -> int:
    """How many clients the process at a port has."""
    text = str(get(port, "/metrics", key)[1])
    return int(float(re.findall(r"^argus_stream_connections (\S+)$", text, re.MULTILINE)[0]))


def two_free_ports() -> tuple[int, int]:
    """Two in a row, where no connection of anybody's begins."""
    for first in random.sample(range(10_000, 30_000), 100):
        with contextlib.suppress(cli.Refused):
            for port in (first, first + 1):
                for bound in cli.bind("127.0.0.1", port):
                    bound.close()
            return first, first + 1
    return pytest.fail("there are no two free ports in a row")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    directory = tmp_path_factory.mktemp("several")
    redis_server = RedisServer(directory)
    redis_server.start()
    service = Several(directory, REDIS_URL=redis_server.url, ARGUS_POOLS=str(directory / "pools.toml"))
    declare(service)
    service.key = service.install_with_key()
    yield service
    redis_server.stop()


def declare(service: Several, text: str = '[[pools]]\nname = "main"\n[[pools.terminals]]\nname = "main"\n') -> None:
    """Write the declaration that every process applies at its start."""
    (service.directory / "pools.toml").write_text(text)


@pytest.fixture
def several(deployment: Several) -> Iterator[Several]:
    """No process yet."""
    declare(deployment)
    (deployment.directory / "web.log").unlink(missing_ok=True)
    deployment.port, deployment.own = free_port(), two_free_ports()
    yield deployment
    children = [
        child for one in deployment.processes.values() if one.poll() is None for child in psutil.Process(one.pid).children()
    ]
    deployment.kill()
    deployment.processes.clear()
    for child in children:
        child.kill()


@pytest.mark.skipif(not LINUX, reason="only Linux divides a port's connections among processes")
def test_they_share_a_port_are_kept_running_and_end_together(several: Several) -> None:
    supervisor = several.begin()
    first, second = supervisor.children()
    with contextlib.ExitStack() as clients:
        # The kernel divides them by chance: that all thirty come to one process happens once in half a billion times.
        for _ in range(30):
            clients.enter_context(stream(several.port, several.key))
        counts = [connections(port, several.key) for port in several.own]
        assert sum(counts) == 30 and 0 not in counts
    first.kill()
    wait_for(lambda: len(supervisor.children()) == 2 and first not in supervisor.children(), "another in its place")
    wait_for(lambda: all(map(several.lives, several.own)), "it to serve")
    assert second in supervisor.children()
    children = supervisor.children()
    with stream(several.port, several.key) as client:
        assert several.stop("web") == 0, several.log("web")
        assert goodbye_of(client)[1] == 1012
    assert not any(child.is_running() for child in children)
    assert "Traceback" not in several.log("web")


@pytest.mark.skipif(not LINUX, reason="only Linux divides a port's connections among processes")
def test_they_are_replaced_one_after_the_other_and_somebody_always_answers(several: Several) -> None:
    supervisor = several.begin()
    before = supervisor.children()
    supervisor.send_signal(signal.SIGHUP)
    answers = []
    while any(child.is_running() for child in before):
        answers.append(several.lives(several.port))
        assert len(supervisor.children()) >= 2 or not all(child.is_running() for child in before)
        time.sleep(0.01)
    # A connection that waits in the queue of the one that ends is reset; whoever comes again finds another.
    assert not any(not one and not other for one, other in pairwise(answers))
    assert sum(answers) > len(answers) - 3
    wait_for(lambda: "all web processes have been replaced" in several.log("web"), "the end of it")
    assert len(supervisor.children()) == 2 and not set(supervisor.children()) & set(before)
    assert several.stop("web") == 0


@pytest.mark.skipif(not LINUX, reason="only Linux divides a port's connections among processes")
def test_those_that_serve_stay_where_their_successors_do_not_come_to_serve(several: Several) -> None:
    supervisor = several.begin()
    before = supervisor.children()
    declare(several, "no pools")
    supervisor.send_signal(signal.SIGHUP)
    wait_for(lambda: "those that there are stay" in several.log("web"), "it to be given up")
    assert supervisor.children() == before
    assert all(map(several.lives, several.own))
    assert several.stop("web") == 0


@pytest.mark.skipif(not LINUX, reason="only Linux divides a port's connections among processes")
def test_no_process_outlives_its_supervisor(several: Several) -> None:
    supervisor = several.begin()
    children = supervisor.children()
    several.stop("web", signal.SIGKILL)
    wait_for(lambda: not any(child.is_running() for child in children), "all of them to end", 20)


@pytest.mark.skipif(not LINUX, reason="only Linux divides a port's connections among processes")
def test_what_stands_against_the_first_start_ends_all_with_one_line(several: Several) -> None:
    declare(several, "no pools")
    process = several.start("web", "manage.py", "serve", "--port", str(several.port), "--processes", "2")
    assert process.wait(60) == 1
    assert several.log("web").count("argus: ") == 1
    assert "the pools cannot be declared" in several.log("web")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--processes", "0"], ["'0' is not a number of processes"]),
        (["--processes", "2", "--share-port"], ["--share-port", "--processes"]),
        pytest.param(
            ["--processes", "2", "--server", "daphne"],
            ["daphne cannot share its port", "--server uvicorn", "behind a proxy"],
            marks=pytest.mark.skipif(not LINUX, reason="the system itself is refused first"),
        ),
        (["--port", "9000", "--own-port", "9000"], ["--own-port 9000"]),
        pytest.param(
            ["--port", "9000", "--processes", "3", "--own-port", "8998"],
            ["--own-port 8998"],
            marks=pytest.mark.skipif(not LINUX, reason="the system itself is refused first"),
        ),
    ],
)
def test_a_wrong_command_line_is_refused(options: list[str], words: list[str], tmp_path: Path) -> None:
    env = environment(ARGUS_DATA_DIR=str(tmp_path))
    command = [sys.executable, "manage.py", "serve", *options]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert_one_line(done, *words)
    assert done.returncode == 2


@pytest.mark.skipif(not LINUX, reason="only Linux divides a port's connections among processes")
def test_several_processes_without_redis_are_refused(tmp_path: Path) -> None:
    env = environment(ARGUS_DATA_DIR=str(tmp_path))
    command = [sys.executable, "manage.py", "serve", "--port", str(free_port()), "--processes", "2"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert_one_line(done, "REDIS_URL")


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_a_system_that_does_not_divide_connections_is_refused_with_what_to_do(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    options = Namespace(port=8001, own_port=None, processes=2, share_port=False, server="uvicorn", line=None)
    with pytest.raises(cli.Refused, match="behind a proxy"):
        cli.ports_of_serve(options)


@pytest.mark.skipif(not LINUX, reason="only Linux divides a port's connections among processes")
def test_a_port_that_is_not_shared_is_taken() -> None:
    (alone,) = cli.bind("127.0.0.1", 0)
    with alone:
        alone.listen()
        with pytest.raises(cli.Refused, match="is taken"):
            cli.bind("127.0.0.1", alone.getsockname()[1], share=True)
    (one,) = cli.bind("127.0.0.1", 0, share=True)
    with one:
        one.listen()
        (other,) = cli.bind("127.0.0.1", one.getsockname()[1], share=True)
        other.close()
        with pytest.raises(cli.Refused, match="is taken"):
            cli.bind("127.0.0.1", one.getsockname()[1])


def test_the_help_shows_how_to_run_several() -> None:
    command = [sys.executable, "manage.py", "serve", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "serve --processes 4 --own-port 9001" in done.stdout and "kill -HUP" in done.stdout

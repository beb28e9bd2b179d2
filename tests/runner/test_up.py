"""The whole service in one process, from ``run.py up`` to its end: what it shows, what it serves, how it stops."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.e2e.service import free_port, get, receive, receive_data, stream, wait_for
from tests.runner.trees import RUN, environment, whole_tree

pytestmark = pytest.mark.timeout(240)

KEY = re.compile(r"argus_\w{8}_[\w-]{43}")
STOP_WITHIN = 3.0
"""Seconds: the promise that is made to whoever ends the service."""


class Up:
    """One ``run.py up``."""

    def __init__(self, tree: Path, data: Path, *options: str) -> None:
        self.port = free_port()
        self.output = data.parent / f"up-{self.port}.txt"
        command = [*RUN, "up", "--port", str(self.port), "--symbols", "60", *options]
        with self.output.open("w") as output:
            env = environment(ARGUS_DATA_DIR=str(data))
            self.process = subprocess.Popen(command, cwd=tree, env=env, stdout=output, stderr=subprocess.STDOUT)

    def said(self) -> str:
        return self.output.read_text()

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.said()
            return "ready in" in self.said()

        wait_for(ready, "the line that says ready")

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send the signal and wait for the end; the seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(30) == 0, self.said()
        return time.monotonic() - started


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_tree(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up") / "data"


@pytest.fixture(scope="module")
def first(tree: Path, data: Path) -> Iterator[Up]:
    """The very first start."""
    up = Up(tree, data)
    try:
        up.wait_ready()
        yield up
    finally:
        up.process.kill()
        up.process.wait()


@pytest.fixture(scope="module")
def key(first: Up) -> str:
    found = KEY.search(first.said())
    assert found
    return found[0]


def goodbye_of(client: ClientConnection) -> tuple[dict[str, object], int | None]:
    """The last message that a client gets, and the code of the close."""
    last: dict[str, object] = {}
    try:
        while True:
            last = receive(client)
    except ConnectionClosed as closed:
        return last, closed.rcvd.code if closed.rcvd else None


def test_the_first_start_shows_administrator_and_key_once_in_both_languages(first: Up, key: str) -> None:
    said = first.said()
    assert said.count("密码") == said.count("password:") == 1
    assert "shown only this once" in said and "只显示这一次" in said
    assert f"http://127.0.0.1:{first.port}/admin/" in said
    assert f'curl -H "X-API-Key: {key}" "http://127.0.0.1:{first.port}/api/v1/market_data/latest?symbols=000001.SZ"' in said
    assert "set up in" not in said and "installing" not in said, "nothing was missing"


def test_it_serves_quotes_over_rest_and_stream_and_says_that_it_is_ready(first: Up, key: str) -> None:
    status, health, _ = get(first.port, "/health")
    assert status == 200 and health["live"] is True
    wait_for(lambda: get(first.port, "/health/ready")[0] == 200, "the service to be ready")
    status, body, _ = get(first.port, "/api/v1/market_data/latest?symbols=000001.SZ", key)
    assert status == 200 and body["data"][0]["symbol"] == "000001.SZ"
    with stream(first.port, key, symbols=["000001.SZ"], data_types=["quote"]) as client:
        assert receive_data(client)["data"][0]["source"] == "simulated"


def test_the_example_for_the_stream_works_as_it_is_printed(first: Up, key: str, tree: Path) -> None:
    printed = re.search(r'\.venv/bin/python -c "\n(.*?)\n    "', first.said(), re.DOTALL)
    assert printed
    program = printed[1].replace("    ", "", 1).replace("\n    ", "\n").replace("while True:", "for _ in range(3):")
    done = subprocess.run([tree / ".venv/bin/python", "-c", program], capture_output=True, text=True, timeout=60, cwd=tree)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()][:2] == ["connected", "subscribed"]


def test_the_administrator_can_log_in(first: Up) -> None:
    import httpx

    password = re.search(r"password: (\S+)", first.said())
    assert password
    with httpx.Client(base_url=f"http://127.0.0.1:{first.port}", follow_redirects=True) as client:
        client.get("/admin/login/")
        form = {"username": "admin", "password": password[1], "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        answer = client.post("/admin/login/?next=/admin/", data=form)
        assert answer.status_code == 200 and "sessionid" in client.cookies


def test_a_request_s_id_is_in_its_answer_and_in_its_log_line(first: Up, key: str, data: Path) -> None:
    _, _, headers = get(first.port, "/admin/login/", **{"X-Request-ID": "trace-4711"})
    assert headers["x-request-id"] == "trace-4711"
    lines = [json.loads(line) for line in (data / "logs" / "up.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines if line.get("request_id") == "trace-4711"] == ["request_finished"]


def test_sigterm_ends_it_in_time_with_a_goodbye_to_every_client(first: Up, key: str, data: Path) -> None:
    with stream(first.port, key, symbols=["*"], data_types=["quote"]) as one, stream(first.port, key) as other:
        receive_data(one)
        seconds = first.stop()
        for client in (one, other):
            last, code = goodbye_of(client)
            assert last["type"] == "goodbye" and last["reason"] == "restart" and code == 1012
    assert seconds < STOP_WITHIN, first.said()
    assert first.said().rstrip().endswith("argus: stopped.")


def test_no_secret_and_no_address_has_reached_the_log_or_the_console(first: Up, key: str, data: Path) -> None:
    password = re.search(r"password: (\S+)", first.said())
    assert password
    files = sorted((data / "logs").glob("*.jsonl*"))
    assert files
    for file in files:
        text = file.read_text()
        for secret in (key, key[-43:], password[1], (data / "secret_key").read_text()):
            assert secret not in text
        for line in map(json.loads, text.splitlines()):
            assert {"timestamp", "level", "event", "process"} <= set(line)
            line.pop("listen", None)
            assert "127.0.0.1" not in json.dumps(line), "the clients' address here; where we listen ourselves is no secret"
    assert first.said().count(password[1]) == 1


def test_the_second_start_sets_nothing_up_and_shows_no_secret(first: Up, key: str, tree: Path, data: Path) -> None:
    if first.process.poll() is None:
        first.stop()
    second = Up(tree, data)
    try:
        second.wait_ready()
        assert not KEY.search(second.said()) and "password" not in second.said() and "set up" not in second.said()
        status, _, _ = get(second.port, "/api/v1/market_data/latest?symbols=000001.SZ", key)
        assert status == 200
        assert second.stop(signal.SIGINT) < STOP_WITHIN, "Ctrl-C"
        assert "Traceback" not in second.said()
    finally:
        second.process.kill()
        second.process.wait()

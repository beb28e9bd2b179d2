"""A web process on its own, under both servers: it serves, and it says goodbye when it is told to end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.service import Service, free_port, get, stream, wait_for
from tests.runner.test_up import KEY, goodbye_of

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_with_a_goodbye(server: str, number: signal.Signals, tmp_path: Path) -> None:
    service = Service(tmp_path)
    found = KEY.search(service.install(("create_key", "test")))
    assert found
    port = free_port()
    try:
        service.start("web", "manage.py", "serve", "--port", str(port), "--server", server)
        wait_for(lambda: get(port, "/health/live")[0] == 200, "the web process to listen")
        with stream(port, found[0]) as client:
            assert service.stop("web", number) == 0, service.log("web")
            last, code = goodbye_of(client)
        assert last["type"] == "goodbye" and code == 1012
        assert "Traceback" not in service.log("web") and found[0] not in service.log("web")
    finally:
        service.close()


def test_two_web_processes_run_side_by_side(tmp_path: Path) -> None:
    service = Service(tmp_path, ARGUS_LOG_FILE="true")
    service.install()
    ports = [free_port(), free_port()]
    try:
        for port in ports:
            service.start(str(port), "manage.py", "serve", "--port", str(port))
        for port in ports:
            wait_for(lambda port=port: get(port, "/health/live")[0] == 200, "the web process to listen")
        assert {path.name for path in (tmp_path / "logs").glob("serve*.jsonl")} == {"serve.jsonl", "serve-2.jsonl"}
    finally:
        service.close()


@pytest.mark.parametrize("command", ["up", "serve"])
def test_an_archive_that_takes_no_files_stops_the_start_in_one_line(tmp_path: Path, command: str) -> None:
    service = Service(tmp_path, ARGUS_ARCHIVE_URL="nowhere://bucket")
    with pytest.raises(AssertionError) as refused:
        service.manage(command, "--port", "0")
    said = str(refused.value)
    assert "argus: The archive at nowhere://bucket takes no files" in said
    assert "ARGUS_ARCHIVE_URL" in said
    assert "Traceback" not in said

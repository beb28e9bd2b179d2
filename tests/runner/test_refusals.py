"""What would stop the start is said in one line, before anything is set up."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from argus import cli, launch
from tests.runner.trees import ROOT, RUN, environment, run, tiny_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tiny_tree(tmp_path)


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("argus_runner", ROOT / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode not in (0, None)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("argus: "), done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 8, 10), (3, 10, 14), (3, 14, 0)])
def test_a_wrong_python_is_named_with_what_to_do(runner: ModuleType, version: tuple[int, int, int]) -> None:
    line = runner.wrong_python(version, "/usr/bin/python3")
    assert line.startswith("argus: Python 3.11, 3.12 or 3.13 is needed")
    assert f"{version[0]}.{version[1]} (/usr/bin/python3)" in line and "run.py up" in line
    assert "\n" not in line


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 9), (3, 13, 1)])
def test_the_pythons_that_it_runs_on_are_not_refused(runner: ModuleType, version: tuple[int, int, int]) -> None:
    assert runner.wrong_python(version, "python3") == ""


def test_the_runner_can_be_read_by_an_old_python_and_asks_its_version_first() -> None:
    source = (ROOT / "run.py").read_text()
    ast.parse(source, feature_version=(3, 4))
    assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr)], "f-strings came with 3.6"
    imports = [line for line in source.splitlines() if line.startswith(("import", "from"))]
    assert imports == ["import sys"], "anything else is imported after the check"


def test_a_busy_port_is_refused_before_anything_is_set_up(tree: Path, busy_port: int) -> None:
    done = run(tree, "up", "--port", str(busy_port))
    assert_one_line(done, f"port {busy_port} on 127.0.0.1 is taken", f"--port {busy_port + 1}")
    assert done.returncode == 2
    assert not (tree / ".venv").exists()


def without_override() -> None:
    """Make even root obey the permissions of folders (the capability to ignore them is dropped for the program that follows)."""
    if sys.platform == "linux" and os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        drop_from_bounding_set, dac_override = 24, 1
        if libc.prctl(drop_from_bounding_set, dac_override, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def run_obediently(tree: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [*RUN, *arguments]
    return subprocess.run(
        command, cwd=tree, env=environment(**settings), capture_output=True, text=True, timeout=120, preexec_fn=without_override
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the rights to a folder in access lists, not in its mode")
def test_a_read_only_project_folder_is_refused_before_anything_is_set_up(tree: Path, tmp_path: Path) -> None:
    tree.chmod(0o555)
    try:
        for command in (["test"], ["manage", "migrate"]):
            assert_one_line(run_obediently(tree, *command), str(tree), "cannot be written", "make it writable")
        up = run_obediently(tree, "up", "--port", "0", ARGUS_DATA_DIR=str(tmp_path / "data"))
        assert_one_line(up, str(tree), "cannot be written")
    finally:
        tree.chmod(0o755)
    assert not (tree / ".venv").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the rights to a folder in access lists, not in its mode")
def test_a_read_only_data_folder_is_refused_before_anything_is_set_up(tree: Path) -> None:
    data = tree / "data"
    data.mkdir(mode=0o555)
    done = run_obediently(tree, "up", "--port", "0", ARGUS_DATA_DIR=str(data))
    assert_one_line(done, str(data), "cannot be written", "ARGUS_DATA_DIR")
    assert not (tree / ".venv").exists()


def test_a_data_folder_that_cannot_be_made_is_refused(tree: Path) -> None:
    (tree / "file").touch()
    done = run(tree, "up", "--port", "0", ARGUS_DATA_DIR=str(tree / "file" / "data"))
    assert_one_line(done, "cannot be written")
    assert not (tree / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "--port", "http"], ["'http' is not a port"]),
        (["up", "--port", "65536"], ["'65536' is not a port"]),
        (["up", "--source", "csv"], ["--source", "simulated"]),
        (["up", "--source", "qmt", "--terminal", "host"], ["'host' is not HOST:PORT"]),
        (["up", "--source", "qmt", "--terminal", "host:1,other:2"], ["is not HOST:PORT"]),
        (["up", "--terminal", "host:1"], ["--terminal needs --source qmt"]),
        (["up", "--source", "qmt", "--seed", "3"], ["--seed needs --source simulated"]),
        (["up", "--source", "replay"], ["--file"]),
        (["up", "--source", "replay", "--file", "nowhere.csv"], ["there is no file 'nowhere.csv'"]),
        (["up", "--loop"], ["--loop needs --source replay"]),
        (["up", "--host", "203.0.113.7"], ["203.0.113.7", "--host 127.0.0.1"]),
        (["up", "--host", "no.such.host.invalid"], ["no.such.host.invalid", "--host 127.0.0.1"]),
        (["up", "--prot", "80"], ["--prot"]),
        (["upp"], ["there is no command 'upp'", "--help"]),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_set_up(tree: Path, arguments: list[str], words: list[str]) -> None:
    assert_one_line(run(tree, *arguments), *words)
    assert not (tree / ".venv").exists()


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_refused_with_the_package_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Debian ships Python without these two: the import system is told that there is none.
    monkeypatch.setitem(sys.modules, missing, None)
    obstacle = launch.Setup([]).obstacle()
    assert f"no module {missing}" in obstacle and f"python{sys.version_info[0]}.{sys.version_info[1]}-venv" in obstacle


def test_manage_py_refuses_the_same_way(busy_port: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "up", "--port", str(busy_port)],
        cwd=ROOT,
        env=environment(ARGUS_DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert_one_line(done, f"port {busy_port}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "url"), [("REDIS_URL", "redis://127.0.0.1:9/0"), ("DATABASE_URL", "postgres://nobody:secret@127.0.0.1:9/none")]
)
def test_a_server_that_does_not_answer_is_named(setting: str, url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "up", "--port", "0"],
        cwd=ROOT,
        env=environment(ARGUS_DATA_DIR=str(tmp_path), **{setting: url}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("argus: ") and setting in line
    assert "secret" not in line


def test_a_recording_that_cannot_be_read_is_named_before_anything_starts(tmp_path: Path) -> None:
    recording = tmp_path / "holiday.txt"
    recording.write_text("not a recording")
    command = [sys.executable, "manage.py", "up", "--port", "0", "--source", "replay", "--file", str(recording)]
    environment = {**os.environ, "ARGUS_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("argus: ") and "holiday.txt" in line


def test_options_become_settings(tmp_path: Path) -> None:
    recording = tmp_path / "day.csv"
    recording.touch()
    command = ["--source", "replay", "--file", str(recording), "--file", str(recording), "--speed", "0", "--loop", "--port", "0"]
    assert cli.prepare("up", command, program="x") == {
        "ARGUS_SOURCE": "replay",
        "ARGUS_REPLAY_FILES": f"{recording},{recording}",
        "ARGUS_REPLAY_SPEED": "0.0",
        "ARGUS_REPLAY_LOOP": "true",
    }
    command = ["--source", "qmt", "--terminal", "a.example:1", "--terminal", "b.example:2", "--terminal", "hq=c:3", "--port", "0"]
    assert cli.prepare("up", command, program="x") == {
        "ARGUS_SOURCE": "qmt",
        "ARGUS_TERMINALS": "main=a.example:1,terminal-2=b.example:2,hq=c:3",
    }
    assert cli.prepare("up", ["--symbols", "7", "--seed", "2", "--clock", "live", "--port", "0"], program="x") == {
        "ARGUS_SIMULATED_SYMBOLS": "7",
        "ARGUS_SIMULATED_SEED": "2",
        "ARGUS_SIMULATED_CLOCK": "live",
    }
    assert cli.prepare("up", ["--port", "0"], program="x") == {}


def test_qmt_without_a_terminal_is_over_those_that_there_are() -> None:
    assert cli.prepare("up", ["--source", "qmt", "--port", "0"], program="x") == {"ARGUS_SOURCE": "qmt"}


def test_a_name_with_several_addresses_is_bound_on_all_with_one_port() -> None:
    sockets = cli.bind("localhost", 0)
    ports = {bound.getsockname()[1] for bound in sockets}
    for bound in sockets:
        bound.close()
    assert len(ports) == 1 and 0 not in ports

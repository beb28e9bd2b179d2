"""``run.py`` sets up what is missing and nothing else, and hands everything on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from argus import launch
from tests.runner.trees import RUN, environment, run, tiny_tree, wheel

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tiny_tree(tmp_path)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that has been set up; tests do not change it."""
    tree = tiny_tree(tmp_path_factory.mktemp("ready"))
    assert run(tree, "manage", "0").returncode == 0
    return tree


@pytest.fixture
def used(ready: Path, tmp_path: Path) -> Path:
    """A tree that has been set up, to be changed."""
    tree = tmp_path / ready.name
    shutil.copytree(ready, tree, symlinks=True)
    return tree


def test_the_first_run_sets_up_with_progress_and_the_second_does_nothing(tree: Path) -> None:
    first = run(tree, "manage", "hello", "0")
    assert first.returncode == 0, first.stdout + first.stderr
    progress = [line for line in first.stdout.splitlines() if line.startswith("argus: ")]
    assert len(progress) >= 3 and "virtual environment" in progress[0] and "set up in" in progress[-1]
    answer = json.loads(first.stdout.splitlines()[-1])
    assert answer["arguments"] == ["hello", "0"] and answer["tiny"] == "1.0" and answer["utf8"] == 1
    assert Path(answer["prefix"]) == tree / ".venv"

    stamp = (tree / ".venv" / launch.STAMP.name).stat().st_mtime_ns
    second = run(tree, "manage", "0")
    assert second.stdout.count("\n") == 1, "no word but the command's own"
    assert (tree / ".venv" / launch.STAMP.name).stat().st_mtime_ns == stamp


def test_a_changed_requirement_is_installed_into_the_same_environment(used: Path) -> None:
    (used / ".venv" / "mark").touch()
    (used / launch.BASE).write_text(wheel(used.parent, "2.0"))
    again = run(used, "manage", "0")
    assert json.loads(again.stdout.splitlines()[-1])["tiny"] == "2.0"
    assert (used / ".venv" / "mark").exists(), "the environment was not made anew"
    assert run(used, "manage", "0").stdout.count("\n") == 1


@pytest.mark.parametrize("damage", ["no python", "no stamp", "broken stamp", "other python"])
def test_a_partial_or_broken_environment_is_made_anew(used: Path, damage: str) -> None:
    stamp = used / ".venv" / launch.STAMP.name
    (used / ".venv" / "mark").touch()
    if damage == "no python":
        (used / launch.PYTHON.relative_to(launch.ROOT)).unlink()
    elif damage == "no stamp":
        stamp.unlink()
    elif damage == "broken stamp":
        stamp.write_text("{")
    else:
        stamp.write_text(stamp.read_text().replace(launch.Setup([]).version, "3.11.0rc1"))
    repaired = run(used, "manage", "0")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert json.loads(repaired.stdout.splitlines()[-1])["tiny"] == "1.0"
    assert not (used / ".venv" / "mark").exists()


def test_packages_that_cannot_be_installed_end_in_a_clear_line_and_the_next_run_tries_again(tree: Path) -> None:
    good = (tree / launch.BASE).read_text()
    (tree / launch.BASE).write_text(f"tiny @ {(tree / 'missing-1.0-py3-none-any.whl').as_uri()}\n")
    failed = run(tree, "manage", "0")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("argus: the packages could not be installed")
    (tree / launch.BASE).write_text(good)
    assert run(tree, "manage", "0").returncode == 0


def test_each_command_installs_what_it_needs_and_keeps_what_the_others_need(used: Path) -> None:
    stamp = used / ".venv" / launch.STAMP.name
    assert list(json.loads(stamp.read_text())["files"]) == [launch.BASE]
    run(used, "manage", "0", ARGUS_SOURCE="qmt")
    assert set(json.loads(stamp.read_text())["files"]) == {launch.BASE, launch.QMT}
    run(used, "test")
    assert set(json.loads(stamp.read_text())["files"]) == {launch.BASE, launch.QMT, launch.DEV}
    (used / launch.BASE).write_text(wheel(used.parent, "2.0"))
    run(used, "manage", "0")
    assert set(json.loads(stamp.read_text())["files"]) == {launch.BASE, launch.QMT, launch.DEV}
    assert run(used, "test").stdout.count("\n") == 1, "nothing left to install"


def test_the_source_on_the_command_line_decides_what_is_installed(used: Path) -> None:
    stamp = used / ".venv" / launch.STAMP.name
    up = run(used, "up", "--port", "0", "--source", "qmt", "--terminal", "127.0.0.1:58610", ARGUS_DATA_DIR=str(used / "var"))
    assert json.loads(up.stdout.splitlines()[-1])["arguments"][0] == "up"
    assert launch.QMT in json.loads(stamp.read_text())["files"]


def test_arguments_and_exit_codes_are_handed_on_as_they_are(ready: Path) -> None:
    words = ["a b", "--flag=x y", "", "ünï", "-k", "not slow", "3"]
    done = run(ready, "manage", *words)
    assert json.loads(done.stdout.splitlines()[-1])["arguments"] == words
    assert done.returncode == 3


def test_the_tests_are_pytest_s_with_its_arguments_and_exit_code(ready: Path) -> None:
    done = run(ready, "test", "-k", "some thing", "-x")
    arguments, folder = json.loads(done.stdout.splitlines()[-1])
    assert (arguments[-3:], folder) == (["-k", "some thing", "-x"], str(ready))
    assert done.returncode == 5


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to a process; Ctrl-C goes to the console")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_command_and_its_exit_code_comes_back(ready: Path, number: signal.Signals) -> None:
    process = subprocess.Popen([*RUN, "manage", "wait"], cwd=ready, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("waiting")
    process.send_signal(number)
    assert process.stdout.readline() == f"got {number.name}\n"
    assert process.wait(30) == 7
    process.stdout.close()


def test_two_set_ups_at_once_do_not_disturb_each_other(tree: Path) -> None:
    command = [*RUN, "manage", "0"]
    both = [
        subprocess.Popen(command, cwd=tree, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum("making a virtual environment" in output for output in outputs) == 1


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_shows_examples_and_sets_nothing_up(tree: Path, arguments: list[str]) -> None:
    done = run(tree, *arguments)
    assert done.returncode == 0 and "python3 run.py up" in done.stdout and "examples:" in done.stdout
    assert not (tree / ".venv").exists()


def test_help_of_up_shows_its_options_and_sets_nothing_up(tree: Path) -> None:
    done = run(tree, "up", "--help")
    assert done.returncode == 0 and "--terminal" in done.stdout and "examples:" in done.stdout
    assert "--terminal a=192.168.1.20:58610 --terminal b=192.168.1.21:58610" in done.stdout
    assert not (tree / ".venv").exists() and not os.path.lexists(tree / "var")

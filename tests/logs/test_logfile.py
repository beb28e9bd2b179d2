"""Every process writes a log file of its own, which it can rotate; files are used again when their process has ended."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from argus import logfile
from argus.logfile import OwnFileHandler

ROOT = Path(__file__).resolve().parents[2]

HOLD = (
    "import sys, logging; from argus.logfile import OwnFileHandler;"
    "handler = OwnFileHandler(sys.argv[1], 'serve');"
    "handler.emit(logging.makeLogRecord({'msg': sys.argv[2]}));"
    "print(handler.baseFilename, flush=True); sys.stdin.readline()"
)


def hold(directory: Path, text: str) -> tuple[subprocess.Popen[str], str]:
    """A process that writes into a log of its own until it is told to end."""
    command = [sys.executable, "-c", HOLD, str(directory), text]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip()).name


def test_processes_of_one_role_write_files_of_their_own_and_free_them_when_they_end(tmp_path: Path) -> None:
    first, first_file = hold(tmp_path, "first")
    second, second_file = hold(tmp_path, "second")
    assert (first_file, second_file) == ("serve.jsonl", "serve-2.jsonl")
    first.kill()
    first.communicate(timeout=30)
    third, third_file = hold(tmp_path, "third")
    assert third_file == "serve.jsonl", "a file whose process was killed is free again"
    for process in (second, third):
        process.communicate("end\n", timeout=30)
    assert (tmp_path / "serve.jsonl").read_text() == "first\nthird\n"
    assert (tmp_path / "serve-2.jsonl").read_text() == "second\n"


def test_a_file_rotates_and_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "MAX_BYTES", 1000)
    monkeypatch.setattr(logfile, "BACKUPS", 2)
    handler = OwnFileHandler(str(tmp_path), "up")
    for number in range(100):
        handler.emit(logging.makeLogRecord({"msg": f"{number:099}"}))
    handler.close()
    files = sorted(path.name for path in tmp_path.glob("*.jsonl*"))
    assert files == ["up.jsonl", "up.jsonl.1", "up.jsonl.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.glob("*.jsonl*"))
    assert (tmp_path / "up.jsonl").read_text().splitlines()[-1] == f"{99:099}"


def test_a_closed_file_can_be_taken_again_by_the_same_process(tmp_path: Path) -> None:
    first = OwnFileHandler(str(tmp_path), "up")
    first.close()
    second = OwnFileHandler(str(tmp_path), "up")
    assert first.baseFilename == second.baseFilename
    second.close()

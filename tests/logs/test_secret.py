"""The secret key is made once, whole, whoever comes first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from argus import secret

ROOT = Path(__file__).resolve().parents[2]


def test_the_key_is_made_once_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    made = secret.load(tmp_path / "new" / "data")
    assert len(made) >= 50
    assert secret.load(tmp_path / "new" / "data") == made
    path = tmp_path / "new" / "data" / "secret_key"
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in path.parent.iterdir()] == ["secret_key"]


def test_processes_that_start_together_agree_on_one_whole_key(tmp_path: Path) -> None:
    # All wait at the same gate, so that they reach the missing file together.
    program = (
        "import sys, pathlib; from argus import secret; print('here', flush=True); sys.stdin.readline();"
        "[print(secret.load(pathlib.Path(folder))) for folder in sys.argv[1:]]"
    )
    folders = [str(tmp_path / str(number)) for number in range(20)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, *folders], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=60)[0] for process in processes}
    assert len(answers) == 1
    keys = answers.pop().split()
    assert len(set(keys)) == len(folders) and all(len(key) >= 50 for key in keys)


def test_a_reader_never_sees_a_key_that_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret_key"
    seen: list[bool] = []
    give_name = secret._give_name

    def watching(draft: str, name: Path) -> None:
        seen.append(path.exists())
        give_name(draft, name)

    monkeypatch.setattr(secret, "_give_name", watching)
    made = secret.load(tmp_path)
    assert seen == [False], "the name must not exist before the key is written"
    assert path.read_text(encoding="ascii") == made

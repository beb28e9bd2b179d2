"""The checks of the code itself, as tests, so that one command runs everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "ruff", "check", "--no-cache"], id="ruff check"),
        pytest.param(["-m", "ruff", "format", "--check", "--no-cache"], id="ruff format"),
        pytest.param(["-m", "mypy"], id="mypy", marks=pytest.mark.timeout(600)),
        pytest.param(["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"], id="lint-imports"),
        pytest.param(["manage.py", "makemigrations", "--check", "--dry-run"], id="makemigrations --check"),
        pytest.param(["manage.py", "check", "--fail-level", "WARNING"], id="manage.py check"),
    ],
)
def test_the_check_passes(command: list[str]) -> None:
    result = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"

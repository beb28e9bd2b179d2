"""The examples in the pages work: every console and Python block runs, in order, against the whole service in one process."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.e2e.embedded import Embedded, embedded
from tests.e2e.service import wait_for

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("history", "caching", "reference-data", "backfill", "recordings")
SHOWN = "127.0.0.1:8001"
"""Where the pages say that the service is."""
PATIENCE = 60
"""Seconds for a block."""

pytestmark = pytest.mark.timeout(240)


class Block(NamedTuple):
    """A fenced block; ``line`` is that of its first line of text."""

    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The page's blocks that are run."""
    found = []
    text = page.read_text(encoding="utf-8")
    for fence in re.finditer(r"^```(console|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        found.append(Block(text.count("\n", 0, fence.start(2)) + 1, fence[1], fence[2]))
    return found


def commands(block: Block) -> list[tuple[int, str]]:
    """The lines that begin with ``$``, with what is continued by a backslash, each with its line; the rest is output."""
    found: list[tuple[int, str]] = []
    continued = False
    for number, line in enumerate(block.text.splitlines()):
        if continued:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line}")
        elif line.startswith("$ "):
            found.append((block.line + number, line[2:]))
        else:
            continue
        continued = line.endswith("\\")
    return found


class Desk:
    """A user's directory beside a service whose data is in ``var``."""

    def __init__(self, directory: Path, up: Embedded) -> None:
        self.directory = directory
        self.up = up
        self.env = {**up.service.env, "ARGUS_KEY": up.key, "ARGUS_URL": up.base, "no_proxy": "*"}

    def here(self, text: str) -> str:
        """The text with this service's address and this checkout's commands."""
        manage = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'manage.py'))}"
        text = re.sub(r"(?:\S*python3? )?(?:run\.py manage|manage\.py)(?= )", lambda _: manage, text)
        return text.replace(SHOWN, f"127.0.0.1:{self.up.port}")

    def run(self, command: list[str], where: str) -> None:
        """Run it; where it fails the test does, and says where the example stands and what it said."""
        try:
            done = subprocess.run(command, cwd=self.directory, env=self.env, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{where}: not done after {PATIENCE} s")
        if done.returncode:
            pytest.fail(f"{where}: ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("desk")
    (directory / "var").mkdir()
    with embedded(directory / "var", ARGUS_RECORD="true") as up:
        everything = "/api/v1/market_data/history?symbols=sector:沪深300&count=1"
        headers = {"X-API-Key": up.key}
        wait_for(lambda: httpx.get(up.base + everything, headers=headers, timeout=60).status_code == 200, "the reference data")
        yield Desk(directory, up)


@pytest.mark.parametrize("name", PAGES)
def test_every_example_of_the_page_runs(desk: Desk, name: str) -> None:
    page = ROOT / "docs" / f"{name}.md"
    found = blocks(page)
    assert found, f"{page.name} has no examples"
    for block in found:
        if block.language == "python":
            where = f"docs/{page.name}:{block.line}"
            # The lines of a traceback are those of the page.
            desk.run([sys.executable, "-c", "\n" * (block.line - 1) + desk.here(block.text)], where)
        else:
            for line, command in commands(block):
                # Like a shell of its own, with one difference: what a pipe's first part says counts.
                strict = f"set -euo pipefail\n{desk.here(command)}"
                desk.run(["bash", "-c", strict], f"docs/{page.name}:{line}")


def test_a_block_s_commands_are_told_from_their_output() -> None:
    block = Block(10, "console", '$ curl -s \\\n  "http://x"\n{"a": 1}\n$ ls\n')
    assert commands(block) == [(10, 'curl -s \\\n  "http://x"'), (13, "ls")]

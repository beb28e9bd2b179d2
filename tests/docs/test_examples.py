"""The examples in the pages work: every shell and Python block runs, in order, against the whole service in one process.

A command's output has what the page shows of it. An answer that is an error fails the test, but where the page shows it.
"""

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


PROBLEM = "urn:argus:problem:"
FAILS = re.compile(r"\bcurl\b(?=[^|;&]*? (-[a-zA-Z]*f|--fail))")
"""A call of curl that fails where the answer is an error."""


class Block(NamedTuple):
    """A fenced block; ``line`` is that of its first line of text."""

    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The page's blocks that are run."""
    found = []
    text = page.read_text(encoding="utf-8")
    for fence in re.finditer(r"^```(console|sh|bash|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        found.append(Block(text.count("\n", 0, fence.start(2)) + 1, fence[1], fence[2]))
    return found


class Command(NamedTuple):
    """A command, the line on which it begins, and the output that the page shows of it."""

    line: int
    text: str
    shown: str


def commands(block: Block) -> list[Command]:
    """The lines of a console block that begin with ``$``, with what is continued by a backslash; the rest is their output.

    In a block of a shell every line is a command.
    """
    found: list[Command] = []
    continued = False
    for number, line in enumerate(block.text.splitlines()):
        if continued:
            found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{line}")
        elif block.language != "console" or line.startswith("$ "):
            found.append(Command(block.line + number, line.removeprefix("$ "), ""))
        elif found:
            found[-1] = found[-1]._replace(shown=f"{found[-1].shown}{line}\n")
            continue
        continued = line.endswith("\\")
    return [command for command in found if command.text.strip()]


def differs(shown: str, said: str) -> str | None:
    """What of a shown output a command did not say; None where it said all of it.

    Of JSON the names count, in their order, and which problem it is: the numbers are those of another day.
    """
    if not shown.startswith("{"):
        return None if shown == said else shown
    wanted = re.findall(rf'"parameter":"\w+"|"\w+":|{PROBLEM}\w+', shown)
    at = 0
    for word in wanted:
        if (at := said.find(word, at)) < 0:
            return word
    return None


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

    def run(self, command: list[str], where: str) -> str:
        """What it says on its output; where it fails the test does, and says where the example stands."""
        try:
            done = subprocess.run(command, cwd=self.directory, env=self.env, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{where}: not done after {PATIENCE} s")
        if done.returncode:
            pytest.fail(f"{where}: ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
        return done.stdout


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
            for command in commands(block):
                where = f"docs/{page.name}:{command.line}"
                expects_problem = PROBLEM in command.shown
                if command.text.count("curl ") > len(FAILS.findall(command.text)) and not expects_problem:
                    pytest.fail(f"{where}: an error would pass unseen; add -f, or show the problem")
                # Like a shell of its own, with one difference: what a pipe's first part says counts.
                said = desk.run(["bash", "-c", f"set -euo pipefail\n{desk.here(command.text)}"], where)
                if command.shown and (word := differs(command.shown, said)) is not None:
                    pytest.fail(f"{where}: shows {word!r}, which it did not say:\n{said[:2000]}")


def test_a_block_s_commands_are_told_from_their_output() -> None:
    block = Block(10, "console", '$ curl -s \\\n  "http://x"\n{"a": 1}\n$ ls\n')
    assert commands(block) == [(10, 'curl -s \\\n  "http://x"', '{"a": 1}\n'), (13, "ls", "")]
    assert commands(Block(10, "bash", "ls\n\nls \\\n -l\n")) == [(10, "ls", ""), (12, "ls \\\n -l", "")]


def test_an_error_does_not_pass_unseen() -> None:
    assert len(FAILS.findall("curl -sf x; curl -s -H 'a: b' -f y | curl --fail z")) == 3
    assert not FAILS.findall("curl -s http://x/f | grep -f y")


def test_an_output_is_held_against_what_the_page_shows_of_it() -> None:
    shown = f'{{"type":"{PROBLEM}x","status":400,...,"parameter":"start"}}\n'
    assert differs(shown, f'{{"type":"{PROBLEM}x","title":"t","status":401,"parameter":"start"}}') is None
    assert differs(shown, f'{{"type":"{PROBLEM}y","status":400,"parameter":"start"}}') == f"{PROBLEM}x"
    assert differs(shown, f'{{"type":"{PROBLEM}x","status":400,"parameter":"end"}}') == '"parameter":"start"'
    assert differs('{"data":[...\n', "{}") == '"data":'
    assert differs("304\n", "304\n") is None
    assert differs("304\n", "200\n") == "304\n"

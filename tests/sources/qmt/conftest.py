"""Terminals and sources for the tests of the QMT source; every source that a test makes is closed after it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from marketdata.sources.qmt.source import QmtSource
from tests.emulator import EmulatedTerminal, child_environment
from tests.sources.conformance import wait_up

TIMEOUT = 30.0

VENDOR = """
import json, sys, threading
out, sys.stdout = sys.stdout, sys.stderr
def show(value):
    for thread in threading.enumerate():
        if thread.name.startswith("xt-"): xtdata.disconnect(), thread.join(10)
    out.write(json.dumps(value))
sys.modules["pkg_resources"] = None
from xtquant import xtdata
xtdata.enable_hello = False
tag = lambda: xtdata._BSON_.BSON.decode(xtdata.get_client().get_server_tag())["tag"]
"""
"""What comes before a script that shows how the vendor's own code behaves."""


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of this process find the stand-in for the compiled module."""
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def terminal() -> Iterator[EmulatedTerminal]:
    with EmulatedTerminal() as terminal:
        yield terminal


Connect = Callable[..., QmtSource]


@pytest.fixture
def started() -> Iterator[Connect]:
    """A started source of an address, whatever its state."""
    sources: list[QmtSource] = []

    def start(address: str, **options: Any) -> QmtSource:
        source = QmtSource(**{"name": "main", "address": address, "timeout": TIMEOUT, **options})
        sources.append(source)
        source.start()
        return source

    yield start
    for source in sources:
        source.close()


@pytest.fixture
def connected(started: Connect) -> Connect:
    """A source that is up."""

    def connect(address: str, **options: Any) -> QmtSource:
        source = started(address, **options)
        wait_up(source)
        return source

    return connect


def _vendor(script: str, **environment: str) -> tuple[Any, str]:
    done = subprocess.run(
        [sys.executable, "-c", VENDOR + script],
        env={**os.environ, "TZ": "Asia/Shanghai", **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture
def vendor() -> Callable[..., Any]:
    """Run a script on the vendor's unmodified module; what it showed, and whatever was printed."""
    return functools.partial(_vendor)

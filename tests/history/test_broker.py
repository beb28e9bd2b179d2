"""Redis goes away, or hangs: whoever asks a terminal over it is told so soon after its deadline, and all heals by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argus.celery import queue_of
from tests.conftest import ROOT, RedisServer
from tests.history.asking import SECONDS

GRACE = 7.0
"""Seconds after the deadline: calls to Redis end after two, and a few may follow each other."""


class Asking:
    """The process of ``asking``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self.line() == "ready"

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def begin(self, terminal: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(terminal + "\n")
        self._process.stdin.flush()

    def said(self) -> dict[str, Any]:
        return dict(json.loads(self.line()))

    def ask(self, terminal: str) -> str:
        self.begin(terminal)
        return str(self.said()["said"])


@pytest.fixture
def asking(tmp_path: Path, redis_server: RedisServer) -> Iterator[Asking]:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "argus.settings",
        "REDIS_URL": redis_server.url,
        "ARGUS_DATA_DIR": str(tmp_path / "data"),
    }
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.history.asking"],
        cwd=ROOT,
        env=environment,
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield Asking(process)
        finally:
            process.kill()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("how", ["gone", "hangs"])
def test_a_request_is_told_of_it_and_the_next_one_is_answered_when_it_is_back(
    redis_server: RedisServer, asking: Asking, how: str, when: str
) -> None:
    assert asking.ask("quick") == "quick: it refuses"
    away, back = (redis_server.stop, redis_server.start) if how == "gone" else (redis_server.hang, redis_server.go_on)
    if when == "before":
        away()
        asking.begin("silent")
    else:
        asking.begin("silent")
        with redis_server.client() as client:
            until = time.monotonic() + 10
            while not client.llen(queue_of("silent")):
                assert time.monotonic() < until
        away()
    told = asking.said()
    assert told["said"].startswith("silent: "), "named, with its reason"
    assert told["seconds"] < SECONDS + GRACE
    back()
    until = time.monotonic() + 20
    while (said := asking.ask("quick")) != "quick: it refuses":
        assert time.monotonic() < until, said

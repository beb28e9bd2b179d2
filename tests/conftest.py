"""Fixtures that several rooms' tests share: the recorded data and a real Redis server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pytest_django import DjangoDbBlocker

from bench.redis_server import find_redis

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is asked for on the command line alone."""
    parser.addoption("--soak", action="store_true", help="also run the tests that take many minutes to prove more of the same")


def pytest_configure(config: pytest.Config) -> None:
    """Our own marks."""
    config.addinivalue_line("markers", "soak: takes many minutes to prove more of the same; runs with --soak alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the soak tests out where they were not asked for, and begin with whole services: those take longest, and a run ends
    with its last worker."""
    items.sort(key=lambda item: not item.path.is_relative_to(ROOT / "tests" / "e2e"))
    if not config.getoption("--soak"):
        left_out = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The recorded exchange data. Its absence is a failure in CI and a skip with the reason elsewhere."""
    path = Path(os.environ.get("ARGUS_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "README.md").exists():
        reason = f"no recorded data at {path}: set ARGUS_TEST_DATA"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


class RedisServer:
    """A real Redis on a free port of this machine, that a test may stop and start again."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [find_redis(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._directory, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        pytest.fail(f"redis-server did not start: {(self._directory / 'redis.log').read_text()}")
                    time.sleep(0.02)

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def hang(self) -> None:
        """Let it keep its connections and say nothing, as a machine that is overloaded or cut off would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A client of it."""
        return redis.Redis.from_url(self.url, protocol=2)


@pytest.fixture(scope="session")
def _redis_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(_redis_session: RedisServer) -> str:
    """The URL of a real, empty Redis server."""
    with _redis_session.client() as client:
        client.flushall()
    return _redis_session.url


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server of a test's own, which it may stop and start."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """SQLite in a file: in memory, connections of several threads lock each other's tables out at once."""
    from django.db import connections

    settings = connections["default"].settings_dict
    if settings["ENGINE"] == "django.db.backends.sqlite3":
        settings["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """A transactional test empties every table after it, and with them the rows that migrations have made: these are put back
    as they were, where Django would look for every content type and permission anew, after each of a thousand tests."""
    from django.core.management.commands import flush
    from django.db import connections, transaction

    def run(statements: list[str]) -> None:
        with transaction.atomic(), connections["default"].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    with django_db_blocker.unblock():
        tables = connections["default"].introspection.django_table_names(only_existing=True, include_views=False)
        run([f'CREATE TABLE "migrated_{table}" AS SELECT * FROM "{table}"' for table in tables])
    put_back = [f'INSERT INTO "{table}" SELECT * FROM "migrated_{table}"' for table in tables]
    flush.emit_post_migrate_signal = lambda *_: run(put_back)


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another left in this process: keys (their ids come again), quotas, snapshots, quotes, bars, channels."""
    from channels.layers import channel_layers
    from django.core.cache import cache

    from argus.access import check, limits
    from marketdata import journal
    from marketdata.latest import store

    for holder in (cache, check.cache, store, channel_layers.backends):
        holder.clear()
    if tiers := sys.modules.get("marketdata.cache.tiers"):
        tiers.tiers().clear()
        tiers.forget()
    monkeypatch.setattr(journal, "_journals", {})
    monkeypatch.setattr(limits, "_limiter", limits.MemoryLimiter())

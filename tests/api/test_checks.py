"""Django's system checks name what is set up in a way that will hurt."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from argus import checks
from argus.config import Config


def ids(monkeypatch: pytest.MonkeyPatch, **settings: object) -> list[str]:
    monkeypatch.setattr(checks, "config", Config(**settings))  # type: ignore[arg-type]
    found = (check(None) for check in (checks.debug_in_public, checks.any_host, checks.any_proxy, checks.redis_answers))
    return [str(message.id) for messages in found for message in messages]


def test_the_defaults_are_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(monkeypatch) == []
    assert ids(monkeypatch, debug=True) == []


def test_debug_pages_in_public_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(monkeypatch, debug=True, allowed_hosts="argus.example.org") == ["argus.W001"]


def test_every_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(monkeypatch, allowed_hosts="*") == ["argus.W002"]


def test_believing_every_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(monkeypatch, trusted_proxies="10.0.0.1,192.168.0.0/16") == []
    assert ids(monkeypatch, trusted_proxies="0.0.0.0/0") == ["argus.W003"]


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("nowhere://bucket/argus", "nowhere"),
        ("/dev/null/archive", "/dev/null"),
        ("http://someone:hidden-word@127.0.0.1:9/argus", "takes no files"),
    ],
)
def test_an_archive_that_takes_no_files_is_named(monkeypatch: pytest.MonkeyPatch, url: str, word: str) -> None:
    monkeypatch.setattr(checks, "config", Config(archive_url=url))
    (problem,) = checks.archive_takes_files(None)
    assert problem.id == "argus.W005"
    assert word in problem.msg
    assert "hidden-word" not in problem.msg
    assert "ARGUS_ARCHIVE_URL" in str(problem.hint)


@pytest.mark.parametrize("url", ["memory://argus-checks", "{tmp_path}/made/when/missing"])
def test_an_archive_that_takes_files_keeps_none_of_the_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    monkeypatch.setattr(checks, "config", Config(archive_url=url.format(tmp_path=tmp_path)))
    assert checks.archive_takes_files(None) == []
    files, root = fsspec.core.url_to_fs(checks.config.archive)
    assert files.find(root) == []


def test_a_redis_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    assert ids(monkeypatch, redis_url=redis_url) == []
    assert ids(monkeypatch, redis_url="redis://127.0.0.1:9/0") == ["argus.W004"]

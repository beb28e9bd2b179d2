"""Django system checks of Argus' own, with ids that stay: what is set up in a way that will hurt."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from typing import Any

import fsspec
import redis
from django.core import checks

from argus import redact
from argus.config import config

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})


def debug_in_public(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """argus.W001: debug pages show settings and source code to whoever causes an error."""
    if not config.debug or LOCAL.issuperset(config.allowed_hosts):
        return []
    hint = "Unset ARGUS_DEBUG, or serve localhost only (ARGUS_ALLOWED_HOSTS)."
    return [checks.Warning("ARGUS_DEBUG is on while hosts other than this machine are served.", hint=hint, id="argus.W001")]


def any_host(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """argus.W002: links in the admin would follow whatever host name a request claims."""
    if "*" not in config.allowed_hosts:
        return []
    hint = "Name the hosts under which Argus is reached in ARGUS_ALLOWED_HOSTS."
    return [checks.Warning("ARGUS_ALLOWED_HOSTS allows every host.", hint=hint, id="argus.W002")]


def any_proxy(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """argus.W003: a key's allowed networks mean nothing when everybody's X-Forwarded-For is believed."""
    networks = [ipaddress.ip_network(word, strict=False) for word in config.trusted_proxies]
    if all(network.prefixlen for network in networks):
        return []
    hint = "Name the proxies' own addresses in ARGUS_TRUSTED_PROXIES."
    return [checks.Warning("ARGUS_TRUSTED_PROXIES believes everybody.", hint=hint, id="argus.W003")]


def redis_answers(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """argus.W004: channel layer, broker, limits and cache all need it. A warning, for it may come up later."""
    if not config.redis_url:
        return []
    client = redis.Redis.from_url(config.redis_url, protocol=2, socket_timeout=2, socket_connect_timeout=2)
    try:
        client.ping()
    except redis.RedisError as error:
        hint = "Start Redis, or unset REDIS_URL to run everything in one process."
        return [checks.Warning(f"Redis at REDIS_URL does not answer: {type(error).__name__}.", hint=hint, id="argus.W004")]
    finally:
        client.close()
    return []


def archive_takes_files(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """argus.W005: where nothing can be written, every bar is fetched again and nothing is recorded."""
    try:
        files, root = fsspec.core.url_to_fs(config.archive)
        probe = f"{root.rstrip('/')}/{secrets.token_hex(6)}.tmp"
        files.makedirs(root, exist_ok=True)
        files.pipe_file(probe, b"")
        files.rm_file(probe)
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        hint = "Name a folder that can be written, or the URL of a file system whose package is installed, in ARGUS_ARCHIVE_URL."
        text = redact.text(f"The archive at {config.archive} takes no files: {type(error).__name__}: {error}.")
        return [checks.Warning(text, hint=hint, id="argus.W005")]
    return []


def register_all() -> None:
    """Make the checks known to Django; the archive's, which writes, runs with ``check --deploy`` and at the start alone."""
    for check in (debug_in_public, any_host, any_proxy):
        checks.register(check, checks.Tags.security)
    checks.register(redis_answers, "network")
    checks.register(archive_takes_files, "network", deploy=True)

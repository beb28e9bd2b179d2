"""The feeds of this process: made, started, found by their terminal's name, stopped."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

import redis
import structlog
from django.core.cache import cache

from argus.config import Config, config
from marketdata import metrics, publish
from marketdata.feed import STOP_TIMEOUT, Feed
from marketdata.journal import journal
from marketdata.lease import lease_of
from marketdata.listen import Heard, Listener
from marketdata.publisher import Publisher
from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.recorder import Recorder
from marketdata.sources import registry
from marketdata.sources.base import Source

log = structlog.get_logger(__name__)

SNAPSHOT_TTL = 24 * 3600


def _clock_of(source: Source, config: Config) -> Callable[[], int | None]:
    """The market's time where the source has one of its own."""
    if config.source == "replay" or (config.source == "simulated" and config.simulated_clock == "virtual"):
        return lambda: source.status().time
    return lambda: None


def _recorder(feed: str) -> Recorder:
    return Recorder(RecordingArchive(config.archive, config.market), feed=feed, days=config.record_days)


def _save_snapshot(feed: str, blob: bytes) -> None:
    try:
        cache.set(publish.snapshot_key(feed), blob, SNAPSHOT_TTL)
    except redis.RedisError as error:
        metrics.PUBLISH_FAILURES.labels(feed).inc()
        log.warning("snapshot_failed", feed=feed, detail=str(error))


def _load_snapshot(feed: str) -> bytes | None:
    try:
        return cache.get(publish.snapshot_key(feed))  # type: ignore[no-any-return]
    except redis.RedisError as error:
        log.warning("snapshot_not_loaded", feed=feed, detail=str(error))
        return None


_feeds: dict[str, Feed] = {}
# Reentrant: Celery tells of a stop inside its signal handler, which may interrupt a start on the same thread.
_lock = threading.RLock()


def start(terminal: str, address: str, pool: str, prepare: Callable[[Feed], None] = lambda _: None) -> Feed:
    """Start a terminal's feed in this process, once, as ``prepare`` has set it. Raises ``ValueError`` where its source cannot
    be made."""
    with _lock:
        feed = _feeds.get(terminal)
        if feed is None:
            # Of this start alone: what a process before it held under the same name is not its own.
            owner = f"{terminal}@{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"
            source = registry.build(config, terminal, address)
            recorder = _recorder(pool) if config.record else None
            heard = Heard()
            publisher = Publisher(
                feed=pool,
                source=source.name,
                owner=owner,
                lease=lease_of(pool),
                send=publish.bridge.send,
                save_snapshot=_save_snapshot,
                load_snapshot=_load_snapshot,
                clock=_clock_of(source, config),
                record=recorder.take if recorder else None,
                heard=heard,
                journal=journal(),
            )
            feed = _feeds[terminal] = Feed(
                terminal=terminal,
                source=source,
                publisher=publisher,
                config=config,
                recorder=recorder,
                listener=Listener(pool, heard, publish.bridge),
            )
            try:
                prepare(feed)
                feed.start()
            except BaseException:
                del _feeds[terminal]
                _stop([feed])
                raise
        return feed


def running(terminal: str) -> Feed | None:
    """The terminal's feed, if it runs in this process."""
    return _feeds.get(terminal)


def all_running() -> list[Feed]:
    """The feeds of this process."""
    return list(_feeds.values())


def stop(terminals: Iterable[str]) -> None:
    """Stop those terminals' feeds that run in this process, side by side, within about two seconds."""
    with _lock:
        found = [feed for terminal in terminals if (feed := _feeds.pop(terminal, None)) is not None]
    _stop(found)


def stop_all() -> None:
    """Stop every feed of this process, side by side."""
    stop(list(_feeds))


def _stop(found: Sequence[Feed]) -> None:
    # What hangs in one must keep neither the others nor the end of the process.
    threads = [threading.Thread(target=_stop_one, args=(feed,), name=f"stop-{feed.terminal}", daemon=True) for feed in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * STOP_TIMEOUT)


def _stop_one(feed: Feed) -> None:
    try:
        feed.stop()
    finally:
        metrics.forget_feed(feed.terminal)

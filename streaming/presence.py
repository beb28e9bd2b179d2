"""Writes this process's connections into the database for the admin, and closes those that the admin asks to close.

One task, off the hot path: each second one small query for disconnect requests, the rows that came or went, and the counters of
one part of the rest; all have had their turn within ``CONFIRM`` seconds, never in one burst that the fan-out would have to wait
for. The database may be away: then the admin's page is old, and nothing else suffers.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import structlog
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import Error as DatabaseError
from django.db import close_old_connections, connections
from django.utils import timezone

from argus.errors import DISCONNECTED, ArgusError
from streaming.connection import Connection
from streaming.hub import Hub
from streaming.models import LiveConnection
from streaming.protocol import Failure

log = structlog.get_logger(__name__)

LOOK = 1.0
"""Seconds between two looks for disconnect requests: they act within two."""
CONFIRM = 10.0
"""Seconds between two writes of one connection's counters."""
FAREWELL = 1.0
"""Seconds for taking the rows away at the end; what then remains is purged by other processes."""
CHUNK = 500

COUNTERS = ["key", "prefix", "plan", "symbols", "frames", "bytes", "behind", "seen_at"]


class _Work(NamedTuple):
    rows: list[LiveConnection]
    gone: list[str]
    purge: bool


class Presence:
    """The connections of one hub, as rows."""

    def __init__(self, hub: Hub) -> None:
        self.process = f"{socket.gethostname()[:48]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._hub = hub
        self._written: dict[str, Connection] = {}
        self._turn = 0

    async def run(self) -> None:
        """Write and look until cancelled; then take the rows away."""
        # A thread of its own: neither Django's views nor this wait for each other.
        async with ThreadSensitiveContext():
            try:
                while True:
                    await self.exchange()
                    await asyncio.sleep(LOOK)
            finally:
                await self._leave()

    async def exchange(self) -> None:
        """Write what has changed, and close what the admin wants closed."""
        live = {id: connection for id, connection in self._hub.connections.items() if connection.principal is not None}
        turns = max(1, round(CONFIRM / LOOK))
        turn = self._turn % turns
        due = [one for id, one in live.items() if id not in self._written or hash(id) % turns == turn]
        work = _Work(list(self._rows(due)), list(self._written.keys() - live.keys()), purge=turn == 0)
        if not live and not work.gone and not work.purge:
            self._turn = turn + 1
            return
        try:
            unwanted = await sync_to_async(_write)(self.process, work)
        except DatabaseError as error:
            log.warning("presence_not_written", error=type(error).__name__)
            return
        self._written = live
        self._turn = turn + 1
        for id in unwanted:
            connection = self._hub.connections.get(id)
            if connection is not None:
                log.info("stream_disconnected_by_operator", connection_id=id)
                connection.say(Failure(ArgusError(DISCONNECTED)))
                connection.close(DISCONNECTED)

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(FAREWELL):
                await sync_to_async(_forget)(self.process)
        except (DatabaseError, TimeoutError) as error:
            log.warning("presence_not_taken_away", error=type(error).__name__)

    def _rows(self, live: Iterable[Connection]) -> Iterator[LiveConnection]:
        now = timezone.now()
        for connection in live:
            principal = connection.principal
            assert principal is not None
            yield LiveConnection(
                connection_id=connection.id,
                process=self.process,
                key_id=principal.key_id,
                prefix=principal.prefix,
                plan=principal.plan,
                address=connection.address,
                connected_at=datetime.fromtimestamp(connection.opened, UTC),
                symbols=connection.symbols,
                frames=connection.frames,
                bytes=connection.bytes,
                behind=connection.behind_since is not None,
                seen_at=now,
            )


def _write(process: str, work: _Work) -> list[str]:
    """Do one round of writing; the ids that are to be disconnected."""
    with _own_connection():
        for start in range(0, len(work.gone), CHUNK):
            LiveConnection.objects.filter(pk__in=work.gone[start : start + CHUNK]).delete()
        if work.rows:
            LiveConnection.objects.bulk_create(
                work.rows, CHUNK, update_conflicts=True, unique_fields=["connection_id"], update_fields=COUNTERS
            )
        if work.purge:
            LiveConnection.objects.dead().delete()
        return list(LiveConnection.objects.filter(process=process, disconnect=True).values_list("pk", flat=True))


def _forget(process: str) -> None:
    with _own_connection():
        LiveConnection.objects.filter(process=process).delete()
    connections.close_all()


@contextmanager
def _own_connection() -> Iterator[None]:
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()

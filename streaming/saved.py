"""What of a connection outlives it for a while: its subscriptions, under a token that only its client has.

It lies in the Django cache, where every web process finds it, and is written within ``LOOK`` of a change. While the connection is
open it is renewed; from its end on it is kept for ``HELD`` seconds. A process that is killed leaves it for longer.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import deque
from collections.abc import Collection, Mapping

import msgspec
import redis
import structlog
from django.core.cache import cache

from marketdata.types import DataType
from streaming.filters import Filter
from streaming.protocol import Position
from streaming.selection import Frequency

log = structlog.get_logger(__name__)

HELD = 60
"""Seconds for which a session is kept after its connection."""
LOOK = 0.2
"""Seconds between two writes of what has changed."""
OPEN = 300
"""Seconds for which the session of an open connection is kept unless it is renewed."""
RENEW = 120.0
DEADLINE = 3.0
"""Seconds for reading or writing."""


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription as it was asked for. ``since``: feed -> the last message before it took in something new; ``acked``: feed ->
    the last one that the client has acknowledged; ``covers`` is another number where it stands for something else, because the
    members of its groups or the plan's data types are others."""

    symbols: list[str]
    data_types: list[DataType]
    update_frequency: Frequency
    filters: Filter | None = None
    ack: bool = False
    since: dict[str, Position]
    acked: dict[str, Position] = {}
    covers: int = 0


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A session. ``prefix`` and ``digest`` say whose it is; nobody can make a key of them."""

    prefix: str
    digest: str
    subscriptions: dict[str, Saved]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(24)


async def load(token: str) -> Record | None:
    """The session of a token; None where it has ended or never was, or where a process of another version has written it in its
    own way. Raises ``TimeoutError`` or the cache's own error."""
    async with asyncio.timeout(DEADLINE):
        data = await asyncio.to_thread(cache.get, _name(token))
    if data is None:
        return None
    try:
        return _decode(data)
    except msgspec.MsgspecError as error:
        log.warning("session_not_read", error=type(error).__name__)
        return None


class Keeper:
    """Writes the sessions of one process."""

    def __init__(self) -> None:
        self._open: dict[str, Record] = {}
        self._changed: dict[str, tuple[Record, int]] = {}
        """Token -> what is to be written, and for how many seconds."""
        self._ended: deque[tuple[float, str]] = deque()
        """When (monotonic) a session is over, and its token."""
        self._renewed = time.monotonic()

    def keep(self, token: str, record: Record) -> None:
        """The session of an open connection is this now."""
        self._open[token] = record
        self._changed[token] = (record, OPEN)

    def end(self, token: str) -> None:
        """Its connection has ended."""
        if (record := self._open.pop(token, None)) is not None:
            self._changed[token] = (record, HELD)
            self._ended.append((time.monotonic() + HELD, token))

    async def run(self) -> None:
        """Write until cancelled; then leave all of them to be taken up elsewhere. After a failure it may be run again."""
        try:
            while True:
                await asyncio.sleep(LOOK)
                if time.monotonic() - self._renewed >= RENEW:
                    self._renewed = time.monotonic()
                    self._changed = {token: (record, OPEN) for token, record in self._open.items()} | self._changed
                await self._write()
        except asyncio.CancelledError:
            for token in list(self._open):
                self.end(token)
            await self._write()
            raise

    async def _write(self) -> None:
        now, over = time.monotonic(), list[str]()
        while self._ended and self._ended[0][0] < now - LOOK:
            over.append(self._ended.popleft()[1])
        if not self._changed and not over:
            return
        work, self._changed = self._changed, {}
        try:
            async with asyncio.timeout(DEADLINE):
                await asyncio.to_thread(_write, work, over)
        except BaseException as error:
            self._changed = work | self._changed
            if not isinstance(error, TimeoutError | redis.RedisError):
                raise
            log.warning("sessions_not_written", sessions=len(work), error=type(error).__name__)


def _write(work: Mapping[str, tuple[Record, int]], over: Collection[str]) -> None:
    for seconds in (OPEN, HELD):
        chosen = {_name(token): _encode(record) for token, (record, kept) in work.items() if kept == seconds}
        if chosen:
            cache.set_many(chosen, seconds)
    if over:
        # A cache in this process lets go of nothing by itself.
        cache.delete_many(map(_name, over))


def _name(token: str) -> str:
    return f"stream-session:{hashlib.sha256(token.encode()).hexdigest()}"

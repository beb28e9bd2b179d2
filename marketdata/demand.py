"""Who wants which bars and trades: every web process says what its clients cover, and the feeds publish that alone.

What a process says lies in the Django cache, the one place that web processes and feeds share, embedded and scaled alike. It
lies under one of ``SLOTS`` numbered keys, so that a feed finds all of them with one question; who finds its slot taken or
gone takes another. The slot says the revision alone, the list beside it is read when that has changed. A process that ends
without a word is forgotten after ``TTL``; while the cache does not answer, what was last known holds.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterable

import msgspec
import redis
import structlog
from django.core.cache import cache

from marketdata.klines import Wanted, beyond
from marketdata.types import DataType

log = structlog.get_logger(__name__)

TTL = 75
"""Seconds for which an announcement holds: of a process that has stopped, until its clients' sessions are over."""
RENEW = 5.0
"""Seconds between two announcements of the same."""
LOOK = 1.0
"""Seconds between two looks of a feed."""
SLOTS = 128
"""Web processes that can want something at the same time; one more is told so in its log, and its clients receive none of it."""

Lists = dict[DataType, list[str] | None]


class Slot(msgspec.Struct, frozen=True, array_like=True):
    """Who holds a slot. A larger ``generation`` says that the process has lost what it had and wants all of it anew."""

    process: str
    generation: int
    revision: int


_encode = msgspec.msgpack.encode
_slot = msgspec.msgpack.Decoder(Slot).decode
_lists = msgspec.msgpack.Decoder(Lists).decode


def _slot_key(number: int) -> str:
    return f"demand:{number}"


def _lists_key(slot: Slot) -> str:
    return f"demand:{slot.process}:{slot.revision}"


class Announcer:
    """A web process's word on what its clients cover. Blocking: call it on a thread, one call at a time."""

    def __init__(self) -> None:
        self.process = f"{socket.gethostname()[:48]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._number: int | None = None
        self._revision = 0
        self._said: Wanted = {}

    def announce(self, wanted: Wanted, generation: int = 0) -> bool:
        """Say, or say again, what is wanted; nothing at all gives the slot back. Whether the cache has taken it."""
        try:
            if not wanted:
                self._withdraw()
                return True
            changed = wanted != self._said
            self._revision += changed
            slot = Slot(self.process, generation, self._revision)
            lists: Lists = {what: None if names is None else sorted(names) for what, names in wanted.items()}
            cache.set(_lists_key(slot), _encode(lists), 2 * TTL)
            self._said = wanted
            taken = self._put(_encode(slot))
            if changed:
                # A cache in this process lets go of nothing by itself. A feed that has just seen the slot of before looks again.
                cache.delete(_lists_key(Slot(self.process, generation, self._revision - 1)))
            return taken
        except redis.RedisError as error:
            log.warning("demand_not_announced", error=type(error).__name__)
            return False

    def _put(self, value: bytes) -> bool:
        if self._number is not None and self._holder(self._number) == self.process:
            cache.set(_slot_key(self._number), value, TTL)
            return True
        for number in range(SLOTS):
            if cache.add(_slot_key(number), value, TTL):
                self._number = number
                return True
        self._number = None
        log.error("demand_without_slot", slots=SLOTS)
        return False

    @staticmethod
    def _holder(number: int) -> str | None:
        value = cache.get(_slot_key(number))
        return None if value is None else _slot(value).process

    def _withdraw(self) -> None:
        if self._number is not None and self._holder(self._number) == self.process:
            cache.delete(_slot_key(self._number))
        self._number, self._said = None, {}


class Demand:
    """A feed's view of what all web processes want together. Not thread-safe: one owner."""

    def __init__(self) -> None:
        self.wanted: Wanted = {}
        self._known: dict[str, tuple[Slot, Wanted]] = {}
        self._look_at = 0.0

    def look(self) -> Wanted:
        """Look once a second; what some process has begun to want since the last look."""
        now = time.monotonic()
        if now < self._look_at:
            return {}
        self._look_at = now + LOOK
        try:
            slots = [_slot(value) for value in cache.get_many([_slot_key(number) for number in range(SLOTS)]).values()]
            known = {slot.process: found for slot in slots if (found := self._read(slot)) is not None}
        except (redis.RedisError, msgspec.MsgspecError) as error:
            log.warning("demand_unknown", error=type(error).__name__)
            return {}
        news = [_news(self._known.get(process), found) for process, found in known.items()]
        if known != self._known:
            self._known = known
            self.wanted = united(wanted for _, wanted in known.values())
        return united(news)

    def _read(self, slot: Slot) -> tuple[Slot, Wanted] | None:
        known = self._known.get(slot.process)
        if known is not None and known[0] == slot:
            return known
        if known is not None and known[0].revision == slot.revision:
            return slot, known[1]
        value = cache.get(_lists_key(slot))
        if value is None:
            return known
        return slot, {what: None if names is None else frozenset(names) for what, names in _lists(value).items()}


def _news(before: tuple[Slot, Wanted] | None, now: tuple[Slot, Wanted]) -> Wanted:
    """What a process wants that it has not had."""
    if before is None or before[0].generation != now[0].generation:
        return now[1]
    if before is now:
        return {}
    return beyond(now[1], before[1])


def united(parts: Iterable[Wanted]) -> Wanted:
    """What any of them wants."""
    result: dict[DataType, frozenset[str] | None] = {}
    for part in parts:
        for what, names in part.items():
            here = result.get(what, frozenset())
            result[what] = None if names is None or here is None else here | names
    return result

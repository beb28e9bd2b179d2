"""L2: blocks that all processes share, as bytes in Redis; without Redis this tier is off.

The same Redis as Django's cache, spoken to directly, because that cache pickles (a foreign value must never be unpickled),
counts seconds (a forming bar lives for one) and cannot list its keys. Without Redis Django's cache is this process' own
memory, where a second copy would serve nobody.

Redis away is a miss and never an error: a call takes at most ``TIMEOUT`` seconds, and after one that failed none is made
for ``PAUSE`` seconds.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar

import redis
import structlog

from marketdata.cache.block import Block, BlockKey
from marketdata.cache.codec import Damaged, decode, encode
from marketdata.cache.metrics import Counts

log = structlog.get_logger(__name__)
T = TypeVar("T")
Reasons = dict[BlockKey, str]
Where = Literal["any", "there", "absent"]

PREFIX: Final = "argus:bars:"
TIMEOUT: Final = 1.0
"""Seconds that a call to Redis may take."""
PAUSE: Final = 5.0
"""Seconds without a call after one that failed."""
LOG_EVERY: Final = 60.0
LARGEST: Final = 32 * 1024 * 1024
"""Bytes of a value; a larger one is left to the files."""
_CHUNK: Final = 500

_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Usage(NamedTuple):
    """What lies in a tier: blocks or files, their bytes, and whether all of them could be counted in time."""

    entries: int
    bytes: int
    complete: bool


class Shared:
    """Safe to use from several threads. ``url``: Redis; empty: everything is a miss and nothing is counted."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.on = bool(url)
        self.counts = Counts()
        self._clock = clock
        self._lock = threading.Lock()
        self._away_until = float("-inf")
        self._logged = float("-inf")
        self._client: Any = None
        if url:
            self._client = redis.Redis.from_url(
                url, protocol=2, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT / 2, retry=None, retry_on_error=[]
            )

    def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            self._client.close()

    # Blocks

    def get_many(self, keys: Sequence[BlockKey], renew: Mapping[BlockKey, float]) -> tuple[dict[BlockKey, Block], Reasons]:
        """The blocks that are there, and for which keys the source is known to have nothing (more), in one round trip.

        In the same one the times to live of ``renew`` are set anew, in seconds.
        """
        if not self.on or not keys:
            return {}, {}
        names = [_name(key) for key in keys]

        def ask(client: Any) -> list[Any]:
            with client.pipeline(transaction=False) as pipe:
                pipe.mget(names)
                pipe.mget([_name(key, "nothing") for key in keys])
                for key, seconds in renew.items():
                    pipe.pexpire(_name(key), int(seconds * 1000))
                return list(pipe.execute()[:2])

        nothing = [None] * len(names)
        values, reasons = self._call(ask) or (nothing, nothing)
        found: dict[BlockKey, Block] = {}
        for key, name, value in zip(keys, names, values, strict=True):
            if value is not None and (block := self._decode(name, value)) is not None:
                found[key] = block
        self.counts.add(hits=len(found), misses=len(keys) - len(found))
        return found, {key: why.decode(errors="replace") for key, why in zip(keys, reasons, strict=True) if why is not None}

    def put_many(self, blocks: Mapping[BlockKey, Block], seconds: Callable[[BlockKey], float], *, where: Where = "any") -> None:
        """Store blocks, each for so many seconds, in one round trip; that the source has nothing is not said any more.

        ``where``: ``there``: only in the place of another; ``absent``: only where there is none, because what is there may be
        newer; nor do such blocks tell anything new of what the source has.
        """
        if not self.on or not blocks:
            return
        values = {key: encode(block) for key, block in blocks.items()}
        fitting = {key: value for key, value in values.items() if len(value) <= LARGEST}

        def store(client: Any) -> bool:
            with client.pipeline(transaction=False) as pipe:
                if where != "absent":
                    pipe.delete(*(_name(key, "nothing") for key in values))
                for key, value in fitting.items():
                    pipe.set(_name(key), value, px=int(seconds(key) * 1000), xx=where == "there", nx=where == "absent")
                pipe.execute()
            return True

        if self._call(store):
            self.counts.add(writes=len(fitting), refused=len(values) - len(fitting))

    # What lives for a short time: forming bars and "there is none"

    def get_forming(self, keys: Sequence[BlockKey]) -> dict[BlockKey, tuple[Block, float]]:
        """The blocks that are there, each with the seconds that are left of it, in one round trip."""
        if not self.on or not keys:
            return {}
        names = [_name(key, "forming") for key in keys]

        def ask(client: Any) -> list[Any]:
            with client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.get(name)
                    pipe.pttl(name)
                return list(pipe.execute(raise_on_error=False))

        answers = self._call(ask) or []
        found: dict[BlockKey, tuple[Block, float]] = {}
        for key, name, value, left in zip(keys, names, answers[::2], answers[1::2], strict=False):
            if isinstance(value, bytes) and left > 0 and (block := self._decode(name, value)) is not None:
                found[key] = block, left / 1000
        return found

    def put_forming(self, blocks: Mapping[BlockKey, tuple[Block, float]]) -> None:
        """Store each for so many seconds, in one round trip."""
        if self.on:
            self._put({_name(key, "forming"): (encode(block), seconds) for key, (block, seconds) in blocks.items()})

    def put_nothing(self, reasons: Mapping[BlockKey, tuple[str, float]]) -> None:
        """Remember for so many seconds that, and why, the source has none, in one round trip."""
        if self.on:
            self._put({_name(key, "nothing"): (reason.encode(), seconds) for key, (reason, seconds) in reasons.items()})

    def _put(self, values: Mapping[str, tuple[bytes, float]]) -> None:
        def store(client: Any) -> None:
            with client.pipeline(transaction=False) as pipe:
                for name, (value, seconds) in values.items():
                    pipe.set(name, value, px=max(1, int(seconds * 1000)))
                pipe.execute()

        if values:
            self._call(store)

    # Between processes

    def lock(self, key: str, seconds: float) -> Callable[[], None] | None:
        """Take a lock that ends by itself; what gives it back, or None where another process has it.

        Where Redis does not answer, everybody gets it: work done twice is better than none.
        """
        name, token = f"{PREFIX}flight:{hashlib.sha256(key.encode()).hexdigest()[:32]}", secrets.token_hex(8)
        taken = self._call(lambda client: [client.set(name, token, nx=True, px=max(1, int(seconds * 1000)))])
        if taken is None:
            return _nothing_to_release
        if not taken[0]:
            return None
        return lambda: self._release(name, token)

    def generation(self) -> int | None:
        """Counts the times that somebody cleared the processes' memories; None where Redis does not answer."""
        answer = self._call(lambda client: [client.get(f"{PREFIX}generation")])
        return None if answer is None else int(answer[0] or 0)

    def next_generation(self) -> None:
        """Tell all processes to clear their memories."""
        self._call(lambda client: client.incr(f"{PREFIX}generation"))

    # What operators ask

    def usage(self, market: str, *, seconds: float = 2.0) -> Usage:
        """How much of a market lies here, as far as can be counted in so many seconds."""
        until = self._clock() + seconds
        entries = size = 0
        for names in self._scan(f"*:{market}:*"):
            if self._clock() > until:
                return Usage(entries, size, complete=False)
            sizes = self._lengths(names)
            if sizes is None:
                return Usage(entries, size, complete=False)
            entries += len(names)
            size += sum(sizes)
        return Usage(entries, size, complete=not self.on or not self._away())

    def remove(self, market: str, symbol: str | None, periods: Iterable[str] | None) -> int:
        """Delete what lies here of a market, or of one symbol, or of some periods; how many values there were."""
        patterns = [f"*:{market}:{symbol or '*'}:{period}:*" for period in (periods if periods is not None else ("*",))]
        removed = 0
        for pattern in patterns:
            for names in self._scan(pattern):
                removed += self._unlink(names)
        return removed

    def _scan(self, pattern: str) -> Iterator[list[bytes]]:
        cursor = 0
        while self.on:
            page = self._page(cursor, pattern)
            if page is None:
                return
            cursor, names = page
            if names:
                yield names
            if cursor == 0:
                return

    def _page(self, cursor: int, pattern: str) -> tuple[int, list[bytes]] | None:
        return self._call(lambda client: client.scan(cursor, match=f"{PREFIX}{pattern}", count=_CHUNK))

    def _unlink(self, names: list[bytes]) -> int:
        return self._call(lambda client: int(client.unlink(*names))) or 0

    def _lengths(self, names: list[bytes]) -> list[int] | None:
        def ask(client: Any) -> list[int]:
            with client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.strlen(name)
                return list(pipe.execute())

        return self._call(ask)

    def _release(self, name: str, token: str) -> None:
        self._call(lambda client: client.eval(_RELEASE, 1, name, token))

    def _decode(self, name: str, value: bytes) -> Block | None:
        try:
            return decode(value)
        except Damaged as error:
            self.counts.add(corrupt=1)
            log.warning("cache_value_damaged", key=name, reason=str(error))
            self._call(lambda client: client.delete(name))
            return None

    def _away(self) -> bool:
        return self._clock() < self._away_until

    def _call(self, work: Callable[[Any], T]) -> T | None:
        """What Redis answers; None where there is none, or it is away."""
        if not self.on or self._away():
            return None
        try:
            return work(self._client)
        except redis.RedisError as error:
            now = self._clock()
            with self._lock:
                # A wrong type at one key is that key's affair; silence or a lost connection is everybody's.
                if isinstance(error, redis.ConnectionError | redis.TimeoutError):
                    self._away_until = now + PAUSE
                told = now - self._logged < LOG_EVERY
                self._logged = self._logged if told else now
            self.counts.add(errors=1)
            if not told:
                log.warning("cache_redis_failed", error=type(error).__name__, detail=str(error)[:200])
            return None


def _name(key: BlockKey, sort: str = "block") -> str:
    return f"{PREFIX}{sort}:{key.market}:{key.symbol}:{key.period}:{key.part}"


def _nothing_to_release() -> None:
    """There is no lock."""

"""The three tiers as one: where a block is found, what moves up and down, and what operators ask of all of it.

Down from L1 (memory) over L2 (Redis) to L3 (files); what is found below is kept in L1 from then on, and what was used more
than once within a day in L2 as well. A tier that has a block without all of the days that are wanted ends the way down as
little as one that has none: another process may have stored more, and what several tiers have is joined. What is written goes
to L3 first, where it is merged with what is there, then up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from enum import StrEnum
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from prometheus_client import REGISTRY

from argus.config import config
from marketdata import market_time
from marketdata.cache import ttl
from marketdata.cache.archive import Archive
from marketdata.cache.block import Block, BlockKey
from marketdata.cache.flight import Flight
from marketdata.cache.heat import Heat
from marketdata.cache.memory import Memory
from marketdata.cache.metrics import CacheCollector, Counted, Reading
from marketdata.cache.shared import Shared
from marketdata.cache.shortlived import ShortLived
from marketdata.series import Series
from marketdata.symbols import market_of
from marketdata.types import Period

log = structlog.get_logger(__name__)

BASES: Final = (Period.M1, Period.D1)
"""The periods that are kept; all others are computed from them."""
WARMED: Final = 200
"""Blocks that an optimization brings back into memory."""
WATCH_EVERY: Final = 1.0
"""Seconds between two looks at whether another process has cleared the tiers."""
SHARING: Final = 32
"""Answers whose blocks may wait for their way into Redis."""


class Tier(StrEnum):
    """Where bars came from."""

    L1 = "l1"
    L2 = "l2"
    L3 = "l3"
    TERMINAL = "terminal"


CACHES: Final = (Tier.L1, Tier.L2, Tier.L3)
Days = Mapping[BlockKey, Collection[date]]
ANY: Final[Days] = {}
"""No day in particular: a block is enough as it is."""


class Found(NamedTuple):
    """``block`` None: it must come from the terminal, and so says ``tier``, else the slowest tier that has a part in it.
    ``nothing``: the days (``date.toordinal``, separated by blanks) of which the terminal said lately that it has no more."""

    block: Block | None
    tier: Tier
    nothing: str = ""

    def lacking(self, days: Iterable[date]) -> list[date]:
        """Those of the days of which nothing is known, but for those of which the terminal has no more."""
        missing = list(days) if self.block is None else self.block.missing(days)
        said = self.nothing.split()
        return [day for day in missing if str(day.toordinal()) not in said] if said else missing

    def is_enough(self, days: Iterable[date]) -> bool:
        """Whether there is a block, and nothing of the days is lacking."""
        return self.block is not None and not self.lacking(days)

    def joined(self, block: Block | None, tier: Tier) -> Found:
        """With what a slower tier has, where that tells more; of two bars the one that was fetched later counts."""
        mine = self.block
        if block is None or (mine and block.days <= mine.days and block.fetched_at <= mine.fetched_at):
            return self
        if mine is not None:
            block = mine.with_more(block) if mine.fetched_at <= block.fetched_at else block.with_more(mine)
        return self._replace(block=block, tier=tier)


class HotKey(msgspec.Struct, frozen=True):
    """A block that is used often."""

    symbol: str
    period: Period
    part: str
    uses: int


class TierStats(msgspec.Struct, frozen=True):
    """One tier. ``entries`` and ``bytes`` are what lies there now (L3: files); ``limit`` in bytes where there is one."""

    on: bool
    entries: int
    bytes: int
    limit: int | None
    complete: bool
    """Whether all that lies there could be counted in time."""
    hit_rate: float | None
    events: Counted


class Stats(msgspec.Struct, frozen=True):
    """``hit_rate``: blocks that any tier had, among all that were asked for; None before the first."""

    market: str
    hit_rate: float | None
    lookups: int
    tiers: dict[str, TierStats]
    hottest: list[HotKey]


class Optimized(msgspec.Struct, frozen=True):
    """What an optimization did within its time; ``finished`` False: the next one goes on where this one stopped."""

    finished: bool
    files: int
    checked: int
    rewritten: int
    corrupt: int
    swept: int
    expired: int
    warmed: int
    bytes_before: int
    bytes_after: int
    seconds: float


class Busy(Exception):
    """An optimization is under way."""


class Tiers:
    """Blocking and safe to use from several threads; ``get_memory`` and ``get_forming_memory`` alone never wait."""

    def __init__(self, *, market: str, memory: Memory, shared: Shared, archive: Archive) -> None:
        self.market = market
        self.memory = memory
        self.shared = shared
        self.archive = archive
        self.heat = Heat()
        self.flight: Flight[Any] = Flight(shared)
        self._forming: ShortLived[Block] = ShortLived(bound=20_000)
        self._nothing: ShortLived[str] = ShortLived(bound=20_000)
        self._refusals: dict[BlockKey, tuple[str, int]] = {}
        self._background = ThreadPoolExecutor(1, thread_name_prefix="cache")
        self._sharing = threading.BoundedSemaphore(SHARING)
        self._generation: int | None = None
        self._watched = float("-inf")
        self._optimizing = threading.Lock()
        self._checked_to = ""

    def close(self) -> None:
        """End the threads and connections."""
        self._background.shutdown()
        self.archive.close()
        self.shared.close()

    # Blocks

    def get(self, key: BlockKey) -> Found:
        """One block; see ``get_many``."""
        return self.get_many((key,))[key]

    def get_many(self, keys: Iterable[BlockKey], days: Days = ANY) -> dict[BlockKey, Found]:
        """What the tiers have of each key, down to the one with which nothing is lacking of the key's ``days``.

        Raises ``ValueError`` for a key whose symbol or part is none.
        """
        wanted = list(dict.fromkeys(keys))
        self._watch()
        self.heat.use(wanted)
        found = self._found(wanted, self.memory.get_many(wanted))
        if below := {key: item for key, item in found.items() if not item.is_enough(days.get(key, ()))}:
            found |= self._get_below(below, days)
        return found

    def get_memory(self, keys: Iterable[BlockKey], days: Days = ANY) -> dict[BlockKey, Found] | None:
        """The same without I/O: all of the keys from memory, or None (and nothing counted) where that is not enough."""
        wanted = list(dict.fromkeys(keys))
        self._watch()
        found = self._found(wanted, self.memory.peek_many(wanted))
        if not all(item.is_enough(days.get(key, ())) for key, item in found.items()):
            return None
        self.heat.use(wanted)
        self.memory.get_many(wanted)
        return found

    def cover_many(self, keys: Iterable[BlockKey], days: Days = ANY) -> dict[BlockKey, Found]:
        """What the blocks cover that memory and, where it lacks some of the ``days``, files have, without their bars and without
        counting them as used.

        For answers that are larger than memory should hold: their bars are read once, by ``peek_many``.
        """
        wanted = list(dict.fromkeys(keys))
        self._watch()
        held = {key: block.bare() for key, block in self.memory.peek_many(wanted).items()}
        return self._with_files(wanted, held, days, self.archive.cover_many)

    def peek_many(self, keys: Iterable[BlockKey], days: Days = ANY, *, counted: bool = False) -> dict[BlockKey, Block]:
        """The blocks that memory and, where it lacks some of the ``days``, files have, and nothing is moved up: whoever looks
        through the market leaves memory to those who come again. ``counted``: as hits and misses, because somebody has asked
        for them."""
        wanted = list(dict.fromkeys(keys))
        held = self.memory.peek_many(wanted)
        if counted:
            self.memory.counts.add(hits=len(held), misses=len(wanted) - len(held))
        found = self._with_files(wanted, held, days, lambda below: self.archive.read_many(below, counted=counted))
        return {key: item.block for key, item in found.items() if item.block is not None}

    def put(self, key: BlockKey, block: Block) -> Block:
        """Keep what was fetched; the block with all that was known before, the new bars counting."""
        return self.put_many({key: block})[key]

    def put_many(self, blocks: Mapping[BlockKey, Block], *, asked: bool = True) -> dict[BlockKey, Block]:
        """Write-through: files, then the shared tier, then memory. A tier that fails is left out, and counted.

        Of a block without a bar and without a day nothing is written: that the source has none yet is ``put_nothing``'s to say.
        ``asked`` False: nobody waits for them (a backfill), so Redis and memory are only kept true and not filled.
        """
        telling = {key: block for key, block in blocks.items() if len(block.series) or block.days}
        merged = self.archive.write_many(telling)
        for key in telling.keys() - merged.keys():
            held = self.memory.peek(key)
            merged[key] = held.with_more(blocks[key]) if held else blocks[key]
        there = self.peek_many(blocks.keys() - telling.keys())
        merged |= {key: there.get(key, block) for key, block in blocks.items() if key not in telling}
        self.shared.put_many(merged, self._shared_seconds, where="any" if asked else "there")
        for key, block in merged.items():
            if asked or self.memory.peek(key):
                self.memory.put(key, block)
            self._nothing.remove(key)
        return merged

    # The open day

    def put_forming(self, bars: Mapping[BlockKey, tuple[Series, float]]) -> None:
        """Keep bars of the open day, each for so many seconds (``ttl.open_day``), in memory and in the shared tier.

        ``key.part`` is whatever tells one stretch from another, such as the day.
        """
        now = time.time_ns() // 1_000_000
        blocks = {key: (Block(series, frozenset(), now), seconds) for key, (series, seconds) in bars.items()}
        for key, (block, seconds) in blocks.items():
            self._forming.put(key, block, seconds)
        self.shared.put_forming(blocks)

    def get_forming(self, keys: Iterable[BlockKey]) -> dict[BlockKey, Found]:
        """Bars of the open day that are still good."""
        wanted = list(keys)
        found = self.get_forming_memory(wanted)
        for key, (block, seconds) in self.shared.get_forming([key for key in wanted if key not in found]).items():
            self._forming.put(key, block, seconds)
            found[key] = Found(block, Tier.L2)
        return found

    def get_forming_memory(self, keys: Iterable[BlockKey]) -> dict[BlockKey, Found]:
        """The same from memory alone."""
        return {key: Found(block, Tier.L1) for key in keys if (block := self._forming.get(key)) is not None}

    def last_forming(self, keys: Iterable[BlockKey]) -> dict[BlockKey, Block]:
        """Bars of the open day as they last came into this process' memory, good or not: better than none where no terminal
        answers."""
        return {key: block for key in keys if (block := self._forming.last(key)) is not None}

    # What there is not

    def put_nothing(self, reasons: Mapping[BlockKey, str], *, seconds: float | None = None) -> None:
        """Remember of which days of blocks the terminal has no more (``Found.nothing``), for so many seconds or by the rule
        (``ttl.nothing``), by which the same answer is believed the longer the more often it was given."""
        now = market_time.now()
        told: dict[BlockKey, tuple[str, float]] = {}
        for key, reason in reasons.items():
            before, times = self._refusals.get(key, ("", 0))
            times = times + 1 if before == reason else 1
            if len(self._refusals) >= 20_000:
                self._refusals.clear()
            self._refusals[key] = reason, times
            told[key] = reason, ttl.nothing(market_of(key.symbol), now, times=times) if seconds is None else seconds
            self._believe(key, *told[key])
        self.shared.put_nothing(told)

    # What operators ask

    def stats(self) -> Stats:
        """This process' counts; what lies in the shared tier and in the files is everybody's."""
        memory, shared, archive = self.memory.counts.read(), self.shared.counts.read(), self.archive.counts.read()
        lookups = memory.hits + memory.misses
        there, files = self.shared.usage(self.market), self.archive.usage(self.market)
        mine = TierStats(True, len(self.memory), self.memory.nbytes, self.memory.limit, True, memory.hit_rate, memory)
        return Stats(
            market=self.market,
            hit_rate=round(1 - archive.misses / lookups, 4) if lookups else None,
            lookups=lookups,
            tiers={
                Tier.L1: mine,
                Tier.L2: TierStats(self.shared.on, there.entries, there.bytes, None, there.complete, shared.hit_rate, shared),
                Tier.L3: TierStats(True, files.entries, files.bytes, None, files.complete, archive.hit_rate, archive),
            },
            hottest=[HotKey(key.symbol, key.period, key.part, uses) for key, uses in self.heat.hottest(10)],
        )

    def clear(
        self, tiers: Iterable[Tier] | None = None, symbol: str | None = None, period: Period | None = None
    ) -> dict[Tier, int]:
        """Delete from some tiers (None: all) what is of a symbol and a base period; how much each had (L3: files).

        Clearing memory clears that of all processes, the others' within a second of their next use.
        """
        removed: dict[Tier, int] = {}
        periods = BASES if period is None else (period,)

        def chosen(key: BlockKey) -> bool:
            return symbol in (None, key.symbol) and key.period in periods

        asked = set(CACHES if tiers is None else tiers)
        # From below: what is read meanwhile would otherwise come up again.
        if Tier.L3 in asked:
            removed[Tier.L3] = self.archive.remove(self.market, symbol, periods)
        if Tier.L2 in asked:
            # In the thread that fills it: what still waits to be put there must not come after.
            removal = self._background.submit(self.shared.remove, self.market, symbol, None if period is None else (period,))
            removed[Tier.L2] = removal.result()
        if Tier.L1 in asked:
            removed[Tier.L1] = self.memory.remove(chosen) + self._forming.remove_if(chosen)
            self._nothing.remove_if(chosen)
            self._refusals.clear()
            self.shared.next_generation()
        log.info("cache_cleared", symbol=symbol, period=period, **{str(tier): count for tier, count in removed.items()})
        return {tier: removed[tier] for tier in CACHES if tier in removed}

    def optimize(self, seconds: float = 10.0) -> Optimized:
        """Check and tidy the files, drop what has expired, bring the hottest blocks back into memory; stops after ``seconds``.

        Raises ``Busy`` while another one is under way.
        """
        if not self._optimizing.acquire(blocking=False):
            raise Busy
        try:
            return self._optimize(time.monotonic(), seconds)
        finally:
            self._optimizing.release()

    def reading(self) -> Reading:
        """What Prometheus is told."""
        counts: dict[str, Counted] = {
            Tier.L1: self.memory.counts.read(),
            Tier.L2: self.shared.counts.read(),
            Tier.L3: self.archive.counts.read(),
        }
        return counts, len(self.memory), self.memory.nbytes, self.memory.limit

    def _found(self, keys: Iterable[BlockKey], held: Mapping[BlockKey, Block]) -> dict[BlockKey, Found]:
        """Each of the keys with what memory has of it."""
        return {
            key: Found(held.get(key), Tier.L1 if key in held else Tier.TERMINAL, self._nothing.get(key) or "") for key in keys
        }

    def _believe(self, key: BlockKey, reason: str, seconds: float) -> None:
        """Not for long without a look at the shared tier: what another process brings is known there."""
        self._nothing.put(key, reason, min(seconds, ttl.NOTHING) if self.shared.on else seconds)

    def _get_below(self, above: Mapping[BlockKey, Found], days: Days) -> dict[BlockKey, Found]:
        """What memory has, which is not enough, joined with what the shared tier and, where that is not enough, files have."""
        again = {key: self._shared_seconds(key) for key in above if self.heat.uses(key) > 1}
        shared, reasons = self.shared.get_many(list(above), again)
        for key, reason in reasons.items():
            self._believe(key, reason, ttl.NOTHING)
        found = {
            key: item._replace(nothing=item.nothing or reasons.get(key, "")).joined(shared.get(key), Tier.L2)
            for key, item in above.items()
        }
        left = [key for key, item in found.items() if not item.is_enough(days.get(key, ()))]
        archived = self.archive.read_many(left) if left else {}
        found |= {key: found[key].joined(block, Tier.L3) for key, block in archived.items()}
        for key, item in found.items():
            if item.block is not None and item.block is not above[key].block:
                self.memory.put(key, item.block)
        self._share({key: block for key, block in archived.items() if key in again and key not in shared})
        return found

    def _with_files(
        self,
        keys: Sequence[BlockKey],
        held: Mapping[BlockKey, Block],
        days: Days,
        read: Callable[[list[BlockKey]], Mapping[BlockKey, Block]],
    ) -> dict[BlockKey, Found]:
        """What memory holds of the keys, joined with what files have where that is not enough."""
        found = {key: Found(block, Tier.L1) for key, block in held.items()}
        below = [key for key in keys if key not in found or found[key].lacking(days.get(key, ()))]
        nowhere = Found(None, Tier.TERMINAL)
        return found | {key: found.get(key, nowhere).joined(block, Tier.L3) for key, block in read(below).items()}

    def _share(self, blocks: Mapping[BlockKey, Block]) -> None:
        """Put blocks into Redis, where it has none yet, which no answer waits for. Where too much waits already, their next
        use may do it."""
        if not self.shared.on or not blocks or not self._sharing.acquire(blocking=False):
            return

        def put() -> None:
            try:
                self.shared.put_many(blocks, self._shared_seconds, where="absent")
            finally:
                self._sharing.release()

        self._background.submit(put)

    def _shared_seconds(self, key: BlockKey) -> float:
        return ttl.closed_days(self.heat.uses(key))

    def _watch(self) -> None:
        """Look in the background, at most once a second, whether another process has cleared the tiers."""
        now = time.monotonic()
        if self.shared.on and now - self._watched > WATCH_EVERY:
            self._watched = now
            self._background.submit(self._follow)

    def _follow(self) -> None:
        generation = self.shared.generation()
        if generation is None:
            return
        if self._generation is not None and generation != self._generation:
            self._forget()
        self._generation = generation

    def _forget(self) -> None:
        everything: Callable[[BlockKey], bool] = lambda key: True  # noqa: E731
        self.memory.remove(everything)
        self._forming.remove_if(everything)
        self._nothing.remove_if(everything)

    def _optimize(self, began: float, seconds: float) -> Optimized:
        until = began + seconds
        expired = self._forming.expire() + self._nothing.expire()
        warmed = self._warm(until)
        swept = self.archive.sweep()
        files = self.archive.files(self.market)
        checked = rewritten = corrupt = before = after = 0
        finished = True
        for path in (path for path in files if path > self._checked_to):
            if time.monotonic() >= until:
                finished = False
                break
            done = self.archive.check(path)
            checked += 1
            rewritten += done.rewritten
            corrupt += done.corrupt
            before += done.before
            after += done.after
            self._checked_to = path
        if finished:
            self._checked_to = ""
        report = Optimized(
            finished=finished,
            files=len(files),
            checked=checked,
            rewritten=rewritten,
            corrupt=corrupt,
            swept=swept,
            expired=expired,
            warmed=warmed,
            bytes_before=before,
            bytes_after=after,
            seconds=round(time.monotonic() - began, 3),
        )
        log.info("cache_optimized", **msgspec.to_builtins(report))
        return report

    def _warm(self, until: float) -> int:
        """The hottest blocks, as many as half the memory takes, without counting them as used."""
        warmed = 0
        for key, _uses in self.heat.hottest(WARMED):
            if time.monotonic() >= until or self.memory.nbytes > self.memory.limit / 2:
                break
            if self.memory.peek(key):
                continue
            for found, block in self.archive.read_many((key,), counted=False).items():
                self.memory.put(found, block)
                warmed += 1
        return warmed


@cache
def tiers() -> Tiers:
    """This process' tiers, made at first use from the configuration."""
    return Tiers(
        market=config.market,
        memory=Memory(config.cache_memory * 1024 * 1024),
        shared=Shared(config.redis_url),
        archive=Archive(config.archive),
    )


def forget() -> None:
    """End this process' tiers; what is in files and in Redis stays. The next use makes new ones."""
    if tiers.cache_info().currsize:
        tiers().close()
        tiers.cache_clear()


def flight() -> Flight[Any]:
    """This process' single flight, across processes through the shared tier."""
    return tiers().flight


REGISTRY.register(CacheCollector(lambda: tiers().reading() if tiers.cache_info().currsize else None))

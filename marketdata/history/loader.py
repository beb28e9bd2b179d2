"""The base bars of some symbols and days: from the tiers, and what those do not have from a terminal, into the tiers.

Of a closed day all is known once its bars were verified as complete, or once the terminal has given the same incomplete
answer twice, ``SECOND_LOOK`` seconds apart: an instrument that did not trade looks like a terminal that has not downloaded it
yet, and only time tells them apart. Days before the listing and after the last trading day are known without asking. A day
with refused bars is never taken as known: it is asked for again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import structlog
from django.core.cache import cache
from django.db import close_old_connections

from argus.config import config
from marketdata import models, periods
from marketdata.cache import ttl
from marketdata.cache.block import Block, BlockKey
from marketdata.cache.flight import DeadlineExceeded
from marketdata.cache.tiers import Tier, flight, tiers
from marketdata.calendar import DAY, TradingCalendar, day_of, midnight
from marketdata.history import fetch, metrics
from marketdata.history.claims import Claims, wait
from marketdata.history.fetch import FetchError
from marketdata.history.plan import CHUNK_SYMBOLS, Chunk, Need, chunks, is_closed, keys_of
from marketdata.series import EMPTY, Series
from marketdata.symbols import market_of
from marketdata.types import Period
from marketdata.verify import DOUBTFUL, verify

log = structlog.get_logger(__name__)

SECOND_LOOK: Final = 20.0
"""Seconds after which the same incomplete answer is believed."""
LOOKS_KEPT: Final = 86_400
"""Seconds for which it is remembered what was incomplete."""
SETTLING: Final = 5_000
"""Milliseconds after a minute's end in which its last trades may still be on their way to its bar."""
Look = tuple[float, int]
ORDER: Final = {tier: number for number, tier in enumerate(Tier)}

_claims = Claims()


@dataclass(slots=True)
class Loaded:
    """One symbol's base bars. ``reason`` says why something of them is missing, ``behind`` that it is the newest of them, and
    ``fetched_at`` (ms) when the newest that are here came from a terminal; None where none are.

    The ``blocks`` of a loader that is to leave the bars where they are have none.
    """

    blocks: list[Block] = field(default_factory=list)
    open_day: Series = EMPTY
    tier: Tier = Tier.L1
    reason: str = ""
    behind: bool = False
    open_day_at: int | None = None

    @property
    def fetched_at(self) -> int | None:
        """See above."""
        return max((block.fetched_at for block in self.blocks), default=None) if self.open_day_at is None else self.open_day_at

    def slowest(self, tier: Tier) -> None:
        """A tier had a part in it."""
        if ORDER[tier] > ORDER[self.tier]:
            self.tier = tier


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a fetched chunk: the blocks with all that is known now, bars refused by reason, the days of which
    something is still not known, and the symbols that lack them."""

    blocks: Mapping[BlockKey, Block]
    bars: int
    refused: Counter[str]
    incomplete: Mapping[str, int]


class Loader:
    """Of one market and one base period. ``deadline`` is on the monotonic clock; ``error`` why the last fetch failed.

    ``bare``: for an answer that is larger than memory should hold. What the tiers cover is looked up and not read, what they
    lack is fetched into them, and ``read`` then gives the bars of one symbol at a time.
    """

    def __init__(
        self, *, market: str, base: Period, need: Need, calendar: TradingCalendar, deadline: float, bare: bool = False
    ) -> None:
        self.need = need
        self._bare = bare
        self._lacking: set[str] = set()
        self.error: FetchError | None = None
        self._market = market
        self._base = base
        self._calendar = calendar
        self._deadline = deadline
        self._patience = config.fetch_timeout
        self._tiers = tiers()

    def load(self, symbols: Sequence[str]) -> dict[str, Loaded]:
        """What there is of the symbols, after fetching what was not there."""
        loaded = {symbol: Loaded() for symbol in symbols}
        wanted = {key: days for symbol in symbols for key, days in self.keys(symbol).items()}
        for key, block in self._closed_days(wanted, loaded).items():
            loaded[key.symbol].blocks.append(block)
        if self.need.open_day is not None:
            self._open_day(self.need.open_day, loaded)
        return loaded

    def load_now(self, symbols: Sequence[str]) -> dict[str, Loaded] | None:
        """The same from this process' memory, without waiting; None where anything is not there."""
        wanted = {key: days for symbol in symbols for key, days in self.keys(symbol).items()}
        found = self._tiers.get_memory(wanted, wanted)
        if found is None:
            return None
        loaded = {symbol: Loaded() for symbol in symbols}
        for key, item in found.items():
            if item.block is not None:
                loaded[key.symbol].blocks.append(item.block)
        if self.need.open_day is not None:
            open_keys = [self._open_key(symbol, self.need.open_day) for symbol in symbols]
            forming = self._tiers.get_forming_memory(open_keys)
            if len(forming) < len(open_keys):
                return None
            for key, of_open_day in forming.items():
                loaded[key.symbol].open_day = of_open_day.block.series if of_open_day.block else EMPTY
        return loaded

    def read(self, symbol: str) -> list[Block]:
        """The symbol's blocks as they lie in memory and files now. What has gone since it was loaded (a file that turns out to
        be damaged, memory that had to make room) is fetched again, all of it within as much time again. Raises ``FetchError``."""
        wanted = self.keys(symbol)
        blocks = self._tiers.peek_many(wanted, wanted, counted=True)
        if symbol not in self._lacking and any(key not in blocks or blocks[key].missing(days) for key, days in wanted.items()):
            begun = time.monotonic()
            again = Loader(
                market=self._market,
                base=self._base,
                need=Need(self.need.days, None),
                calendar=self._calendar,
                deadline=begun + self._patience,
            )
            close_old_connections()
            found = again.load((symbol,))[symbol].blocks
            self._patience -= time.monotonic() - begun
            if again.error is not None:
                raise again.error
            return found
        return [blocks[key] for key in wanted if key in blocks]

    def keys(self, symbol: str) -> dict[BlockKey, tuple[date, ...]]:
        """The symbol's blocks in order, each with the days that are needed of it."""
        return keys_of(config.market, symbol, self._base, self.need.days)

    def _closed_days(self, wanted: Mapping[BlockKey, tuple[date, ...]], loaded: Mapping[str, Loaded]) -> dict[BlockKey, Block]:
        blocks: dict[BlockKey, Block] = self._covered(wanted, loaded) if self._bare else {}
        pending = [key for key in wanted if key not in blocks]
        while pending:
            before = _claims.landed
            lacking = self._without_unlisted(self._look(pending, wanted, blocks, loaded), blocks)
            if not lacking or self.error is not None:
                break
            with _claims.take(lacking) as (mine, others):
                if _claims.landed != before:
                    # Between the look and the claim somebody may have brought it.
                    again = self._look(mine, wanted, blocks, loaded)
                else:
                    again = {key: lacking[key] for key in mine}
                for chunk in chunks(again, self._calendar.days) if again else ():
                    if not self._bring(chunk, blocks, loaded):
                        break
            if others and self.error is None and not wait(others.values(), self._deadline):
                self.error = FetchError("deadline", "Others are fetching the same bars, and they have not come in time.")
            pending = list(others)
        if self.error is not None:
            newest = self.need.days[-1] if self.need.days else None
            for key, days in wanted.items():
                missing = days if key not in blocks else blocks[key].missing(days)
                if missing:
                    loaded[key.symbol].reason = self.error.reason
                    loaded[key.symbol].behind |= newest in missing
        self._lacking |= {key.symbol for key, days in wanted.items() if key not in blocks or blocks[key].missing(days)}
        return {key: blocks[key] for key in wanted if key in blocks}

    def _covered(self, wanted: Mapping[BlockKey, tuple[date, ...]], loaded: Mapping[str, Loaded]) -> dict[BlockKey, Block]:
        """The blocks that lack nothing, without their bars."""
        blocks: dict[BlockKey, Block] = {}
        for key, found in self._tiers.cover_many(wanted, wanted).items():
            if found.block is not None and not found.block.missing(wanted[key]):
                blocks[key] = found.block
                loaded[key.symbol].slowest(found.tier)
        return blocks

    def _kept(self, block: Block) -> Block:
        return block.bare() if self._bare else block

    def _look(
        self,
        keys: Sequence[BlockKey],
        wanted: Mapping[BlockKey, tuple[date, ...]],
        blocks: dict[BlockKey, Block],
        loaded: Mapping[str, Loaded],
    ) -> dict[BlockKey, list[date]]:
        """Note what the tiers have of the keys; the days that must be asked for."""
        lacking: dict[BlockKey, list[date]] = {}
        for key, found in (self._tiers.get_many(keys, wanted) if keys else {}).items():
            if found.block is not None:
                blocks[key] = self._kept(found.block)
                loaded[key.symbol].slowest(found.tier)
            if days := found.lacking(wanted[key]):
                lacking[key] = days
        return lacking

    def _without_unlisted(self, lacking: dict[BlockKey, list[date]], blocks: dict[BlockKey, Block]) -> dict[BlockKey, list[date]]:
        """The days that must be asked for; those on which an instrument was not listed are noted as known to be empty."""
        listings = listings_of({key.symbol for key in lacking}) if lacking else {}
        asked: dict[BlockKey, list[date]] = {}
        empty: dict[BlockKey, Block] = {}
        for key, days in lacking.items():
            listed = [day for day in days if _was_listed(day, listings.get(key.symbol))]
            if len(listed) < len(days):
                unlisted = frozenset(day.toordinal() for day in days) - {day.toordinal() for day in listed}
                empty[key] = Block(EMPTY, unlisted, time.time_ns() // 1_000_000)
            if listed:
                asked[key] = listed
        if empty:
            blocks.update((key, self._kept(block)) for key, block in self._tiers.put_many(empty).items())
        return asked

    def _bring(self, chunk: Chunk, blocks: dict[BlockKey, Block], loaded: Mapping[str, Loaded]) -> bool:
        """Fetch a chunk into the tiers; False where it is no use to go on."""
        keys = [BlockKey(config.market, symbol, chunk.period, chunk.part) for symbol in chunk.symbols]
        days = self._calendar.between(chunk.first, chunk.last)

        def work() -> dict[BlockKey, Block]:
            return dict(store(fetch.bars(chunk, deadline=self._deadline), chunk, self._calendar).blocks)

        def brought() -> dict[BlockKey, Block] | None:
            found = self._tiers.get_many(keys, dict.fromkeys(keys, days))
            if any(item.lacking(days) for item in found.values()):
                return None
            return {key: item.block for key, item in found.items() if item.block is not None}

        try:
            name = f"{config.market} {chunk.period} {chunk.first} {chunk.last} {' '.join(chunk.symbols)}"
            landed = flight().run(name, work, seconds=self._deadline - time.monotonic(), look=brought)
            blocks.update((key, self._kept(block)) for key, block in landed.items())
        except FetchError as error:
            self.error = error
            return False
        except DeadlineExceeded:
            self.error = FetchError("deadline", "The bars did not come before the deadline; ask for less, or again.")
            return False
        for symbol in chunk.symbols:
            loaded[symbol].slowest(Tier.TERMINAL)
        return True

    def _open_key(self, symbol: str, day: date) -> BlockKey:
        return BlockKey(config.market, symbol, self._base, day.isoformat())

    def _open_day(self, day: date, loaded: Mapping[str, Loaded]) -> None:
        pending = list(loaded)
        while pending and self.error is None:
            with _claims.take(self._open_key(symbol, day) for symbol in self._look_open(pending, day, loaded)) as (mine, others):
                symbols = self._look_open([key.symbol for key in mine], day, loaded)
                for start in range(0, len(symbols), CHUNK_SYMBOLS):
                    chunk = Chunk(tuple(symbols[start : start + CHUNK_SYMBOLS]), self._base, day, day)
                    if not self._bring_open_day(chunk, loaded):
                        break
            if others and self.error is None and not wait(others.values(), self._deadline):
                self.error = FetchError("deadline", "Others are fetching the open day's bars, and they have not come in time.")
            pending = [key.symbol for key in others]
        if self.error is not None:
            symbols = self._look_open(list(loaded), day, loaded)
            last = self._tiers.last_forming(self._open_key(symbol, day) for symbol in symbols)
            for symbol in symbols:
                loaded[symbol].reason = loaded[symbol].reason or self.error.reason
                loaded[symbol].behind = True
                if (block := last.get(self._open_key(symbol, day))) is not None:
                    loaded[symbol].open_day, loaded[symbol].open_day_at = block.series, block.fetched_at

    def _look_open(self, symbols: Sequence[str], day: date, loaded: Mapping[str, Loaded]) -> list[str]:
        """Note what is known of the open day; the symbols of which nothing fresh is."""
        keys = {self._open_key(symbol, day): symbol for symbol in symbols}
        held = self._tiers.get_forming(keys)
        for key, found in held.items():
            loaded[key.symbol].open_day = found.block.series if found.block else EMPTY
            loaded[key.symbol].slowest(found.tier)
        return [symbol for key, symbol in keys.items() if key not in held]

    def _bring_open_day(self, chunk: Chunk, loaded: Mapping[str, Loaded]) -> bool:
        try:
            fetched = fetch.bars(chunk, deadline=self._deadline)
        except FetchError as error:
            self.error = error
            return False
        count_refused(fetched.refused)
        forming: dict[BlockKey, tuple[Series, float]] = {}
        last = self._last_end(fetched.now, chunk.first)
        settled = last is not None and fetched.now - last >= SETTLING
        for symbol in chunk.symbols:
            series, refused, _ = verify(
                fetched.bars.get(symbol, EMPTY), symbol=symbol, period=self._base, days=(chunk.first,), calendar=self._calendar
            )
            count_refused(refused)
            series = series.between(None, fetched.now)
            complete = settled and len(series) and series.time[-1] == last
            good = ttl.open_day(market_of(symbol), self._base, fetched.now, calendar=self._calendar) if complete else ttl.FORMING
            forming[self._open_key(symbol, chunk.first)] = series, good
            loaded[symbol].open_day = series
            loaded[symbol].slowest(Tier.TERMINAL)
        self._tiers.put_forming(forming)
        return True

    def _last_end(self, now: int, day: date) -> int | None:
        """The end of the newest bar that there can be by now."""
        since = now - midnight(day)
        ended = [end for end in periods.bar_ends(self._market, self._base) if end <= since]
        return midnight(day) + ended[-1] if ended else None


def store(fetched: fetch.Fetched, chunk: Chunk, calendar: TradingCalendar, *, asked: bool = True) -> Stored:
    """Verify what was fetched and put it into the tiers; of what nobody has ``asked`` for, only the files are filled."""
    days = calendar.between(chunk.first, chunk.last)
    market = periods.hours_of(chunk.symbols[0])
    closed = [day for day in days if is_closed(market, day, fetched.now)]
    keys = {symbol: BlockKey(config.market, symbol, chunk.period, chunk.part) for symbol in chunk.symbols}
    refused_in_all: Counter[str] = Counter(fetched.refused)
    listings = listings_of(chunk.symbols)
    looks = _looks(keys.values())
    now = time.time()
    blocks: dict[BlockKey, Block] = {}
    incomplete: dict[str, int] = {}
    seen: dict[str, dict[int, Look]] = {}
    for symbol, key in keys.items():
        series, refused, complete = verify(
            fetched.bars.get(symbol, EMPTY), symbol=symbol, period=chunk.period, days=days, calendar=calendar
        )
        refused_in_all.update({str(reason): count for reason, count in refused.items()})
        series = series.between(None, midnight(closed[-1]) + DAY) if closed else EMPTY
        known = {day for day in closed if day in complete or not _was_listed(day, listings.get(symbol))}
        if len(known) < len(closed):
            wrong = bool(fetched.refused) or not DOUBTFUL.isdisjoint(refused)
            before = looks.get(_look_name(key), {})
            rows = Counter(day_of(stamp - 1) for stamp in series.time.tolist())
            for day in set(closed) - known:
                first = before.get(day.toordinal())
                if not wrong and first is not None and first[1] == rows[day] and now - first[0] >= SECOND_LOOK:
                    known.add(day)
            open_ends: dict[int, Look] = {}
            for day in closed:
                if day not in known:
                    first = before.get(day.toordinal())
                    same = not wrong and first is not None and first[1] == rows[day]
                    open_ends[day.toordinal()] = first if same and first is not None else (now, rows[day])
            if open_ends:
                incomplete[symbol] = len(open_ends)
            settled = {day.toordinal() for day in known}
            seen[_look_name(key)] = {day: look for day, look in before.items() if day not in settled} | open_ends
        blocks[key] = Block(series, frozenset(day.toordinal() for day in known), time.time_ns() // 1_000_000)
    if seen:
        cache.set_many(seen, LOOKS_KEPT)
    merged = tiers().put_many(blocks, asked=asked)
    tiers().put_nothing({keys[symbol]: " ".join(map(str, seen[_look_name(keys[symbol])])) for symbol in incomplete})
    count_refused(refused_in_all)
    if incomplete or refused_in_all:
        log.info(
            "fetched_incomplete",
            period=chunk.period,
            first=chunk.first.isoformat(),
            last=chunk.last.isoformat(),
            symbols=len(chunk.symbols),
            incomplete=sum(incomplete.values()),
            refused=dict(refused_in_all),
        )
    return Stored(merged, sum(len(block.series) for block in blocks.values()), refused_in_all, incomplete)


def count_refused(refused: Mapping[Any, int]) -> None:
    """Into the metric."""
    for reason, count in refused.items():
        if count:
            metrics.REFUSED.labels(str(reason)).inc(count)


def _was_listed(day: date, listing: tuple[date | None, date | None] | None) -> bool:
    listed, delisted = listing or (None, None)
    return (listed is None or day >= listed) and (delisted is None or day <= delisted)


def listings_of(symbols: Collection[str]) -> dict[str, tuple[date | None, date | None]]:
    """The first and the last day of each, as far as the reference data knows the symbol and them."""
    rows = models.Instrument.objects.filter(symbol__in=symbols).values_list("symbol", "listed", "delisted")
    return {symbol: (listed, delisted) for symbol, listed, delisted in rows}


def _looks(keys: Iterable[BlockKey]) -> dict[str, dict[int, Look]]:
    """Of each block the days that came incomplete: when, and with how many bars."""
    found: dict[str, dict[int, Look]] = cache.get_many([_look_name(key) for key in keys])
    return found


def _look_name(key: BlockKey) -> str:
    return "argus.look." + ".".join(key)

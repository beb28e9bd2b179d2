"""Bars for a query: from the tiers what is there, from a terminal what is not, aggregated, adjusted, cut to what was asked.

Blocking (``prepare``) for threads; ``prepare_now`` answers on an event loop from this process's memory, or says that it cannot.
"""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import msgspec
import structlog

from argus.config import config
from argus.errors import OUTSIDE_CALENDAR, TOO_MUCH_DATA, UNSUPPORTED, ArgusError
from marketdata import market_time, periods
from marketdata.adjust import ALGORITHMS, RATIOS, Factors, RatioUnknown, adjust, factors, gives_ratio, last_closes
from marketdata.aggregate import aggregate
from marketdata.cache.block import ALL, Block, BlockKey
from marketdata.cache.memory import own
from marketdata.cache.tiers import Tier, tiers
from marketdata.calendar import DAY, OutsideCalendar, TradingCalendar, day_of, midnight
from marketdata.history import dividends, metrics
from marketdata.history.fetch import FetchError
from marketdata.history.loader import SETTLING, Loaded, Loader, listings_of
from marketdata.history.plan import Need, is_closed, need, span_of
from marketdata.history.query import POINT_IN_TIME, HistoryQuery
from marketdata.reference.days import NoCalendar, calendar_of
from marketdata.series import COLUMNS, EMPTY, Series, join, merge
from marketdata.types import Adjust, Period

log = structlog.get_logger(__name__)

MOST_ROWS: Final = 10_000_000
"""Bars that one answer may hold."""
HELD_ROWS: Final = 300_000
"""Base bars that an answer keeps in memory, some 22 MB; of a larger one each symbol's are read while they are written."""
BATCH: Final = 100
"""Symbols that are looked up at a time."""
WIDER: Final = 4
"""Where the days that ``count`` bars should take have fewer, so many times as many are looked at, and again so many of those."""
WIDEST: Final = 16
"""Times as many days at most where the bars are made of minutes; days are looked at as far back as there are any."""
BEFORE_EX_DATE: Final = timedelta(days=365)
"""Time before an ex-date in which its last close is looked for: instruments are suspended for months."""
FACTORS_SHOWN: Final = 100
"""Symbols whose factors stand in the answer."""


@dataclass(frozen=True, kw_only=True)
class Adjustment:
    """How prices were adjusted, always before bars are aggregated, so that a week across an ex-date is right.

    ``factors``: symbol -> what was used, of the first ``FACTORS_SHOWN`` symbols whose dividends are known; ``more`` of how many
    others they are left out. ``as_of``: the last day whose dividends count (front adjustments). ``refreshed_at`` (ms): when the
    oldest of the dividends were told; ``stale``: symbols for which the source could not be asked again today.
    """

    method: Adjust
    algorithm: str
    as_of: date | None
    refreshed_at: int | None
    stale: tuple[str, ...]
    factors: Mapping[str, Factors]
    more: int


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An answer that can be given: what is known before the first bar is written, and the bars part by part.

    Bars are those that have ended, and of weeks and months also the running one, made of the closed days so far.
    """

    query: HistoryQuery
    source: str
    as_of: int
    """The market's time in ms up to which bars were looked for."""
    tiers: Counter[Tier]
    tier_of: Mapping[str, Tier]
    """The slowest tier that had a part in a symbol's bars."""
    missing: Mapping[str, str]
    """Symbols of which something that was asked for is not here, and why: the name of an error, ``incomplete`` (of some days
    the source has not told all), ``no_bars`` or ``ratio_unknown``."""
    stale: bool
    """Whether the newest bars that were asked for could not be had."""
    age: float | None
    """Where it is stale: seconds since bars of that symbol which waits longest were last fetched; None where none are here."""
    forming_from: int | None
    """A bar stamped at or after this (ms) is of a week or month that goes on; None: all bars are final."""
    adjustment: Adjustment | None
    etag: str
    closed: bool
    """Whether nothing of the answer can ever change."""
    rows: int | None
    """Bars in all; None where they are counted only while they are read."""
    _read: Callable[[], Iterator[tuple[str, Series]]]

    def parts(self) -> Iterator[tuple[str, Series]]:
        """Each symbol with its bars, in the order asked; symbols without a bar are left out. May be called again."""
        return self._read()


def prepare(query: HistoryQuery, *, deadline_seconds: float, request_id: str) -> Prepared:
    """Have everything at hand that the answer needs; blocking. Raises ``ArgusError``."""
    return _Answer(query, market_time.now(), time.monotonic() + deadline_seconds).prepare(request_id)


def prepare_now(query: HistoryQuery) -> Prepared | None:
    """The answer without waiting for anything, if all of it is in this process's memory."""
    return _Answer(query, market_time.now(), time.monotonic()).prepare_now()


def estimate(query: HistoryQuery, now: int) -> int:
    """The most bars that the answer can hold. Raises ``ArgusError`` where that is too much."""
    total = 0
    for market, symbols in _by_market(query.symbols).items():
        try:
            per_day = len(periods.bar_ends(market, query.period))
            days = len(_need(query, market, query.end, now, 1).days) + 1
        except (periods.UnknownHours, OutsideCalendar):
            continue
        bars = days * per_day
        if query.count is not None:
            bars = query.count if query.start is None else min(bars, query.count)
        total += len(symbols) * bars
    if total > MOST_ROWS:
        detail = (
            f"That may be {total:,} bars; one request may ask for {MOST_ROWS:,}. Ask for fewer symbols, a shorter time, or a "
            f"longer period: {max(1, len(query.symbols) * MOST_ROWS // total):,} symbols at a time would do."
        )
        raise ArgusError(TOO_MUCH_DATA, detail, parameter="symbols", limit=MOST_ROWS)
    return total


def _by_market(symbols: Sequence[str]) -> dict[str, list[str]]:
    """The symbols by the market whose hours they keep."""
    found: dict[str, list[str]] = {}
    for symbol in symbols:
        found.setdefault(periods.hours_of(symbol), []).append(symbol)
    return found


def _calendar(market: str) -> TradingCalendar:
    return calendar_of(market.partition("/")[0])


def _need(query: HistoryQuery, market: str, end: int | None, now: int, widen: int) -> Need:
    return need(
        market=market,
        period=query.period,
        start=query.start,
        end=end,
        count=query.count,
        now=now,
        calendar=_calendar(market),
        widen=widen,
    )


class _Answer:
    """One query on its way to an answer. ``deadline`` is on the monotonic clock."""

    def __init__(self, query: HistoryQuery, now: int, deadline: float) -> None:
        self.query = query
        self.now = now
        self.as_of = query.as_of or day_of(now)
        # What is as of a day has no bars after it.
        last = None if query.as_of is None else midnight(query.as_of) + DAY
        self.end = last if query.end is None else query.end if last is None else min(query.end, last)
        self.deadline = deadline
        self.base = periods.base_of(query.period)
        self.missing: dict[str, str] = {}
        self.tier_of: dict[str, Tier] = {}
        self.stale = False
        self.fetched_at: int | None = None
        self.error: FetchError | None = None
        self.loaders: dict[str, Loader] = {}
        self.open_days: dict[str, Series] = {}
        self.held: dict[str, Series] = {}
        self.lengths: dict[str, int] = {}
        self.versions: dict[str, Any] = {}
        self.incomplete: set[str] = set()
        self.dividends = dividends.Known({})
        self.closes: dict[str, dict[str, float]] = {}
        self.closes_missing: dict[str, str] = {}
        self.holds = estimate(query, now) * self._base_bars() <= HELD_ROWS
        # How many bars there are must be known where they are counted; else a large answer's are read once, while it is written.
        self._reads = self.holds or query.start is None

    def prepare(self, request_id: str) -> Prepared:
        began = time.monotonic()
        if self.query.adjust is not Adjust.NONE:
            self._learn_dividends()
        if self.query.adjust in RATIOS:
            self._learn_closes()
        outside: list[OutsideCalendar] = []
        for market, symbols in _by_market(self.query.symbols).items():
            try:
                self._load(market, symbols)
            except periods.UnknownHours:
                self.missing |= dict.fromkeys(symbols, UNSUPPORTED.name)
            except OutsideCalendar as error:
                outside.append(error)
                self.missing |= dict.fromkeys(symbols, OUTSIDE_CALENDAR.name)
        if outside and [*self.missing.values()] == [OUTSIDE_CALENDAR.name] * len(self.query.symbols):
            raise _outside(outside[0])
        if len(self.missing) == len(self.query.symbols) and set(self.missing.values()) == {UNSUPPORTED.name} and not self.error:
            raise ArgusError(UNSUPPORTED, "The trading hours of that market are not known here.", parameter="symbols")
        prepared = self._prepared()
        if self.error is not None and not prepared.rows and not self.tier_of:
            raise self.error.as_error()
        log.info(
            "history",
            request_id=request_id,
            symbols=len(self.query.symbols),
            period=self.query.period,
            adjust=self.query.adjust,
            tiers={str(tier): count for tier, count in prepared.tiers.items()},
            missing=len(self.missing),
            stale=self.stale,
            rows=prepared.rows,
            seconds=round(time.monotonic() - began, 3),
        )
        return prepared

    def prepare_now(self) -> Prepared | None:
        if not self.holds:
            return None
        if self.query.adjust is not Adjust.NONE:
            if (known := dividends.known_now(self.query.symbols, self.now)) is None:
                return None
            self.dividends = known
        if self.query.adjust in RATIOS and not self._has_closes():
            return None
        for market, symbols in _by_market(self.query.symbols).items():
            try:
                loader = self._loader(market, self.end, 1)
                loaded = loader.load_now(symbols)
            except (periods.UnknownHours, OutsideCalendar):
                return None
            if loaded is None:
                return None
            self._note(market, loader, loaded)
        if "ratio_unknown" in self.missing.values():
            return None
        if self.query.start is None and any(len(self.held.get(symbol, EMPTY)) < self._count() for symbol in self.query.symbols):
            return None
        return self._prepared()

    def _count(self) -> int:
        return self.query.count or 0

    def _base_bars(self) -> int:
        """Base bars in one bar, about."""
        return periods.MINUTES.get(self.query.period) or {Period.W1: 5, Period.MON1: 23}.get(self.query.period, 1)

    def _learn_dividends(self) -> None:
        self.dividends = dividends.known(self.query.symbols, self.now, deadline=self.deadline)
        error, unknown = self.dividends.error, self.dividends.unknown
        if error is not None and len(unknown) == len(self.query.symbols):
            raise error.as_error(parameter="adjust") if error.reason == UNSUPPORTED.name else error.as_error()
        self.missing |= unknown

    def _learn_closes(self) -> None:
        """The last closes before those ex-dates of which the source gave no ratio, from the tiers or a terminal."""
        ex_dates = {symbol: found for symbol in self.query.symbols if (found := self._ex_dates_without_ratio(symbol))}
        for market, symbols in _by_market(list(ex_dates)).items():
            try:
                calendar = _calendar(market)
                first = max(calendar.first, min(ex_dates[symbol][0] for symbol in symbols) - BEFORE_EX_DATE)
                last = min(calendar.last, max(ex_dates[symbol][-1] for symbol in symbols))
                days = calendar.between(first, last) if first <= last else ()
                need = Need(tuple(day for day in days if is_closed(market, day, self.now)), None)
            except (periods.UnknownHours, OutsideCalendar):
                # Its bars cannot be had either.
                continue
            loader = Loader(market=market, base=Period.D1, need=need, calendar=calendar, deadline=self.deadline)
            for start in range(0, len(symbols), BATCH):
                for symbol, item in loader.load(symbols[start : start + BATCH]).items():
                    for block in item.blocks:
                        self.closes[symbol] = last_closes(block.series, block.days, ex_dates[symbol], calendar)
                    if item.reason:
                        self.closes_missing[symbol] = item.reason

    def _has_closes(self) -> bool:
        """The same from this process' memory; whether all of them are there."""
        for symbol in self.query.symbols:
            if not (ex_dates := self._ex_dates_without_ratio(symbol)):
                continue
            key = BlockKey(config.market, symbol, Period.D1, ALL)
            block = found[key].block if (found := tiers().get_memory((key,))) else None
            if block is None:
                return False
            closes = last_closes(block.series, block.days, ex_dates, _calendar(periods.hours_of(symbol)))
            if len(closes) < len(ex_dates):
                return False
            self.closes[symbol] = closes
        return True

    def _ex_dates_without_ratio(self, symbol: str) -> list[date]:
        """The ex-dates that enter into the symbol's prices and whose ratio its source did not give."""
        told = self.dividends.told.get(symbol)
        every = [date.fromisoformat(item.ex_date) for item in told.dividends if not gives_ratio(item)] if told else []
        if self.query.adjust is Adjust.FRONT_RATIO:
            begin = date.min if self.query.start is None else day_of(self.query.start)
            return sorted(day for day in every if begin < day <= self.as_of)
        return sorted(day for day in every if day <= day_of(self.now if self.end is None else min(self.end, self.now)))

    def _loader(self, market: str, end: int | None, widen: int) -> Loader:
        return Loader(
            market=market,
            base=self.base,
            need=_need(self.query, market, end, self.now, widen),
            calendar=_calendar(market),
            deadline=self.deadline,
            bare=not self._reads,
        )

    def _load(self, market: str, symbols: Sequence[str]) -> None:
        # What cannot be answered is refused before a terminal is asked.
        periods.bar_ends(market, self.query.period)
        wanted = [symbol for symbol in symbols if symbol not in self.missing]
        loader = self._load_days(market, wanted, self.end, 1)
        if self.query.start is not None or not (short := self._short(wanted)):
            return
        listed = listings_of(short)
        last = loader.need.last or date.min
        gone = {symbol: day for symbol in short if (day := listed.get(symbol, (None, None))[1]) is not None and day < last}
        self._widen(market, [symbol for symbol in short if symbol not in gone], self.end, loader, listed)
        for day in sorted(set(gone.values())):
            several = [symbol for symbol in gone if gone[symbol] == day]
            end = midnight(day) + DAY
            self._widen(market, several, end, self._load_days(market, several, end, 1), listed)

    def _widen(
        self, market: str, symbols: Sequence[str], end: int | None, loader: Loader, listed: Mapping[str, tuple[date | None, Any]]
    ) -> None:
        """Look further back than ``loader`` for those that have fewer bars than ``count``, as far as there may be any."""
        widen = WIDER
        while loader.error is None and (widen <= WIDEST or self.base is Period.D1):
            reached = loader.need.first
            if reached is None or reached <= _calendar(market).first:
                return
            symbols = [symbol for symbol in self._short(symbols) if (listed.get(symbol, (None,))[0] or date.min) < reached]
            if not symbols:
                return
            loader = self._load_days(market, symbols, end, widen)
            widen *= WIDER

    def _load_days(self, market: str, symbols: Sequence[str], end: int | None, widen: int) -> Loader:
        loader = self._loader(market, end, widen)
        for start in range(0, len(symbols), BATCH):
            self._note(market, loader, loader.load(symbols[start : start + BATCH]))
        self.error = loader.error or self.error
        return loader

    def _short(self, symbols: Sequence[str]) -> list[str]:
        """Those with fewer bars than ``count``."""
        return [symbol for symbol in symbols if self.lengths.get(symbol, 0) < self._count()]

    def _note(self, market: str, loader: Loader, loaded: Mapping[str, Loaded]) -> None:
        """Keep what the answer needs of what was loaded."""
        reach = self._reach(market, loader.need)
        for symbol, item in loaded.items():
            self.loaders[symbol] = loader
            self.open_days[symbol] = item.open_day
            if item.reason:
                self.missing[symbol] = item.reason
                self.stale |= item.behind
                if item.behind and item.fetched_at is not None:
                    self.fetched_at = min(self.fetched_at or item.fetched_at, item.fetched_at)
            if item.blocks or len(item.open_day) or not item.reason:
                self.tier_of[symbol] = max(self.tier_of.get(symbol, Tier.L1), item.tier, key=list(Tier).index)
            needed = loader.keys(symbol)
            if len(item.blocks) == len(needed) and not any(map(Block.missing, item.blocks, needed.values())):
                self.incomplete.discard(symbol)
            else:
                self.incomplete.add(symbol)
            self.versions[symbol] = (
                [(block.fetched_at, len(block.days)) for block in item.blocks],
                _hash_of_bars(item.open_day),
                reach,
            )
            if self._reads:
                series = self._finish(symbol, [block.series for block in item.blocks])
                self.lengths[symbol] = len(series)
                if self.holds:
                    self.held[symbol] = own(series)
            elif self.query.adjust in RATIOS and self._ex_dates_without_ratio(symbol):
                # Whether the ratio can be had must be said before the first bar.
                self._finish(symbol, self._stored(symbol))

    def _reach(self, market: str, need: Need) -> Any:
        """Up to which bars the answer goes: all that its end, most often now, has to do with what is in it."""
        last = self.now if self.end is None else min(self.end, self.now)
        ends = periods.bar_ends(market, self.query.period)
        reach: list[Any] = [need.first, need.last]
        for until in (last, min(last, self.now - SETTLING)) if self.base is Period.M1 else (last,):
            day = day_of(until - 1)
            if need.last is None or day <= need.last:
                reach.append((day, bisect_right(ends, until - midnight(day))))
        return reach

    def _finish(self, symbol: str, blocks: Sequence[Series]) -> Series:
        """The symbol's bars as they are answered."""
        market, wanted = periods.hours_of(symbol), self.loaders[symbol].need
        if wanted.first is None or wanted.last is None:
            return EMPTY
        whole = merge(join(blocks), self.open_days[symbol])
        series = whole.between(midnight(wanted.first) + 1, midnight(wanted.last) + DAY)
        try:
            series = self._adjusted(symbol, series)
        except RatioUnknown:
            self.missing[symbol] = self.closes_missing.get(symbol, "ratio_unknown")
            return EMPTY
        made = aggregate(series, self.query.period, market)
        if self.base is Period.M1 and len(made):
            # Of the open day's last bar there may be a part only; it has settled when its last minute is there or has passed.
            settled = self.now - SETTLING if made.time[-1] != series.time[-1] else self.now
            made = made.between(None, settled)
        made = made.between(self.query.start, self.now if self.end is None else min(self.end, self.now))
        return made if self.query.count is None else made.last(self.query.count)

    def _adjusted(self, symbol: str, series: Series) -> Series:
        told = self.dividends.told.get(symbol)
        if self.query.adjust is Adjust.NONE or told is None:
            return series
        return adjust(series, told.dividends, self.query.adjust, as_of=self.as_of, closes=self.closes.get(symbol, {}))

    def _read(self) -> Iterator[tuple[str, Series]]:
        for symbol in self.query.symbols:
            if symbol not in self.loaders:
                continue
            series = self.held[symbol] if self.holds else self._finish(symbol, self._stored(symbol))
            if len(series):
                yield symbol, series

    def _stored(self, symbol: str) -> list[Series]:
        """The symbol's base bars of closed days, read again. Raises ``ArgusError``."""
        try:
            return [block.series for block in self.loaders[symbol].read(symbol)]
        except FetchError as error:
            raise error.as_error() from None

    def _prepared(self) -> Prepared:
        for symbol, series in self.held.items():
            if not len(series):
                self.missing.setdefault(symbol, "no_bars")
        for symbol in sorted(self.incomplete):
            self.missing.setdefault(symbol, "incomplete")
        tier_of = {symbol: self.tier_of[symbol] for symbol in self.query.symbols if symbol in self.tier_of}
        tier_counts = Counter(tier_of.values())
        for tier, count in tier_counts.items():
            metrics.REQUESTS.labels(tier).inc(count)
        forming_from = self._forming_from()
        adjustment = self._adjustment()
        # Two ends that the same bars lie before make the same answer.
        version = hashlib.blake2b(msgspec.structs.replace(self.query, end=None).canonical(), digest_size=16)
        told = [(symbol, _hash_of(item)) for symbol, item in self.dividends.told.items()]
        closes = [(symbol, self.closes.get(symbol)) for symbol in self.query.symbols if self.closes]
        missing = sorted(self.missing.items())
        for part in (self.versions, missing, self.stale, told, closes, self.as_of if adjustment else None, forming_from):
            version.update(repr(part).encode())
        return Prepared(
            query=self.query,
            source=config.source,
            as_of=self.now,
            tiers=tier_counts,
            tier_of=tier_of,
            missing=self.missing,
            stale=self.stale,
            age=None if self.fetched_at is None else max(0.0, round(time.time() - self.fetched_at / 1000, 3)),
            forming_from=forming_from,
            adjustment=adjustment,
            etag=version.hexdigest(),
            closed=self._is_closed(forming_from),
            rows=sum(map(len, self.held.values())) if self.holds else None,
            _read=self._read,
        )

    def _forming_from(self) -> int | None:
        if self.query.period not in (Period.W1, Period.MON1):
            return None
        begins: list[int] = []
        for market, symbols in _by_market(list(self.loaders)).items():
            calendar = _calendar(market)
            first, last = span_of(self.query.period, min(day_of(self.now), calendar.last), calendar)
            # Nobody knows whether a week that the calendar ends in has come to its end.
            known = periods.natural_span(self.query.period, first)[1] <= calendar.last
            if known and is_closed(market, last, self.now):
                continue
            needs = {self.loaders[symbol].need.last for symbol in symbols}
            if any(day is not None and day >= first for day in needs):
                begins.append(midnight(first))
        return min(begins, default=None)

    def _adjustment(self) -> Adjustment | None:
        if self.query.adjust is Adjust.NONE:
            return None
        told = self.dividends.told
        shown = [symbol for symbol in self.query.symbols if symbol in told][:FACTORS_SHOWN]
        return Adjustment(
            method=self.query.adjust,
            algorithm=ALGORITHMS[self.query.adjust],
            as_of=self.as_of if self.query.adjust in POINT_IN_TIME else None,
            refreshed_at=min((item.at for item in told.values()), default=None),
            stale=tuple(sorted(self.dividends.stale)),
            factors={
                symbol: factors(told[symbol].dividends, self.query.adjust, as_of=self.as_of, closes=self.closes.get(symbol, {}))
                for symbol in shown
            },
            more=len(told) - len(shown),
        )

    def _is_closed(self, forming_from: int | None) -> bool:
        if self.missing.keys() - {s for s, reason in self.missing.items() if reason == "no_bars"} or self.incomplete:
            return False
        if self.end is None or forming_from is not None or any(loader.need.open_day for loader in self.loaders.values()):
            return False
        if self.closes_missing or (self.query.adjust is not Adjust.NONE and self.dividends.stale):
            return False
        if self.query.adjust in POINT_IN_TIME and (self.query.as_of is None or self.query.as_of >= day_of(self.now)):
            return False
        return all(is_closed(market, day_of(self.end - 1), self.now) for market in _by_market(list(self.loaders)))


def _hash_of(told: dividends.Told) -> str:
    """What was told, as far as answers depend on it."""
    return hashlib.blake2b(msgspec.msgpack.encode(told.dividends), digest_size=8).hexdigest()


def _hash_of_bars(series: Series) -> str:
    """Tells bars from others, whatever changed in them."""
    if not len(series):
        return ""
    found = hashlib.blake2b(digest_size=8)
    for name in COLUMNS:
        found.update(getattr(series, name).tobytes())
    return found.hexdigest()


def _outside(error: OutsideCalendar) -> ArgusError:
    if isinstance(error, NoCalendar):
        return ArgusError(OUTSIDE_CALENDAR, f"{error}.", parameter="symbols")
    detail = (
        f"{error}. The trading dates that a terminal tells extend it; until then give an end, {error.last} at the latest: "
        f"end={error.last}"
    )
    return ArgusError(OUTSIDE_CALENDAR, detail, parameter="end", first=error.first.isoformat(), last=error.last.isoformat())

"""The universe: which symbols there are, as saved in the database, as known in this process, as meant by people's words."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import NamedTuple

from asgiref.sync import sync_to_async
from django.db import close_old_connections, transaction
from django.db.models import F
from django.utils import timezone

from argus.errors import AMBIGUOUS_SYMBOL, INVALID_SYMBOL, UNKNOWN_SECTOR, UNKNOWN_SYMBOL, Problem
from marketdata import models
from marketdata.exchanges import MARKET_OF_NAME, MARKETS
from marketdata.reference import days
from marketdata.symbols import SymbolError, kind, market_of, parse, price_tick
from marketdata.types import Instrument

EVERYTHING = "*"
"""The word for every symbol there is."""


@dataclass(frozen=True)
class Universe:
    """The symbols that the source quotes, in a stable order; sectors keep their own order; names are for people.

    ``others`` are those that it knows, or knew, and does not quote: futures, options, what was delisted.
    """

    symbols: tuple[str, ...] = ()
    sectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    revision: int = 0
    others: frozenset[str] = frozenset()

    @cached_property
    def known(self) -> frozenset[str]:
        """The symbols, to look one up."""
        return frozenset(self.symbols)

    @cached_property
    def markets(self) -> Mapping[str, tuple[str, ...]]:
        """Market -> its symbols."""
        markets: dict[str, list[str]] = {}
        for symbol in self.symbols:
            markets.setdefault(market_of(symbol), []).append(symbol)
        return {market: tuple(symbols) for market, symbols in markets.items()}

    @cached_property
    def named(self) -> Mapping[str, tuple[str, ...]]:
        """Name, without spaces and in one width -> the symbols that bear it."""
        named: dict[str, tuple[str, ...]] = {}
        for symbol, name in self.names.items():
            plain = _plain(name)
            named[plain] = (*named.get(plain, ()), symbol)
        return named


class Rejected(NamedTuple):
    """A word that stands for nothing here, and why."""

    word: str
    problem: Problem
    reason: str


class Resolution(NamedTuple):
    """What words stand for: each symbol once, in the order asked. With ``everything``, those of later on as well."""

    symbols: tuple[str, ...]
    everything: bool
    rejected: tuple[Rejected, ...]


class _Refused(Exception):
    """A word's problem on its way into a ``Rejected``."""


def resolve(words: Iterable[str], universe: Universe, *, quoted: bool = True) -> Resolution:
    """Read symbols in every form, instruments' names, ``market:SH``, ``sector:沪深300`` and ``*``.

    ``quoted`` False: symbols that the source knows without quoting them are taken, too. While the universe is empty (no
    source has told it yet) every symbol that can be read is taken: it cannot be called unknown.
    """
    asked = list(words)
    if universe.known.issuperset(asked):
        return Resolution(tuple(dict.fromkeys(asked)), False, ())
    symbols: dict[str, None] = {}
    everything = False
    rejected: list[Rejected] = []
    for word in asked:
        try:
            symbols.update(dict.fromkeys(_members(word, universe, quoted)))
            everything = everything or word.strip() == EVERYTHING
        except _Refused as refused:
            problem, reason = refused.args
            rejected.append(Rejected(word, problem, reason))
    return Resolution(tuple(symbols), everything, tuple(rejected))


def _members(word: str, universe: Universe, quoted: bool) -> Sequence[str]:
    text = word.strip()
    if text in universe.known:
        return (text,)
    if text == EVERYTHING:
        return universe.symbols
    group, colon, name = text.partition(":")
    if colon and group == "market":
        return _market(name.strip(), universe)
    if colon and group == "sector":
        return _sector(name.strip(), universe)
    if not text.isascii() and (bearers := universe.named.get(_plain(text))):
        return (_only(text, bearers),)
    try:
        symbol = parse(text)
    except SymbolError as error:
        raise _Refused(AMBIGUOUS_SYMBOL if error.kind == "ambiguous" else INVALID_SYMBOL, error.reason) from None
    if universe.known and symbol not in universe.known and (quoted or symbol not in universe.others):
        raise _Refused(UNKNOWN_SYMBOL, f"{symbol} is not quoted by the source")
    return (symbol,)


def _market(name: str, universe: Universe) -> Sequence[str]:
    market = MARKET_OF_NAME.get(name.upper())
    if market is None:
        raise _Refused(UNKNOWN_SECTOR, f"there is no market {name[:40]!r}; there are {', '.join(MARKETS)}")
    if market not in universe.markets:
        raise _Refused(UNKNOWN_SECTOR, f"the source quotes nothing of {market}")
    return universe.markets[market]


def _sector(name: str, universe: Universe) -> Sequence[str]:
    members = universe.sectors.get(name)
    if members is None:
        raise _Refused(UNKNOWN_SECTOR, f"the source has no sector {name[:40]!r}")
    return members


def _only(text: str, bearers: tuple[str, ...]) -> str:
    if len(bearers) > 1:
        raise _Refused(AMBIGUOUS_SYMBOL, f"{text} may be {' or '.join(bearers)}")
    return bearers[0]


def _plain(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).split())


_current = Universe()


def current() -> Universe:
    """This process's universe: empty until the first ``load``, replaced as a whole when it changes."""
    return _current


def set_current(universe: Universe) -> None:
    """Replace this process's universe."""
    global _current
    _current = universe


def load() -> Universe:
    """Take this process's universe from the database."""
    revision = _revision()
    rows = list(models.Instrument.objects.values_list("symbol", "name", "quoted"))
    quoted = {symbol for symbol, _, is_quoted in rows if is_quoted}
    sectors = {
        name: tuple(symbol for symbol in symbols if symbol in quoted)
        for name, symbols in models.Sector.objects.values_list("name", "symbols")
    }
    days.load()
    set_current(
        Universe(
            symbols=tuple(sorted(quoted)),
            sectors=sectors,
            names={symbol: name for symbol, name, _ in rows if name and symbol in quoted},
            revision=revision,
            others=frozenset(symbol for symbol, _, is_quoted in rows if not is_quoted),
        ),
    )
    return _current


async def refresh() -> bool:
    """Load again if the database has another revision than this process; whether it had. Raises Django's database errors."""
    return await sync_to_async(_load_if_changed)()


def _load_if_changed() -> bool:
    close_old_connections()
    try:
        if _revision() == _current.revision:
            return False
        load()
        return True
    finally:
        close_old_connections()


def _revision() -> int:
    return models.Revision.objects.filter(pk=models.Revision.ONLY).values_list("number", flat=True).first() or 0


@transaction.atomic
def save_reference(
    *,
    source: str,
    instruments: Iterable[Instrument],
    sectors: Mapping[str, Sequence[str]] | None = None,
    complete: bool = False,
    among: Callable[[str], bool] = lambda _: True,
    quoted: bool = True,
) -> None:
    """Store what a source told; a field that it does not know keeps what is stored, and so do all sectors where it told none.

    ``complete``: these are all the instruments and sectors that there are (``among``: all such symbols, where one source does
    not tell of all); other instruments are marked as not quoted, and where sectors were told other sectors go (an index's weights
    stay: they are told apart from the sectors). ``quoted`` False: the source knows
    these and need not quote them; those that it does quote stay marked. Bumps the revision if anything has changed.
    """
    given = {instrument.symbol: instrument for instrument in instruments}
    changed = _save_instruments(source, given, quoted)
    if sectors is not None:
        changed = _save_sectors(source, sectors) or changed
    if complete:
        stored = models.Instrument.objects.filter(quoted=True).values_list("symbol", flat=True)
        gone = [symbol for symbol in stored if symbol not in given and among(symbol)]
        changed = bool(gone) or changed
        for start in range(0, len(gone), 500):
            models.Instrument.objects.filter(symbol__in=gone[start : start + 500]).update(quoted=False)
    if complete and sectors is not None:
        others = models.Sector.objects.exclude(name__in=list(sectors))
        deleted, _ = others.exclude(weights__isnull=False, source=source).delete()
        changed = bool(deleted) or changed
    if changed:
        bump()


def bump() -> None:
    """Count the revision up, by which every process notices that reference data has changed."""
    models.Revision.objects.get_or_create(pk=models.Revision.ONLY)
    models.Revision.objects.filter(pk=models.Revision.ONLY).update(number=F("number") + 1)


_TOLD = (
    "name",
    "kind",
    "price_tick",
    "lot",
    "listed",
    "delisted",
    "multiplier",
    "underlying",
    "option_type",
    "strike",
)
_UPDATED = [*_TOLD, "pinyin", "initials", "market", "quoted", "source", "refreshed_at"]


def _save_instruments(source: str, given: Mapping[str, Instrument], quoted: bool) -> bool:
    # Here, not at the top: its dictionary takes 50 MB, which processes that save nothing need not spend.
    from marketdata.reference import pinyin

    now = timezone.now()
    stored = _stored(list(given))
    rows: list[models.Instrument] = []
    changed = False
    for symbol, instrument in given.items():
        row = stored.get(symbol)
        told = {name: value for name in _TOLD if (value := getattr(instrument, name)) is not None}
        told |= {"market": market_of(symbol), "source": source}
        if quoted:
            told["quoted"] = True
        if row is None:
            # What the code tells stands in until a source knows better.
            row = models.Instrument(symbol=symbol, kind=kind(symbol) or "", price_tick=price_tick(symbol), quoted=quoted)
            changed = True
        for name, value in told.items():
            before = getattr(row, name)
            if (before.isoformat() if isinstance(before, date) else before) != value:
                setattr(row, name, value)
                changed = True
        if row.name and ("name" in told or not row.pinyin):
            row.pinyin, row.initials = pinyin.spell(row.name)
        row.refreshed_at = now
        row.pk = None
        rows.append(row)
    models.Instrument.objects.bulk_create(
        rows, batch_size=500, update_conflicts=True, unique_fields=["symbol"], update_fields=_UPDATED
    )
    return changed


def _stored(symbols: list[str]) -> dict[str, models.Instrument]:
    chunks = (symbols[start : start + 500] for start in range(0, len(symbols), 500))
    return {row.symbol: row for chunk in chunks for row in models.Instrument.objects.filter(symbol__in=chunk)}


def _save_sectors(source: str, sectors: Mapping[str, Sequence[str]]) -> bool:
    stored = dict(models.Sector.objects.values_list("name", "symbols"))
    rows = [
        models.Sector(name=name, symbols=list(symbols), source=source, refreshed_at=timezone.now())
        for name, symbols in sectors.items()
    ]
    models.Sector.objects.bulk_create(
        rows,
        batch_size=200,
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["symbols", "source", "refreshed_at"],
    )
    return any(stored.get(row.name) != row.symbols for row in rows)

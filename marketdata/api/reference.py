"""From a request's parameters to an answer with reference data; whatever is wrong is refused under its parameter's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from hashlib import blake2b
from typing import Any, TypeVar

from django.core import signing
from django.db.models import Q

from argus import requestid
from argus.access.principal import Principal
from argus.errors import (
    CURSOR_INVALID,
    INVALID_ARGUMENT,
    OUTSIDE_CALENDAR,
    UNKNOWN_SECTOR,
    UNKNOWN_SYMBOL,
    ArgusError,
)
from marketdata import market_time, universe
from marketdata.api import reference_rows as rows
from marketdata.api.latest import refusals
from marketdata.api.query import Query, allow_symbols, refuse_if_nothing, refuse_others, words_of
from marketdata.calendar import (
    SHANGHAI,
    SINCE,
    OutsideCalendar,
    Phase,
    TradingCalendar,
    day_of,
    midnight,
    phases_of,
)
from marketdata.exchanges import MARKET_OF_NAME, MARKETS, Kind
from marketdata.history.query import read_day
from marketdata.models import Instrument, MainContract, Sector
from marketdata.reference import days, search
from marketdata.symbols import SymbolError, market_of, parse
from marketdata.universe import Rejected, Resolution

LIMIT = 100
MAX_LIMIT = 1000
"""Instruments of a page."""
MAX_COUNT = 20_000
"""Trading dates; more than any calendar here has."""
DEFAULT_SECTOR = "沪深A股"
SALT = "argus.reference.cursor"
LONGEST_CURSOR = 400

TERMINAL_NAMES = {"start_time": "start", "end_time": "end", "stock_code": "symbol", "sector_name": "sector"}
"""What xtdata calls a parameter of its functions -> what it is called here."""

ETF = Q(kind=Kind.FUND, market="SH", symbol__regex=r"^(51|52|53|55|56|58)") | Q(
    kind=Kind.FUND, market="SZ", symbol__startswith="159"
)
"""Exchange-traded funds by their codes (SSE 证券代码段分配指南: 51-53, 55, 56 and 58, while 50 are other funds; SZSE
证券代码区间: 159)."""

_PRODUCT = re.compile(r"([A-Za-z]+)[0-9]")

Row = TypeVar("Row")


def from_terminal_names(query: Query) -> Query:
    """The parameters with xtdata's names taken for ours; a count of -1 says nothing, and so does what is empty."""
    named: dict[str, list[str]] = {}
    for name, values in query.items():
        if kept := [value for value in values if value and not (name == "count" and value == "-1")]:
            named.setdefault(TERMINAL_NAMES.get(name, name), []).extend(kept)
    return named


def trading_dates(query: Query, principal: Principal) -> rows.Dates:
    """The trading dates of a market from ``start`` to ``end``, or the last ``count`` of them; after a start alone the first.

    What the calendar does not cover is not guessed: a range wholly outside is refused, one that reaches beyond is cut,
    ``complete`` is then false.
    """
    refuse_others(query, {"market", "start", "end", "count"})
    market, known = _market_and_days(query)
    calendar = known.calendar
    first, last = _day(query, "start"), _day(query, "end")
    count = _whole(query, "count", MAX_COUNT)
    if first is not None and last is not None and first > last:
        raise ArgusError(INVALID_ARGUMENT, f"The start, {first}, is after the end, {last}.", parameter="start")
    if count is not None and first is None and last is None:
        last = day_of(market_time.now())
    if first is not None and first > calendar.last:
        raise _outside(first, market, known, "start")
    if last is not None and (last < calendar.first or (last > calendar.last and (first is None or count is not None))):
        # The last days before one beyond the calendar would be others than those that are known.
        raise _outside(last, market, known, "end" if "end" in query else "count")
    found, detail = _cut(calendar, first, last, count)
    return rows.Dates(
        **_about([known.source], [known.refreshed_at]),
        data=[day.isoformat() for day in found],
        market=market,
        complete=detail is None,
        detail=detail,
        calendar=_calendar(known),
    )


def _cut(
    calendar: TradingCalendar, first: date | None, last: date | None, count: int | None
) -> tuple[tuple[date, ...], str | None]:
    """The days of a range that overlaps the calendar, and what is not known of it."""
    days_inside = calendar.between(max(first or calendar.first, calendar.first), min(last or calendar.last, calendar.last))
    begins, ends = f"the calendar begins {calendar.first}", f"the calendar ends {calendar.last}"
    too_early = first is not None and first < calendar.first
    if count is None:
        too_late = last is not None and last > calendar.last
        return days_inside, ends if too_late else begins if too_early else None
    if last is None:
        found = days_inside[:count]
        return found, begins if too_early else ends if len(found) < count else None
    found = days_inside[-count:]
    return found, begins if len(found) < count and (first is None or too_early) else None


def calendar_day(query: Query, principal: Principal) -> rows.DayAnswer:
    """What a day is to a market: whether it trades, the trading days around it, its phases."""
    refuse_others(query, {"market", "date"})
    market, known = _market_and_days(query)
    day = _day(query, "date") or day_of(market_time.now())
    calendar = known.calendar
    if not calendar.first <= day <= calendar.last:
        raise _outside(day, market, known, "date")
    trades = calendar.is_trading_day(day)
    phases, after_hours = _phases(market, day)
    return rows.DayAnswer(
        **_about([known.source], [known.refreshed_at]),
        data=rows.Day(
            date=day.isoformat(),
            market=market,
            is_trading_day=trades,
            previous_trading_day=_neighbour(calendar.previous_day, day),
            next_trading_day=_neighbour(calendar.next_day, day),
            phases=phases if trades or phases is None else [],
            after_hours=after_hours if trades or after_hours is None else [],
        ),
        calendar=_calendar(known),
    )


def instruments(query: Query, principal: Principal, only: Q | None = None) -> rows.Instruments:
    """Instruments, searched and filtered, page by page; ``only`` narrows them to a sort of their own, which has no ``kind``."""
    names = {"q", "kind", "market", "quoted", "limit", "cursor"} - ({"kind"} if only is not None else set())
    refuse_others(query, names)
    kinds = words_of(query, "kind")
    for kind in kinds:
        if kind not in set(Kind):
            raise ArgusError(INVALID_ARGUMENT, f"There is no kind {kind[:40]!r}; there is {', '.join(Kind)}.", parameter="kind")
    text = _one(query, "q") or ""
    if text and not search.plain(text):
        raise ArgusError(INVALID_ARGUMENT, "Nothing in it can be looked for: write a code, a name or pinyin.", parameter="q")
    markets = [_market(word) for word in words_of(query, "market")]
    quoted = _yes_or_no(query, "quoted")
    question = blake2b(repr((text, sorted(kinds), sorted(markets), quoted, str(only))).encode(), digest_size=12).hexdigest()
    limit = _whole(query, "limit", MAX_LIMIT) or LIMIT
    cursor = _one(query, "cursor")
    found = search.find(
        text,
        kinds=kinds,
        markets=markets,
        quoted=quoted,
        only=only,
        limit=limit,
        after=None if cursor is None else _read_cursor(cursor, question),
    )
    return rows.Instruments(
        # Of nothing found, too, it is said when there was last something new to find.
        **_about_rows(found.rows or Instrument.objects.order_by("-refreshed_at")[:1]),
        data=[rows.InstrumentRow.of(row) for row in found.rows],
        cursor=None if found.after is None else signing.dumps([question, *found.after], salt=SALT),
    )


def indices(query: Query, principal: Principal) -> rows.Instruments:
    """Indices, as instruments."""
    return instruments(query, principal, Q(kind=Kind.INDEX))


def etfs(query: Query, principal: Principal) -> rows.Instruments:
    """Exchange-traded funds, as instruments."""
    return instruments(query, principal, ETF)


def instrument_details(query: Query, principal: Principal) -> rows.InstrumentDetails:
    """All that is known of some instruments, quoted or not; symbols in any usual form, or names."""
    refuse_others(query, {"symbol"})
    words = words_of(query, "symbol")
    if not words:
        raise ArgusError(INVALID_ARGUMENT, "Name at least one symbol: ?symbol=000001.SZ,600000.SH", parameter="symbol")
    allow_symbols(principal, len(words), "symbol")
    resolution = universe.resolve(words, universe.current(), quoted=False)
    allow_symbols(principal, len(resolution.symbols), "symbol")
    stored = _instruments(resolution.symbols)
    unknown = tuple(
        Rejected(symbol, UNKNOWN_SYMBOL, f"the source has told nothing of {symbol}")
        for symbol in resolution.symbols
        if symbol not in stored
    )
    found = [stored[symbol] for symbol in resolution.symbols if symbol in stored]
    rejected = resolution.rejected + unknown
    refuse_if_nothing(Resolution(tuple(row.symbol for row in found), False, rejected), "symbol")
    return rows.InstrumentDetails(
        **_about_rows(found),
        data=[rows.InstrumentRow.of(row) for row in found],
        rejected=[rows.RejectedRow(item.symbol, item.code, item.name, item.reason) for item in refusals(rejected)],
    )


def sectors(query: Query, principal: Principal) -> rows.Sectors:
    """The names of all sectors."""
    refuse_others(query, set())
    stored = list(Sector.objects.all())
    return rows.Sectors(
        **_about_rows(stored),
        data=[
            rows.SectorRow(row.name, len(row.symbols), row.weights is not None, row.source, rows.shown(row.refreshed_at))
            for row in stored
        ],
    )


def constituents(query: Query, principal: Principal) -> rows.Constituents:
    """A sector's symbols; of an index, by its symbol or its name, with the weights that the source told."""
    refuse_others(query, {"sector"})
    name = _one(query, "sector") or DEFAULT_SECTOR
    row = Sector.objects.filter(name=name).first()
    weighted = row if row is not None and row.weights is not None else _index_of(name)
    row = row or weighted
    if row is None:
        raise ArgusError(
            UNKNOWN_SECTOR,
            f"The source has no sector {name[:80]!r}; /api/v1/sectors lists those that it has.",
            parameter="sector",
        )
    weights: Mapping[str, float] = (weighted.weights if weighted is not None else None) or {}
    symbols = list(weights) if weights else row.symbols
    names = dict(_chunked(symbols, lambda some: Instrument.objects.filter(symbol__in=some).values_list("symbol", "name")))
    return rows.Constituents(
        **_about_rows([weighted or row]),
        data=[rows.Constituent(symbol, names.get(symbol) or None, weights.get(symbol)) for symbol in symbols],
        sector=row.name,
    )


def futures(query: Query, principal: Principal) -> rows.Futures:
    """Futures contracts by product; those past their last trading day only with ``expired=true``."""
    refuse_others(query, {"product", "market", "expired"})
    markets = [_market(word) for word in words_of(query, "market")]
    wanted = [word.casefold() for word in words_of(query, "product")]
    main = dict(MainContract.objects.values_list("product", "symbol"))
    stored = Instrument.objects.filter(kind=Kind.FUTURE)
    if markets:
        stored = stored.filter(market__in=markets)
    stored = _living(stored, query)
    by_product: dict[str, list[Instrument]] = {}
    for row in stored:
        product = _product(row.symbol)
        if not wanted or product.casefold() in wanted or product.partition(".")[0].casefold() in wanted:
            by_product.setdefault(product, []).append(row)
    if wanted and not by_product:
        raise ArgusError(UNKNOWN_SYMBOL, f"No contracts of {wanted[0][:40]!r} are known.", parameter="product")
    return rows.Futures(
        **_about_rows(row for some in by_product.values() for row in some),
        data=[
            rows.Product(product, market_of(product), main.get(product), [_contract(row, main.get(product)) for row in some])
            for product, some in sorted(by_product.items(), key=lambda item: (market_of(item[0]), item[0]))
        ],
    )


def main_contract(query: Query, principal: Principal) -> rows.MainAnswer:
    """The contract that the source calls a product's main one: IF, IF.IF, rb.SF or rb.SHFE."""
    refuse_others(query, {"product"})
    word = (_one(query, "product") or "").casefold()
    code, _, exchange = word.partition(".")
    market = MARKET_OF_NAME.get(exchange.upper(), exchange)
    found = [
        row
        for row in MainContract.objects.all()
        if row.product.partition(".")[0].casefold() == code and (not exchange or market_of(row.product) == market)
    ]
    if len(found) != 1:
        names = " or ".join(row.product for row in found)
        detail = f"{word[:40]!r} may be {names}." if found else f"The source has told no main contract of {word[:40]!r}."
        raise ArgusError(UNKNOWN_SYMBOL, detail, parameter="product")
    row = found[0]
    return rows.MainAnswer(
        **_about_rows(found), data=rows.Main(row.product, row.symbol, row.source, rows.shown(row.refreshed_at))
    )


def options(query: Query, principal: Principal) -> rows.Options:
    """The options on an underlying: a fund, an index, a futures contract; those that have expired with ``expired=true``."""
    refuse_others(query, {"underlying", "type", "expired"})
    word = _one(query, "underlying")
    if word is None:
        raise ArgusError(INVALID_ARGUMENT, "Name the underlying: ?underlying=510300.SH", parameter="underlying")
    side = _one(query, "type")
    if side not in (None, "call", "put"):
        raise ArgusError(INVALID_ARGUMENT, f"There is no type {side[:40]!r}; there is call, put.", parameter="type")
    stored = Instrument.objects.filter(kind=Kind.OPTION, underlying__in=_underlyings(word))
    if side is not None:
        stored = stored.filter(option_type=side)
    found = list(_living(stored, query).order_by("delisted", "strike", "option_type", "symbol"))
    if not found:
        raise ArgusError(UNKNOWN_SYMBOL, f"No options on {word[:40]!r} are known.", parameter="underlying")
    return rows.Options(**_about_rows(found), data=[rows.InstrumentRow.of(row) for row in found], underlying=found[0].underlying)


def _one(query: Query, parameter: str) -> str | None:
    """The value of a parameter that may be given once; None where it is missing or empty."""
    values = [value.strip() for value in query.get(parameter, ())]
    if len(values) > 1:
        raise ArgusError(INVALID_ARGUMENT, f"{parameter} is given {len(values)} times.", parameter=parameter)
    if values and "\0" in values[0]:
        raise ArgusError(INVALID_ARGUMENT, f"{parameter} holds a null character.", parameter=parameter)
    return (values[0] if values else "") or None


def _day(query: Query, parameter: str) -> date | None:
    word = _one(query, parameter)
    return None if word is None else read_day(word, parameter)


def _whole(query: Query, parameter: str, most: int) -> int | None:
    word = _one(query, parameter)
    if word is None:
        return None
    if not (word.isascii() and word.isdigit() and len(word) <= 9 and 1 <= int(word) <= most):
        raise ArgusError(INVALID_ARGUMENT, f"{word[:40]!r} is not a number from 1 to {most}.", parameter=parameter)
    return int(word)


def _yes_or_no(query: Query, parameter: str) -> bool | None:
    word = _one(query, parameter)
    if word not in (None, "true", "false"):
        raise ArgusError(INVALID_ARGUMENT, f"{parameter} is true or false, not {word[:40]!r}.", parameter=parameter)
    return None if word is None else word == "true"


def _market(word: str) -> str:
    market = MARKET_OF_NAME.get(word.upper())
    if market is None:
        detail = f"There is no market {word[:40]!r}; there are {', '.join(MARKETS)}."
        raise ArgusError(UNKNOWN_SECTOR, detail, parameter="market")
    return market


def _market_and_days(query: Query) -> tuple[str, days.Known]:
    market = _market(_one(query, "market") or "SH")
    try:
        return market, days.known_of(market)
    except days.NoCalendar as error:
        detail = f"N{str(error)[1:]}: no source has told them, and none are built in."
        raise ArgusError(OUTSIDE_CALENDAR, detail, parameter="market") from None


def _outside(day: date, market: str, known: days.Known, parameter: str) -> ArgusError:
    first, last = known.calendar.first, known.calendar.last
    edge = f"the calendar ends {last}" if day > last else f"the calendar begins {first}"
    detail = f"{day} lies outside the trading calendar of {market}: {edge}. No guess is made beyond."
    return ArgusError(OUTSIDE_CALENDAR, detail, parameter=parameter, first=first.isoformat(), last=last.isoformat())


def _calendar(known: days.Known) -> rows.CalendarRow:
    return rows.CalendarRow(
        first=known.calendar.first.isoformat(),
        last=known.calendar.last.isoformat(),
        source=known.source,
        refreshed_at=rows.shown(known.refreshed_at),
        conflicts=[day.isoformat() for day in known.conflicts[:10]],
    )


def _neighbour(find: Callable[[date], date], day: date) -> str | None:
    try:
        return find(day).isoformat()
    except OutsideCalendar:
        return None


def _phases(market: str, day: date) -> tuple[list[rows.PhaseRow] | None, list[rows.PhaseRow] | None]:
    """The day's phases and those after hours; None where they are not known."""
    ordinary = phases_of(market)
    if not ordinary or (market in SINCE and day < SINCE[market]):
        return None, None
    later = phases_of(market, after_hours=True)[len(ordinary) :] if market in ("SH", "SZ") else ()
    return _phase_rows(ordinary, day), _phase_rows(later, day)


def _phase_rows(phases: Sequence[Phase], day: date) -> list[rows.PhaseRow]:
    base = midnight(day)
    return [
        rows.PhaseRow(phase.status, _moment(base + phase.start), _moment(base + phase.end), base + phase.start, base + phase.end)
        for phase in phases
    ]


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, SHANGHAI).isoformat(timespec="milliseconds")


def _read_cursor(text: str, question: str) -> tuple[int, str]:
    try:
        if len(text) > LONGEST_CURSOR:
            raise signing.BadSignature
        belongs, rank, symbol = signing.loads(text, salt=SALT)
    except (signing.BadSignature, ValueError):
        detail = "The cursor is damaged; take it as it stands in the page before."
        raise ArgusError(CURSOR_INVALID, detail, parameter="cursor") from None
    if belongs != question:
        detail = "The cursor belongs to another query; repeat all parameters of the page before, or begin without it."
        raise ArgusError(CURSOR_INVALID, detail, parameter="cursor")
    return rank, symbol


def _chunked(items: Sequence[str], fetch: Callable[[Sequence[str]], Iterable[Row]]) -> list[Row]:
    """SQLite takes a limited number of values in one query."""
    return [row for start in range(0, len(items), 500) for row in fetch(items[start : start + 500])]


def _instruments(symbols: Sequence[str]) -> dict[str, Instrument]:
    return {row.symbol: row for row in _chunked(symbols, lambda some: Instrument.objects.filter(symbol__in=some))}


def _index_of(name: str) -> Sector | None:
    """The index with known weights that is meant by a name or by a symbol in any form."""
    try:
        candidates: Sequence[str] = (parse(name),)
    except SymbolError as error:
        candidates = error.candidates or tuple(
            Instrument.objects.filter(kind=Kind.INDEX, name=name).values_list("symbol", flat=True)[:10]
        )
    return Sector.objects.filter(name__in=candidates, weights__isnull=False).order_by("name").first()


def _product(symbol: str) -> str:
    code, _, market = symbol.rpartition(".")
    match = _PRODUCT.match(code)
    return f"{match[1] if match else code}.{market}"


def _contract(row: Instrument, main: str | None) -> rows.Contract:
    shown = rows.InstrumentRow.of(row)
    return rows.Contract(
        symbol=row.symbol,
        name=shown.name,
        main=row.symbol == main,
        listed=shown.listed,
        delisted=shown.delisted,
        price_tick=row.price_tick,
        multiplier=row.multiplier,
        quoted=row.quoted,
    )


def _living(stored: Any, query: Query) -> Any:
    """Contracts before or on their last trading day, unless all are asked for."""
    if _yes_or_no(query, "expired"):
        return stored
    return stored.filter(Q(delisted__isnull=True) | Q(delisted__gte=day_of(market_time.now())))


def _underlyings(word: str) -> list[str]:
    """What the source may call an underlying that people call by this word."""
    try:
        return [word, word.upper(), parse(word)]
    except SymbolError as error:
        return [word, word.upper(), word.lower(), *error.candidates]


def _about_rows(stored: Iterable[Any]) -> dict[str, Any]:
    listed = list(stored)
    return _about([row.source for row in listed], [row.refreshed_at for row in listed])


def _about(sources: Iterable[str], refreshed: Iterable[datetime | None]) -> dict[str, Any]:
    """What stands beside the data: the sources, and the date of the oldest row."""
    moments = [moment for moment in refreshed if moment is not None]
    oldest = rows.shown(min(moments)) if moments else None
    return {
        "source": ",".join(sorted(set(sources))) or None,
        "refreshed_at": oldest,
        "as_of": oldest,
        "request_id": requestid.current(),
    }

"""From a request's parameters to an answer under the caller's plan: the same for the plain route and the DRF views."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

import msgspec

from argus.access.check import require_data_types, require_symbols
from argus.access.principal import Principal
from argus.config import config
from argus.errors import INVALID_ARGUMENT, OUTSIDE_CALENDAR, ArgusError
from argus.http import REMEMBERED
from marketdata import universe
from marketdata.api import latest
from marketdata.calendar import TradingCalendar
from marketdata.latest import store
from marketdata.reference.days import NoCalendar, calendar_of
from marketdata.symbols import market_of
from marketdata.types import DataType
from marketdata.universe import EVERYTHING, Rejected, Resolution

Query = Mapping[str, Sequence[str]]
Answer = Callable[[Query, Principal, str], bytes]
"""Parameters, caller and request id -> the JSON body. Raises ``ArgusError``."""

QUOTES = frozenset({DataType.QUOTE})


def latest_quotes(query: Query, principal: Principal, request_id: str) -> bytes:
    """The newest quotes of ``symbols``: words are taken as on the stream, those that stand for nothing are named."""
    require_data_types(principal, QUOTES)
    refuse_others(query, {"symbols"})
    words = words_of(query, "symbols")
    if not words:
        raise ArgusError(INVALID_ARGUMENT, "Name at least one symbol: ?symbols=000001.SZ,600000.SH", parameter="symbols")
    allow_symbols(principal, len(words), "symbols")
    resolution = universe.resolve(words, universe.current())
    refuse_if_nothing(resolution, "symbols")
    allow_symbols(principal, len(resolution.symbols), "symbols")
    return _body(resolution.symbols, resolution, request_id)


def full_market(query: Query, principal: Principal, request_id: str) -> bytes:
    """The newest quotes of whole markets, or of everything; the plan's limit of symbols holds as for ``*`` on the stream."""
    require_data_types(principal, QUOTES)
    refuse_others(query, {"market"})
    known = universe.current()
    if not known.symbols:
        known = universe.Universe(symbols=tuple(sorted(store.fragments)))
    words = [f"market:{name}" for name in words_of(query, "market")] or [EVERYTHING]
    resolution = universe.resolve(words, known)
    refuse_if_nothing(resolution, "market")
    if resolution.everything:
        allow_symbols(principal, max(len(resolution.symbols), len(store.fragments)), "market")
        return _body(None, resolution, request_id)
    allow_symbols(principal, len(resolution.symbols), "market")
    return _body(resolution.symbols, resolution, request_id)


def _body(symbols: Sequence[str] | None, resolution: Resolution, request_id: str) -> bytes:
    return latest.body(
        store,
        symbols,
        rejected=resolution.rejected,
        expected=resolution.symbols,
        stale_after=config.stale_after,
        request_id=request_id,
    )


def words_of(query: Query, parameter: str) -> list[str]:
    """The words of a parameter that may be given several times and with commas; each word once."""
    text = ",".join(query.get(parameter, ()))
    return list(_remembered(text) if len(text) <= REMEMBERED else _split(text))


def _split(text: str) -> tuple[str, ...]:
    words = dict.fromkeys(map(str.strip, text.split(",")))
    words.pop("", None)
    return tuple(words)


_remembered = lru_cache(maxsize=1024)(_split)


def allow_symbols(principal: Principal, count: int, parameter: str) -> None:
    """Raise SYMBOL_LIMIT, under the parameter's name, if these are more symbols than the plan allows at a time."""
    try:
        require_symbols(principal, count)
    except ArgusError as error:
        raise ArgusError(error.problem, error.detail, **error.params, parameter=parameter) from None


def refuse_others(query: Query, known: Collection[str]) -> None:
    """A misspelt parameter is an error: silence would answer another question than was asked."""
    for parameter in query:
        if parameter not in known:
            detail = f"There is no parameter {parameter[:40]!r} here; there is {', '.join(sorted(known))}."
            raise ArgusError(INVALID_ARGUMENT, detail, parameter=parameter[:40])


def refuse_if_nothing(resolution: Resolution, parameter: str) -> None:
    """Where every word was rejected, the first one's problem is the answer's."""
    if resolution.symbols or resolution.everything or not resolution.rejected:
        return
    first: Rejected = resolution.rejected[0]
    more = f" and {len(resolution.rejected) - 1} more" if len(resolution.rejected) > 1 else ""
    raise ArgusError(
        first.problem,
        f"{first.word[:80]!r}: {first.reason}{more}.",
        parameter=parameter,
        rejected=msgspec.to_builtins(latest.refusals(resolution.rejected)),
    )


def calendar_for(symbols: Sequence[str]) -> TradingCalendar:
    """The trading days of the first of the symbols' markets of which they are known: the symbols of the others have no bars, and
    an answer names them. Raises OUTSIDE_CALENDAR where nothing is known of any of the markets.
    """
    unknown: dict[str, str] = {}
    for symbol in symbols:
        market = market_of(symbol)
        if market in unknown:
            continue
        try:
            return calendar_of(market)
        except NoCalendar as error:
            unknown[market] = str(error)
    raise ArgusError(OUTSIDE_CALENDAR, f"{'; '.join(unknown.values())}.", parameter="symbols")

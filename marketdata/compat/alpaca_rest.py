"""Alpaca's market data API v2 for stocks under ``/compat/alpaca``, as ``alpaca-py`` and Alpaca's other clients ask it.

Access, quota, limits and data are those of the native addresses; parameters, answers and errors are Alpaca's.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
import structlog
from django.utils.translation import override

from argus import requestid
from argus.access.check import authenticate, client_address, require_data_types
from argus.access.principal import SCOPE_READ, Principal
from argus.config import config
from argus.errors import CURSOR_INVALID, INVALID_ARGUMENT, NOT_AUTHENTICATED, NOT_FOUND, UNSUPPORTED, ArgusError
from argus.http import JSON, Headers, answer, headers_of, problem_headers, query_of
from argus.requestid import Application, Scope, Send
from argus.streamed import Reply, beside, streamed
from marketdata import market_time, universe
from marketdata.api import cursor
from marketdata.api.query import QUOTES, Query, allow_symbols, refuse_if_nothing, refuse_others, words_of
from marketdata.calendar import day_of, midnight
from marketdata.compat import alpaca, alpaca_past, bars
from marketdata.compat.alpaca_key import key_in
from marketdata.compat.alpaca_past import Past, Time
from marketdata.compat.begins import begins_of
from marketdata.compat.fragments import Quote, read_quote
from marketdata.compat.parameters import choice, limit, single
from marketdata.compat.reply import json_reply
from marketdata.compat.told import is_adjusted, said
from marketdata.history.query import HistoryQuery, read_day, read_time
from marketdata.history.service import Prepared, prepare
from marketdata.latest import store
from marketdata.periods import MINUTES, hours_of
from marketdata.types import Adjust, Period

log = structlog.get_logger(__name__)
Token = TypeVar("Token")

PREFIX: Final = "/compat/alpaca"
LIMIT: Final = 1_000
MAX_LIMIT: Final = 10_000
"""Bars, quotes or trades of a page, of all symbols together."""
LONGEST_TOKEN: Final = 200
SECONDS_SHOWN: Final = re.compile(r"(\.\d{6})\d+")
"""Alpaca's times may have nanoseconds; ours have milliseconds."""

EVERYWHERE: Final = frozenset({"symbols", "feed", "currency"})
RANGE: Final = EVERYWHERE | {"start", "end", "limit", "page_token", "sort", "asof"}


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A request of a caller who has been let in. ``symbol``: the one that the address names, None where the query names many."""

    principal: Principal
    symbol: str | None
    query: Query
    headers: Mapping[str, str]
    request_id: str

    @property
    def words(self) -> list[str]:
        """The symbols as the client writes them."""
        words = words_of(self.query, "symbols") if self.symbol is None else [self.symbol]
        if not words:
            raise ArgusError(INVALID_ARGUMENT, "Name at least one symbol: ?symbols=600519.SH,000001.SZ", parameter="symbols")
        return words


Handler = Callable[[_Asked], Awaitable[Reply]]


class _Token(msgspec.Struct, frozen=True, array_like=True):
    """Where a page of bars begins: with this symbol's bar of this time (ms), None: with its first. ``now`` (ms) is when the first
    page was asked for: bars that end later are in none of them."""

    symbol: str
    time: Time | None
    now: Time


_BARS_TOKEN: Final = msgspec.json.Decoder(_Token)
_PAST_TOKEN: Final = msgspec.json.Decoder(alpaca_past.Place)


async def _bars(asked: _Asked) -> Reply:
    _refuse_others(asked, RANGE | {"timeframe", "adjustment"})
    period, adjust = _period(asked.query), _adjust(asked.query)
    newest_first = _newest_first(asked.query)
    rows = limit(asked.query, LIMIT, MAX_LIMIT)
    begin = _read_token(asked.query, _BARS_TOKEN)
    now = market_time.now() if begin is None else min(begin.now, market_time.now())
    first, last = _range(asked.query, now)
    following: Sequence[str] = ()

    def build(symbols: tuple[str, ...]) -> HistoryQuery:
        nonlocal following
        whole = bars.between(symbols, period, first, last, parameters=("start", "end"), adjust=adjust)
        if begin is not None and begin.symbol not in symbols:
            raise _bad_token()
        number = 0 if begin is None else symbols.index(begin.symbol)
        until = number + cursor.per_page(whole, rows)
        following = symbols[until:]
        as_of = None if adjust is Adjust.NONE else day_of(now)
        return msgspec.structs.replace(whole, symbols=symbols[number:until], as_of=as_of)

    def finish(prepared: Prepared) -> Reply:
        found: dict[str, list[dict[str, Any]]] = {}
        left = rows
        token = _Token(following[0], None, now) if following else None
        for symbol, series in prepared.parts():
            begins = begins_of(series.time, period, hours_of(symbol))
            # Of days, weeks and months those count that the range touches.
            low = int(begins.searchsorted(first, "left")) if period in MINUTES else 0
            high = int(begins.searchsorted(last, "right"))
            if begin is not None and begin.symbol == symbol and begin.time is not None:
                if newest_first:
                    high = min(high, int(begins.searchsorted(begin.time, "right")))
                else:
                    low = max(low, int(begins.searchsorted(begin.time, "left")))
            if high <= low:
                continue
            if not left:
                token = _Token(symbol, None, now)
                break
            cut = min(left, high - low)
            chosen = slice(high - cut, high) if newest_first else slice(low, low + cut)
            told = alpaca.bars(symbol, series.pick(chosen), period, adjusted=is_adjusted(prepared, symbol))
            found[symbol] = told[::-1] if newest_first else told
            left -= cut
            if cut < high - low:
                token = _Token(symbol, int(begins[high - cut - 1 if newest_first else low + cut]), now)
                break
        return _page(asked, "bars", found, token, said(prepared))

    return await bars.answer(
        asked.words, asked.principal, parameter="symbols", build=build, finish=finish, request_id=asked.request_id
    )


async def _latest_bars(asked: _Asked) -> Reply:
    _refuse_others(asked, EVERYWHERE)

    def finish(prepared: Prepared) -> Reply:
        parts = ((symbol, alpaca.bars(symbol, series, Period.M1, adjusted=False)) for symbol, series in prepared.parts())
        found = {symbol: rows[-1] for symbol, rows in parts if rows}
        return _latest(asked, "bar", found, said(prepared))

    return await bars.answer(
        asked.words,
        asked.principal,
        parameter="symbols",
        build=lambda symbols: HistoryQuery(symbols=symbols, period=Period.M1, count=1),
        finish=finish,
        request_id=asked.request_id,
    )


async def _quotes(asked: _Asked) -> Reply:
    return await _past(asked, alpaca_past.QUOTES)


async def _trades(asked: _Asked) -> Reply:
    return await _past(asked, alpaca_past.TRADES)


async def _past(asked: _Asked, past: Past) -> Reply:
    _refuse_others(asked, RANGE)
    data_type = past.layout.data_type
    require_data_types(asked.principal, (data_type,))
    if _newest_first(asked.query):
        detail = f"{data_type.capitalize()}s come in the order in which they were published; leave sort out."
        raise ArgusError(UNSUPPORTED, detail, parameter="sort")
    rows = limit(asked.query, LIMIT, MAX_LIMIT)
    begin = _read_token(asked.query, _PAST_TOKEN)
    first, last = _range(asked.query, market_time.now())
    symbols = _resolved(asked)

    def work(seconds: float) -> Reply:
        found, token = alpaca_past.page(past, symbols, first, last, limit=rows, begin=begin, deadline_seconds=seconds)
        return _page(asked, f"{data_type}s", found, token, ())

    return await beside(work, config.fetch_timeout)


async def _latest_quotes(asked: _Asked) -> Reply:
    _refuse_others(asked, EVERYWHERE)
    found = {quote.symbol: told for quote in _newest(asked) if (told := alpaca.last_quote(quote))}
    return _latest(asked, "quote", found, ())


async def _latest_trades(asked: _Asked) -> Reply:
    _refuse_others(asked, EVERYWHERE)
    found = {quote.symbol: told for quote in _newest(asked) if (told := alpaca.last_trade(quote))}
    return _latest(asked, "trade", found, ())


async def _snapshots(asked: _Asked) -> Reply:
    _refuse_others(asked, EVERYWHERE)
    symbols = _resolved(asked)
    quotes = {quote.symbol: quote for quote in _newest(asked)}

    def work(seconds: float) -> Reply:
        end = time.monotonic() + seconds
        minutes, days = (_last_bars(asked, symbols, period, count, end) for period, count in ((Period.M1, 1), (Period.D1, 2)))
        found = {symbol: _snapshot(quotes.get(symbol), minutes.get(symbol, []), days.get(symbol, [])) for symbol in symbols}
        if asked.symbol is None:
            return json_reply(found, asked.headers)
        return json_reply({"symbol": symbols[0], **found[symbols[0]]}, asked.headers)

    return await beside(work, config.fetch_timeout)


def _last_bars(
    asked: _Asked, symbols: tuple[str, ...], period: Period, count: int, end: float
) -> dict[str, list[dict[str, Any]]]:
    """The last bars of each symbol; of none where they cannot be had now: the quotes of a snapshot do not wait for them."""
    query = HistoryQuery(symbols=symbols, period=period, count=count)
    try:
        prepared = prepare(query, deadline_seconds=max(0.0, end - time.monotonic()), request_id=asked.request_id)
        return {symbol: alpaca.bars(symbol, series, period, adjusted=False) for symbol, series in prepared.parts()}
    except ArgusError as error:
        log.info("snapshot_without_bars", period=period, reason=error.problem.name)
        return {}


def _snapshot(quote: Quote | None, minutes: Sequence[dict[str, Any]], days: Sequence[dict[str, Any]]) -> dict[str, Any]:
    today = None if quote is None else alpaca.day_bar(quote)
    before = list(days)
    if quote is not None:
        begin = alpaca.moment(alpaca.day_begin(quote))
        before = [day for day in days if day["t"] < begin]
        today = today or next((day for day in days if day["t"] == begin), None)
    elif before:
        today = before.pop()
    return {
        "latestTrade": quote and alpaca.last_trade(quote),
        "latestQuote": quote and alpaca.last_quote(quote),
        "minuteBar": minutes[-1] if minutes else None,
        "dailyBar": today,
        "prevDailyBar": before[-1] if before else None,
    }


_ADDRESSES: Final[dict[str, Handler]] = {
    "bars": _bars,
    "bars/latest": _latest_bars,
    "quotes": _quotes,
    "quotes/latest": _latest_quotes,
    "trades": _trades,
    "trades/latest": _latest_trades,
    "snapshots": _snapshots,
}
_OF_MANY: Final = re.compile(f"/v2/stocks/({'|'.join(_ADDRESSES)})")
_OF_ONE: Final = re.compile(f"/v2/stocks/([^/]+)/({'|'.join(_ADDRESSES)})")


async def _respond(scope: Scope, principal: Principal, body: bytes) -> Reply:
    address: str = scope["path"].removeprefix(PREFIX)
    symbol: str | None = None
    if found := _OF_MANY.fullmatch(address):
        (name,) = found.groups()
    elif found := _OF_ONE.fullmatch(re.sub("/snapshot$", "/snapshots", address)):
        symbol, name = found.groups()
    else:
        raise ArgusError(NOT_FOUND, f"There is nothing at {address[:80]}; docs/dialects.md names what is answered.")
    asked = _Asked(
        principal=principal,
        symbol=symbol,
        query=query_of(scope),
        headers=headers_of(scope),
        request_id=requestid.request_id(scope),
    )
    return await _ADDRESSES[name](asked)


async def identify(scope: Scope) -> Principal:
    """Whose key stands in Alpaca's headers. Raises ``ArgusError``."""
    key = key_in(headers_of(scope))
    if key is None:
        raise ArgusError(NOT_AUTHENTICATED, "Send an Argus key as APCA-API-SECRET-KEY or APCA-API-KEY-ID.")
    return await authenticate(key, client_address(scope))


async def problems(scope: Scope, send: Send, error: ArgusError, headers: Headers = ()) -> None:
    """An error as Alpaca tells it: in English, with our code and the HTTP status of the native addresses."""
    with override("en"):
        document = {"code": error.problem.code, "message": error.message, "request_id": requestid.request_id(scope)}
    fields = [*headers, *problem_headers(error)]
    await answer(scope, send, error.problem.status, msgspec.json.encode(document), JSON, fields)


ROUTES: Final[dict[str, Application]] = {
    f"{PREFIX}/": streamed(SCOPE_READ, ("GET", "HEAD"), _respond, longest=0, problems=problems, identify=identify)
}
"""Beginning of a path -> who answers it."""


def _page(
    asked: _Asked, name: str, found: Mapping[str, list[dict[str, Any]]], token: Any, fields: Sequence[tuple[str, str]]
) -> Reply:
    """A page of rows by symbol; of one symbol its rows alone."""
    text = None if token is None else base64.urlsafe_b64encode(msgspec.json.encode(token)).decode()
    told: dict[str, Any] = {name: found}
    if asked.symbol is not None:
        symbol, rows = next(iter(found.items()), (asked.symbol, []))
        told = {name: rows, "symbol": symbol}
    return json_reply({**told, "next_page_token": text}, asked.headers, fields)


def _latest(asked: _Asked, name: str, found: Mapping[str, Any], fields: Sequence[tuple[str, str]]) -> Reply:
    """The newest object of each symbol; of one symbol it must be there."""
    if asked.symbol is None:
        return json_reply({f"{name}s": found}, asked.headers, fields)
    if not found:
        raise ArgusError(NOT_FOUND, f"There is no {name} of {asked.symbol[:40]} yet.")
    ((symbol, told),) = found.items()
    return json_reply({"symbol": symbol, name: told}, asked.headers, fields)


def _newest(asked: _Asked) -> list[Quote]:
    require_data_types(asked.principal, QUOTES)
    fragments = (store.fragments.get(symbol) for symbol in _resolved(asked))
    return [read_quote(fragment) for fragment in fragments if fragment is not None]


def _resolved(asked: _Asked) -> tuple[str, ...]:
    words = asked.words
    allow_symbols(asked.principal, len(words), "symbols")
    resolution = universe.resolve(words, universe.current())
    refuse_if_nothing(resolution, "symbols")
    allow_symbols(asked.principal, len(resolution.symbols), "symbols")
    return resolution.symbols


def _refuse_others(asked: _Asked, known: frozenset[str]) -> None:
    """Refuse what is not known, and what is known and cannot be had: another feed, another currency, a day's other names."""
    query = asked.query
    refuse_others(query, known if asked.symbol is None else known - {"symbols"})
    choice(query, "feed", alpaca.FEEDS, alpaca.FEEDS[0])
    choice(query, "currency", ("CNY",), "CNY")
    asof = single(query, "asof")
    if asof not in (None, "-"):
        # A code in China stays its company's, so that there is no other name to look for.
        read_day(asof or "", "asof")


def _period(query: Query) -> Period:
    word = single(query, "timeframe")
    period = alpaca.TIMEFRAMES.get(word or "")
    if period is None:
        known = ", ".join({period: name for name, period in reversed(alpaca.TIMEFRAMES.items())}.values())
        detail = f"timeframe cannot be {(word or '')[:40]!r} here; it can be {known}."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="timeframe")
    return period


def _adjust(query: Query) -> Adjust:
    word = single(query, "adjustment") or "raw"
    if word in ("split", "dividend"):
        detail = f"Prices adjusted for {word}s alone are not offered; there is raw, and all (splits and dividends)."
        raise ArgusError(UNSUPPORTED, detail, parameter="adjustment")
    return alpaca.ADJUSTMENTS[choice(query, "adjustment", tuple(alpaca.ADJUSTMENTS), "raw")]


def _newest_first(query: Query) -> bool:
    return choice(query, "sort", ("asc", "desc"), "asc") == "desc"


def _range(query: Query, now: int) -> tuple[int, int]:
    """The first and the last time that is asked for, in ms; where nothing is said, the market's day up to now."""
    start, end = single(query, "start"), single(query, "end")
    first = midnight(day_of(now)) if start is None else _time(start, "start", is_end=False)
    last = now if end is None else min(now, _time(end, "end", is_end=True))
    return first, max(last, first) if end is None else last


def _time(text: str, parameter: str, *, is_end: bool) -> int:
    return read_time(SECONDS_SHOWN.sub(r"\1", text), parameter, is_end=is_end)


def _read_token(query: Query, decoder: msgspec.json.Decoder[Token]) -> Token | None:
    """Where the page begins; None: at the beginning. Raises CURSOR_INVALID."""
    text = single(query, "page_token")
    if text is None:
        return None
    if len(text) > LONGEST_TOKEN:
        raise _bad_token()
    try:
        return decoder.decode(base64.b64decode(text, altchars=b"-_", validate=True))
    except (ValueError, msgspec.MsgspecError):
        raise _bad_token() from None


def _bad_token() -> ArgusError:
    detail = "page_token is not of this query; take it as it stands in the page before, or begin without it."
    return ArgusError(CURSOR_INVALID, detail, parameter="page_token")

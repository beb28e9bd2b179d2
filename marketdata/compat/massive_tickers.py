"""Massive's reference tickers over REST: which instruments there are, searched and filtered."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

from django.core import signing

from argus.config import config
from argus.errors import CURSOR_INVALID, INVALID_ARGUMENT, UNKNOWN_SYMBOL, ArgusError
from argus.streamed import Reply, beside
from marketdata import universe
from marketdata.api.query import refuse_others
from marketdata.compat.massive_asked import Asked, one, resolved
from marketdata.compat.parameters import choice, limit, single
from marketdata.exchanges import MARKET_OF_NAME, MARKETS, Kind
from marketdata.models import Instrument
from marketdata.reference import search
from marketdata.symbols import market_of

LIMIT: Final = 100
MAX_LIMIT: Final = 1_000
"""Tickers of a page."""
SALT: Final = "argus.massive.tickers"
LONGEST_CURSOR: Final = 400
"""Characters; a longer text is refused unread."""

TYPES: Final[dict[str, str]] = {
    Kind.STOCK: "CS",
    Kind.B_SHARE: "CS",
    Kind.PREFERRED: "PFD",
    Kind.FUND: "FUND",
    Kind.INDEX: "INDEX",
    Kind.BOND: "BOND",
    Kind.CONVERTIBLE: "BOND",
}
"""Our kinds -> Massive's ticker types; others have none."""


async def ticker_details(asked: Asked) -> Reply:
    """What is known of one ticker."""
    # Massive's Python client says the ticker again.
    refuse_others(asked.query, {"ticker"})
    (symbol,) = one(resolved(asked, (asked.path["ticker"],), quoted=False))

    def work(_: float) -> Reply:
        row = Instrument.objects.filter(symbol=symbol).first()
        if row is None:
            raise ArgusError(UNKNOWN_SYMBOL, f"The source has told nothing of {symbol}.")
        listed = {"list_date": row.listed.isoformat()} if row.listed else {}
        return asked.reply(results=_ticker(row) | listed)

    return await beside(work, config.fetch_timeout)


async def tickers(asked: Asked) -> Reply:
    """The tickers there are, searched and filtered, a page at a time."""
    query = asked.query
    refuse_others(query, {"ticker", "type", "market", "exchange", "active", "search", "limit", "sort", "order", "cursor"})
    market = choice(query, "market", ("stocks", "indices"), "stocks") if "market" in query else None
    choice(query, "sort", ("ticker",), "ticker")
    choice(query, "order", ("asc",), "asc")
    active = choice(query, "active", ("true", "false"), "true") == "true"
    most = limit(query, LIMIT, MAX_LIMIT)
    kinds = _kinds(single(query, "type"), market)
    markets = _markets(single(query, "exchange"))
    text = single(query, "search") or ""
    if text and not search.plain(text):
        raise ArgusError(INVALID_ARGUMENT, "Nothing in it can be looked for: write a code, a name or pinyin.")
    ticker = single(query, "ticker")
    question = blake2b(repr((text, kinds, markets, active)).encode(), digest_size=12).hexdigest()
    after = _read_cursor(single(query, "cursor"), question)

    def work(_: float) -> Reply:
        if ticker:
            words = universe.resolve((ticker,), universe.current(), quoted=False).symbols
            found = search.Found(tuple(Instrument.objects.filter(symbol__in=words, quoted=active, kind__in=kinds)), None)
        else:
            found = search.find(text, kinds=kinds, markets=markets, quoted=active, limit=most, after=after)
        results = [_ticker(row) for row in found.rows]
        more: dict[str, Any] = {}
        if found.after is not None:
            cursor = signing.dumps([question, *found.after], salt=SALT)
            more["next_url"] = asked.next_url(asked.address, cursor=cursor)
        return asked.reply(count=len(results), results=results, **more)

    return await beside(work, config.fetch_timeout)


def _kinds(word: str | None, market: str | None) -> list[str]:
    within = {kind: name for kind, name in TYPES.items() if market in (None, _market(kind))}
    kinds = [kind for kind, name in within.items() if word is None or name == word]
    if not kinds:
        known = ", ".join(dict.fromkeys(within.values()))
        raise ArgusError(INVALID_ARGUMENT, f"There is no type {(word or '')[:40]!r} here; there is {known}.", parameter="type")
    return kinds


def _markets(word: str | None) -> list[str]:
    if word is None:
        return []
    market = MARKET_OF_NAME.get(word.upper())
    if market is None:
        raise ArgusError(INVALID_ARGUMENT, f"There is no exchange {word[:40]!r} here.", parameter="exchange")
    return [market]


def _market(kind: str) -> str:
    """Massive's market of one of our kinds."""
    return "indices" if kind == Kind.INDEX else "stocks"


def _ticker(row: Instrument) -> dict[str, Any]:
    market = market_of(row.symbol)
    codes = [name for name in MARKETS.get(market, ()) if name.startswith("X")]
    told = {
        "ticker": row.symbol,
        "name": row.name or None,
        "market": _market(row.kind),
        "locale": "cn",
        "primary_exchange": codes[0] if codes else None,
        "type": TYPES.get(row.kind),
        "active": row.quoted,
        "currency_name": "cny" if market in ("SH", "SZ", "BJ") and row.kind != Kind.B_SHARE else None,
        "last_updated_utc": row.refreshed_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {name: value for name, value in told.items() if value is not None}


def _read_cursor(text: str | None, question: str) -> tuple[int, str] | None:
    if text is None:
        return None
    try:
        if len(text) > LONGEST_CURSOR:
            raise signing.BadSignature
        belongs, rank, symbol = signing.loads(text, salt=SALT)
    except (signing.BadSignature, ValueError):
        raise ArgusError(CURSOR_INVALID, "The cursor is damaged; take next_url as it stands.", parameter="cursor") from None
    if belongs != question:
        raise ArgusError(CURSOR_INVALID, "The cursor belongs to another query; take next_url as it stands.", parameter="cursor")
    return rank, symbol

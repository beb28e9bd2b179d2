"""The newest quotes in UDF's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from argus.access.check import require_data_types
from argus.access.principal import Principal
from argus.errors import INVALID_ARGUMENT, ArgusError
from marketdata import universe
from marketdata.api.query import QUOTES, Query, allow_symbols, words_of
from marketdata.compat.udf_symbols import exchange_of
from marketdata.latest import store
from marketdata.symbols import price_tick, round_price
from marketdata.types import Quote

_read = msgspec.json.Decoder(Quote).decode


def newest(symbol: str) -> Quote | None:
    """The newest quote of a symbol that is here."""
    fragment = store.fragments.get(symbol)
    return None if fragment is None else _read(fragment)


def quotes(query: Query, principal: Principal) -> dict[str, Any]:
    """The answer to /quotes: one entry for each word, under that word, with what is known. Raises ``ArgusError``."""
    require_data_types(principal, QUOTES)
    words = words_of(query, "symbols")
    if not words:
        raise ArgusError(INVALID_ARGUMENT, "Name at least one symbol: ?symbols=000001.SZ,600000.SH", parameter="symbols")
    allow_symbols(principal, len(words), "symbols")
    return {"s": "ok", "d": [_entry(word) for word in words]}


def _entry(word: str) -> dict[str, Any]:
    resolution = universe.resolve((word,), universe.current())
    symbols: Sequence[str] = resolution.symbols
    quote = newest(symbols[0]) if len(symbols) == 1 else None
    if quote is None:
        reason = resolution.rejected[0].reason if resolution.rejected else "there is no quote of it yet"
        return {"s": "error", "n": word, "v": {}, "errmsg": reason}
    return {"s": "ok", "n": word, "v": _values(quote)}


def _values(quote: Quote) -> dict[str, Any]:
    tick = price_tick(quote.symbol)
    bid = quote.bid_price[0] if quote.bid_price else None
    ask = quote.ask_price[0] if quote.ask_price else None
    name = universe.current().names.get(quote.symbol, "")
    values: dict[str, Any] = {
        "short_name": name or quote.symbol,
        "exchange": exchange_of(quote.symbol),
        "description": name,
        "lp": quote.price,
        "ask": ask,
        "bid": bid,
        "open_price": quote.open,
        "high_price": quote.high,
        "low_price": quote.low,
        "prev_close_price": quote.prev_close,
        "volume": quote.volume,
    }
    if bid is not None and ask is not None:
        values["spread"] = round_price(ask - bid, tick)
    if quote.price is not None and quote.prev_close:
        change = quote.price - quote.prev_close
        values["ch"] = round_price(change, tick)
        values["chp"] = round(100 * change / quote.prev_close, 2)
    # A number that is not known is not there.
    return {name: value for name, value in values.items() if value is not None}

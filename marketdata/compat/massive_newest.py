"""What is newest over Massive's REST: the last quote and trade, and snapshots."""

from __future__ import annotations

from argus.access.check import require_data_types
from argus.config import config
from argus.errors import NOT_FOUND, ArgusError
from argus.streamed import Reply, beside
from marketdata.api.history import QUICK_SYMBOLS
from marketdata.api.query import QUOTES, refuse_others, words_of
from marketdata.compat import massive
from marketdata.compat.fragments import Quote, read_quote
from marketdata.compat.massive_asked import Asked, one, resolved, stocks_only
from marketdata.latest import store
from marketdata.universe import EVERYTHING


async def last_quote(asked: Asked) -> Reply:
    """The newest best bid and ask of a ticker."""
    refuse_others(asked.query, ())
    return asked.reply(results=massive.last_quote(_quote(asked)))


async def last_trade(asked: Asked) -> Reply:
    """The newest price of a ticker."""
    refuse_others(asked.query, ())
    quote = _quote(asked)
    if quote.price is None:
        raise ArgusError(NOT_FOUND, f"{quote.symbol} has not been traded today.")
    return asked.reply(results=massive.last_trade(quote))


async def snapshot(asked: Asked) -> Reply:
    """One ticker as it stands."""
    refuse_others(asked.query, ())
    stocks_only(asked)
    return asked.reply(ticker=massive.snapshot(_quote(asked)))


async def snapshots(asked: Asked) -> Reply:
    """Many tickers as they stand, all of them where none are named."""
    refuse_others(asked.query, {"tickers", "include_otc"})
    stocks_only(asked)
    require_data_types(asked.principal, QUOTES)
    symbols = resolved(asked, words_of(asked.query, "tickers") or (EVERYTHING,))

    def work(_: float) -> Reply:
        found = [fragment for symbol in symbols if (fragment := store.fragments.get(symbol)) is not None]
        tickers = [massive.snapshot(read_quote(fragment)) for fragment in found]
        return asked.reply(count=len(tickers), tickers=tickers)

    return work(0) if len(symbols) <= QUICK_SYMBOLS else await beside(work, config.fetch_timeout)


def _quote(asked: Asked) -> Quote:
    """The newest quote of the ticker."""
    require_data_types(asked.principal, QUOTES)
    (symbol,) = one(resolved(asked, (asked.path["ticker"],)))
    fragment = store.fragments.get(symbol)
    if fragment is None:
        raise ArgusError(NOT_FOUND, f"There is no quote of {symbol} yet.")
    return read_quote(fragment)

"""Rows of ``l2transaction`` as a QMT terminal sends them become trades, or parse errors that say why not.

Reasons of a ``ParseError``, all of them: ``cancel`` (Shenzhen tells of cancelled orders among its trades), ``shape`` (no row,
or a field of another type), ``symbol`` (the code is not an instrument's), ``time`` (absent or implausible), ``price`` (none, or
negative), ``volume`` (none, negative, or of a unit that the amount contradicts), ``index`` (the exchange's number is missing).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from marketdata import symbols
from marketdata.sources.qmt.parse import SOURCE, Refused, canonical, plausible, price, volume
from marketdata.sources.qmt.parse_history import TOLERANCE, TRADED_KINDS
from marketdata.types import Number, ParsedTrades, ParseError, Side, Trade

OUTER, INNER, CANCEL = 1, 2, 3
"""``tradeFlag``: the buyer took the liquidity (外盘), the seller did (内盘), no trade but a cancel (Shenzhen alone)."""
SIDES: Final[Mapping[Number | None, Side]] = {OUTER: Side.BUY, INNER: Side.SELL}
"""Any other flag is no side: the auctions'."""


class _Row(msgspec.Struct, rename="camel"):
    """The fields of a row that are read, with the types that they have."""

    time: Number | None = None
    price: Number | None = None
    volume: Number | None = None
    amount: Number | None = None
    trade_index: Number | None = None
    trade_flag: Number | None = None


def _trade(code: object, record: object, now: int) -> Trade:
    try:
        raw = msgspec.convert(record, _Row)
    except msgspec.ValidationError as error:
        raise Refused("shape", str(error)) from None
    symbol = canonical(code)
    if raw.trade_flag == CANCEL:
        raise Refused("cancel", f"tradeIndex is {raw.trade_index}")
    if raw.trade_index is None or not (raw.trade_index >= 0 and float(raw.trade_index).is_integer()):
        raise Refused("index", f"tradeIndex is {raw.trade_index}")
    at = price(raw.price, symbols.price_tick(symbol))
    if at is None:
        raise Refused("price", f"a trade at {raw.price}")
    size = volume(raw.volume)
    if not size:
        raise Refused("volume", f"a trade of {raw.volume}")
    amount = volume(raw.amount)
    if amount and symbols.kind(symbol) in TRADED_KINDS and abs(amount - at * size) > TOLERANCE * amount:
        raise Refused("volume", f"{size} at {at} are not {amount}")
    return Trade(
        symbol=symbol,
        time=plausible(raw.time, now),
        index=int(raw.trade_index),
        price=at,
        volume=size,
        amount=round(float(amount), 4) if amount else None,
        side=SIDES.get(raw.trade_flag),
        source=SOURCE,
    )


def parse_trades(rows: Iterable[tuple[object, object]], now: int) -> ParsedTrades:
    """Rows in the terminal's order: code and row. ``now`` is this machine's clock in ms. Never raises."""
    trades: list[Trade] = []
    errors: list[ParseError] = []
    for code, record in rows:
        try:
            trades.append(_trade(code, record, now))
        except Refused as refused:
            errors.append(ParseError(symbol=str(code)[:64], reason=refused.reason, detail=refused.detail[:200]))
    return ParsedTrades(tuple(trades), tuple(errors))

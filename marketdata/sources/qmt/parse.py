"""Ticks as a QMT terminal sends them become quotes, or parse errors that say why not.

Reasons of a ``ParseError``, all of them: ``empty`` (the terminal sent ``{}``), ``shape`` (a field is missing or of
another type), ``symbol`` (the code is not an instrument's), ``time`` (absent or implausible), ``price`` (negative),
``volume`` (negative or not a number), ``book`` (a level without its volume, or levels out of order).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from marketdata import symbols
from marketdata.exchanges import Kind
from marketdata.types import Number, Parsed, ParseError, Quote, TradingStatus

SOURCE: Final = "qmt"

STATUS: Final[Mapping[Number | None, TradingStatus]] = {
    0: TradingStatus.UNKNOWN,
    10: TradingStatus.UNKNOWN,
    11: TradingStatus.PRE_OPEN,
    12: TradingStatus.OPENING_AUCTION,
    13: TradingStatus.CONTINUOUS,
    14: TradingStatus.BREAK,
    15: TradingStatus.CLOSED,
    16: TradingStatus.VOLATILITY_HALT,
    17: TradingStatus.HALTED,
    18: TradingStatus.CLOSING_AUCTION,
    # 19 is an auction within the session, for which there is no word among ours; 21 is the terminal's "field error".
    19: TradingStatus.UNKNOWN,
    20: TradingStatus.HALTED,
    21: TradingStatus.UNKNOWN,
    22: TradingStatus.AFTER_HOURS,
    23: TradingStatus.CLOSED,
}
"""``openInt`` of an instrument that is listed on a stock exchange (users' reports). ``stockStatus`` says nothing."""

STATUS_MARKETS: Final = frozenset({"SH", "SZ", "BJ"})
"""Where ``openInt`` is the trading status."""
FUTURE_KINDS: Final = frozenset({Kind.FUTURE})
"""What ``openInt`` is the open interest of, and whose volumes are contracts everywhere."""
SHARES_PER_LOT: Final[Mapping[Kind, int]] = {Kind.STOCK: 100}
"""``volume`` and the book count lots (手) of this many shares. Other kinds: only what a tick itself shows."""
LOT_SIZES: Final = (100, 10, 1)
"""What ``pvolume / volume`` may turn out to be."""

UNSET: Final = (1.797e308, 2147483647)
"""The terminal's words for "not set": any float from the first on, and exactly the second."""
MAX_LEVELS: Final = 10
EARLIEST: Final = 631123200000
"""1990-01-01 in Beijing: no Chinese exchange had opened yet."""
DAY: Final = 86_400_000


BEIJING: Final = 8 * 3_600_000


class Limits(NamedTuple):
    """The price limits of one trading day, which is counted in days since 1970."""

    day: int
    up: float | None
    down: float | None


NO_LIMITS: Final[Mapping[str, Limits]] = {}

Side = tuple[tuple[float, ...], tuple[Number, ...]]


class Refused(Exception):
    """Why one record does not become a value."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class _Tick(msgspec.Struct, rename="camel"):
    """The fields of a tick that are read, with the types that they have; converted in one go."""

    time: Number | None = None
    last_price: Number | None = None
    open: Number | None = None
    high: Number | None = None
    low: Number | None = None
    last_close: Number | None = None
    amount: Number | None = None
    volume: Number | None = None
    pvolume: Number | None = None
    open_int: Number | None = None
    transaction_num: Number | None = None
    last_settlement_price: Number | None = None
    ask_price: list[Number | None] | None = None
    bid_price: list[Number | None] | None = None
    ask_vol: list[Number | None] | None = None
    bid_vol: list[Number | None] | None = None


def number(value: object) -> Number | None:
    """A field's number; None where it is absent or says "not set". NaN and infinities are handed on."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused("shape", f"a number is {type(value).__name__}")
    return None if _unset(value) else value


def _unset(value: Number) -> bool:
    return value == UNSET[1] or UNSET[0] <= abs(value) < math.inf


def price(value: Number | None, tick: float | None) -> float | None:
    """A price on its grid; 0, NaN and "not set" are None."""
    if value is None:
        return None
    if 0 < value < UNSET[0] and value != UNSET[1]:
        return symbols.round_price(value, tick) or None
    if value < 0 and not _unset(value):
        raise Refused("price", f"a price is {value}")
    return None


def volume(value: Number | None) -> Number | None:
    """A count that cannot be negative; None where it is not set."""
    if value is None:
        return None
    if 0 <= value < UNSET[0] and value != UNSET[1]:
        return int(value) if isinstance(value, float) and value.is_integer() and value < 2**53 else value
    if _unset(value):
        return None
    raise Refused("volume", f"a volume is {value}")


def canonical(code: object) -> str:
    """The canonical symbol of a terminal's code."""
    try:
        return symbols.parse(code)  # type: ignore[arg-type]
    except symbols.SymbolError as error:
        raise Refused("symbol", str(error)) from None


def plausible(time: Number | None, now: int) -> int:
    """A time in ms; refused before there were exchanges and more than a day ahead of this machine's clock."""
    if time is None or not EARLIEST <= time <= now + DAY:
        raise Refused("time", f"time is {time}")
    return int(time)


def _shares(raw: _Tick, kind: Kind | None) -> tuple[Number | None, int | None]:
    """The day's volume, and how many shares a unit of the book is (None: not to be known)."""
    lots, shares = volume(raw.volume), volume(raw.pvolume)
    if kind in FUTURE_KINDS:
        return lots, 1
    unit = SHARES_PER_LOT.get(kind) if kind is not None else None
    if unit is None and lots and shares:
        # volume is pvolume in lots, rounded: off by half a lot at most.
        unit = next((size for size in LOT_SIZES if abs(shares - lots * size) * 2 <= size), None)
    if shares is not None and (shares or not lots):
        return shares, unit
    return (None if lots is None or unit is None else lots * unit), unit


def _levels(
    prices: list[Number | None] | None, volumes: list[Number | None] | None, tick: float | None, unit: int | None
) -> Side:
    """One side, from the best level outwards; levels without price or volume have no entry."""
    found_prices: list[float] = []
    found_volumes: list[Number] = []
    volumes = volumes or []
    for level, raw in enumerate((prices or ())[:MAX_LEVELS]):
        level_price = price(raw, tick)
        if level_price is None:
            continue
        level_volume = volume(volumes[level]) if level < len(volumes) else None
        if level_volume is None:
            raise Refused("book", f"level {level + 1} has no volume")
        if level_volume:
            found_prices.append(level_price)
            found_volumes.append(level_volume * (unit or 1))
    return (tuple(found_prices), tuple(found_volumes)) if unit is not None else ((), ())


def _outwards(prices: tuple[float, ...], sign: int) -> bool:
    return all((later - earlier) * sign > 0 for earlier, later in pairwise(prices))


def _status(code: Number | None, symbol: str) -> TradingStatus:
    return STATUS.get(code, TradingStatus.UNKNOWN) if symbols.market_of(symbol) in STATUS_MARKETS else TradingStatus.UNKNOWN


def _trades(raw: _Tick) -> int | None:
    value = volume(raw.transaction_num)
    # 0 trades beside a volume: this terminal does not count them.
    return int(value) if value else (0 if value == 0 and not raw.volume else None)


def day_of(time: int) -> int:
    """The day in Beijing of a time in ms, counted since 1970."""
    return (time + BEIJING) // DAY


def _quote(code: object, record: object, now: int, limits: Mapping[str, Limits]) -> Quote:
    if isinstance(record, dict) and not record:
        raise Refused("empty", "the terminal knows the code and has no tick of it")
    try:
        raw = msgspec.convert(record, _Tick)
    except msgspec.ValidationError as error:
        raise Refused("shape", str(error)) from None
    symbol = canonical(code)
    kind, tick = symbols.kind(symbol), symbols.price_tick(symbol)
    total, unit = _shares(raw, kind)
    bid_price, bid_volume = _levels(raw.bid_price, raw.bid_vol, tick, unit)
    ask_price, ask_volume = _levels(raw.ask_price, raw.ask_vol, tick, unit)
    if not (_outwards(bid_price, -1) and _outwards(ask_price, 1)):
        raise Refused("book", f"levels out of order: {bid_price} {ask_price}")
    amount = volume(raw.amount)
    future = kind in FUTURE_KINDS
    time = plausible(raw.time, now)
    limit = limits.get(symbol)
    if limit is not None and limit.day != day_of(time):
        limit = None
    return Quote(
        symbol=symbol,
        time=time,
        price=price(raw.last_price, tick),
        open=price(raw.open, tick),
        high=price(raw.high, tick),
        low=price(raw.low, tick),
        prev_close=price(raw.last_close, tick),
        volume=total,
        amount=None if amount is None else round(float(amount), 4),
        trades=_trades(raw),
        bid_price=bid_price,
        bid_volume=bid_volume,
        ask_price=ask_price,
        ask_volume=ask_volume,
        status=_status(raw.open_int, symbol),
        limit_up=limit.up if limit else None,
        limit_down=limit.down if limit else None,
        open_interest=volume(raw.open_int) if future else None,
        prev_settlement=price(raw.last_settlement_price, tick) if future else None,
        source=SOURCE,
    )


def parse_tick(code: object, raw: object, now: int, limits: Mapping[str, Limits] = NO_LIMITS) -> Quote | ParseError:
    """One tick. ``now`` is this machine's clock in ms; ``limits`` count on their own day alone. Never raises."""
    try:
        return _quote(code, raw, now, limits)
    except Refused as refused:
        return ParseError(symbol=str(code)[:64], reason=refused.reason, detail=refused.detail[:200])


def parse_ticks(ticks: Iterable[tuple[object, object]], now: int, limits: Mapping[str, Limits] = NO_LIMITS) -> Parsed:
    """Ticks in the terminal's order: code and tick."""
    quotes: list[Quote] = []
    errors: list[ParseError] = []
    for code, raw in ticks:
        parsed = parse_tick(code, raw, now, limits)
        if isinstance(parsed, Quote):
            quotes.append(parsed)
        else:
            errors.append(parsed)
    return Parsed(tuple(quotes), tuple(errors))

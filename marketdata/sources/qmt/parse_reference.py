"""What a QMT terminal says of instruments, sectors and trading dates, in our types.

``IsTrading`` and ``InstrumentStatus`` are not read: a live stock has been seen with ``IsTrading`` False.
"""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from marketdata import symbols
from marketdata.exchanges import Kind
from marketdata.sources.qmt import parse
from marketdata.sources.qmt.parse_history import beijing_date
from marketdata.types import Dividend, Instrument

EPOCH: Final = datetime.date(1970, 1, 1)
NEVER: Final = frozenset({"0", "99999999"})
"""Dates that mean "none"."""

UNIVERSE: Final[tuple[tuple[tuple[str, ...], ...], ...]] = (
    (("沪深A股",), ("上证A股", "深证A股")),
    (("京市A股",),),
)
"""The sectors that make the universe; in each row the first alternative of which the terminal knows all."""

SECTORS: Final[Mapping[Kind, tuple[tuple[tuple[str, ...], ...], ...]]] = {
    Kind.STOCK: UNIVERSE,
    Kind.B_SHARE: ((("沪深B股",), ("上证B股", "深证B股")),),
    Kind.INDEX: ((("沪深指数",), ("沪市指数", "深市指数")),),
    Kind.FUND: ((("沪深基金",), ("沪市基金", "深市基金")), (("沪深ETF",), ("沪市ETF", "深市ETF"))),
    Kind.CONVERTIBLE: ((("沪深转债",), ("上证转债", "深证转债")),),
    Kind.BOND: ((("沪深债券",), ("沪市债券", "深市债券")),),
    Kind.FUTURE: ((("中金所",),), (("上期所",),), (("大商所",),), (("郑商所",),), (("能源中心",),), (("广期所",),)),
    Kind.OPTION: (
        (("上证期权",),),
        (("深证期权",),),
        *((("中金所",),), (("上期所",),), (("大商所",),), (("郑商所",),), (("能源中心",),), (("广期所",),)),
    ),
}
"""Kind -> the sectors that hold it, in rows of alternatives as above. A futures exchange's sector holds its futures, its
options and the terminal's continuous series. Which of them a terminal has differs with its version and its broker."""

OPTION_TYPES: Final[Mapping[object, str]] = {0: "call", 1: "put"}
"""``OptionType``, as the vendor's own code mends it by the contract's name."""
DIVIDEND_FIELDS: Final = ("interest", "stockBonus", "stockGift", "allotNum", "allotPrice")
"""Per share: cash, bonus, gift, rights and their price (the vendor's document, "除权数据")."""
FRACTIONS: Final = 0.1
"""How far from 1 the sum of weights may be that are fractions; an index whose table is cut short sums up to more."""

CORE_INDICES: Final = (
    "000001.SH",
    "000016.SH",
    "000300.SH",
    "000688.SH",
    "000852.SH",
    "000905.SH",
    "399001.SZ",
    "399006.SZ",
    "399300.SZ",
    "899050.BJ",
)
"""Indices that belong to the universe where the terminal has a tick of them. A market's token instead (``SH``) would be
26,700 instruments, most of them bonds."""


def _date(detail: Mapping[str, Any], field: str) -> str | None:
    text = str(detail.get(field) or "")
    if text in NEVER or len(text) != 8 or not text.isdigit():
        return None
    month, day = int(text[4:6]), int(text[6:])
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if 1 <= month <= 12 and 1 <= day <= 31 else None


def _price_tick(detail: Mapping[str, Any], symbol: str) -> float | None:
    try:
        return parse.price(parse.number(detail.get("PriceTick")), None) or symbols.price_tick(symbol)
    except parse.Refused:
        return symbols.price_tick(symbol)


def parse_instrument(code: str, detail: object) -> Instrument | None:
    """One instrument's detail; None where the terminal does not know the code."""
    if not isinstance(detail, Mapping) or not detail:
        return None
    try:
        symbol = parse.canonical(code)
    except parse.Refused:
        return None
    name = detail.get("InstrumentName")
    kind = symbols.kind(symbol)
    contract = kind in (Kind.FUTURE, Kind.OPTION)
    option = kind is Kind.OPTION
    return Instrument(
        symbol=symbol,
        name=name.strip() or None if isinstance(name, str) else None,
        kind=None if kind is None else kind.value,
        price_tick=_price_tick(detail, symbol),
        listed=_date(detail, "OpenDate"),
        delisted=_date(detail, "ExpireDate"),
        multiplier=_positive(detail, "VolumeMultiple") if contract else None,
        underlying=_option_underlying(detail) if option else _product(symbol) if contract else None,
        option_type=OPTION_TYPES.get(detail.get("OptionType")) if option else None,
        strike=_positive(detail, "OptExercisePrice") if option else None,
        source=parse.SOURCE,
    )


def _positive(detail: Mapping[str, Any], field: str) -> float | None:
    try:
        return parse.price(parse.number(detail.get(field)), None)
    except parse.Refused:
        return None


def _product(symbol: str) -> str:
    """The product of a future, such as ``IF.IF``."""
    code, _, market = symbol.rpartition(".")
    return f"{code.rstrip('F').rstrip('0123456789')}.{market}"


def is_continuous(symbol: str) -> bool:
    """Whether a symbol is one of the terminal's own continuous series (``IF00.IF``), which nobody can trade.

    A contract's code has three digits of its month or more.
    """
    return symbols.kind(symbol) is Kind.FUTURE and sum(letter.isdigit() for letter in symbol) < 3


def _option_underlying(detail: Mapping[str, Any]) -> str | None:
    """The symbol that an option is on; the terminal may write a contract's code in another spelling than the exchange's."""
    market = detail.get("OptUndlMarket")
    for field in ("OptUndlCode", "OptUndlUniCode"):
        with contextlib.suppress(parse.Refused):
            return parse.canonical(f"{detail.get(field)}.{market}")
    return None


def parse_dividends(code: str, rows: Mapping[object, Mapping[str, Any]]) -> tuple[Dividend, ...]:
    """What a symbol has given, by the terminal's rows of ``get_divid_factors``; rows that give nothing are left out.

    The terminal's factor of a share reform (``gugai``) has an algorithm of its own, so of those rows it alone counts.
    """
    try:
        symbol = parse.canonical(code)
    except parse.Refused:
        return ()
    found = {}
    for key, row in rows.items():
        day = _ex_date(key, row)
        cash, bonus, gift, rights, price = (_given(row, field) for field in DIVIDEND_FIELDS)
        ratio = _given(row, "dr")
        if day and (cash or bonus or gift or rights or ratio not in (0.0, 1.0)):
            found[day] = Dividend(
                symbol=symbol,
                ex_date=day,
                cash=cash,
                bonus=bonus,
                gift=gift,
                rights=rights,
                rights_price=price,
                ratio=ratio or None,
                source=parse.SOURCE,
            )
    return tuple(found[day] for day in sorted(found))


def _ex_date(key: object, row: Mapping[str, Any]) -> str | None:
    """By the row's time, a Beijing midnight in ms; older terminals have the date as the row's name alone."""
    time = row.get("time")
    if isinstance(time, int | float) and time >= parse.EARLIEST:
        return beijing_date(int(time))
    return _date({"date": key}, "date")


def _given(row: Mapping[str, Any], field: str) -> float:
    try:
        value = parse.number(row.get(field))
    except parse.Refused:
        return 0.0
    return float(value) if value is not None and 0 < value < math.inf else 0.0


def parse_weights(answer: object) -> dict[str, float]:
    """Weights in percent by symbol. A table that sums up to 1 instead of 100 holds fractions."""
    found: dict[str, float] = {}
    for code, weight in answer.items() if isinstance(answer, Mapping) else ():
        with contextlib.suppress(parse.Refused):
            value = parse.number(weight)
            if value is not None and 0 < value < math.inf:
                found[parse.canonical(code)] = float(value)
    scale = 100.0 if len(found) > 1 and abs(sum(found.values()) - 1) < FRACTIONS else 1.0
    return {symbol: weight * scale for symbol, weight in sorted(found.items())}


def parse_limits(code: str, detail: object) -> parse.Limits | None:
    """The day's price limits; None where the detail has none or does not say of which day they are."""
    if not isinstance(detail, Mapping):
        return None
    try:
        tick = symbols.price_tick(parse.canonical(code))
        day = datetime.date.fromisoformat(_date(detail, "TradingDay") or "")
        up, down = (parse.price(parse.number(detail.get(field)), tick) for field in ("UpStopPrice", "DownStopPrice"))
    except (parse.Refused, ValueError):
        return None
    return parse.Limits((day - EPOCH).days, up, down) if up is not None or down is not None else None


def parse_symbols(codes: Iterable[object]) -> tuple[str, ...]:
    """The canonical symbols among a sector's codes, each once, in order."""
    found: dict[str, None] = {}
    for code in codes:
        try:
            found[parse.canonical(code)] = None
        except parse.Refused:
            continue
    return tuple(sorted(found))


def parse_dates(times: Iterable[object]) -> tuple[str, ...]:
    """ISO dates of the terminal's trading dates, which are Beijing midnights in ms."""
    whole = (time for time in times if isinstance(time, int | float) and not isinstance(time, bool) and time > 0)
    return tuple(sorted({beijing_date(int(time)) for time in whole}))

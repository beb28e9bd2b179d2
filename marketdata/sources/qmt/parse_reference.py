"""What a QMT terminal says of instruments, sectors and trading dates, in our types.

``IsTrading`` and ``InstrumentStatus`` are not read: a live stock has been seen with ``IsTrading`` False.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Final

from marketdata import symbols
from marketdata.sources.qmt import parse
from marketdata.sources.qmt.parse_history import beijing_date
from marketdata.types import Instrument

EPOCH: Final = datetime.date(1970, 1, 1)
NEVER: Final = frozenset({"0", "99999999"})
"""Dates that mean "none"."""

UNIVERSE: Final[tuple[tuple[tuple[str, ...], ...], ...]] = (
    (("沪深A股",), ("上证A股", "深证A股")),
    (("京市A股",),),
)
"""The sectors that make the universe; in each row the first alternative of which the terminal knows all."""

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
    return Instrument(
        symbol=symbol,
        name=name.strip() or None if isinstance(name, str) else None,
        kind=None if kind is None else kind.value,
        price_tick=_price_tick(detail, symbol),
        listed=_date(detail, "OpenDate"),
        delisted=_date(detail, "ExpireDate"),
        source=parse.SOURCE,
    )


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

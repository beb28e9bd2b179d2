"""Text and number fields to the values of a quote, remembered because a market repeats its prices and times."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Generic, TypeVar

from marketdata.sources.replay.recording import Reason
from marketdata.symbols import SymbolError, parse, round_price
from marketdata.types import Number

Key = TypeVar("Key")
Value = TypeVar("Value")

CHINA = timezone(timedelta(hours=8))
"""China's exchanges; no daylight saving since 1991."""
REMEMBERED = 200_000
"""Entries that one memory may hold before it starts anew."""
AMOUNT_DECIMALS = 3
"""Amounts are sums of whole shares at ticks of 0.001 or coarser; what lies beyond is noise of the vendor's floats."""


class FieldError(ValueError):
    """A field that holds no value of its kind."""

    def __init__(self, reason: Reason, text: object) -> None:
        shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        super().__init__(f"{reason.value}: {shown!r}")
        self.reason = reason


class Remembered(dict[Key, Value], Generic[Key, Value]):
    """A dict that works a missing value out with ``make`` and keeps it; bounded."""

    def __init__(self, make: Callable[[Key], Value]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> Value:
        if len(self) >= REMEMBERED:
            self.clear()
        value = self[key] = self._make(key)
        return value


def price(raw: bytes | str | float, tick: float | None) -> float:
    """A price on its tick; 0.0 where the vendor writes 0 for none. Raises ``FieldError``."""
    try:
        value = float(raw)
        rounded = round_price(value, tick)
    except (ValueError, OverflowError):
        raise FieldError(Reason.PRICE, raw) from None
    if value < 0:
        raise FieldError(Reason.PRICE, raw)
    return rounded


def count(raw: bytes) -> int:
    """A whole number of shares, contracts or trades. Raises ``FieldError``."""
    if not raw.isdigit():
        raise FieldError(Reason.VOLUME, raw)
    return int(raw)


def counts(raw: tuple[bytes, ...]) -> tuple[int, ...]:
    """Whole numbers of shares. Raises ``FieldError``."""
    try:
        values = tuple(map(int, raw))
    except ValueError:
        raise FieldError(Reason.VOLUME, b",".join(raw)) from None
    if min(values) < 0:
        raise FieldError(Reason.VOLUME, b",".join(raw))
    return values


def quantity(raw: str) -> Number:
    """A quantity that may have decimals (crypto). Raises ``FieldError``."""
    return _finite(raw)


def amount(raw: bytes | float) -> float:
    """A sum of money. Raises ``FieldError``."""
    return round(_finite(raw), AMOUNT_DECIMALS)


def _finite(raw: bytes | str | float) -> float:
    try:
        value = float(raw)
    except ValueError:
        raise FieldError(Reason.VOLUME, raw) from None
    if not math.isfinite(value) or value < 0:
        raise FieldError(Reason.VOLUME, raw)
    return value


def china_time(text: bytes) -> int:
    """``2022.06.01 09:15:03.000``, whatever stands between date and time, in ms UTC. Raises ``FieldError``."""
    try:
        shown = text.decode("ascii")
        if len(shown) != 23 or shown[4] != "." or shown[7] != ".":
            raise ValueError
        moment = datetime.fromisoformat(f"{shown[:10].replace('.', '-')}T{shown[11:]}").replace(tzinfo=CHINA)
    except ValueError:
        raise FieldError(Reason.TIME, text) from None
    return milliseconds(moment)


def milliseconds(moment: datetime) -> int:
    """An aware time in whole ms since the epoch, without the detour over a float."""
    return (moment - _EPOCH) // _MILLISECOND


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def symbol(text: str) -> str:
    """The canonical symbol. Raises ``FieldError``."""
    try:
        return parse(text)
    except SymbolError:
        raise FieldError(Reason.SYMBOL, text) from None

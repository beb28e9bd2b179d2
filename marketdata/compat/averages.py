"""The average price that was traded at, where amount and volume tell it."""

from __future__ import annotations

from typing import Final

from marketdata.exchanges import Kind
from marketdata.symbols import kind
from marketdata.types import Number

DIGITS: Final = 4
"""Decimal digits of an average price."""
SHARES: Final = frozenset({Kind.STOCK, Kind.B_SHARE, Kind.PREFERRED, Kind.FUND})
"""Kinds whose amount over volume is a price: not that of an index's members, nor of contracts, nor of bonds."""


def average(symbol: str, amount: float | None, volume: Number | None) -> float | None:
    """Amount over volume, of shares; None where it is not known or says no price."""
    return round(amount / volume, DIGITS) if amount is not None and volume and kind(symbol) in SHARES else None

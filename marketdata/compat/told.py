"""What another vendor's answer has no place for and is said all the same: of which source bars are, whether they are all."""

from __future__ import annotations

from argus.errors import BY_NAME, UNSUPPORTED, ArgusError
from marketdata.api.history import cache_status
from marketdata.history.service import Prepared


def said(prepared: Prepared) -> list[tuple[str, str]]:
    """The headers beside bars."""
    fields = [
        ("argus-source", prepared.source),
        ("argus-stale", "true" if prepared.stale else "false"),
        ("cache-status", cache_status(prepared.tiers)),
    ]
    return [*fields, ("argus-missing", str(len(prepared.missing)))] if prepared.missing else fields


def is_adjusted(prepared: Prepared, symbol: str) -> bool:
    """Whether prices of a symbol may be others than were traded at."""
    if prepared.adjustment is None:
        return False
    factors = prepared.adjustment.factors.get(symbol)
    return factors is None or bool(factors.rows)


def refuse_if_missing(prepared: Prepared, symbol: str) -> None:
    """Raise ``ArgusError`` where a symbol has no bars for another reason than that there are none."""
    reason = prepared.missing.get(symbol, "")
    if reason == "ratio_unknown":
        raise ArgusError(UNSUPPORTED, f"The prices of {symbol} cannot be adjusted: the ratio of an ex-date is not known.")
    if reason in BY_NAME:
        raise ArgusError(BY_NAME[reason], f"The bars of {symbol} cannot be had now: {reason}.")

"""Level-1 snapshots of the Shanghai exchange as one vendor's CSV has them: ten levels, trade counts, phases as words."""

from __future__ import annotations

from marketdata.sources.replay.snapshot_csv import Layout
from marketdata.types import TradingStatus

STATUSES = {
    b"START": TradingStatus.PRE_OPEN,
    b"OCALL": TradingStatus.OPENING_AUCTION,
    b"TRADE": TradingStatus.CONTINUOUS,
    b"SUSP": TradingStatus.HALTED,
    b"CCALL": TradingStatus.CLOSING_AUCTION,
    b"CLOSE": TradingStatus.CLOSED,
    b"ENDTR": TradingStatus.CLOSED,
}
"""``InstrumentStatus``, in the exchange's own words. The recorded morning of 2021-12-01 has OCALL and TRADE alone; TRADE
begins with the match at 09:25, five minutes before continuous trading, and is passed on as the exchange says it. Any other
word is UNKNOWN."""


def _symbol(raw: bytes) -> str:
    """``SecurityID`` is an integer, so a code's leading zeros are gone."""
    return f"{raw.decode('ascii', 'replace').zfill(6)}.SH"


LAYOUT = Layout(
    symbol=("SecurityID",),
    symbol_of=_symbol,
    time=("DateTime",),
    status="InstrumentStatus",
    statuses=STATUSES,
    first_level=0,
    bid_price="BidPrice{}",
    bid_volume="BidOrderQty{}",
    ask_price="OfferPrice{}",
    ask_volume="OfferOrderQty{}",
    trades="NumTrades",
)

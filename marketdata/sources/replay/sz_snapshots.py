"""Level-1 snapshots of the Shenzhen exchange as one vendor's CSV has them: ten levels, limit prices, phases as digits."""

from __future__ import annotations

from marketdata.sources.replay.snapshot_csv import Layout
from marketdata.types import TradingStatus

STATUSES = {
    b"1": TradingStatus.OPENING_AUCTION,
    b"2": TradingStatus.PRE_OPEN,
    b"3": TradingStatus.CONTINUOUS,
    b"4": TradingStatus.BREAK,
    b"5": TradingStatus.CLOSING_AUCTION,
    b"6": TradingStatus.CLOSED,
}
"""``TradingPhaseCode``. The vendor's digits are not documented; these are read off the session of 2022-06-01, where all
five instruments agree: 1 from 09:15:00 to the match at 09:25, 2 from there to 09:29:30 (no orders are matched), 3 from
09:30:00 and again from 13:00:00, 4 from 11:30:00 to 12:59:30, 5 from 14:57:00, 6 from 15:00:00 (SZSE trading rules 2023,
2.4.2 and 3.1.4). Any other code is UNKNOWN."""


def _symbol(raw: bytes) -> str:
    return raw.decode("ascii", "replace")


LAYOUT = Layout(
    symbol=("SecurityID",),
    symbol_of=_symbol,
    time=("MDDate", "MDTime"),
    status="TradingPhaseCode",
    statuses=STATUSES,
    first_level=1,
    bid_price="BuyPrice{}",
    bid_volume="BuyOrderQty{}",
    ask_price="SellPrice{}",
    ask_volume="SellOrderQty{}",
    limit_up="MaxPx",
    limit_down="MinPx",
)

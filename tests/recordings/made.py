"""Messages of a small made-up market."""

from __future__ import annotations

from datetime import date

import msgspec

from marketdata.calendar import midnight
from marketdata.recordings.columns import Message
from marketdata.types import DataType, Quote, Side, Trade

DAY = date(2022, 6, 1)
OPEN = midnight(DAY) + 9 * 3_600_000 + 30 * 60_000


def message(seq: int, *, at: int | None = None, epoch: int = 3, symbols: tuple[str, ...] = ("000001.SZ", "600000.SH")) -> Message:
    """The message of a number, a second after the one before."""
    moment = OPEN + seq * 1000 if at is None else at
    fragments = []
    for place, symbol in enumerate(symbols):
        quote = Quote(symbol=symbol, time=moment, price=10.0 + seq / 100 + place, volume=seq * 100, source="simulated")
        fragments.append(msgspec.json.encode(quote)[:-1] + b',"seq":%d}' % seq)
    return Message(moment, epoch, seq, list(symbols), fragments)


def trades(seq: int, *, at: int | None = None, epoch: int = 3, symbols: tuple[str, ...] = ("600000.SH", "600000.SH")) -> Message:
    """The trades of the same message, one of each name, the last of which nobody took from the other."""
    moment = OPEN + seq * 1000 if at is None else at
    fragments = []
    for place, symbol in enumerate(symbols):
        index, side = 10 * seq + place, None if place else Side.SELL
        one = Trade(symbol=symbol, time=moment - 5, index=index, price=10.5, volume=100 * seq, side=side, source="simulated")
        fragments.append(msgspec.json.encode(one)[:-1] + b',"seq":%d}' % seq)
    return Message(moment, epoch, seq, list(symbols), fragments, DataType.TRADE)

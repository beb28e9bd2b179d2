"""Files of trades in CSV, as the exchanges' Level 2 tells them: one row per execution.

A Shenzhen exchange's file holds cancels beside them, marked as such and without a price: they are no trades (``cancel``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter

import msgspec

from marketdata.sources.replay import fields
from marketdata.sources.replay.fields import FieldError
from marketdata.sources.replay.ordered_csv import Instrument, OrderedCsv
from marketdata.sources.replay.recording import SOURCE, Reason
from marketdata.types import Side, Trade

CANCEL = b"4"
"""``ExecType`` of a cancel; a trade's is F, or nothing."""


class TradeLayout(msgspec.Struct, frozen=True, kw_only=True):
    """A vendor's column names, those of the symbol and the time as ``OrderedCsv`` has them, and its words for the sides."""

    symbol: tuple[str, ...]
    time: tuple[str, ...]
    index: str
    sides: Mapping[bytes, Side]
    """Any other word is no side: the auctions', and all of Shenzhen's in the vendor's file that has both exchanges."""
    kind: str | None = None

    def columns(self) -> frozenset[str]:
        """Every column that the layout reads."""
        return frozenset({*self.symbol, *self.time, self.index, *TRADE, *([self.kind] if self.kind else ())})


TRADE = ("TradePrice", "TradeQty", "TradeMoney", "TradeBSFlag")
"""Columns that both vendors name alike."""

LAYOUTS = (
    TradeLayout(symbol=("SecurityID",), time=("MDDate", "MDTime"), index="TradeIndex", sides={b"1": Side.BUY, b"2": Side.SELL}),
    TradeLayout(
        symbol=("SecurityID", "Market"),
        time=("TradeTime",),
        index="ApplSeqNum",
        sides={b"B": Side.BUY, b"S": Side.SELL},
        kind="ExecType",
    ),
)
"""The sessions of 2023-07-11 (Shanghai) and 2023-02-01 (both). Wherever they have a side, it is that of the younger order."""


class TradesCsv(OrderedCsv):
    """A recording of one layout. ``load`` gives the file's bytes."""

    trades = True

    def __init__(self, layout: TradeLayout, load: Callable[[], bytes]) -> None:
        super().__init__(load, columns=layout.columns(), symbol=layout.symbol, symbol_of=_symbol, time=layout.time)
        self._layout = layout

    def _use(self, position: dict[str, int]) -> None:
        layout = self._layout
        self._trade_of = itemgetter(position[layout.index], *(position[name] for name in TRADE))
        self._kind_at = position[layout.kind] if layout.kind else None

    def _value(self, instrument: Instrument, cells: list[bytes]) -> Trade:
        index, price_text, quantity, money, flag = self._trade_of(cells)
        if self._kind_at is not None and cells[self._kind_at] == CANCEL:
            raise FieldError(Reason.CANCEL, index)
        if not index.isdigit():
            raise FieldError(Reason.INDEX, index)
        price, volume = instrument.price[price_text], fields.count(quantity)
        if not price:
            raise FieldError(Reason.PRICE, price_text)
        if not volume:
            raise FieldError(Reason.VOLUME, quantity)
        return Trade(
            symbol=instrument.symbol,
            time=self._time(cells),
            index=int(index),
            price=price,
            volume=volume,
            # Shenzhen sends price and quantity alone.
            amount=fields.amount(money or price * volume),
            side=self._layout.sides.get(flag),
            source=SOURCE,
        )


def _symbol(raw: bytes) -> str:
    return raw.decode("ascii", "replace")

"""Snapshot files in CSV: what a vendor's row says of an instrument at a moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter

import msgspec

from marketdata.sources.replay import fields
from marketdata.sources.replay.fields import Remembered
from marketdata.sources.replay.ordered_csv import Instrument, OrderedCsv, bare
from marketdata.sources.replay.recording import SOURCE
from marketdata.types import Quote, TradingStatus

LEVELS = 10


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """A vendor's column names and codes, those of the symbol and the time as ``OrderedCsv`` has them. The book's are templates of
    the ten columns of a side, best first."""

    symbol: tuple[str, ...]
    symbol_of: Callable[[bytes], str]
    time: tuple[str, ...]
    status: str
    statuses: Mapping[bytes, TradingStatus]
    first_level: int
    bid_price: str
    bid_volume: str
    ask_price: str
    ask_volume: str
    limit_up: str | None = None
    limit_down: str | None = None
    trades: str | None = None

    def columns(self) -> frozenset[str]:
        """Every column that the layout reads."""
        single = {*self.symbol, *self.time, self.status, *PRICES, "TotalVolumeTrade", "TotalValueTrade"}
        optional = {name for name in (self.limit_up, self.limit_down, self.trades) if name}
        sides = {name for side in (self.bid_price, self.bid_volume, self.ask_price, self.ask_volume) for name in self.side(side)}
        return frozenset(single | optional | sides)

    def side(self, template: str) -> list[str]:
        """The ten columns of a template such as ``BuyPrice{}``."""
        return [template.format(level) for level in range(self.first_level, self.first_level + LEVELS)]


PRICES = ("LastPx", "OpenPx", "HighPx", "LowPx", "PreClosePx")
"""Columns that both vendors name alike."""


class SnapshotCsv(OrderedCsv):
    """A recording of one layout. ``load`` gives the file's bytes."""

    def __init__(self, layout: Layout, load: Callable[[], bytes]) -> None:
        super().__init__(load, columns=layout.columns(), symbol=layout.symbol, symbol_of=layout.symbol_of, time=layout.time)
        self._layout = layout

    def _use(self, position: dict[str, int]) -> None:
        layout = self._layout
        self._prices_of = itemgetter(*(position[name] for name in PRICES))
        self._sides_of = [
            itemgetter(*(position[name] for name in layout.side(side)))
            for side in (layout.bid_price, layout.bid_volume, layout.ask_price, layout.ask_volume)
        ]
        self._totals_of = itemgetter(position["TotalVolumeTrade"], position["TotalValueTrade"], position[layout.status])
        self._limits_at = tuple(position[name] if name else None for name in (layout.limit_up, layout.limit_down))
        self._trades_at = position[layout.trades] if layout.trades else None
        self._statuses: Remembered[bytes, TradingStatus] = Remembered(
            lambda raw: layout.statuses.get(bare(raw), TradingStatus.UNKNOWN)
        )

    def _value(self, instrument: Instrument, cells: list[bytes]) -> Quote:
        price = instrument.price
        time = self._time(cells)
        last, opened, high, low, prev_close = [price[text] or None for text in self._prices_of(cells)]
        volume, amount, status = self._totals_of(cells)
        bid_price, bid_volume, ask_price, ask_volume = [side(cells) for side in self._sides_of]
        limit_up, limit_down = [None if at is None else price[cells[at]] or None for at in self._limits_at]
        bid_price, bid_volume = _side(price, bid_price, bid_volume)
        ask_price, ask_volume = _side(price, ask_price, ask_volume)
        return Quote(
            symbol=instrument.symbol,
            time=time,
            price=last,
            open=opened,
            high=high,
            low=low,
            prev_close=prev_close,
            volume=fields.count(volume),
            amount=fields.amount(amount),
            trades=None if self._trades_at is None else fields.count(cells[self._trades_at]),
            bid_price=bid_price,
            bid_volume=bid_volume,
            ask_price=ask_price,
            ask_volume=ask_volume,
            status=self._statuses[status],
            limit_up=limit_up,
            limit_down=limit_down,
            source=SOURCE,
        )


def _side(
    price: Remembered[bytes, float], prices: tuple[bytes, ...], volumes: tuple[bytes, ...]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """One side of the book. In an auction both exchanges put the unmatched volume on a second level without a price:
    a level without a price is no level, and goes."""
    known, sizes = tuple(map(price.__getitem__, prices)), fields.counts(volumes)
    if 0.0 not in known:
        return known, sizes
    levels = [(value, size) for value, size in zip(known, sizes, strict=True) if value]
    return tuple(value for value, _ in levels), tuple(size for _, size in levels)

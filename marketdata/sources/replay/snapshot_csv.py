"""Snapshot files in CSV: one row per instrument and snapshot, a block of rows per instrument.

The blocks stand one after the other, each in order of time, so a file must be put in order before it can be played. It is
held in memory once, as its own bytes, beside an index of three integers a row; rows are parsed when their time comes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import itemgetter

import msgspec

from marketdata.sources.replay import fields
from marketdata.sources.replay.fields import FieldError, Remembered
from marketdata.sources.replay.recording import SOURCE, Reason, RecordingError, Row, Span, refused
from marketdata.symbols import price_tick
from marketdata.types import ParseError, Quote, TradingStatus

LEVELS = 10


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """A vendor's column names and codes. ``levels`` are templates of the ten columns of a side, best first."""

    symbol: str
    symbol_of: Callable[[bytes], str]
    """The symbol column's text to what ``marketdata.symbols`` reads."""
    time: tuple[str, ...]
    """The columns whose texts, joined by a space, are ``2022.06.01 09:15:03.000`` or the like."""
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
        single = {self.symbol, *self.time, self.status, *PRICES, "TotalVolumeTrade", "TotalValueTrade"}
        optional = {name for name in (self.limit_up, self.limit_down, self.trades) if name}
        sides = {name for side in (self.bid_price, self.bid_volume, self.ask_price, self.ask_volume) for name in self.side(side)}
        return frozenset(single | optional | sides)

    def side(self, template: str) -> list[str]:
        """The ten columns of a template such as ``BuyPrice{}``."""
        return [template.format(level) for level in range(self.first_level, self.first_level + LEVELS)]


PRICES = ("LastPx", "OpenPx", "HighPx", "LowPx", "PreClosePx")
"""Columns that both vendors name alike."""


class _Instrument:
    """A symbol and the memory of its price texts."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.price = Remembered(partial(fields.price, tick=price_tick(symbol)))


class SnapshotCsv:
    """A recording of one layout. ``load`` gives the file's bytes."""

    def __init__(self, layout: Layout, load: Callable[[], bytes]) -> None:
        self._layout = layout
        self._load = load
        self._data: bytes | None = None
        self._order: list[int] = []
        self._keys = array("q")
        self._bounds = array("q")

    def scan(self) -> Span:
        """Load the file and put its rows in order. Raises ``RecordingError``."""
        if self._data is None:
            self._index()
        symbols = tuple(self._symbols)
        if not symbols:
            raise RecordingError("the file holds no row with a symbol and a time")
        order = self._order
        return Span(symbols, self._keys[order[0]], self._keys[order[-1]], len(order))

    def rows(self) -> Iterator[Row]:
        """Every row by time; rows of the same time, and rows of a symbol whatever their time, in the file's order."""
        self.scan()
        data, keys, bounds, parse = self._data, self._keys, self._bounds, self._parse
        assert data is not None
        for index in self._order:
            yield keys[index], parse(data[bounds[2 * index] : bounds[2 * index + 1]])

    def _index(self) -> None:
        data = self._load()
        end = data.find(b"\n") + 1 or len(data)
        self._use_header(data[:end].rstrip(b"\r\n").decode("utf-8-sig", "replace").split(","))
        self._symbols: dict[str, None] = {}
        latest: dict[bytes, int] = {}
        untimed: list[int] = []
        start, last = end, None
        while start < len(data):
            end = data.find(b"\n", start) + 1 or len(data)
            line = data[start:end].rstrip(b"\r\n")
            if line:
                key, name = self._place(line)
                if key is not None:
                    # A row whose time goes back stays behind its predecessor: the order of a symbol is the file's.
                    last = latest[name] = max(key, latest.get(name, key))
                elif last is None:
                    untimed.append(len(self._keys))
                self._keys.append(last or 0)
                self._bounds.extend((start, start + len(line)))
            start = end
        if last is None and self._keys:
            raise RecordingError("no row has a date and a time that can be read")
        for index in untimed:
            self._keys[index] = self._keys[len(untimed)]
        self._order = sorted(range(len(self._keys)), key=self._keys.__getitem__)
        self._data = data

    def _use_header(self, header: list[str]) -> None:
        layout = self._layout
        missing = layout.columns() - set(header)
        if missing:
            raise RecordingError(f"the columns {', '.join(sorted(missing))} are missing")
        position = {name: index for index, name in enumerate(header)}
        self._width = len(header)
        self._symbol_at = position[layout.symbol]
        self._time_of = itemgetter(*(position[name] for name in layout.time))
        self._split = max(self._symbol_at, *(position[name] for name in layout.time)) + 1
        self._prices_of = itemgetter(*(position[name] for name in PRICES))
        self._sides_of = [
            itemgetter(*(position[name] for name in layout.side(side)))
            for side in (layout.bid_price, layout.bid_volume, layout.ask_price, layout.ask_volume)
        ]
        self._totals_of = itemgetter(position["TotalVolumeTrade"], position["TotalValueTrade"], position[layout.status])
        self._limits_at = tuple(position[name] if name else None for name in (layout.limit_up, layout.limit_down))
        self._trades_at = position[layout.trades] if layout.trades else None
        self._times: Remembered[bytes, int] = Remembered(lambda raw: fields.china_time(_bare(raw)))
        self._statuses: Remembered[bytes, TradingStatus] = Remembered(
            lambda raw: layout.statuses.get(_bare(raw), TradingStatus.UNKNOWN)
        )
        self._instruments: Remembered[bytes, _Instrument] = Remembered(
            lambda raw: _Instrument(fields.symbol(layout.symbol_of(_bare(raw))))
        )

    def _place(self, line: bytes) -> tuple[int | None, bytes]:
        """Where a row stands: its ms, and the text of its symbol."""
        cells = line.split(b",", self._split)
        if len(cells) < self._split:
            return None, b""
        name = cells[self._symbol_at]
        try:
            key = self._time(cells)
            self._symbols[self._instruments[name].symbol] = None
        except FieldError as error:
            return (None if error.reason == Reason.TIME else key), name
        return key, name

    def _time(self, cells: list[bytes]) -> int:
        text = self._time_of(cells)
        return self._times[text if isinstance(text, bytes) else b" ".join(text)]

    def _parse(self, line: bytes) -> Quote | ParseError:
        cells = line.split(b",")
        if len(cells) != self._width:
            return refused("", Reason.COLUMNS, f"{len(cells)} fields instead of {self._width}")
        name = ""
        try:
            instrument = self._instruments[cells[self._symbol_at]]
            name = instrument.symbol
            return self._quote(instrument, cells)
        except FieldError as error:
            return refused(name, error.reason, str(error))

    def _quote(self, instrument: _Instrument, cells: list[bytes]) -> Quote:
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


def _bare(raw: bytes) -> bytes:
    """A text without its quotation marks; one vendor sets them, around texts without commas."""
    return raw.replace(b'"', b"")


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

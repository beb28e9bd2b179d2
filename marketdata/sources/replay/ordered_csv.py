"""CSV files of a session: one row per instrument and event, a block of rows per instrument.

The blocks stand one after the other, each in order of time, so a file must be put in order before it can be played. It is
held in memory once, as its own bytes, beside an index of three integers a row; rows are parsed when their time comes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter

from marketdata.sources.replay import fields
from marketdata.sources.replay.fields import FieldError, Remembered
from marketdata.sources.replay.recording import Reason, RecordingError, Row, Span, refused
from marketdata.symbols import price_tick
from marketdata.types import ParseError, Quote, Trade


class Instrument:
    """A symbol and the memory of its price texts."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.price = Remembered(partial(fields.price, tick=price_tick(symbol)))


class OrderedCsv(ABC):
    """A recording. ``load`` gives the file's bytes, ``columns`` are those that its rows are read by.

    ``symbol``: the columns whose texts, joined by a dot, ``symbol_of`` makes into what ``marketdata.symbols`` reads.
    ``time``: the columns whose texts, joined by a space, are ``2022.06.01 09:15:03.000`` or the like.
    """

    trades = False

    def __init__(
        self,
        load: Callable[[], bytes],
        *,
        columns: frozenset[str],
        symbol: tuple[str, ...],
        symbol_of: Callable[[bytes], str],
        time: tuple[str, ...],
    ) -> None:
        self._load = load
        self._columns = columns
        self._symbol, self._symbol_of, self._time_columns = symbol, symbol_of, time
        self._data: bytes | None = None
        self._order: list[int] = []
        self._keys = array("q")
        self._bounds = array("q")

    @abstractmethod
    def _use(self, position: dict[str, int]) -> None:
        """Learn where each column stands."""

    @abstractmethod
    def _value(self, instrument: Instrument, cells: list[bytes]) -> Quote | Trade:
        """A row's value. Raises ``FieldError``."""

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
        missing = self._columns - set(header)
        if missing:
            raise RecordingError(f"the columns {', '.join(sorted(missing))} are missing")
        position = {name: index for index, name in enumerate(header)}
        self._width = len(header)
        self._name = _texts([position[name] for name in self._symbol], b".")
        self._time_text = _texts([position[name] for name in self._time_columns], b" ")
        self._split = max(position[name] for name in (*self._symbol, *self._time_columns)) + 1
        self._times: Remembered[bytes, int] = Remembered(lambda raw: fields.china_time(bare(raw)))
        self._instruments: Remembered[bytes, Instrument] = Remembered(
            lambda raw: Instrument(fields.symbol(self._symbol_of(bare(raw))))
        )
        self._use(position)

    def _place(self, line: bytes) -> tuple[int | None, bytes]:
        """Where a row stands: its ms, and the text of its symbol."""
        cells = line.split(b",", self._split)
        if len(cells) < self._split:
            return None, b""
        name = self._name(cells)
        try:
            key = self._time(cells)
            self._symbols[self._instruments[name].symbol] = None
        except FieldError as error:
            return (None if error.reason == Reason.TIME else key), name
        return key, name

    def _time(self, cells: list[bytes]) -> int:
        return self._times[self._time_text(cells)]

    def _parse(self, line: bytes) -> Quote | Trade | ParseError:
        cells = line.split(b",")
        if len(cells) != self._width:
            return refused("", Reason.COLUMNS, f"{len(cells)} fields instead of {self._width}")
        name = ""
        try:
            instrument = self._instruments[self._name(cells)]
            name = instrument.symbol
            return self._value(instrument, cells)
        except FieldError as error:
            return refused(name, error.reason, str(error))


def _texts(positions: Sequence[int], between: bytes) -> Callable[[list[bytes]], bytes]:
    """What joins the cells at some positions."""
    if len(positions) == 1:
        return itemgetter(positions[0])
    cells_of = itemgetter(*positions)
    return lambda cells: between.join(cells_of(cells))


def bare(raw: bytes) -> bytes:
    """A text without its quotation marks; one vendor sets them, around texts without commas."""
    return raw.replace(b'"', b"")

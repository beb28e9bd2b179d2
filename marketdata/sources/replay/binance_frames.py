"""Binance websocket frames as received, one ``<receive ns> <json>`` a line, gzipped: best bid and offer and trades.

A quote is the state after a frame: the best bid and offer of the last ``bookTicker`` and the price of the last ``trade``.
Volume, amount, open, high and low of the day are not in these streams and stay unknown. Depth updates and book snapshots
are records of another kind (``not_a_quote``).

Times: on USD-M every event carries Binance's own clock, and a quote's time is the newest event time that it includes (two
streams of one connection overtake each other by some 30 ms). Spot's ``bookTicker`` carries no time at all, so every spot
quote has the recorder's receive time, cut to ms: two clocks in one series (the recorder of 2024-08-08 was 1.27 s behind
Binance) would put quotes out of order. The timeline that is played is the receive time for both.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from marketdata.sources.replay import fields
from marketdata.sources.replay.fields import FieldError, Remembered
from marketdata.sources.replay.recording import SOURCE, Reason, RecordingError, Row, Span, refused
from marketdata.types import Number, ParseError, Quote

SPOT = "BINANCE"
USD_M = "BINANCEUM"

LINE = re.compile(rb"(\d{19}) (\{.*\})")
MARKET_MARKS = (
    (re.compile(rb'"e":"bookTicker"|"e":"depthUpdate","E":\d+,"T":|"e":"trade","E":\d+,"T":'), USD_M),
    (re.compile(rb'"data":\{"u":\d+,"s":|"e":"depthUpdate","E":\d+,"s":|"e":"trade","E":\d+,"s":'), SPOT),
)
"""How the two markets' frames differ: spot's ``bookTicker`` has no event, its other events no transaction time up front."""
SYMBOL = re.compile(rb'"s":"([A-Z0-9_]+)"')


class _Event(msgspec.Struct):
    """The fields of a ``bookTicker`` and a ``trade`` by Binance's own one-letter names."""

    s: str
    e: str = "bookTicker"
    E: int | None = None
    u: int | None = None
    p: str | None = None
    b: str | list[list[str]] | None = None
    B: str | None = None
    a: str | list[list[str]] | None = None
    A: str | None = None


class _Frame(msgspec.Struct):
    data: _Event | None = None


class _State:
    """What is known of one symbol as the frames go by."""

    __slots__ = ("ask", "bid", "price", "time")

    def __init__(self) -> None:
        self.time = 0
        self.price: float | None = None
        self.bid: tuple[tuple[float, ...], tuple[Number, ...]] = ((), ())
        self.ask: tuple[tuple[float, ...], tuple[Number, ...]] = ((), ())


class BinanceFrames:
    """A recording of one file of one market. Frames are read as they are played."""

    trades = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decode = msgspec.json.Decoder(_Frame).decode
        self._price = Remembered(partial(fields.price, tick=None))
        self._market: str | None = None

    def scan(self) -> Span:
        """Read the file once, without decoding it, for its market, symbols and times. Raises ``RecordingError``."""
        market: str | None = None
        symbols: dict[bytes, None] = {}
        first = last = None
        count = 0
        for line, _ in self._lines():
            count += 1
            match = LINE.fullmatch(line)
            if match is None:
                continue
            last = int(match[1]) // 1_000_000
            first = last if first is None else first
            market = market or next((name for mark, name in MARKET_MARKS if mark.search(line)), None)
            if found := SYMBOL.search(line):
                symbols[found[1]] = None
        if first is None or last is None or market is None or not symbols:
            raise RecordingError("the file holds no frame that tells Binance's market and symbol")
        self._market = market
        return Span(tuple(fields.symbol(f"{name.decode()}.{market}") for name in symbols), first, last, count)

    def rows(self) -> Iterator[Row]:
        """Every frame in the file's order."""
        if self._market is None:
            self.scan()
        states: dict[str, _State] = {}
        place: int | None = None
        untimed: list[Quote | ParseError] = []
        for line, damage in self._lines():
            match = LINE.fullmatch(line)
            if damage or match is None:
                value: Quote | ParseError = damage or refused("", Reason.FRAME, line[:100].decode("utf-8", "replace"))
                if place is None:
                    untimed.append(value)
                    continue
            else:
                received = int(match[1]) // 1_000_000
                place = max(received, place or 0)
                value = self._parse(received, match[2], states)
            yield from ((place, waiting) for waiting in untimed)
            untimed.clear()
            yield place, value

    def _lines(self) -> Iterator[tuple[bytes, ParseError | None]]:
        """The file's lines; where it breaks off, the line so far with what happened."""
        with gzip.open(self._path, "rb") as file:
            while True:
                try:
                    line = file.readline()
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    yield b"", refused("", Reason.DAMAGED, f"the file breaks off: {error}")
                    return
                if not line:
                    return
                yield line.rstrip(b"\r\n"), None

    def _parse(self, received: int, text: bytes, states: dict[str, _State]) -> Quote | ParseError:
        symbol = ""
        try:
            event = self._decode(text).data
            if event is None:
                return refused("", Reason.NOT_A_QUOTE, text[:100].decode("utf-8", "replace"))
            symbol = fields.symbol(f"{event.s}.{self._market}")
            if event.e not in ("bookTicker", "trade"):
                return refused(symbol, Reason.NOT_A_QUOTE, event.e)
            return self._quote(symbol, received, event, states.setdefault(symbol, _State()))
        except msgspec.MsgspecError as error:
            return refused(symbol, Reason.FRAME, str(error))
        except FieldError as error:
            return refused(symbol, error.reason, str(error))

    def _quote(self, symbol: str, received: int, event: _Event, state: _State) -> Quote:
        if event.e == "trade":
            price = self._price[event.p or "missing"]
            if not price:
                raise FieldError(Reason.PRICE, event.p)
            state.price = price
        else:
            bid, ask = self._level(event.b, event.B), self._level(event.a, event.A)
            state.bid, state.ask = bid, ask
        state.time = max(state.time, received if self._market == SPOT or event.E is None else event.E)
        return Quote(
            symbol=symbol,
            time=state.time,
            price=state.price,
            bid_price=state.bid[0],
            bid_volume=state.bid[1],
            ask_price=state.ask[0],
            ask_volume=state.ask[1],
            source=SOURCE,
        )

    def _level(self, price: object, volume: str | None) -> tuple[tuple[float, ...], tuple[Number, ...]]:
        if not isinstance(price, str) or volume is None:
            raise FieldError(Reason.FRAME, price)
        value, size = self._price[price], fields.quantity(volume)
        return ((value,), (size,)) if value else ((), ())

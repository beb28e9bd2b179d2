"""Futures ticks as WonderTrader stores a day of history (``.dsb``): a block header, then zstd of packed tick records.

Byte order is little-endian, nothing is padded. The layout is that of ``WTSTickStruct`` before 2021-12-30 (block versions 1
and 2) in WonderTrader's public headers ``WTSStruct.h`` and ``DataDefine.h``; the later one (versions 3 and 4) has volumes in
doubles and is refused, because we have never seen a file of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import zstandard

from marketdata.sources.replay import fields
from marketdata.sources.replay.fields import CHINA, FieldError, Remembered
from marketdata.sources.replay.recording import SOURCE, Reason, RecordingError, Row, Span, refused
from marketdata.symbols import price_tick
from marketdata.types import ParseError, Quote

MAGIC = b"&^%$#@!\0"
HEADER = struct.Struct("<8sHHQ")
"""Magic, block type, block version, bytes of the compressed data that follow."""
HISTORY_TICKS = 24
COMPRESSED = 2
"""The block version of packed, compressed records of the earlier layout."""

TICK = struct.Struct("<10s32s 5d 2d 2I 2d I i 3I 2d i 10d 10d 10I 10I")
"""exchange, code; last, open, high, low, settlement; upper and lower limit; volume of the day and of the tick; turnover of
the day and of the tick; open interest and its change; trading day, calendar day, time HHMMSSmmm; previous close, settlement
and open interest; ten bid prices, ten ask prices, ten bid volumes, ten ask volumes. 402 bytes."""
LAST, OPEN, HIGH, LOW, LIMIT_UP, LIMIT_DOWN = 2, 3, 4, 5, 7, 8
VOLUME, TURNOVER, OPEN_INTEREST, DAY, CLOCK, PREV_CLOSE, PREV_SETTLEMENT = 9, 11, 13, 16, 17, 18, 19
BID_PRICE, ASK_PRICE, BID_VOLUME, ASK_VOLUME = slice(21, 31), slice(31, 41), slice(41, 51), slice(51, 61)

Record = tuple[Any, ...]
"""One unpacked ``TICK``, its 61 fields found by the positions above."""
RECORDS_PER_READ = 1024


class FuturesTicks:
    """A recording of one file. Records are decompressed as they are played."""

    trades = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._price: Remembered[str, Remembered[float, float]] = Remembered(
            lambda symbol: Remembered(partial(fields.price, tick=price_tick(symbol)))
        )
        self._symbol: Remembered[tuple[bytes, bytes], str] = Remembered(
            lambda raw: fields.symbol(f"{_text(raw[1])}.{_text(raw[0])}")
        )

    def scan(self) -> Span:
        """Read the file once. Raises ``RecordingError``."""
        symbols: dict[str, None] = {}
        first = last = None
        count = 0
        for key, value in self.rows():
            first, last, count = key if first is None else first, key, count + 1
            if value.symbol:
                symbols[value.symbol] = None
        if first is None or last is None or not symbols:
            raise RecordingError("the file holds no tick with a symbol and a time")
        return Span(tuple(symbols), first, last, count)

    def rows(self) -> Iterator[Row]:
        """Every tick in the file's order; one without a time keeps its place beside its predecessor."""
        place: int | None = None
        untimed: list[Row] = []
        for record in self._records():
            value, time = self._parse(record)
            if time is None and place is None:
                untimed.append((0, value))
                continue
            place = max(time or 0, place or 0)
            yield from ((place, waiting) for _, waiting in untimed)
            untimed.clear()
            yield place, value

    def _records(self) -> Iterator[Record]:
        size = TICK.size
        with self._path.open("rb") as file:
            _check(file.read(HEADER.size), self._path.stat().st_size)
            stream = zstandard.ZstdDecompressor().stream_reader(file)
            try:
                while chunk := _exactly(stream, size * RECORDS_PER_READ):
                    whole = len(chunk) - len(chunk) % size
                    yield from TICK.iter_unpack(chunk[:whole])
                    if whole < len(chunk):
                        raise RecordingError(f"the last record has {len(chunk) - whole} bytes instead of {size}")
            except zstandard.ZstdError as error:
                raise RecordingError(f"the compressed data is damaged: {error}") from error

    def _parse(self, record: Record) -> tuple[Quote | ParseError, int | None]:
        symbol, time = "", None
        try:
            symbol = self._symbol[record[:2]]
            time = _time(record[DAY], record[CLOCK])
            return self._quote(symbol, time, record), time
        except FieldError as error:
            return refused(symbol, error.reason, str(error)), time

    def _quote(self, symbol: str, time: int, record: Record) -> Quote:
        price = self._price[symbol]
        bid_price, bid_volume = _side(price, record[BID_PRICE], record[BID_VOLUME])
        ask_price, ask_volume = _side(price, record[ASK_PRICE], record[ASK_VOLUME])
        return Quote(
            symbol=symbol,
            time=time,
            price=price[record[LAST]] or None,
            open=price[record[OPEN]] or None,
            high=price[record[HIGH]] or None,
            low=price[record[LOW]] or None,
            prev_close=price[record[PREV_CLOSE]] or None,
            volume=record[VOLUME],
            amount=fields.amount(record[TURNOVER]),
            bid_price=bid_price,
            bid_volume=bid_volume,
            ask_price=ask_price,
            ask_volume=ask_volume,
            limit_up=price[record[LIMIT_UP]] or None,
            limit_down=price[record[LIMIT_DOWN]] or None,
            open_interest=record[OPEN_INTEREST],
            prev_settlement=price[record[PREV_SETTLEMENT]] or None,
            source=SOURCE,
        )


def _check(header: bytes, file_size: int) -> None:
    if len(header) < HEADER.size:
        raise RecordingError("the file ends within its header")
    magic, kind, version, size = HEADER.unpack(header)
    if magic != MAGIC:
        raise RecordingError("the header does not begin with WonderTrader's mark")
    if kind != HISTORY_TICKS:
        raise RecordingError(f"the block is of type {kind}; only historical ticks (type {HISTORY_TICKS}) can be replayed")
    if version != COMPRESSED:
        raise RecordingError(f"the block is of version {version}; only version {COMPRESSED} can be replayed")
    if size != file_size - HEADER.size:
        raise RecordingError(f"the header promises {size} bytes of data and {file_size - HEADER.size} are there")


def _exactly(stream: zstandard.ZstdDecompressionReader, size: int) -> bytes:
    """``size`` bytes, or what is left; a reader may give less than it is asked for."""
    parts: list[bytes] = []
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("ascii", "replace")


def _time(day: int, clock: int) -> int:
    """20210104 and 92900400 in ms UTC. The calendar's day, not the trading day, which a night session is ahead of."""
    try:
        moment = datetime(
            day // 10000,
            day // 100 % 100,
            day % 100,
            clock // 10_000_000,
            clock // 100_000 % 100,
            clock // 1000 % 100,
            tzinfo=CHINA,
        )
    except ValueError:
        raise FieldError(Reason.TIME, f"{day} {clock}") from None
    return fields.milliseconds(moment) + clock % 1000


def _side(
    price: Remembered[float, float], prices: tuple[float, ...], volumes: tuple[int, ...]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """One side of the book; a level without a price is no level."""
    levels = [(price[value], size) for value, size in zip(prices, volumes, strict=True) if value]
    return tuple(value for value, _ in levels), tuple(size for _, size in levels)

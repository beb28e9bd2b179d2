"""A recording gives back the very bytes that were published."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from marketdata.recordings.columns import Message, messages, quotes, table
from marketdata.sources.replay.formats import open_recording
from marketdata.types import Quote

FILES = [
    "ashare_l1_snapshots/tick.zip",
    "ashare_l1_snapshots/20211201snapshot_30stocks.zip",
    "futures_ticks/CFFEX.IF.HOT_tick_20210104.dsb",
]


def real_quotes(path: Path, count: int) -> list[Quote]:
    values = (value for _, value in open_recording(path).rows())
    return list(islice((value for value in values if isinstance(value, Quote)), count))


def as_messages(found: list[Quote], size: int) -> Iterator[Message]:
    for seq, first in enumerate(range(0, len(found), size), start=1):
        part = {quote.symbol: quote for quote in found[first : first + size]}
        tail = b',"seq":%d}' % seq
        fragments = [msgspec.json.encode(quote)[:-1] + tail for quote in part.values()]
        yield Message(1_000 + seq, 7, seq, list(part), fragments)


@pytest.mark.parametrize("file", FILES)
def test_real_quotes_come_back_byte_for_byte(data_dir: Path, file: str) -> None:
    published = list(as_messages(real_quotes(data_dir / file, 5_000), 40))
    assert list(messages(table(published))) == published


def test_binance_frames_come_back_byte_for_byte(data_dir: Path) -> None:
    file = next(path for path in sorted((data_dir / "crypto").rglob("*.gz")) if "usdm" in str(path))
    published = list(as_messages(real_quotes(file, 5_000), 40))
    assert published
    assert list(messages(table(published))) == published


def test_rows_are_quotes_with_the_markets_time(data_dir: Path) -> None:
    found = real_quotes(data_dir / FILES[0], 200)
    published = list(as_messages(found, 1))
    assert [quote for _, quote in quotes(table(published))] == found
    assert [at for at, _ in quotes(table(published))] == [message.at for message in published]

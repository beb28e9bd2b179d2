"""A recording gives back the very bytes that were published."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from marketdata.recordings.columns import QUOTES, TRADES, Layout, Message, messages, table, values
from marketdata.sources.replay.formats import open_recording
from marketdata.types import Quote, Trade
from tests.sources.replay.raw import SH_TRADES
from tests.sources.replay.raw import TRADES as L2_TRADES

FILES = [
    "ashare_l1_snapshots/tick.zip",
    "ashare_l1_snapshots/20211201snapshot_30stocks.zip",
    "futures_ticks/CFFEX.IF.HOT_tick_20210104.dsb",
]


def real(path: Path, count: int) -> list[Quote | Trade]:
    found = (value for _, value in open_recording(path).rows())
    return list(islice((value for value in found if isinstance(value, Quote | Trade)), count))


def as_messages(found: list[Quote | Trade], size: int, layout: Layout = QUOTES) -> Iterator[Message]:
    for seq, first in enumerate(range(0, len(found), size), start=1):
        part = {value.symbol if layout is QUOTES else number: value for number, value in enumerate(found[first : first + size])}
        tail = b',"seq":%d}' % seq
        fragments = [msgspec.json.encode(value)[:-1] + tail for value in part.values()]
        yield Message(1_000 + seq, 7, seq, [value.symbol for value in part.values()], fragments, layout.data_type)


@pytest.mark.parametrize("file", FILES)
def test_real_quotes_come_back_byte_for_byte(data_dir: Path, file: str) -> None:
    published = list(as_messages(real(data_dir / file, 5_000), 40))
    assert list(messages(table(published))) == published


@pytest.mark.parametrize("file", [SH_TRADES, L2_TRADES])
def test_real_trades_come_back_byte_for_byte(data_dir: Path, file: str) -> None:
    published = list(as_messages(real(data_dir / file, 5_000), 40, TRADES))
    assert sum(len(message.fragments) for message in published) == 5_000
    assert list(messages(table(published, TRADES), TRADES)) == published


def test_binance_frames_come_back_byte_for_byte(data_dir: Path) -> None:
    file = next(path for path in sorted((data_dir / "crypto").rglob("*.gz")) if "usdm" in str(path))
    published = list(as_messages(real(file, 5_000), 40))
    assert published
    assert list(messages(table(published))) == published


def test_rows_are_quotes_with_the_markets_time(data_dir: Path) -> None:
    found = real(data_dir / FILES[0], 200)
    published = list(as_messages(found, 1))
    assert [quote for _, quote in values(table(published))] == found
    assert [at for at, _ in values(table(published))] == [message.at for message in published]

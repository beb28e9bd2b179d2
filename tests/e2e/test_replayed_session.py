"""The main job on real input: a recorded exchange session reaches a WebSocket client, every row of it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import zipfile
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from websockets.asyncio.client import connect

from argus.config import Config
from marketdata import publish
from marketdata.feed import Feed
from marketdata.latest import store
from marketdata.lease import MemoryLease
from marketdata.publisher import Publisher
from marketdata.sources.base import State
from marketdata.sources.replay.source import ReplaySource
from tests.streaming.server import Server, until

pytestmark = pytest.mark.timeout(240)

Row = tuple[Any, ...]


def sz_rows(path: Path) -> dict[str, list[Row]]:
    """Symbol -> the states of the SZ file in its order, read here without any of Argus' readers."""
    states: dict[str, list[Row]] = defaultdict(list)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".csv"))
        with archive.open(name) as raw:
            for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")):
                book = tuple(
                    tuple(
                        (round(float(row[f"{side}Price{level}"]), 2), int(float(row[f"{side}OrderQty{level}"])))
                        for level in range(1, 11)
                        if float(row[f"{side}Price{level}"]) > 0
                    )
                    for side in ("Buy", "Sell")
                )
                stamp = f"{row['MDDate'].replace('.', '-')}T{row['MDTime']}"
                price = round(float(row["LastPx"]), 2) or None
                states[row["SecurityID"]].append((stamp, price, int(float(row["TotalVolumeTrade"])), *book))
    return states


def sh_rows(path: Path) -> dict[str, list[Row]]:
    """The same of the SH file, whose prices are 0 before the first trade as well."""
    states: dict[str, list[Row]] = defaultdict(list)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".csv"))
        with archive.open(name) as raw:
            for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")):
                book = tuple(
                    tuple(
                        (round(float(row[f"{side}Price{level}"]), 2), int(float(row[f"{side}OrderQty{level}"])))
                        for level in range(10)
                        if float(row[f"{side}Price{level}"]) > 0
                    )
                    for side in ("Bid", "Offer")
                )
                stamp = row["DateTime"].replace(".", "-", 2)
                price = round(float(row["LastPx"]), 2) or None
                states[f"{int(row['SecurityID']):06d}.SH"].append((stamp, price, int(float(row["TotalVolumeTrade"])), *book))
    return states


def row_of(quote: dict[str, Any]) -> Row:
    """A received quote as the same tuple."""
    moment = datetime.fromtimestamp(quote["time"] / 1000, ZoneInfo("Asia/Shanghai"))
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{quote['time'] % 1000:03d}"
    bids = tuple(zip(quote["bid_price"], quote["bid_volume"], strict=True))
    asks = tuple(zip(quote["ask_price"], quote["ask_volume"], strict=True))
    return (stamp, quote["price"], quote["volume"], bids, asks)


@pytest.mark.parametrize(
    ("file", "read", "speed", "rows"),
    [("tick.zip", sz_rows, 1000, 20_980), ("20211201snapshot_30stocks.zip", sh_rows, 250, 32_972)],
    ids=["five SZ symbols, a whole session", "thirty SH symbols, 09:15 to 10:30"],
)
async def test_every_row_of_the_session_arrives_in_order_and_the_last_state_is_exact(
    data_dir: Path, server: Server, key: str, file: str, read: Any, speed: float, rows: int
) -> None:
    path = data_dir / "ashare_l1_snapshots" / file
    expected = read(path)
    assert sum(map(len, expected.values())) == rows
    publish.bind(asyncio.get_running_loop())
    source = ReplaySource(files=[str(path)], speed=speed)
    publisher = Publisher(
        feed="main",
        source=source.name,
        owner="test",
        lease=MemoryLease(),
        send=publish.bridge.send,
        save_snapshot=lambda feed, blob: None,
    )
    feed = Feed(terminal="main", source=source, publisher=publisher, config=Config())
    received: dict[str, list[Row]] = defaultdict(list)
    seqs: list[int] = []
    try:
        async with connect(f"{server.url}/ws", additional_headers={"X-API-Key": key}, max_size=None, max_queue=None) as client:
            await client.send(json.dumps({"action": "subscribe", "symbols": ["*"]}))
            while json.loads(await client.recv())["type"] != "subscribed":
                continue
            feed.start()
            polling = asyncio.create_task(poll(feed))
            async with asyncio.timeout(200):
                while sum(map(len, received.values())) < rows:
                    message = json.loads(await client.recv())
                    if message["type"] != "data":
                        continue
                    seqs.append(message["seq"])
                    for quote in message["data"]:
                        received[quote["symbol"]].append(row_of(quote))
            polling.cancel()
            await until(lambda: source.status().state == State.FINISHED, "the replay to end")
    finally:
        await asyncio.to_thread(feed.stop)
        publish.unbind()
    for symbol, states in expected.items():
        assert len(received[symbol]) == len(states), symbol
        for got, wanted in zip(received[symbol], states, strict=True):
            assert got == wanted
    assert {symbol: row_of(json.loads(store.fragments[symbol])) for symbol in expected} == {
        symbol: states[-1] for symbol, states in expected.items()
    }
    assert seqs == sorted(seqs)


async def poll(feed: Feed) -> None:
    """What beat does."""
    while True:
        await asyncio.to_thread(feed.poll)
        await asyncio.sleep(1)

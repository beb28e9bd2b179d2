"""Level 2 on real input: the trades of a recorded session reach WebSocket clients, each of them once, through a cut as well."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from argus.config import Config
from marketdata import demand, publish, universe
from marketdata.feed import Feed
from marketdata.lease import MemoryLease
from marketdata.publisher import Publisher
from marketdata.sources.base import State
from marketdata.sources.replay.source import ReplaySource
from marketdata.universe import Universe
from tests.e2e.test_replayed_session import poll
from tests.sources.replay.raw import SH_TRADES, TRADES, cents, csv_rows, excerpt
from tests.streaming.server import Client, Server, client, until

SHANGHAI = ZoneInfo("Asia/Shanghai")

Row = tuple[int, str, float, int]
"""Index, time, price and volume."""


def recorded(path: Path) -> dict[str, list[Row]]:
    """Symbol -> the trades of a file in its order, read here without any of Argus' readers."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in csv_rows(path):
        if row.get("ExecType") == "4":
            continue
        both = "Market" in row
        symbol = f"{row['SecurityID']}.{row['Market']}" if both else row["SecurityID"]
        stamp = row["TradeTime"] if both else f"{row['MDDate']}T{row['MDTime']}"
        price = cents(row["TradePrice"])
        assert price is not None
        index = int(row["ApplSeqNum" if both else "TradeIndex"])
        found[symbol].append((index, stamp.replace(".", "-", 2), price, int(row["TradeQty"])))
    return found


class Reader:
    """A client's trades, by symbol, and how far it has come."""

    def __init__(self) -> None:
        self.trades: dict[str, list[Row]] = defaultdict(list)
        self.streams: dict[str, Any] = {}

    @property
    def count(self) -> int:
        return sum(map(len, self.trades.values()))

    async def read(self, one: Client, count: int) -> None:
        """Read until there are so many trades."""
        while self.count < count:
            message = await one.receive("data")
            for piece in message["data"]:
                assert piece["type"] == "trade"
                moment = datetime.fromtimestamp(piece["time"] / 1000, SHANGHAI)
                stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{piece['time'] % 1000:03d}"
                self.trades[piece["symbol"]].append((piece["index"], stamp, piece["price"], piece["volume"]))
            self.streams = {message["feed"]: {"epoch": message["epoch"], "seq": message["seq"]}}


@pytest.mark.parametrize(
    ("name", "symbols", "count"),
    [(SH_TRADES, ["605580.SH", "600536.SH"], 4000), (TRADES, ["000001.SZ"], 593)],
    ids=["two of Shanghai's", "Shenzhen's, with cancels"],
)
async def test_every_trade_of_a_recorded_session_arrives_once_and_in_order(
    data_dir: Path,
    tmp_path: Path,
    server: Server,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    symbols: list[str],
    count: int,
) -> None:
    path = excerpt(data_dir, name, tmp_path, 2000)
    file = recorded(path)
    expected = {symbol: file[symbol] for symbol in symbols}
    assert file.keys() > expected.keys(), "there are trades that nobody wants"
    assert sum(map(len, expected.values())) == count
    monkeypatch.setattr(demand, "LOOK", 0.1)
    universe.set_current(Universe(symbols=tuple(file)))
    publish.bind(asyncio.get_running_loop())
    source = ReplaySource(files=[path], speed=0)
    publisher = Publisher(
        feed="main",
        source=source.name,
        owner="test",
        lease=MemoryLease(),
        send=publish.bridge.send,
        save_snapshot=lambda feed, blob: None,
    )
    feed = Feed(terminal="main", source=source, publisher=publisher, config=Config())
    staying, cut = Reader(), Reader()
    polling: asyncio.Task[None] | None = None
    try:
        async with client(server, key) as one:
            await one.receive("connected")
            assert (await one.ask("subscribe", symbols=symbols, data_types=["trade"]))["rejected"] == []
            async with client(server, key) as two:
                token = (await two.receive("connected"))["session"]
                assert (await two.ask("subscribe", symbols=symbols, data_types=["trade"]))["rejected"] == []
                feed.start()
                polling = asyncio.create_task(poll(feed))
                await cut.read(two, count // 3)
            await staying.read(one, count)
            await until(lambda: source.status().state == State.FINISHED, "the replay to end")
            async with client(server) as three:
                await three.receive("connected")
                resumed = await three.ask("resume", session=token, streams=cut.streams)
                assert (resumed["recovered"], [gap["source"] for gap in resumed["gaps"]]) == (True, ["journal"])
                await cut.read(three, count)
                # Nothing is left of what either was to receive.
                for each in (one, three):
                    await each.send("ping", id=1)
                    while (message := await each.receive())["type"] != "pong":
                        assert message["type"] != "data"
    finally:
        if polling is not None:
            polling.cancel()
        await asyncio.to_thread(feed.stop)
        publish.unbind()
    assert staying.trades == expected
    assert cut.trades == expected

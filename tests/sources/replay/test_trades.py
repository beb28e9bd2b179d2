"""Recorded Level-2 trades: the files row by row by Python's csv module, the days' own bars, and how they are played."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from datetime import date, datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from marketdata.sources.base import Capability, State, Unsupported
from marketdata.sources.replay.formats import open_recording
from marketdata.types import Parsed, ParsedTrades, ParseError, Period, Side, Trade
from tests.bars.material import qlib
from tests.sources.conformance import Collector, TradeCollector, eventually, trade_problems
from tests.sources.replay.clocks import JumpingClock, StandingClock
from tests.sources.replay.raw import SH_TRADES, SZ, TRADES, cents, csv_rows, csv_text, excerpt, move, write_zip
from tests.sources.replay.test_source import WAIT, finished, replay

SHANGHAI = ZoneInfo("Asia/Shanghai")
DAYS = {SH_TRADES: date(2023, 7, 11), TRADES: date(2023, 2, 1)}
SIDES = {"1": Side.BUY, "2": Side.SELL, "B": Side.BUY, "S": Side.SELL}
CANCELS = 32_996
"""In Shenzhen's part."""


@cache
def trades(path: Path) -> dict[str, list[Trade]]:
    """Every trade of a file, by symbol."""
    found = defaultdict(list)
    for _, value in open_recording(path).rows():
        if isinstance(value, Trade):
            found[value.symbol].append(value)
    return found


def expected(name: str, row: dict[str, str]) -> Trade:
    """A row as a trade."""
    shanghai = name == SH_TRADES
    text = f"{row['MDDate']} {row['MDTime']}" if shanghai else row["TradeTime"].replace("T", " ")
    moment = datetime.strptime(f"{text}000", "%Y.%m.%d %H:%M:%S.%f").replace(tzinfo=SHANGHAI)
    price = cents(row["TradePrice"])
    assert price is not None
    return Trade(
        symbol=row["SecurityID"] if shanghai else f"{row['SecurityID']}.{row['Market']}",
        time=round(moment.timestamp() * 1000),
        index=int(row["TradeIndex" if shanghai else "ApplSeqNum"]),
        price=price,
        volume=int(row["TradeQty"]),
        amount=round(float(row["TradeMoney"] or price * int(row["TradeQty"])), 3),
        side=SIDES.get(row["TradeBSFlag"]),
        source="replay",
    )


@pytest.mark.parametrize(("name", "cancels"), [(SH_TRADES, 0), (TRADES, CANCELS)])
def test_every_row_is_a_trade_but_for_the_cancels(data_dir: Path, name: str, cancels: int) -> None:
    rows = defaultdict(list)
    for row in csv_rows(data_dir / name):
        if row.get("ExecType") != "4":
            trade = expected(name, row)
            rows[trade.symbol].append(trade)
    assert trades(data_dir / name) == rows
    assert {symbol: problems for symbol, series in rows.items() if (problems := trade_problems(series))} == {}
    values = (value for _, value in open_recording(data_dir / name).rows())
    assert Counter(value.reason for value in values if isinstance(value, ParseError)) == ({"cancel": cancels} if cancels else {})


@pytest.mark.parametrize("name", [SH_TRADES, TRADES])
def test_the_trades_of_a_day_make_up_its_bar(data_dir: Path, name: str) -> None:
    """Against daily bars of another vendor, whose prices are back-adjusted floats of 32 bits."""
    bars = qlib(data_dir)
    known = {symbol: series for symbol, series in trades(data_dir / name).items() if symbol in bars}
    assert len(known) >= 2
    for symbol, series in known.items():
        bar = bars[symbol]
        at = bar["days"].index(DAYS[name])
        prices = [trade.price for trade in series]
        made = {"open": prices[0], "high": max(prices), "low": min(prices), "close": prices[-1]}
        assert made == pytest.approx({column: bar[column][at] / bar["factor"][at] for column in made}, rel=1e-6)
        assert sum(trade.volume for trade in series) == pytest.approx(bar["volume"][at], rel=1e-6)


def test_the_side_is_that_of_the_younger_order_and_auctions_have_none(data_dir: Path) -> None:
    found: Counter[bool] = Counter()
    for row in csv_rows(data_dir / SH_TRADES):
        younger = Side.BUY if int(row["TradeBuyNo"]) > int(row["TradeSellNo"]) else Side.SELL
        auction = row["MDTime"].startswith(("09:25", "15:00"))
        found[expected(SH_TRADES, row).side is (None if auction else younger)] += 1
    assert found == {True: 109_616}


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("TradePrice", "0", "price"),
        ("TradePrice", "x", "price"),
        ("TradeQty", "0", "volume"),
        ("TradeQty", "-1", "volume"),
        ("ApplSeqNum", "", "index"),
        ("TradeTime", "never", "time"),
        ("Market", "XX", "symbol"),
        ("ExecType", "4", "cancel"),
    ],
)
def test_what_is_no_trade_says_why(data_dir: Path, tmp_path: Path, column: str, text: str, reason: str) -> None:
    header, first, second = csv_text(excerpt(data_dir, TRADES, tmp_path, 2)).splitlines()[:3]
    cells = second.split(",")
    cells[header.split(",").index(column)] = text
    path = write_zip(tmp_path / "broken.zip", "\n".join([header, first, ",".join(cells)]) + "\n")
    good, broken = (value for _, value in open_recording(path).rows())
    assert isinstance(good, Trade)
    assert isinstance(broken, ParseError)
    assert broken.reason == reason


def test_trades_alone_are_a_source_without_quotes_whose_clock_begins_with_the_first_who_watches(data_dir: Path) -> None:
    clock, pushed, idle = JumpingClock(), TradeCollector(), TradeCollector()
    with replay(data_dir / TRADES, speed=1.0, clock=clock) as source:
        assert source.universe(timeout=WAIT) == ("600000.SH", "000001.SZ")
        assert source.capabilities() == {Capability.TRADES, Capability.INSTRUMENTS}
        source.subscribe_trades(idle)
        subscription = source.subscribe_trades(pushed)
        beginning = source.status().time
        assert (source.status().state, clock.waits) == (State.UP, [])
        subscription.watch(frozenset({"000001.SZ"}))
        eventually(finished(source))
        assert dict(pushed.trades) == {"000001.SZ": trades(data_dir / TRADES)["000001.SZ"]}
        assert idle.deliveries == 0
        assert beginning is not None
        assert (source.status().time or 0) - beginning == (5 * 3600 + 45 * 60) * 1000 + 800 - 40
        assert source.fetch_quotes(timeout=WAIT) == Parsed()
        with pytest.raises(Unsupported):
            source.subscribe(None, Collector())
        with pytest.raises(Unsupported):
            source.fetch_bars(["600000.SH"], Period.D1, timeout=WAIT)


def test_quotes_and_trades_run_on_one_timeline(data_dir: Path, tmp_path: Path) -> None:
    quotes = excerpt(data_dir, SZ, tmp_path, 400)
    path = move(excerpt(data_dir, SH_TRADES, tmp_path, 400), "2023.07.11", "2022.06.01")
    order: list[int] = []
    pushed = TradeCollector()

    def traded(parsed: ParsedTrades) -> None:
        pushed(parsed)
        order.append(parsed.trades[0].time)

    with replay(quotes, path) as source:
        source.subscribe_trades(traded).watch(None)
        eventually(finished(source))
    assert dict(pushed.trades) == trades(path)
    both = []
    with replay(quotes, path) as source:
        source.subscribe_trades(lambda parsed: both.append(parsed.trades[0].time)).watch(frozenset({"605580.SH"}))
        source.subscribe(None, lambda parsed: both.append(parsed.quotes[0].time))
        eventually(finished(source))
    assert both == sorted(both)
    assert set(order) & set(both)


def test_trades_come_when_they_are_due(data_dir: Path, tmp_path: Path) -> None:
    path = excerpt(data_dir, SH_TRADES, tmp_path, 500)
    series = trades(path)["605580.SH"]
    clock, pushed = StandingClock(), TradeCollector()
    with replay(path, speed=1.0, clock=clock) as source:
        source.universe(timeout=WAIT)
        first = source.status().time or 0
        source.subscribe_trades(pushed).watch(None)
        assert clock.waiting.wait(WAIT)
        clock.advance((series[0].time - first) / 1000)
        auction = [trade for trade in series if trade.time == series[0].time]
        eventually(lambda: pushed.count("605580.SH") >= len(auction))
        assert clock.waiting.wait(WAIT)
        assert pushed.trades["605580.SH"] == auction


def test_a_receiver_that_blocks_is_waited_for_and_misses_no_trade(data_dir: Path, tmp_path: Path) -> None:
    path = excerpt(data_dir, SH_TRADES, tmp_path, 300)
    pushed, blocked, free = TradeCollector(), threading.Event(), threading.Event()

    def slow(parsed: ParsedTrades) -> None:
        blocked.set()
        assert free.wait(WAIT)
        pushed(parsed)

    with replay(path) as source:
        source.subscribe_trades(slow).watch(None)
        assert blocked.wait(WAIT)
        assert source.status().state == State.UP
        free.set()
        eventually(finished(source))
    assert dict(pushed.trades) == trades(path)

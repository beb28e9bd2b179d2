"""Bars built from recorded sessions, held against what the exchanges said of the day."""

from __future__ import annotations

import csv
import io
import random
import tarfile
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from functools import cache
from operator import attrgetter, itemgetter
from pathlib import Path

import numpy as np
import pytest

from marketdata.aggregate import aggregate
from marketdata.builder import PERIODS, BarBuilder, LiveBar
from marketdata.calendar import midnight
from marketdata.series import Series, from_bars
from marketdata.sources.replay.formats import open_recording
from marketdata.symbols import market_of
from marketdata.types import Bar, Period, Quote
from tests.builder.quotes import EVERYTHING, at

SHENZHEN = "ashare_l1_snapshots/tick.zip"
SHANGHAI = "ashare_l1_snapshots/20211201snapshot_30stocks.zip"
FUTURES = ("futures_ticks/CFFEX.IF.HOT_tick_20210104.dsb", "futures_ticks/CFFEX.IF.HOT_tick_20210105.dsb")
INTRADAY = PERIODS[:-1]


@cache
def recorded(path: Path) -> tuple[Quote, ...]:
    return tuple(value for _, value in open_recording(path).rows() if isinstance(value, Quote))


def play(quotes: tuple[Quote, ...], *, batch: int = 500) -> dict[tuple[str, Period], list[LiveBar]]:
    """The last word on every bar, by symbol and period, the clock running with the quotes."""
    builder = BarBuilder()
    bars: dict[tuple[str, Period], dict[int, LiveBar]] = {}
    for start in range(0, len(quotes), batch):
        part = quotes[start : start + batch]
        builder.take(part)
        # The recordings of two instruments are up to 70 s apart in the files; the clock is the slowest one's.
        builder.advance(min(quote.time for quote in part) - 70_000)
        for bar in builder.drain(EVERYTHING):
            bars.setdefault((bar.symbol, bar.period), {})[bar.time] = bar
    return {key: list(found.values()) for key, found in bars.items()}


def as_series(bars: list[LiveBar]) -> Series:
    return from_bars(
        [
            Bar(
                symbol=bar.symbol,
                period=bar.period,
                time=bar.time,
                open=bar.open,
                high=bar.high,
                low=bar.low,
                close=bar.close,
                volume=bar.volume or 0,
                amount=bar.amount,
                open_interest=bar.open_interest,
                source=bar.source,
            )
            for bar in bars
        ]
    )


@pytest.mark.parametrize("name", [SHENZHEN, SHANGHAI, *FUTURES])
def test_every_period_adds_up_to_what_the_exchange_says_of_the_day(data_dir: Path, name: str) -> None:
    quotes = recorded(data_dir / name)
    bars, last = play(quotes), {quote.symbol: quote for quote in quotes}
    for symbol, quote in last.items():
        for period in INTRADAY:
            found = bars[symbol, period]
            said = (quote.open, quote.high, quote.low, quote.price, quote.volume)
            assert (
                found[0].open,
                max(bar.high for bar in found),
                min(bar.low for bar in found),
                found[-1].close,
                sum(bar.volume or 0 for bar in found),
            ) == said, (symbol, period)
            assert quote.amount is not None
            assert round(sum(bar.amount or 0 for bar in found), 2) == round(quote.amount, 2)
            assert [bar.time for bar in found] == sorted({bar.time for bar in found})
        (day,) = bars[symbol, Period.D1]
        assert (day.open, day.high, day.low, day.close, day.volume, day.amount) == (*said, quote.amount)


@pytest.mark.parametrize("name", [SHENZHEN, SHANGHAI, *FUTURES])
def test_longer_bars_are_those_that_history_makes_of_the_minutes(data_dir: Path, name: str) -> None:
    bars = play(recorded(data_dir / name))
    for symbol in {symbol for symbol, _ in bars}:
        minutes = as_series(bars[symbol, Period.M1])
        for period in INTRADAY[1:]:
            expected, found = aggregate(minutes, period, market_of(symbol)), as_series(bars[symbol, period])
            for column in ("time", "open", "high", "low", "close", "volume", "open_interest"):
                np.testing.assert_array_equal(getattr(found, column), getattr(expected, column), err_msg=f"{symbol} {column}")
            np.testing.assert_allclose(found.amount, expected.amount, atol=0.005, rtol=0)


def test_a_full_session_has_the_minutes_that_the_exchange_trades_in(data_dir: Path) -> None:
    bars = play(recorded(data_dir / FUTURES[0]))["IF2101.IF", Period.M1]
    day = date(2021, 1, 4)
    assert len(bars) == 241
    assert [bars[0].time, bars[120].time, bars[121].time, bars[-1].time] == [
        at(text, day) for text in ("09:30", "11:30", "13:01", "15:00")
    ]


def daily(data_dir: Path, symbol: str, day: date) -> dict[str, float]:
    """A row of the daily file, unadjusted: its prices are float32 and multiplied with a factor."""
    code, market = symbol.split(".")
    with tarfile.open(data_dir / "ashare_daily/qlib_ashare_subset_dev.tar.gz") as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(name)
            assert member is not None
            return member.read()

        days = read("calendars/day.txt").decode().split()
        row = {}
        for field in ("open", "high", "low", "close", "volume", "factor"):
            values = np.frombuffer(read(f"features/{market}{code}/{field}.day.bin"), "<f4")
            row[field] = float(values[1 + days.index(day.isoformat()) - int(values[0])])
    return row


def equals_the_daily_file(bars: dict[tuple[str, Period], list[LiveBar]], row: dict[str, float], symbol: str, day: date) -> None:
    prices = [round(row[field] / row["factor"], 2) for field in ("open", "high", "low", "close")]
    minutes = bars[symbol, Period.M1]
    (whole,) = bars[symbol, Period.D1]
    assert [whole.open, whole.high, whole.low, whole.close] == prices
    assert [minutes[0].open, max(b.high for b in minutes), min(b.low for b in minutes), minutes[-1].close] == prices
    # The file's volume is a float32, which tells shares apart up to 16.7 million and pairs or fours of them beyond.
    assert np.float32(whole.volume) == np.float32(row["volume"])
    assert sum(bar.volume or 0 for bar in minutes) == whole.volume
    assert whole.time == midnight(day) + 15 * 3_600_000


@pytest.mark.parametrize("symbol", ["000400.SZ", "300122.SZ", "300274.SZ", "300288.SZ", "300918.SZ"])
def test_the_derived_day_is_the_daily_files_to_the_cent_and_the_share(data_dir: Path, symbol: str) -> None:
    day = date(2022, 6, 1)
    equals_the_daily_file(play(recorded(data_dir / SHENZHEN)), daily(data_dir, symbol, day), symbol, day)


def trades(path: Path) -> Iterator[tuple[str, str, float, int]]:
    """Symbol, time (2023-02-01T09:25:00.320), price and quantity of a file's trades; a cancelled order has no price."""
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")):
            if (price := round(float(row["TradePrice"]), 2)) > 0:
                code = row["SecurityID"]
                stamp = row.get("TradeTime") or f"{row['MDDate']}T{row['MDTime']}"
                symbol = code if "." in code else f"{code:0>6}.{row['Market']}"
                yield symbol, stamp.replace(".", "-", 2), price, int(float(row["TradeQty"]))


@cache
def quotes_of_trades(path: Path) -> tuple[Quote, ...]:
    """What an exchange would have shown after each moment in which something was traded."""
    last: dict[str, Quote] = {}
    shown: list[Quote] = []
    for symbol, stamp, price, quantity in sorted(trades(path), key=itemgetter(1)):
        time = int(datetime.fromisoformat(f"{stamp}+08:00").timestamp() * 1000)
        before = last.get(symbol)
        quote = Quote(
            symbol=symbol,
            time=time,
            price=price,
            open=before.open if before else price,
            high=max(before.high, price) if before else price,  # type: ignore[type-var]
            low=min(before.low, price) if before else price,  # type: ignore[type-var]
            volume=quantity + (before.volume if before else 0),  # type: ignore[operator]
            amount=round(quantity * price + (before.amount if before else 0.0), 2),  # type: ignore[operator]
            source="test",
        )
        if before is not None and before.time != time:
            shown.append(before)
        last[symbol] = quote
    return tuple(sorted([*shown, *last.values()], key=attrgetter("time")))


@pytest.mark.parametrize(
    ("name", "day", "count"), [("SHtrans.zip", date(2023, 7, 11), 5), ("tradeData.zip", date(2023, 2, 1), 2)]
)
def test_days_derived_from_every_single_trade_are_the_daily_files(data_dir: Path, name: str, day: date, count: int) -> None:
    bars = play(quotes_of_trades(data_dir / "ashare_l2_orders_trades" / name))
    symbols = {symbol for symbol, _ in bars}
    assert len(symbols) == count
    for symbol in symbols:
        equals_the_daily_file(bars, daily(data_dir, symbol, day), symbol, day)


@pytest.mark.parametrize("seed", range(5))
def test_lost_quotes_move_volume_to_a_later_minute_and_change_no_day(data_dir: Path, seed: int) -> None:
    quotes = recorded(data_dir / SHENZHEN)
    first: dict[str, Quote] = {}
    last = {quote.symbol: quote for quote in quotes}
    for quote in quotes:
        first.setdefault(quote.symbol, quote)
    chance = random.Random(seed)
    kept = tuple(q for q in quotes if q is first[q.symbol] or q is last[q.symbol] or chance.random() < 0.2)
    bars = play(kept)
    for symbol, quote in last.items():
        for period in INTRADAY:
            found = bars[symbol, period]
            assert (
                max(b.high for b in found),
                min(b.low for b in found),
                found[-1].close,
                sum(b.volume or 0 for b in found),
            ) == (
                quote.high,
                quote.low,
                quote.price,
                quote.volume,
            )
        (day,) = bars[symbol, Period.D1]
        assert (day.open, day.high, day.low, day.close, day.volume) == (
            quote.open,
            quote.high,
            quote.low,
            quote.price,
            quote.volume,
        )

"""Longer bars out of shorter ones: the rules by example, the sums by property, and the recorded minutes against recorded days."""

from __future__ import annotations

import math
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata import periods
from marketdata.aggregate import aggregate
from marketdata.calendar import CHINA, day_of, midnight
from marketdata.series import EMPTY, Series, join
from marketdata.types import Period
from tests.bars.material import MINUTE, at, daily, hdf, index_minutes, minutes, qbot, qlib, series

MONDAY = date(2024, 5, 6)
DAY = date(2024, 5, 8)
ENDS = periods.bar_ends("SH", Period.M1)
LONGER = [Period.M5, Period.M15, Period.M30, Period.H1]


@st.composite
def trading(draw: st.DrawFn) -> Series:
    """Some minutes of some days; prices move by cents, some minutes do not trade, some amounts are not known."""
    parts = []
    close = 1000
    for offset in sorted(draw(st.sets(st.integers(0, 4), min_size=1))):
        chosen = sorted(draw(st.sets(st.sampled_from(ENDS), min_size=1, max_size=60)))
        columns: dict[str, list[Any]] = {name: [] for name in ("open", "high", "low", "close", "volume", "amount")}
        for _ in chosen:
            volume = draw(st.sampled_from([0, 1, 100, 123_456_789_012]))
            moves = [0, 0, 0, 0] if volume == 0 else draw(st.lists(st.integers(-9, 9), min_size=4, max_size=4))
            prices = [(close + move) / 100 for move in moves]
            close += moves[3]
            columns["open"].append(prices[0])
            columns["high"].append(max(prices))
            columns["low"].append(min(prices))
            columns["close"].append(prices[3])
            columns["volume"].append(volume)
            columns["amount"].append(draw(st.one_of(st.integers(0, 10**11).map(lambda cents: cents / 100), st.just(math.nan))))
        parts.append(minutes(MONDAY + timedelta(days=offset), chosen, **columns))
    return join(parts)


def in_bar(base: Series, end: int, start: int) -> Series:
    return base.between(start + 1, end)


@settings(deadline=None)
@given(trading(), st.sampled_from(LONGER))
def test_a_longer_bar_is_what_its_minutes_say(base: Series, period: Period) -> None:
    longer = aggregate(base, period, "SH")
    assert longer.volume.sum() == base.volume.sum()
    assert np.all(np.diff(longer.time) > 0)
    before = 0
    for position, end in enumerate(longer.time.tolist()):
        part = in_bar(base, end, before)
        before = end
        assert len(part)
        assert longer.volume[position] == sum(part.volume.tolist())
        assert longer.low[position] <= min(longer.open[position], longer.close[position])
        assert longer.high[position] >= max(longer.open[position], longer.close[position])
        traded = part.pick(part.volume > 0)
        if len(traded):
            assert longer.high[position] == traded.high.max() or longer.high[position] == part.high.max()
            assert longer.close[position] == traded.close[-1]
        amounts = part.amount.tolist()
        if any(math.isnan(amount) for amount in amounts):
            assert math.isnan(longer.amount[position])
        else:
            exact = sum((Fraction(round(amount * 10_000), 10_000) for amount in amounts), Fraction())
            assert longer.amount[position] == float(exact)


@settings(deadline=None)
@given(trading())
def test_bars_of_bars_are_bars_of_minutes(base: Series) -> None:
    for shorter, longer in ((Period.M5, Period.M15), (Period.M15, Period.M30), (Period.M30, Period.H1)):
        twice, once = (aggregate(of, longer, "SH") for of in (aggregate(base, shorter, "SH"), base))
        for name in ("time", "close", "volume", "amount"):
            assert np.array_equal(getattr(twice, name), getattr(once, name), equal_nan=True)


def test_the_opening_auction_is_in_the_first_bar_and_the_closing_one_in_the_last() -> None:
    base = minutes(DAY, ENDS, open=np.arange(241) + 10.0, close=np.arange(241) + 10.0, volume=1)
    for period in LONGER:
        longer = aggregate(base, period, "SH")
        assert (longer.time - midnight(DAY)).tolist() == list(periods.bar_ends("SH", period))
        length = periods.MINUTES[period]
        assert longer.volume.tolist() == [length + 1, *[length] * (len(longer) - 1)]
        assert (longer.open[0], longer.close[-1]) == (10.0, 250.0)


def test_a_bar_that_is_still_forming_bears_the_stamp_of_its_end() -> None:
    half = aggregate(minutes(DAY, ENDS[:8]), Period.M5, "SH")
    assert half.time.tolist() == [at("2024-05-08 09:35"), at("2024-05-08 09:40")]
    assert half.volume.tolist() == [600, 200]


def test_minutes_after_the_close_are_in_the_bar_of_the_day_alone() -> None:
    close = periods.close_at("SH")
    base = minutes(DAY, [close, close + 10 * MINUTE])
    assert aggregate(base, Period.H1, "SH").volume.tolist() == [100]
    assert aggregate(base, Period.D1, "SH").volume.tolist() == [200]
    assert aggregate(base.last(1), Period.H1, "SH") is EMPTY


def test_minutes_without_a_trade_do_not_make_the_open_of_a_bar() -> None:
    # The morning ended at 10; the first trade of the afternoon is at 11, two minutes in.
    close = [10.0, 10.0, 10.0, 11.0]
    base = minutes(DAY, ENDS[120:124], close=close, volume=[5, 0, 0, 7])
    bar = aggregate(base, Period.M5, "SH").last(1)
    assert (bar.open[0], bar.high[0], bar.low[0], bar.volume[0]) == (11.0, 11.0, 11.0, 7)


def test_a_longer_bar_does_not_depend_on_what_came_before_it() -> None:
    # The terminal filled 09:30 up with the last close; the first trade is at 10.5.
    before = minutes(DAY - timedelta(days=1), ENDS[-1:])
    day = minutes(DAY, ENDS[:3], close=[10.0, 10.5, 10.6], volume=[0, 100, 100])
    for base in (day, join([before, day])):
        bar = aggregate(base, Period.M5, "SH").last(1)
        assert (bar.open[0], bar.low[0], bar.close[0], bar.volume[0]) == (10.5, 10.5, 10.6, 200)
    # On the ex-date it is filled up with the reference price, which is not the last close.
    bar = aggregate(join([before.replace(close=before.close + 1), day]), Period.M5, "SH").last(1)
    assert (bar.open[0], bar.low[0]) == (10.5, 10.5)
    days = [MONDAY + timedelta(days=offset) for offset in (-3, 0, 1)]
    base = daily(days, close=[9.0, 9.0, 9.5], volume=[100, 0, 100])
    assert aggregate(base, Period.W1, "SH").last(1).equals(aggregate(base.last(2), Period.W1, "SH"))


@settings(deadline=None)
@given(trading(), st.sampled_from(LONGER), st.integers(0, 4))
def test_the_bars_of_a_day_are_the_same_with_the_days_before_and_without(base: Series, period: Period, offset: int) -> None:
    # Each day begins with a row that was filled up with the last close.
    filled = np.diff(base.time, prepend=0) > 12 * 60 * MINUTE
    last = np.concatenate((base.open[:1], base.close[:-1]))
    prices = {name: np.where(filled, last, getattr(base, name)) for name in ("open", "high", "low", "close")}
    base = base.replace(**prices, volume=np.where(filled, 0, base.volume))
    start = midnight(MONDAY + timedelta(days=offset))
    assert aggregate(base, period, "SH").between(start, None).equals(aggregate(base.between(start, None), period, "SH"))


def test_where_nothing_traded_the_last_price_stands() -> None:
    base = minutes(DAY, ENDS[1:6], volume=0, amount=0.0, prev_close=9.0)
    bar = aggregate(base, Period.M5, "SH")
    assert (bar.open[0], bar.close[0], bar.volume[0], bar.amount[0]) == (10.0, 10.0, 0, 0.0)


def test_an_index_moves_without_volume() -> None:
    bar = aggregate(minutes(DAY, ENDS[1:4], close=[10.0, 12.0, 11.0], volume=0), Period.M5, "SH")
    assert (bar.open[0], bar.high[0], bar.low[0], bar.close[0]) == (10.0, 12.0, 10.0, 11.0)


def test_the_last_close_is_that_before_the_first_bar_and_open_interest_the_last_known() -> None:
    base = minutes(DAY, ENDS[1:11], prev_close=np.arange(10.0), open_interest=[np.nan, 5, 6, np.nan, np.nan, *[np.nan] * 5])
    longer = aggregate(base, Period.M5, "IF")
    assert longer.prev_close.tolist() == [0.0, 5.0]
    assert longer.open_interest[0] == 6.0
    assert math.isnan(longer.open_interest[1])


def test_sums_of_money_are_exact() -> None:
    base = minutes(DAY, ENDS[1:6], amount=[123_456_789_012.1, 0.1, 0.2, 0.3, 98_765_432_109.4])
    assert aggregate(base, Period.M5, "SH").amount.tolist() == [222_222_221_122.1]
    assert aggregate(minutes(DAY, ENDS[1:3], volume=2**61), Period.M5, "SH").volume.tolist() == [2**62]


def test_a_suspended_day_makes_no_price_of_its_week() -> None:
    days = [MONDAY + timedelta(days=offset) for offset in range(5)]
    base = daily(
        days,
        close=[9.0, 10.0, 10.5, 11.0, 11.0],
        volume=[0, 100, 100, 100, 0],
        suspended=[True, False, False, False, True],
        prev_close=[9.0, 9.0, 10.0, 10.5, 11.0],
    )
    week = aggregate(base, Period.W1, "SH")
    assert (week.open[0], week.low[0], week.close[0], week.prev_close[0]) == (10.0, 10.0, 11.0, 9.0)
    assert week.suspended.tolist() == [False]
    asleep = aggregate(base.last(1), Period.W1, "SH")
    assert (asleep.open[0], asleep.volume[0], asleep.suspended[0]) == (11.0, 0, True)


def test_weeks_and_months_are_stamped_at_the_close_of_the_last_day_that_has_a_bar() -> None:
    days = list(CHINA.between(date(2024, 4, 22), date(2024, 5, 8)))
    base = daily(days)
    weeks = [day_of(int(time)) for time in aggregate(base, Period.W1, "SH").time]
    assert weeks == [date(2024, 4, 26), date(2024, 4, 30), date(2024, 5, 8)]
    months = aggregate(base, Period.MON1, "SH")
    assert months.time.tolist() == [at("2024-04-30 15:00"), at("2024-05-08 15:00")]
    assert months.volume.tolist() == [700, 300]


def test_a_week_around_new_year_is_one_week_and_two_months() -> None:
    base = daily(list(CHINA.between(date(2024, 12, 30), date(2025, 1, 3))))
    assert len(aggregate(base, Period.W1, "SH")) == 1
    assert len(aggregate(base, Period.MON1, "SH")) == 2


def test_midnight_belongs_to_the_day_that_ends() -> None:
    base = series([midnight(DAY), midnight(DAY) + MINUTE])
    assert aggregate(base, Period.M5, "BINANCE").time.tolist() == [midnight(DAY), midnight(DAY) + 5 * MINUTE]
    assert len(aggregate(base, Period.D1, "BINANCE")) == 2


def test_nothing_makes_nothing_and_base_bars_are_their_own() -> None:
    base = minutes(DAY, ENDS)
    assert aggregate(EMPTY, Period.H1, "SH") is EMPTY
    assert aggregate(base, Period.M1, "SH") is base
    assert aggregate(daily([DAY]), Period.D1, "SH").equals(daily([DAY]))
    with pytest.raises(periods.UnknownHours):
        aggregate(base, Period.M5, "SF")


def test_recorded_minutes_of_an_index_make_its_recorded_days(data_dir: Path) -> None:
    """100 whole sessions: open and close of every day to the point's hundredth (one file cuts what the other rounds), and
    the range within the day's, which has seen every second. Volumes are of another unit there."""
    base = index_minutes(data_dir)
    days = aggregate(base, Period.D1, "SH")
    known = qlib(data_dir)["000001.SH"]
    compared = 0
    for position, time in enumerate(days.time.tolist()):
        if day_of(time) == date(2017, 3, 3):  # the file begins at 13:22
            continue
        at_day = known["days"].index(day_of(time))
        assert days.close[position] == pytest.approx(known["close"][at_day], abs=0.011)
        assert days.open[position] == pytest.approx(known["open"][at_day], abs=0.011)
        assert days.high[position] <= known["high"][at_day] + 0.011
        assert days.low[position] >= known["low"][at_day] - 0.011
        compared += 1
    assert compared == 100
    for period in LONGER:
        longer = aggregate(base, period, "SH")
        assert longer.volume.sum() == base.volume.sum()
        again = aggregate(longer, Period.D1, "SH")
        for name in ("time", "high", "low", "close", "volume"):
            assert np.array_equal(getattr(again, name), getattr(days, name)), name


def test_recorded_minutes_of_shares_make_the_volume_and_the_close_of_their_days(data_dir: Path) -> None:
    """Two symbols, 43 sessions: the minutes' volumes, cut to lots, add up to the day's, and the last price is its close."""
    days = qlib(data_dir)
    compared = 0
    for exchange in ("sh", "sz"):
        for symbol, records in hdf(data_dir / f"ashare_minute/{exchange}_time.h5.gz").items():
            if symbol not in ("600000.SH", "000001.SZ"):
                continue
            known = days[symbol]
            # The file stamps a minute at its start.
            text = records["datetime"].astype(str)
            time = [at(f"{t[:4]}-{t[4:6]}-{t[6:8]} {t[8:10]}:{t[10:12]}") + MINUTE for t in text]
            base = series(time, close=records["price"] / 1000, volume=records["vol"].astype(np.int64) * 100)
            for position, stamp in enumerate((whole := aggregate(base, Period.D1, "SH")).time.tolist()):
                at_day = known["days"].index(day_of(stamp))
                assert 0 <= known["volume"][at_day] - whole.volume[position] <= 100 + known["volume"][at_day] * 2**-23
                assert whole.close[position] == pytest.approx(known["close"][at_day] / known["factor"][at_day], abs=1e-4)
                compared += 1
            assert len(aggregate(base, Period.M5, "SH")) == 43 * 48
    assert compared == 2 * 43


def test_recorded_days_make_weeks_that_hang_together(data_dir: Path) -> None:
    """198 symbols, 2019-01 to 2020-05: volumes and money add up, and each week's range is that of its days."""
    for _, days, base in qbot(data_dir):
        for period in (Period.W1, Period.MON1):
            longer = aggregate(base, period, "SZ")
            assert longer.volume.sum() == base.volume.sum()
            assert round(float(longer.amount.sum()) * 100) == pytest.approx(round(float(base.amount.sum()) * 100), abs=100)
            key = [day.isocalendar()[:2] if period is Period.W1 else (day.year, day.month) for day in days]
            expected = {of: max(high for high, k in zip(base.high.tolist(), key, strict=True) if k == of) for of in key}
            assert longer.high.tolist() == list(expected.values())

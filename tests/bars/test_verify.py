"""What is refused and what is kept: a terminal's fillings by example, and recorded data, of which nothing may be refused."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata import periods, symbols
from marketdata.calendar import CHINA, OutsideCalendar, day_of, midnight
from marketdata.exchanges import Kind
from marketdata.series import EMPTY, Series, join
from marketdata.types import Period
from marketdata.verify import Reason, verify
from tests.bars.material import MINUTE, at, daily, hdf, index_minutes, minutes, qbot, qlib, series

SHARE = "600000.SH"
DAY = date(2024, 5, 8)
NEXT = date(2024, 5, 9)
WEEK = CHINA.between(date(2024, 5, 6), date(2024, 5, 10))
ENDS = periods.bar_ends("SH", Period.M1)
PRICES = 10 + np.arange(241) / 100


def check(held: Series, period: Period, days: Any, symbol: str = SHARE) -> Any:
    return verify(held, symbol=symbol, period=period, days=days, calendar=CHINA)


def assert_kept(held: Series, period: Period, days: Any, symbol: str = SHARE, complete: Any = None) -> None:
    kept, refused, known = check(held, period, days, symbol)
    assert refused == {}
    assert kept is held
    assert known == set(days if complete is None else complete)


# --- what a terminal fills up


@pytest.mark.parametrize("filling", [0.0, np.nan])
def test_a_day_of_which_all_but_one_row_is_filled_keeps_that_one_and_is_not_complete(filling: float) -> None:
    close = np.full(164, filling)
    close[77] = 10.0
    held = minutes(DAY, ENDS[-164:], close=close, volume=np.where(close > 0, 100, 0), amount=0.0)
    kept, refused, known = check(held, Period.M1, [DAY])
    assert kept.time.tolist() == [held.time[77]]
    assert refused == {Reason.ZERO if filling == 0.0 else Reason.MISSING: 163}
    assert known == set()


def test_a_day_that_repeats_the_last_close_without_a_trade_is_padded() -> None:
    held = daily(list(WEEK), close=[10.0, 10.5, 10.5, 10.5, 10.7], volume=[5, 5, 0, 0, 5])
    kept, refused, known = check(held, Period.D1, WEEK)
    assert refused == {Reason.PADDED: 2}
    assert [day_of(int(time)) for time in kept.time] == [WEEK[0], WEEK[1], WEEK[4]]
    assert known == {WEEK[0], WEEK[1], WEEK[4]}


def test_minutes_that_repeat_the_last_close_all_day_are_padded() -> None:
    held = join([minutes(DAY, ENDS, close=PRICES), minutes(NEXT, ENDS, close=PRICES[-1], volume=0, amount=0.0)])
    kept, refused, known = check(held, Period.M1, [DAY, NEXT])
    assert (len(kept), refused, known) == (241, {Reason.PADDED: 241}, {DAY})


@pytest.mark.parametrize(("prev_close", "padded"), [(10.0, 1), (np.nan, 1), (10.1, 0)])
def test_whether_the_first_day_repeats_the_last_close_is_told_by_what_is_known_of_it(prev_close: float, padded: int) -> None:
    _, refused, _ = check(daily([DAY], volume=0, prev_close=prev_close), Period.D1, [DAY])
    assert refused.total() == padded


def test_rows_of_days_and_times_without_trading_are_refused() -> None:
    saturday, holiday = date(2024, 5, 11), date(2024, 5, 1)
    kept, refused, _ = check(daily([holiday, DAY, saturday]), Period.D1, [holiday, DAY, saturday])
    assert (len(kept), refused) == (1, {Reason.CALENDAR: 2})
    lunch = [11 * 60 * MINUTE + 31 * MINUTE, 13 * 60 * MINUTE]
    odd = [ENDS[1] + 1000]
    held = minutes(DAY, sorted([*ENDS, *lunch, *odd]))
    kept, refused, known = check(held, Period.M1, [DAY])
    assert (len(kept), refused, known) == (241, {Reason.SESSION: 3}, {DAY})


def test_a_weekend_is_refused_as_such_though_nobody_asked_for_it() -> None:
    _, refused, known = check(daily([DAY, date(2024, 5, 11)]), Period.D1, [DAY])
    assert (refused, known) == ({Reason.CALENDAR: 1}, {DAY})


def test_days_that_nobody_asked_for_are_left_out() -> None:
    beyond = series([at("2027-01-04 15:00")])
    kept, refused, known = check(join([daily(list(WEEK)), beyond]), Period.D1, [DAY])
    assert (len(kept), refused, known) == (1, {Reason.UNASKED: 5}, {DAY})


def test_minutes_after_hours_are_in_the_bar_of_the_day() -> None:
    after = [15 * 60 * MINUTE + minute * MINUTE for minute in (6, 30)]
    held = minutes(DAY, [*ENDS, *after])
    kept, refused, known = check(held, Period.M1, [DAY], "688012.SH")
    assert (len(kept), refused, known) == (241, {Reason.AFTER_HOURS: 2}, {DAY})


def test_a_daily_bar_that_is_not_stamped_at_the_close_is_refused() -> None:
    _, refused, known = check(series([midnight(DAY)]), Period.D1, [DAY, date(2024, 5, 7)])
    assert (refused[Reason.SESSION], known) == (1, set())


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"low": 10.1}, Reason.PRICE),
        ({"high": 9.9}, Reason.PRICE),
        ({"open": 10.5}, Reason.PRICE),
        ({"close": -10.0}, Reason.PRICE),
        ({"high": np.inf}, Reason.PRICE),
        ({"open": np.nan}, Reason.MISSING),
        ({"low": 0.0}, Reason.ZERO),
        ({"volume": -1}, Reason.VOLUME),
        ({"amount": -1.0}, Reason.VOLUME),
        ({"amount": np.inf}, Reason.VOLUME),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(columns: dict[str, float], reason: Reason) -> None:
    kept, refused, known = check(daily([DAY], **columns), Period.D1, [DAY])
    assert (len(kept), refused, known) == (0, {reason: 1}, set())


# --- what is real though it looks like it


def test_minutes_without_a_trade_that_repeat_the_last_price_are_kept() -> None:
    volume = np.zeros(241, np.int64)
    volume[[0, 130]] = 100
    assert_kept(minutes(DAY, ENDS, volume=volume, amount=np.nan), Period.M1, [DAY])


def test_an_illiquid_share_has_few_minutes() -> None:
    assert_kept(minutes(DAY, [ENDS[0], ENDS[50], ENDS[-1]]), Period.M1, [DAY])


def test_a_suspended_day_is_kept_where_the_source_says_so() -> None:
    flat = {"volume": 0, "amount": 0.0, "suspended": True}
    assert_kept(daily(list(WEEK), **flat), Period.D1, WEEK)
    assert_kept(minutes(DAY, ENDS, **flat), Period.M1, [DAY])


def test_a_suspended_day_is_known_though_its_prices_were_filled_with_zeros() -> None:
    kept, refused, known = check(daily([DAY], close=0.0, volume=0, suspended=True), Period.D1, [DAY])
    assert (len(kept), refused, known) == (0, {Reason.ZERO: 1}, {DAY})


def test_a_day_locked_at_its_limit_has_one_price_and_volume() -> None:
    assert_kept(daily([DAY], close=11.0, prev_close=10.0), Period.D1, [DAY])
    assert_kept(minutes(DAY, ENDS, close=11.0, volume=[*[0] * 240, 100]), Period.M1, [DAY])


@pytest.mark.parametrize("symbol", ["920002.BJ", "159915.SZ", "019547.SH", "900901.SH", "IO2406-C-3600.IF", "000001.SH"])
def test_what_is_traded_rarely_has_days_without_a_trade(symbol: str) -> None:
    assert_kept(daily(list(WEEK), volume=0, amount=0.0), Period.D1, WEEK, symbol)


def test_treasury_futures_trade_until_a_quarter_past_three() -> None:
    ends = periods.bar_ends(periods.TREASURY, Period.M1)
    assert_kept(minutes(DAY, ends), Period.M1, [DAY], "T2409.IF")
    _, refused, _ = check(minutes(DAY, ends), Period.M1, [DAY], "IF2409.IF")
    assert refused == {Reason.SESSION: 15}


def test_an_index_may_open_or_close_a_hair_outside_of_its_range() -> None:
    hair = {"open": 12412.46, "high": 12553.79, "low": 12412.47, "close": 12495.25}
    assert_kept(daily([DAY], **hair), Period.D1, [DAY], "399001.SZ")
    assert check(daily([DAY], **hair), Period.D1, [DAY])[1] == {Reason.PRICE: 1}
    assert check(daily([DAY], **{**hair, "open": 12410.0}), Period.D1, [DAY], "399001.SZ")[1] == {Reason.PRICE: 1}


# --- which days are complete


def test_a_day_of_minutes_is_complete_when_they_reach_the_close() -> None:
    held = join([minutes(DAY, ENDS), minutes(NEXT, ENDS[:200])])
    assert_kept(held, Period.M1, [DAY, NEXT], complete=[DAY])


def test_a_day_of_minutes_that_lacks_its_morning_is_not_complete_but_for_what_is_traded_rarely() -> None:
    afternoon = minutes(DAY, (ENDS[0], *ENDS[121:]))
    assert_kept(afternoon, Period.M1, [DAY], complete=[])
    assert_kept(afternoon, Period.M1, [DAY], "000300.SH", complete=[])
    assert_kept(afternoon, Period.M1, [DAY], "019547.SH")
    assert_kept(minutes(DAY, (ENDS[120], ENDS[-1])), Period.M1, [DAY])


def test_a_day_with_a_hole_is_not_complete() -> None:
    close = PRICES.copy()
    close[100] = 0.0
    assert check(minutes(DAY, ENDS, close=close), Period.M1, [DAY])[2] == set()


def test_days_without_trading_are_complete_without_rows() -> None:
    saturday = date(2024, 5, 11)
    assert check(EMPTY, Period.M1, [DAY, saturday])[2] == {saturday}


def test_a_gap_in_daily_bars_is_known_where_the_last_close_says_that_nothing_was_traded_in_it() -> None:
    held = daily(list(WEEK), close=[10.0, 10.5, 11.0, 11.0, 11.5], prev_close=[9.9, 10.0, 10.5, 10.5, 11.0])
    gap = held.pick([0, 1, 3, 4])  # the 8th is missing, and the 9th began from the close of the 7th
    assert_kept(gap, Period.D1, WEEK)
    hole = held.pick([0, 1, 4])  # the 10th began from another price than the close of the 7th
    assert_kept(hole, Period.D1, WEEK, complete=[WEEK[0], WEEK[1], WEEK[4]])
    assert_kept(held.pick([1]), Period.D1, WEEK[:3], complete=[WEEK[1]])  # what was before the first bar nobody knows


def test_days_outside_the_calendar_and_hours_that_are_not_known_are_no_answer() -> None:
    with pytest.raises(OutsideCalendar):
        check(EMPTY, Period.D1, [date(2027, 1, 4)])
    with pytest.raises(periods.UnknownHours):
        check(minutes(DAY, ENDS), Period.M1, [DAY], "rb2410.SF")
    assert_kept(daily([DAY]), Period.D1, [DAY], "rb2410.SF")
    with pytest.raises(ValueError, match="1w"):
        check(EMPTY, Period.W1, [DAY])


# --- properties


ANY_PRICE = st.sampled_from([0.0, -1.0, float("nan"), 9.0, 10.0, 11.0])


@st.composite
def anything(draw: st.DrawFn) -> Series:
    times = sorted(draw(st.sets(st.integers(at("2024-05-04 00:00") // MINUTE, at("2024-05-12 00:00") // MINUTE), max_size=30)))
    names = ("open", "high", "low", "close")
    columns: dict[str, Any] = {name: [draw(ANY_PRICE) for _ in times] for name in names}
    columns["volume"] = [draw(st.integers(-1, 2)) for _ in times]
    columns["suspended"] = [draw(st.booleans()) for _ in times]
    return series([time * MINUTE for time in times], **columns)


@settings(deadline=None)
@given(anything(), st.sampled_from([SHARE, "159915.SZ", "BTCUSDT.BINANCE", "IF2406.IF"]), st.sampled_from(list(Period)[:6]))
def test_every_row_is_kept_or_counted_and_what_is_kept_is_kept_again(held: Series, symbol: str, period: Period) -> None:
    days = [date(2024, 5, 4) + timedelta(days=offset) for offset in range(9)]
    kept, refused, known = check(held, period, days, symbol)
    assert len(kept) + refused.total() == len(held)
    assert set(refused) <= set(Reason)
    assert known <= set(days)
    assert np.all((kept.low > 0) & (kept.low <= kept.open) & (kept.close <= kept.high))
    again, none, _ = check(kept, period, days, symbol)
    assert again.equals(kept) and none == Counter()


# --- recorded data


def test_of_recorded_days_as_traded_nothing_is_refused(data_dir: Path) -> None:
    """198 shares, 2019-01 to 2020-05, 63,982 days with trades. 185 days of suspension have no row; all but those that end with
    an ex-date are known to be without a trade by the next day's last close."""
    rows = gaps = unknown = 0
    for symbol, days, held in qbot(data_dir):
        asked = CHINA.between(days[0], days[-1])
        kept, refused, known = check(held, Period.D1, asked, symbol)
        assert (refused, len(kept)) == ({}, len(held)), symbol
        assert set(days) <= known
        for day in set(asked) - known:
            after = days.index(next(other for other in days if other > day))
            assert held.close[after - 1] != held.prev_close[after]
            unknown += 1
        rows += len(held)
        gaps += len(asked) - len(days)
    assert (rows, gaps, unknown) == (63_982, 185, 0)


def test_days_of_suspension_that_a_file_fills_up_are_refused_and_no_other(data_dir: Path) -> None:
    """132 shares, 2010-01 to 2026-05: the file fills 7,002 days of suspension with the last close and no volume, and says of
    none that it was one. Not one share of Shanghai or Shenzhen had a day without a trade, and no day with one is refused."""
    padded = shares = 0
    for symbol, known in qlib(data_dir).items():
        prices = {name: np.round(known[name] / known["factor"], 2) for name in ("open", "high", "low", "close")}
        # On an ex-date within a suspension the reference price is filled in.
        before = np.round(np.append(np.nan, known["close"][:-1]) / known["factor"], 2)
        volume = np.nan_to_num(known["volume"]).astype(np.int64)
        held = daily(known["days"], **prices, prev_close=before, volume=volume, amount=np.nan)
        if symbols.kind(symbol) is Kind.INDEX:
            # 20 of their days open or close outside of their range, by a hundred-thousandth at most.
            assert_kept(held, Period.D1, known["days"], symbol)
            continue
        kept, refused, complete = check(held, Period.D1, known["days"], symbol)
        assert len(kept) == np.count_nonzero(volume), symbol
        assert set(refused) <= {Reason.PADDED}
        assert {day_of(int(time)) for time in kept.time} == complete
        padded += refused.total()
        shares += 1
    assert (shares, padded) == (132, 7_002)


def test_of_recorded_minutes_none_is_refused_but_those_at_times_at_which_no_bar_ends(data_dir: Path) -> None:
    """The index file stamps the last minute of the morning and the first of the afternoon as one, at 13:00, on 100 days, and
    lacks the morning of one. The shares' have 43 sessions of 240 minutes, those without a trade among them."""
    held = index_minutes(data_dir)
    days = sorted({day_of(int(time)) for time in held.time})
    _, refused, known = check(held, Period.M1, days, "000001.SH")
    assert refused == {Reason.SESSION: 100}
    assert set(days) - known == {date(2017, 3, 3)}
    for exchange in ("sh", "sz"):
        for symbol, records in hdf(data_dir / f"ashare_minute/{exchange}_time.h5.gz").items():
            text = records["datetime"].astype(str)
            # The file stamps a minute at its start.
            times = [at(f"{t[:4]}-{t[4:6]}-{t[6:8]} {t[8:10]}:{t[10:12]}") + MINUTE for t in text]
            held = series(times, close=records["price"] / 1000, volume=records["vol"].astype(np.int64))
            assert_kept(held, Period.M1, sorted({day_of(time) for time in times}), symbol)

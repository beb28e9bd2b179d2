"""Adjusted prices: the formulas by example and property, and recorded dividends, unadjusted and back-adjusted prices."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata import periods
from marketdata.adjust import ALGORITHMS, PRICES, RatioUnknown, adjust, factors, last_closes, ratio_of, reference_price
from marketdata.aggregate import aggregate
from marketdata.calendar import CHINA, day_of
from marketdata.series import EMPTY, Series
from marketdata.symbols import round_price
from marketdata.types import Adjust, Dividend, Period
from tests.bars.material import daily, hdf, hdf_days, minutes, qbot, qlib

SYMBOL = "600000.SH"
DAYS = [date(2024, 5, 6) + timedelta(days=offset) for offset in range(5)]
METHODS = [method for method in Adjust if method is not Adjust.NONE]


def gives(day: date, **amounts: Any) -> Dividend:
    return Dividend(symbol=SYMBOL, ex_date=day.isoformat(), source="test", **amounts)


def closes(held: Series, dividends: Iterable[Dividend]) -> dict[str, float]:
    """The last closes before the ex-dates, of daily bars that lack no day from the first to the last."""
    first, last = (day_of(int(time)).toordinal() for time in held.time[[0, -1]])
    ex_dates = [date.fromisoformat(dividend.ex_date) for dividend in dividends]
    return last_closes(held, range(first, last + 1), ex_dates, CHINA)


def moved(
    held: Series,
    dividends: list[Dividend],
    method: Adjust,
    *,
    as_of: date | None = None,
    tick: float | None = None,
    daily: Series | None = None,
) -> Series:
    """Adjusted, with the last closes of ``daily``, or of the bars themselves."""
    of = held if daily is None else daily
    return adjust(held, dividends, method, as_of=as_of, tick=tick, closes=closes(of, dividends) if len(of) else {})


CASH = gives(DAYS[2], cash=0.15, bonus=0.3)
RIGHTS = gives(DAYS[4], cash=0.5, gift=0.5, rights=0.3, rights_price=5.0)


def test_the_reference_price_is_what_a_share_is_worth_without_what_it_gives() -> None:
    # 600000 on 2010-06-10: 10送3派1.5元 after a last close of 18.50.
    assert reference_price(CASH, 18.50) == pytest.approx((18.50 - 0.15) / 1.3)
    assert reference_price(RIGHTS, 10.0) == pytest.approx((10.0 - 0.5 + 1.5) / 1.8)
    assert ratio_of(CASH, 18.50) == pytest.approx(18.50 / ((18.50 - 0.15) / 1.3))
    assert ratio_of(gives(DAYS[0]), 10.0) == 1.0


def test_each_method_does_what_its_formula_says() -> None:
    held = daily(DAYS, close=[13.0, 13.15, 10.0, 11.0, 6.0])
    both = [RIGHTS, CASH]  # in any order
    front = moved(held, both, Adjust.FRONT).close
    once = (np.array([13.0, 13.15]) - 0.15) / 1.3
    expected = [*((once - 0.5 + 1.5) / 1.8), *((np.array([10.0, 11.0]) - 0.5 + 1.5) / 1.8), 6.0]
    assert front.tolist() == np.round(expected, 6).tolist()
    back = moved(held, both, Adjust.BACK).close
    late = (6.0 * 1.8 + 0.5 - 1.5) * 1.3 + 0.15
    assert back.tolist() == np.round([13.0, 13.15, 10 * 1.3 + 0.15, 11 * 1.3 + 0.15, late], 6).tolist()
    first, second = 13.15 / ((13.15 - 0.15) / 1.3), 11.0 / ((11.0 - 0.5 + 1.5) / 1.8)
    front_ratio = moved(held, both, Adjust.FRONT_RATIO).close
    assert front_ratio.tolist() == pytest.approx(
        [13 / first / second, 13.15 / first / second, 10 / second, 11 / second, 6.0], abs=5e-7
    )
    back_ratio = moved(held, both, Adjust.BACK_RATIO).close
    assert back_ratio.tolist() == pytest.approx([13.0, 13.15, 10 * first, 11 * first, 6 * first * second], abs=5e-7)


def test_the_reference_price_of_an_ex_date_is_on_that_days_footing() -> None:
    held = daily(DAYS[:3], close=[13.0, 13.15, 10.0], prev_close=[12.9, 13.0, 10.0])
    for method in METHODS:
        adjusted = moved(held, [CASH], method)
        assert adjusted.prev_close[2] == pytest.approx(adjusted.close[1], abs=1e-6), method


def test_volume_and_money_are_not_adjusted() -> None:
    held = daily(DAYS, open_interest=3.0)
    for method in METHODS:
        adjusted = moved(held, [CASH, RIGHTS], method)
        for name in ("time", "volume", "amount", "open_interest", "suspended"):
            assert getattr(adjusted, name) is getattr(held, name)


def test_a_dividend_after_as_of_does_not_exist() -> None:
    held = daily(DAYS)
    for method in METHODS:
        before = moved(held, [CASH, RIGHTS], method, as_of=DAYS[3])
        assert before.equals(moved(held, [CASH], method))
        assert moved(held, [CASH, RIGHTS], method, as_of=DAYS[1]) is held
        assert [
            row.ex_date for row in factors([RIGHTS, CASH], method, closes=closes(held, [RIGHTS, CASH]), as_of=DAYS[3]).rows
        ] == [CASH.ex_date]


def test_the_day_of_a_minute_is_that_on_which_it_ends() -> None:
    held = minutes(DAYS[2], periods.bar_ends("SH", Period.M1))
    assert moved(held, [CASH], Adjust.FRONT).close.tolist() == held.close.tolist()
    # Around the clock a day's last minute is stamped at midnight, and is of the day before.
    night = minutes(DAYS[1], periods.bar_ends("BINANCE", Period.M1)[-1:])
    assert moved(night, [CASH], Adjust.FRONT).close[0] < 10


def test_the_sources_own_ratio_counts_where_it_gave_one() -> None:
    held = daily(DAYS)
    given_one = [gives(DAYS[2], cash=0.15, ratio=1.25)]
    assert moved(held, given_one, Adjust.BACK_RATIO).close.tolist() == [10, 10, 12.5, 12.5, 12.5]
    assert moved(held, given_one, Adjust.FRONT_RATIO).close.tolist() == [8, 8, 10, 10, 10]


def test_a_ratio_that_nobody_knows_is_an_error_only_where_a_price_needs_it() -> None:
    held = daily(DAYS)
    past, future = gives(date(2024, 5, 1), cash=0.1), gives(date(2024, 5, 20), cash=0.1)
    for dividend, method in ((past, Adjust.BACK_RATIO), (future, Adjust.FRONT_RATIO)):
        with pytest.raises(RatioUnknown, match=dividend.ex_date):
            moved(held, [dividend], method)
        (row,) = factors([dividend], method, as_of=None, closes=closes(held, [dividend])).rows
        assert (row.ratio, row.cumulative) == (None, None)
    assert moved(held, [past], Adjust.FRONT_RATIO).equals(held)
    assert moved(held, [future], Adjust.BACK_RATIO).equals(held)


def test_a_reference_price_that_is_not_positive_has_no_ratio_and_only_ratio_methods_need_one() -> None:
    held, all_of_it = daily(DAYS), [gives(DAYS[2], cash=10.0)]
    for method in METHODS:
        (row,) = factors(all_of_it, method, as_of=None, closes=closes(held, all_of_it)).rows
        assert row.ratio is None
    for method in (Adjust.FRONT_RATIO, Adjust.BACK_RATIO):
        with pytest.raises(RatioUnknown):
            moved(held, all_of_it, method)
    assert moved(held, all_of_it, Adjust.FRONT).close.tolist() == [0, 0, 10, 10, 10]
    assert moved(held, all_of_it, Adjust.BACK).close.tolist() == [10, 10, 20, 20, 20]


def test_a_last_close_is_that_of_the_last_bar_only_if_all_days_up_to_the_ex_date_are_known() -> None:
    monday, tuesday, wednesday, thursday, friday = (day.toordinal() for day in DAYS)
    held = daily(DAYS[:2], close=[13.0, 13.15])
    ex_dates = [DAYS[0], DAYS[2], DAYS[4]]
    # Nobody has traded since: what is known to have no bar keeps the last close.
    quiet = {monday, tuesday, wednesday, thursday}
    assert last_closes(held, quiet, ex_dates, CHINA) == {"2024-05-08": 13.15, "2024-05-10": 13.15}
    assert last_closes(held, quiet - {thursday}, ex_dates, CHINA) == {"2024-05-08": 13.15}
    assert last_closes(held, quiet - {wednesday} | {friday}, ex_dates, CHINA) == {"2024-05-08": 13.15}
    # A weekend needs no knowing, and the ex-date itself need not have come; beyond the calendar nothing is known.
    assert last_closes(daily(DAYS[-1:]), {friday}, [date(2024, 5, 13)], CHINA) == {"2024-05-13": 10.0}
    assert last_closes(held, range(10**6), [CHINA.last + timedelta(days=9)], CHINA) == {}
    assert last_closes(EMPTY, quiet, ex_dates, CHINA) == {}


def test_last_closes_may_come_from_other_bars_than_those_adjusted() -> None:
    whole = daily(DAYS, close=[13.0, 13.15, 10.0, 11.0, 6.0])
    part = whole.last(1)
    alone = moved(part, [CASH, RIGHTS], Adjust.BACK_RATIO, daily=whole)
    assert alone.equals(moved(whole, [CASH, RIGHTS], Adjust.BACK_RATIO).last(1))


def test_prices_are_rounded_to_a_millionth_or_to_the_tick() -> None:
    held = daily(DAYS[:3])
    assert moved(held, [CASH], Adjust.FRONT).close.tolist() == [7.576923, 7.576923, 10.0]
    assert moved(held, [CASH], Adjust.FRONT, tick=0.01).close.tolist() == [7.58, 7.58, 10.0]


def test_the_factors_name_the_algorithm_and_all_that_was_used() -> None:
    held = daily(DAYS, close=[13.0, 13.15, 10.0, 11.0, 6.0])
    told = factors([RIGHTS, CASH], Adjust.BACK_RATIO, closes=closes(held, [RIGHTS, CASH]), as_of=date(2024, 6, 1))
    assert (told.method, told.as_of, told.algorithm) == (Adjust.BACK_RATIO, "2024-06-01", ALGORITHMS[Adjust.BACK_RATIO])
    first, second = told.rows
    assert (first.cash, first.bonus, second.gift, second.rights, second.rights_price) == (0.15, 0.3, 0.5, 0.3, 5.0)
    assert first.ratio is not None and second.ratio is not None
    assert (first.cumulative, second.cumulative) == (first.ratio, first.ratio * second.ratio)
    assert set(ALGORITHMS) == set(Adjust)


def test_nothing_to_adjust_is_given_back_as_it_is() -> None:
    held = daily(DAYS)
    for method in Adjust:
        assert moved(held, [], method) is held
        assert moved(EMPTY, [CASH], method) is EMPTY
    assert moved(held, [CASH], Adjust.NONE) is held


# --- properties


def per_share(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda value: round(value, 4))


@st.composite
def histories(draw: st.DrawFn) -> tuple[Series, list[Dividend]]:
    days = list(CHINA.between(date(2024, 1, 2), date(2024, 3, 29)))[: draw(st.integers(2, 40))]
    close = [draw(st.integers(500, 5000)) / 100 for _ in days]
    high = [price + draw(st.integers(0, 50)) / 100 for price in close]
    low = [price - draw(st.integers(0, 50)) / 100 for price in close]
    chosen = sorted(draw(st.sets(st.sampled_from(days[1:]), max_size=5)))
    found = [
        gives(
            day,
            cash=draw(per_share(0, 1)),
            bonus=draw(per_share(0, 1)),
            gift=draw(per_share(0, 1)),
            rights=draw(per_share(0, 0.5)),
            rights_price=draw(per_share(1, 20)),
        )
        for day in chosen
    ]
    return daily(days, open=low, high=high, low=low, close=close), found


@settings(deadline=None)
@given(histories(), st.sampled_from(METHODS))
def test_a_bar_keeps_its_shape_and_its_price_does_not_depend_on_what_else_was_asked(
    history: tuple[Series, list[Dividend]], method: Adjust
) -> None:
    held, dividends = history
    whole = moved(held, dividends, method)
    assert np.all((whole.low <= whole.open) & (whole.close <= whole.high) & (whole.low <= whole.close))
    middle = held.pick(slice(len(held) // 3, 2 * len(held) // 3 + 1))
    part = moved(middle, dividends, method, daily=held)
    assert part.equals(whole.between(int(middle.time[0]), int(middle.time[-1])))


@settings(deadline=None)
@given(histories())
def test_front_and_back_undo_each_other(history: tuple[Series, list[Dividend]]) -> None:
    held, dividends = history
    ratios = factors(dividends, Adjust.BACK_RATIO, closes=closes(held, dividends), as_of=None).rows
    whole = ratios[-1].cumulative if ratios else 1.0
    assert whole is not None
    back = moved(held, dividends, Adjust.BACK_RATIO)
    front = moved(held, dividends, Adjust.FRONT_RATIO)
    assert np.allclose(back.close, front.close * whole, rtol=1e-5)
    # The additive forms differ by what all the dividends together do.
    back, front = (moved(held, dividends, method) for method in (Adjust.BACK, Adjust.FRONT))
    last = front.close
    for dividend in reversed(dividends):
        shares = 1 + dividend.bonus + dividend.gift + dividend.rights
        last = last * shares + dividend.cash - dividend.rights * dividend.rights_price
    assert np.allclose(back.close, last, rtol=1e-4, atol=1e-3)


@settings(deadline=None)
@given(histories())
def test_a_return_across_an_ex_date_is_that_on_the_reference_price(history: tuple[Series, list[Dividend]]) -> None:
    held, dividends = history
    for method in (Adjust.FRONT_RATIO, Adjust.BACK_RATIO):
        adjusted = moved(held, dividends, method).close
        for dividend in dividends:
            day = [d for d in CHINA.between(date(2024, 1, 2), date(2024, 3, 29))].index(date.fromisoformat(dividend.ex_date))
            reference = reference_price(dividend, float(held.close[day - 1]))
            assert adjusted[day] / adjusted[day - 1] == pytest.approx(held.close[day] / reference, rel=1e-5)


# --- recorded data


def recorded_dividends(data: Path) -> Iterator[tuple[str, Dividend]]:
    """Symbol and dividend, to 2011-11. The file counts shares in 1/100,000 of a share, cash in 1/10,000 yuan and the price of
    rights in 1/1,000 yuan, all per share: 600000 on 2010-06-10 (10送3派1.5元) is 30000 and 1500."""
    database = sqlite3.connect(":memory:")
    try:
        with gzip.open(data / "dividends/stock.db.gz") as packed:
            database.deserialize(packed.read())
        rows = database.execute(
            "SELECT code, marketid, date, countAsGift, countForSell, priceForSell, bonus, countOfIncreasement "
            "FROM stkWeight JOIN Stock USING (stockid) WHERE marketid IN (1, 2) "
            "AND (countAsGift OR countForSell OR bonus OR countOfIncreasement) ORDER BY date"
        ).fetchall()
    finally:
        database.close()
    for code, market, day, bonus, rights, price, cash, gift in rows:
        symbol = f"{code}.{'SH' if market == 1 else 'SZ'}"
        yield (
            symbol,
            Dividend(
                symbol=symbol,
                ex_date=f"{day // 10000}-{day // 100 % 100:02d}-{day % 100:02d}",
                cash=cash / 1e4,
                bonus=bonus / 1e5,
                gift=gift / 1e5,
                rights=rights / 1e5,
                rights_price=price / 1e3,
                source="recorded",
            ),
        )


def test_ratios_of_recorded_reference_prices_make_the_recorded_back_adjusted_prices(data_dir: Path) -> None:
    """Six shares are in both files, with an ex-date each from 2019-01 to 2020-05: it shows in the unadjusted one as a last
    close that is not that of the day before. All their bars agree with the back-adjusted file, which holds float32."""
    adjusted = qlib(data_dir)
    shares = bars = events = 0
    for symbol, days, held in qbot(data_dir):
        if symbol not in adjusted:
            continue
        known = adjusted[symbol]
        steps = [at for at in range(1, len(days)) if held.prev_close[at] != held.close[at - 1]]
        dividends = [
            Dividend(
                symbol=symbol, ex_date=days[at].isoformat(), ratio=float(held.close[at - 1] / held.prev_close[at]), source="x"
            )
            for at in steps
        ]
        ours = moved(held, dividends, Adjust.BACK_RATIO)
        places = [known["days"].index(day) for day in days]
        base = known["factor"][places[0]]
        for name in ("open", "high", "low", "close"):
            assert np.allclose(getattr(ours, name), known[name][places] / base, rtol=1e-6), (symbol, name)
        shares, bars, events = shares + 1, bars + len(days), events + len(steps)
    assert (shares, events) == (6, 6)
    assert bars > 300 * shares


CONTRADICT = [("600741.SH", "2010-06-18"), ("601318.SH", "2010-07-13")]
"""Where the recorded dividends and the recorded factors say different things."""


def test_ratios_of_recorded_dividends_are_the_steps_of_the_recorded_factors(data_dir: Path) -> None:
    """2010-01 to 2011-11, all 134 ex-dates of the shares in both files. 132 agree to float32's precision, with the reference
    price rounded to the cent as the exchange does. Two do not, for the data's sake: 600741 on 2010-06-18 has a cash of 0.0491
    in the dividends where the factor and the day's reference price of 8.47 say 0.32; 601318 has one of 0.30 on 2010-07-13,
    a day within a suspension, that the factors leave out."""
    adjusted = qlib(data_dir)
    until = date(2011, 11, 30)
    differ: list[tuple[str, str]] = []
    agree = unexplained = 0
    explained: set[tuple[str, str]] = set()
    for symbol, dividend in recorded_dividends(data_dir):
        known = adjusted.get(symbol)
        day = date.fromisoformat(dividend.ex_date)
        if known is None or not known["days"][1] <= day <= until:
            continue
        at = known["days"].index(day)
        close = round_price(known["close"][at - 1] / known["factor"][at - 1], 0.01)
        step = known["factor"][at] / known["factor"][at - 1]
        explained.add((symbol, dividend.ex_date))
        if close / round_price(reference_price(dividend, close), 0.01) == pytest.approx(step, rel=2e-6):
            agree += 1
            # Not rounded, as the source's own ratio, it differs by less than the rounding of one price.
            assert ratio_of(dividend, close) == pytest.approx(step, rel=0.0051 / (close / step))
        else:
            differ.append((symbol, dividend.ex_date))
    for symbol, known in adjusted.items():
        changes = np.flatnonzero(np.abs(np.diff(known["factor"]) / known["factor"][:-1]) > 1e-6) + 1
        days = {known["days"][at] for at in changes.tolist() if known["days"][at] <= until}
        unexplained += len({day.isoformat() for day in days} - {day for of, day in explained if of == symbol})
    assert agree == 132
    assert differ == CONTRADICT
    assert unexplained == 0


def test_a_front_adjustment_as_of_a_recorded_ex_date_gives_the_recorded_reference_price(data_dir: Path) -> None:
    """The same 132 ex-dates, with all dividends of the share at hand: as of the ex-date the closes before it are on its footing,
    to the half cent by which the exchange rounds a reference price; as of the day before they are those traded."""
    adjusted = qlib(data_dir)
    of: dict[str, list[Dividend]] = {}
    for symbol, dividend in recorded_dividends(data_dir):
        of.setdefault(symbol, []).append(dividend)
    events = 0
    for symbol, known in adjusted.items():
        traded = [round_price(price, 0.01) for price in (known["close"] / known["factor"]).tolist()]
        for dividend in of.get(symbol, ()):
            day = date.fromisoformat(dividend.ex_date)
            if not known["days"][1] <= day <= date(2011, 11, 30) or (symbol, dividend.ex_date) in CONTRADICT:
                continue
            at = known["days"].index(day)
            held = daily(known["days"][at - 1 : at + 1], close=traded[at - 1 : at + 1])
            reference = traded[at - 1] * known["factor"][at - 1] / known["factor"][at]
            for method in (Adjust.FRONT, Adjust.FRONT_RATIO):
                on_the_day = moved(held, of[symbol], method, as_of=day)
                assert on_the_day.close[0] == pytest.approx(reference, abs=0.0051), (symbol, dividend.ex_date)
                assert on_the_day.close[1] == held.close[1]
                assert moved(held, of[symbol], method, as_of=day - timedelta(days=1)).equals(held)
            events += 1
    assert events == 132


def test_with_its_recorded_dividends_a_share_never_moves_more_than_its_daily_limit(data_dir: Path) -> None:
    """Seven shares, 82 ex-dates since their listings, ratios computed from the last close before each: no move from one
    trading day to the next in 2001 to 2011 exceeds the limit of 10 % and its rounding; unadjusted, 15 do. Days after a
    suspension are left out: the first one after a share reform (股改, 2006 and 2007) had no limit. So are earlier years, in
    which the file's closes exceed the limit without any ex-date (000001 on 1996-12-16: 16.86 after 18.78)."""
    dividends: dict[str, list[Dividend]] = {}
    for symbol, dividend in recorded_dividends(data_dir):
        dividends.setdefault(symbol, []).append(dividend)
    beyond: list[tuple[str, str, float]] = []
    raw = count = 0
    for exchange in ("sh", "sz"):
        for symbol, records in hdf(data_dir / f"ashare_daily/{exchange}_day.h5.gz").items():
            if symbol == "000001.SH":
                continue
            days = hdf_days(records)
            held = daily(days, close=records["closePrice"] / 1000)
            first = date.fromordinal(max(date(2001, 1, 1).toordinal(), days[1].toordinal()))
            own = [dividend for dividend in dividends[symbol] if dividend.ex_date > days[0].isoformat()]
            ours = moved(held, own, Adjust.BACK_RATIO)
            count += len(own)
            for at in range(1, len(days)):
                if days[at] < first or CHINA.previous_day(days[at]) != days[at - 1]:
                    continue
                slack = 0.011 / held.close[at - 1] + 0.1
                raw += abs(held.close[at] / held.close[at - 1] - 1) > slack
                move = ours.close[at] / ours.close[at - 1] - 1
                if abs(move) > slack:
                    beyond.append((symbol, days[at].isoformat(), round(float(move), 3)))
    assert (count, raw, beyond) == (82, 15, [])


def test_adjusted_days_make_adjusted_weeks(data_dir: Path) -> None:
    """An ex-date within a week: adjusted first and aggregated then, the week's range is that of comparable prices."""
    symbol, days, held = next(item for item in qbot(data_dir) if item[0] == "600016.SH")
    dividend = Dividend(symbol=symbol, ex_date="2019-07-05", cash=0.345, source="x")
    week = aggregate(moved(held, [dividend], Adjust.FRONT), Period.W1, "SH")
    at = [day.isocalendar()[:2] for day in days].index((2019, 27))
    position = sorted({day.isocalendar()[:2] for day in days}).index((2019, 27))
    assert week.high[position] == np.round(max(held.high[at : at + 4].max() - 0.345, held.high[at + 4]), 6)
    assert set(PRICES) >= {"open", "high", "low", "close"}

"""What an answer says of itself: which days it lacks, whether it can change, how far back a count goes, where the days end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from argus.errors import OUTSIDE_CALENDAR, UNSUPPORTED, ArgusError
from marketdata.api import cursor
from marketdata.cache.tiers import tiers
from marketdata.calendar import CHINA, DAY, TradingCalendar, day_of, midnight
from marketdata.history import service
from marketdata.history.service import Prepared, prepare, prepare_now
from marketdata.models import Instrument
from marketdata.series import COLUMNS, Series, from_bars
from marketdata.sources.base import Bars
from marketdata.types import Bar, Period
from tests.history.conftest import MINUTE, Market

pytestmark = [pytest.mark.django_db(transaction=True)]

BAD = date(2026, 6, 10)


def ask(market: Market, *symbols: str, **parameters: Any) -> Prepared:
    return prepare(market.query(*symbols, **parameters), deadline_seconds=20, request_id="r1")


def only(prepared: Prepared) -> Series:
    ((_, series),) = prepared.parts()
    return series


def days(series: Series) -> list[date]:
    return sorted({day_of(stamp - 1) for stamp in series.time.tolist()})


def without(lacks: Callable[[Series], Any]) -> Callable[[Bars], Bars]:
    """A terminal that does not tell some of its bars."""
    return lambda bars: Bars({symbol: series.pick(~lacks(series)) for symbol, series in bars.series.items()})


def between(since: int, until: int) -> Callable[[Series], Any]:
    return lambda series: (series.time > since) & (series.time <= until)


# --- what is not complete


@pytest.mark.parametrize(
    ("period", "hours"),
    [("1h", (12, 24)), ("1h", (9.5, 11.5)), ("1d", (0, 24))],
    ids=["afternoon", "morning", "day"],
)
def test_days_of_which_the_source_has_not_told_all_are_said_to_be_incomplete(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch, period: str, hours: tuple[float, float]
) -> None:
    symbol, whole = symbols[0], symbols[1]
    since, until = (midnight(BAD) + int(hour * 60) * MINUTE for hour in hours)
    query = {"period": period, "start": "2026-06-08", "end": "2026-06-12"}
    ask(market, whole, **query)
    market.terminal.change = without(between(since, until))
    told = ask(market, symbol, whole, **query)
    assert (told.missing, told.closed, told.stale) == ({symbol: "incomplete"}, False, False)
    assert {name for name, _ in told.parts()} == {symbol, whole}
    at_once = prepare_now(market.query(symbol, whole, **query))
    assert at_once is not None
    assert (at_once.missing, at_once.etag) == (told.missing, told.etag)
    # The day is asked for again, and what then comes is another answer.
    market.terminal.change = None
    tiers()._nothing.remove_if(lambda key: True)
    healed = ask(market, symbol, whole, **query)
    assert (healed.missing, healed.closed) == ({}, True)
    assert healed.etag != told.etag


def test_what_a_large_answer_lacks_is_said_before_it_is_read(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "HELD_ROWS", 10)
    market.terminal.change = without(between(midnight(BAD), midnight(BAD) + DAY))
    told = ask(market, *symbols[:2], period="1d", start="2026-06-08", end="2026-06-12")
    assert told.missing == dict.fromkeys(symbols[:2], "incomplete")


def test_minutes_of_hours_that_are_not_known_are_refused_without_a_call(market: Market, symbols: list[str]) -> None:
    with pytest.raises(ArgusError) as refused:
        ask(market, "rb2610.SF", period="1m", start="2026-06-29", end="2026-06-30")
    assert (refused.value.problem, market.terminal.asked) == (UNSUPPORTED, [])
    both = ask(market, "rb2610.SF", symbols[0], period="1m", start="2026-06-29", end="2026-06-30")
    assert both.missing == {"rb2610.SF": "unsupported"}


# --- memory


@pytest.mark.parametrize("period", ["1m", "1d"])
def test_an_answer_keeps_no_more_than_its_own_bars(market: Market, symbols: list[str], period: str) -> None:
    ask(market, symbols[0], period=period, start="2026-06-01", end="2026-06-30")
    for prepared in (
        ask(market, symbols[0], period=period, count="5"),
        prepare_now(market.query(symbols[0], period=period, count="5")),
    ):
        assert prepared is not None
        for column in (getattr(only(prepared), name) for name in COLUMNS):
            assert len(column) == 5
            assert not isinstance(column.base, np.ndarray)


# --- tags


def test_a_bar_of_the_open_day_that_changes_is_another_answer(market: Market, symbols: list[str]) -> None:
    symbol, close = symbols[0], midnight(date(2026, 6, 30)) + 900 * MINUTE
    market.at("2026-06-30", 15, 10)
    volume = 100

    def today(bars: Bars) -> Bars:
        if day_of(int(bars.series[symbol].time[-1])) != date(2026, 6, 30):
            return bars
        bar = Bar(
            symbol=symbol, period=Period.D1, time=close, open=10.0, high=11.0, low=9.0, close=10.0, volume=volume, source="x"
        )
        return Bars({symbol: from_bars([bar])})

    market.terminal.change = today
    query = {"period": "1d", "start": "2026-06-29", "end": "2026-06-30"}
    first = ask(market, symbol, **query)
    volume = 250
    tiers()._forming.remove_if(lambda key: True)
    second = ask(market, symbol, **query)
    assert (int(only(first).volume[-1]), int(only(second).volume[-1])) == (100, 250)
    assert first.etag != second.etag


@pytest.mark.parametrize(("period", "later"), [("1d", (16, 30)), ("1m", (16, 30)), ("1h", (16, 30)), ("1w", (23, 59))])
def test_an_end_that_moves_on_past_no_bar_makes_no_other_answer(
    market: Market, symbols: list[str], period: str, later: tuple[int, int]
) -> None:
    query = market.query(symbols[0], period=period, count="5")
    first = prepare(cursor.fixed(query, market.now), deadline_seconds=20, request_id="r")
    market.at("2026-06-30", *later)
    second = prepare(cursor.fixed(query, market.now), deadline_seconds=20, request_id="r")
    assert only(first).equals(only(second))
    assert first.etag == second.etag


@pytest.mark.parametrize(
    ("period", "ends"),
    [
        ("1m", ("2026-06-26T10:00", "2026-06-26T10:01")),
        ("1h", ("2026-06-26T10:29", "2026-06-26T10:30")),
        ("1d", ("2026-06-26T14:59", "2026-06-26T15:00")),
        ("1w", ("2026-06-26T14:59", "2026-06-26T15:00")),
    ],
)
def test_an_end_that_moves_on_past_a_bar_makes_another_answer(
    market: Market, symbols: list[str], period: str, ends: tuple[str, str]
) -> None:
    first, second = (ask(market, symbols[0], period=period, start="2026-06-08", end=end) for end in ends)
    assert len(only(second)) == len(only(first)) + 1
    assert first.etag != second.etag


def test_a_bar_that_time_alone_completes_makes_another_answer(market: Market, symbols: list[str]) -> None:
    """Without a trade in its last minute a bar is given some seconds after its end, from the same minutes."""
    noon = midnight(date(2026, 6, 30)) + 605 * MINUTE
    market.terminal.change = without(between(noon - 2 * MINUTE, noon + 5 * MINUTE))
    told = []
    for late in (1_000, 9_000):
        market.set(noon + late)
        told.append(ask(market, symbols[0], period="5m", start="2026-06-30"))
    assert len(only(told[1])) == len(only(told[0])) + 1
    assert told[0].etag != told[1].etag


# --- how far back a count goes


def test_a_count_of_what_was_delisted_is_of_its_last_days(market: Market, symbols: list[str]) -> None:
    gone, alive = symbols[0], symbols[1]
    Instrument.objects.create(symbol=gone, source="simulated", delisted=date(2025, 6, 30), refreshed_at=timezone.now())
    for period, count in (("1d", 5), ("1h", 8), ("1w", 3)):
        told = dict(ask(market, gone, alive, period=period, count=str(count)).parts())
        assert [len(told[symbol]) for symbol in (gone, alive)] == [count, count], period
        assert days(told[gone])[-1] == date(2025, 6, 30)
        assert days(told[alive])[-1] == date(2026, 6, 30)
    assert not any(gone in names and last > date(2025, 6, 30) for names, _, _, last in market.terminal.asked)


def test_what_was_delisted_is_answered_while_the_terminal_is_away(market: Market, symbols: list[str]) -> None:
    gone, alive = symbols[0], symbols[1]
    Instrument.objects.create(symbol=gone, source="simulated", delisted=date(2025, 6, 30), refreshed_at=timezone.now())
    ask(market, gone, period="1d", count="5")
    market.terminal.down = True
    told = ask(market, gone, alive, period="1d", count="5")
    assert told.missing == {alive: "source_unavailable"}
    assert [(symbol, len(series)) for symbol, series in told.parts()] == [(gone, 5)]


def test_a_running_week_is_said_whatever_was_delisted_before_it(market: Market, symbols: list[str]) -> None:
    Instrument.objects.create(symbol=symbols[0], source="simulated", delisted=date(2025, 6, 30), refreshed_at=timezone.now())
    told = ask(market, *symbols[:2], period="1w", count="3")
    assert told.forming_from == midnight(date(2026, 6, 29))


def test_a_count_goes_back_over_a_halt_of_a_year(market: Market, symbols: list[str]) -> None:
    since = midnight(date(2025, 7, 1))
    market.terminal.change = without(between(since, midnight(date(2026, 7, 1))))
    assert days(only(ask(market, symbols[0], period="1d", count="3"))) == list(
        CHINA.between(date(2025, 6, 26), date(2025, 6, 30))
    )


def test_a_count_ends_where_an_instrument_was_listed(market: Market, symbols: list[str]) -> None:
    Instrument.objects.create(symbol=symbols[0], source="simulated", listed=date(2026, 6, 1), refreshed_at=timezone.now())
    told = ask(market, symbols[0], period="1d", count="60")
    assert (days(only(told))[0], told.missing) == (date(2026, 6, 1), {})
    assert min(first for _, _, first, _ in market.terminal.asked) == date(2026, 6, 1)
    assert len(market.terminal.asked) == 1


# --- where the days end


def test_nothing_is_fetched_of_the_day_after_as_of(market: Market, symbols: list[str]) -> None:
    market.at("2026-06-30", 10)
    for period in ("1d", "1m"):
        market.terminal.asked.clear()
        told = ask(market, symbols[0], period=period, start="2026-06-26", adjust="front", as_of="2026-06-29")
        assert days(only(told)) == [date(2026, 6, 26), date(2026, 6, 29)]
        assert {last for *_, last in market.terminal.asked} == {date(2026, 6, 29)}
        assert told.closed


@pytest.mark.parametrize("adjust", ["none", "front"])
def test_after_the_calendar_s_end_it_says_so_and_gives_what_there_is_up_to_it(
    market: Market, symbols: list[str], adjust: str
) -> None:
    market.at("2027-01-11")
    for parameters in ({"count": "3"}, {"start": "2026-12-01"}):
        for query in (market.query(*symbols, period="1d", adjust=adjust, **parameters),):
            assert prepare_now(query) is None
            for words in (query, cursor.fixed(query, market.now)):
                with pytest.raises(ArgusError) as refused:
                    prepare(words, deadline_seconds=20, request_id="r")
                assert (refused.value.problem, refused.value.params["parameter"]) == (OUTSIDE_CALENDAR, "end")
                assert refused.value.params["last"] == "2026-12-31"
                assert "trading dates" in str(refused.value.detail)
                assert "end=2026-12-31" in str(refused.value.detail)
    last = ask(market, symbols[0], period="1d", count="3", end="2026-12-31", adjust=adjust)
    assert days(only(last)) == [date(2026, 12, 29), date(2026, 12, 30), date(2026, 12, 31)]


@pytest.mark.parametrize(
    ("period", "ends", "forming"), [("1w", date(2026, 6, 24), date(2026, 6, 22)), ("1mon", date(2026, 6, 24), date(2026, 6, 1))]
)
def test_what_the_calendar_s_end_cuts_off_goes_on(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch, period: str, ends: date, forming: date
) -> None:
    short = TradingCalendar(CHINA.first, ends, CHINA.between(CHINA.first, ends))
    monkeypatch.setattr(service, "calendar_of", lambda market: short)
    market.at(ends.isoformat())
    told = ask(market, symbols[0], period=period, start="2026-05-04", end=ends.isoformat())
    assert (told.forming_from, told.closed) == (midnight(forming), False)
    assert days(only(told))[-1] == ends


def test_a_month_that_ends_with_the_calendar_is_over(market: Market, symbols: list[str]) -> None:
    market.at("2026-12-31")
    month = ask(market, symbols[0], period="1mon", start="2026-12-01", end="2026-12-31")
    assert (month.forming_from, month.closed) == (None, True)
    week = ask(market, symbols[0], period="1w", start="2026-12-21", end="2026-12-31")
    assert (week.forming_from, week.closed) == (midnight(date(2026, 12, 28)), False), "Friday may be a trading day"

"""Bars for a query: what is fetched, what is kept, what an answer says when something cannot be had."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from argus.config import config
from argus.errors import DEADLINE, SOURCE_UNAVAILABLE, TOO_MUCH_DATA, ArgusError
from marketdata.cache.tiers import Tier, Tiers, forget, tiers
from marketdata.calendar import CHINA, day_of, midnight
from marketdata.history import dividends, loader, service
from marketdata.history.service import Prepared, prepare, prepare_now
from marketdata.models import Dividends, Instrument
from marketdata.series import Series
from marketdata.sources.base import Bars, SourceTimeout
from marketdata.types import Dividend, Period
from tests.history.conftest import MINUTE, Market

pytestmark = [pytest.mark.django_db(transaction=True)]


def ask(market: Market, *symbols: str, seconds: float = 20, **parameters: Any) -> Prepared:
    return prepare(market.query(*symbols, **parameters), deadline_seconds=seconds, request_id="r1")


def only(prepared: Prepared) -> Series:
    ((_, series),) = prepared.parts()
    return series


def test_only_the_days_that_are_not_here_are_fetched(market: Market, symbols: list[str]) -> None:
    symbol = symbols[0]
    first = ask(market, symbol, period="1d", start="2026-03-02", end="2026-03-31")
    assert first.tier_of == {symbol: Tier.TERMINAL}
    assert [(a, b) for _, _, a, b in market.terminal.asked] == [(date(2026, 3, 2), date(2026, 3, 31))]
    again = ask(market, symbol, period="1d", start="2026-03-02", end="2026-03-31")
    assert again.tier_of == {symbol: Tier.L1}
    assert len(market.terminal.asked) == 1
    ask(market, symbol, period="1d", start="2026-02-24", end="2026-04-10")
    assert sorted((a, b) for _, _, a, b in market.terminal.asked[1:]) == [
        (date(2026, 2, 24), date(2026, 2, 27)),
        (date(2026, 4, 1), date(2026, 4, 10)),
    ]
    assert only(again).equals(only(first))
    assert (first.etag == again.etag, again.closed, again.stale, again.missing) == (True, True, False, {})


def test_minutes_are_fetched_month_by_month_and_longer_bars_are_made_of_them(market: Market, symbols: list[str]) -> None:
    symbol = symbols[1]
    minutes = only(ask(market, symbol, period="1m", start="2026-04-27", end="2026-05-08"))
    assert [(a, b) for _, _, a, b in market.terminal.asked] == [
        (date(2026, 5, 6), date(2026, 5, 8)),
        (date(2026, 4, 27), date(2026, 4, 30)),
    ]
    hours = only(ask(market, symbol, period="1h", start="2026-04-27", end="2026-05-08"))
    assert len(market.terminal.asked) == 2
    assert len(hours) == 7 * 4
    assert int(hours.volume.sum()) == int(minutes.volume.sum())


def test_a_count_is_the_last_bars_up_to_now(market: Market, symbols: list[str]) -> None:
    for period, count in (("1m", 20), ("5m", 60), ("1d", 250), ("1w", 30), ("1mon", 6)):
        series = only(ask(market, symbols[2], period=period, count=str(count)))
        assert len(series) == count, period
        assert day_of(int(series.time[-1])) == date(2026, 6, 30)


def test_the_open_day_gives_the_bars_that_have_ended_and_is_asked_for_again(market: Market, symbols: list[str]) -> None:
    market.at("2026-06-30", 10, 3)
    base = midnight(date(2026, 6, 30))
    answer = ask(market, symbols[0], period="1m", count="5")
    told = market.terminal.fetch_bars([symbols[0]], Period.M1, start=base, end=base + 86_400_000, timeout=20)
    assert only(answer).equals(told.series[symbols[0]].last(5))
    assert base + 600 * MINUTE < only(answer).time[-1] <= base + 603 * MINUTE
    assert not answer.closed
    fives = only(ask(market, symbols[0], period="5m", count="3"))
    assert fives.time[-1] == base + 600 * MINUTE, "10:05 has not ended"
    assert day_of(int(only(ask(market, symbols[0], period="1d", count="3")).time[-1])) == date(2026, 6, 29)
    asked = len(market.terminal.asked)
    assert prepare_now(market.query(symbols[0], period="1m", count="5")) is not None
    assert len(market.terminal.asked) == asked


def test_a_running_week_is_made_of_its_closed_days_and_said_to_go_on(market: Market, symbols: list[str]) -> None:
    market.at("2026-07-01", 8, 0)
    answer = ask(market, symbols[0], period="1w", count="4")
    series = only(answer)
    assert day_of(int(series.time[-1])) == date(2026, 6, 30)
    assert answer.forming_from == midnight(date(2026, 6, 29))
    assert series.time[-2] < answer.forming_from <= series.time[-1]
    past = ask(market, symbols[0], period="1w", start="2026-06-01", end="2026-06-19")
    assert (past.forming_from, past.closed, len(only(past))) == (None, True, 3)


def test_what_is_in_memory_is_answered_without_waiting(market: Market, symbols: list[str]) -> None:
    query = market.query(*symbols[:3], period="1d", start="2026-05-06", end="2026-06-30", adjust="front")
    assert prepare_now(query) is None
    waited = prepare(query, deadline_seconds=20, request_id="r")
    at_once = prepare_now(query)
    assert at_once is not None
    assert at_once.etag == waited.etag
    assert [symbol for symbol, _ in at_once.parts()] == [symbol for symbol, _ in waited.parts()]


def test_many_who_ask_for_the_same_ask_the_terminal_once(market: Market, symbols: list[str]) -> None:
    market.terminal.hold.clear()
    answers: list[Prepared] = []
    questions = [(symbols[5],), (symbols[5], symbols[6]), (symbols[5],), (symbols[6],)]

    def one(words: tuple[str, ...]) -> None:
        answers.append(ask(market, *words, period="1d", start="2026-06-01", end="2026-06-30"))

    threads = [threading.Thread(target=one, args=(words,)) for words in questions]
    threads[0].start()
    assert market.terminal.fetching.wait(20)
    for thread in threads[1:]:
        thread.start()
    market.terminal.hold.set()
    for thread in threads:
        thread.join(20)
    fetched = [symbol for words, *_ in market.terminal.asked for symbol in words]
    assert sorted(fetched) == sorted([symbols[5], symbols[6]])
    assert len(answers) == 4


def test_a_terminal_that_is_away_leaves_what_is_here_and_says_that_it_is_old(market: Market, symbols: list[str]) -> None:
    market.at("2026-06-29")
    ask(market, symbols[0], period="1d", count="10")
    market.at("2026-06-30")
    market.terminal.down = True
    old = ask(market, symbols[0], period="1d", count="10")
    assert (old.stale, old.missing) == (True, {symbols[0]: "source_unavailable"})
    assert day_of(int(only(old).time[-1])) == date(2026, 6, 29)
    with pytest.raises(ArgusError) as refused:
        ask(market, symbols[1], period="1d", count="10")
    assert refused.value.problem is SOURCE_UNAVAILABLE


def test_todays_bars_are_answered_as_they_were_seen_last_and_the_answer_says_how_long_ago(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    market.at("2026-06-30", 10, 30)
    fresh = ask(market, symbols[0], period="1m", start="2026-06-29")
    assert (fresh.stale, fresh.age) == (False, None)
    tiers()._forming._clock = lambda: time.monotonic() + 120
    later = time.time() + 120
    monkeypatch.setattr(service.time, "time", lambda: later)
    market.terminal.down = True
    market.at("2026-06-30", 11, 15)
    old = ask(market, symbols[0], symbols[1], period="1m", start="2026-06-29")
    assert (old.stale, old.closed, old.missing) == (True, False, dict.fromkeys(symbols[:2], "source_unavailable"))
    assert old.age == pytest.approx(120, abs=10)
    assert only(old).time.tolist() == only(fresh).time.tolist()
    market.terminal.down = False
    healed = ask(market, symbols[0], period="1m", start="2026-06-29")
    assert (healed.stale, healed.age) == (False, None)
    assert len(only(healed)) > len(only(old))


def test_a_deadline_is_kept(market: Market, symbols: list[str]) -> None:
    market.terminal.hold.clear()
    began = time.monotonic()
    with pytest.raises(ArgusError) as refused:
        ask(market, symbols[0], period="1d", count="10", seconds=0.1)
    assert refused.value.problem is DEADLINE
    assert time.monotonic() - began < 5


def test_bars_that_a_terminal_filled_up_are_refused_and_asked_for_again(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    symbol, bad = symbols[0], midnight(date(2026, 6, 10))

    def zeros(bars: Bars) -> Bars:
        series = bars.series[symbol]
        hole = (series.time > bad) & (series.time < bad + 86_400_000)
        columns = {name: np.where(hole, 0.0, getattr(series, name)) for name in ("open", "high", "low", "close")}
        return Bars({symbol: series.replace(**columns)})

    market.terminal.change = zeros
    answer = ask(market, symbol, period="1m", start="2026-06-08", end="2026-06-12")
    assert date(2026, 6, 10) not in {day_of(stamp) for stamp in only(answer).time.tolist()}
    assert not answer.closed
    monkeypatch.setattr(loader, "SECOND_LOOK", 0.0)
    forget_refusals()
    ask(market, symbol, period="1m", start="2026-06-08", end="2026-06-12")
    assert [(a, b) for _, _, a, b in market.terminal.asked[1:]] == [(date(2026, 6, 10), date(2026, 6, 10))]
    market.terminal.change = None
    forget_refusals()
    whole = ask(market, symbol, period="1m", start="2026-06-08", end="2026-06-12")
    assert date(2026, 6, 10) in {day_of(stamp) for stamp in only(whole).time.tolist()}
    assert whole.closed


def forget_refusals() -> None:
    """As if the time had passed for which the terminal is not asked again."""
    tiers()._nothing.remove_if(lambda key: True)


def test_a_day_without_bars_is_believed_when_it_is_said_twice(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "SECOND_LOOK", 0.0)
    symbol = symbols[0]
    market.terminal.change = lambda bars: Bars({})
    first = ask(market, symbol, period="1d", start="2026-06-08", end="2026-06-12")
    assert (first.missing, first.closed, list(first.parts())) == ({symbol: "no_bars"}, False, [])
    ask(market, symbol, period="1d", start="2026-06-08", end="2026-06-12")
    assert len(market.terminal.asked) == 1, "what it had nothing of is not asked for again at once"
    forget_refusals()
    ask(market, symbol, period="1d", start="2026-06-08", end="2026-06-12")
    forget_refusals()
    assert ask(market, symbol, period="1d", start="2026-06-08", end="2026-06-12").closed
    assert len(market.terminal.asked) == 2


def test_prices_are_adjusted_before_they_are_aggregated_and_the_answer_says_how(market: Market, symbols: list[str]) -> None:
    plain = ask(market, *symbols, period="1d", start="2025-06-02", end="2026-06-30")
    front = ask(market, *symbols, period="1d", start="2025-06-02", end="2026-06-30", adjust="front_ratio")
    assert front.adjustment is not None
    assert front.adjustment.as_of == date(2026, 6, 30)
    assert "reference price" in front.adjustment.algorithm
    moved = {symbol for symbol, factors in front.adjustment.factors.items() if factors.rows}
    assert moved
    before, after = dict(plain.parts()), dict(front.parts())
    assert {s for s in before if not np.array_equal(before[s].close, after[s].close)} <= moved
    assert not front.closed
    fixed = ask(market, *symbols, period="1d", start="2025-06-02", end="2026-06-19", adjust="front_ratio", as_of="2026-06-26")
    assert fixed.closed
    assert market.terminal.asked_dividends == 1
    assert Dividends.objects.count() == len(symbols)


def test_dividends_that_cannot_be_asked_for_again_are_used_and_called_stale(market: Market, symbols: list[str]) -> None:
    query = {"period": "1d", "start": "2026-06-01", "end": "2026-06-29", "adjust": "back"}
    market.at("2026-06-29")
    ask(market, symbols[0], **query)
    market.at("2026-06-30")
    market.terminal.down = True
    answer = ask(market, symbols[0], **query)
    assert answer.adjustment is not None
    assert answer.adjustment.stale == (symbols[0],)
    assert not answer.closed


def test_a_large_answer_is_read_symbol_by_symbol(market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    query = market.query(*symbols, period="1d", start="2026-01-05", end="2026-06-30")
    held = prepare(query, deadline_seconds=20, request_id="r")
    monkeypatch.setattr(service, "HELD_ROWS", 10)
    streamed = prepare(query, deadline_seconds=20, request_id="r")
    assert (held.rows is None, streamed.rows, streamed.etag) == (False, None, held.etag)
    for (symbol, one), (other, two) in zip(held.parts(), streamed.parts(), strict=True):
        assert symbol == other
        assert one.equals(two)


def new_process() -> Tiers:
    """The tiers of a process that has just begun, over the same files."""
    forget()
    return tiers()


def test_a_large_answer_reads_its_files_once_and_leaves_memory_to_others(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "HELD_ROWS", 10)
    query = market.query(*symbols, period="1d", start="2026-01-05", end="2026-06-30")
    fetched = prepare(query, deadline_seconds=20, request_id="r")
    fresh = new_process()
    prepared = prepare(query, deadline_seconds=20, request_id="r")
    assert (prepared.tier_of, prepared.closed, prepared.etag) == (dict.fromkeys(symbols, Tier.L3), True, fetched.etag)
    assert fresh.stats().tiers["l3"].events.hits == 0, "what the files cover stands at their ends"
    assert [symbol for symbol, _ in prepared.parts()] == symbols
    assert (fresh.stats().tiers["l3"].events.hits, len(fresh.memory)) == (len(symbols), 0)


@pytest.mark.parametrize("held", [300_000, 10])
def test_a_damaged_file_is_put_away_counted_and_fetched_again(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held: int
) -> None:
    monkeypatch.setattr(service, "HELD_ROWS", held)
    query = market.query(*symbols[:3], period="1d", start="2026-01-05", end="2026-06-30")
    told = dict(prepare(query, deadline_seconds=20, request_id="r").parts())
    (path,) = tmp_path.rglob(f"{symbols[1]}.parquet")
    damage(path)
    fresh = new_process()
    asked = len(market.terminal.asked)
    for symbol, series in prepare(query, deadline_seconds=20, request_id="r").parts():
        assert series.equals(told.pop(symbol))
    assert told == {}
    assert [words for words, *_ in market.terminal.asked[asked:]] == [(symbols[1],)]
    assert fresh.stats().tiers["l3"].events.corrupt == 1
    assert [aside.name.rpartition(".")[0] for aside in (tmp_path / "archive" / "corrupt").iterdir()] == [
        f"{config.market}~1d~{symbols[1]}.parquet"
    ]
    new_process()
    assert prepare(query, deadline_seconds=20, request_id="r").tier_of == dict.fromkeys(symbols[:3], Tier.L3)


def test_a_large_answer_that_cannot_be_finished_says_so(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(service, "HELD_ROWS", 10)
    query = market.query(*symbols[:3], period="1d", start="2026-01-05", end="2026-06-30")
    prepare(query, deadline_seconds=20, request_id="r")
    (path,) = tmp_path.rglob(f"{symbols[1]}.parquet")
    damage(path)
    new_process()
    market.terminal.down = True
    parts = prepare(query, deadline_seconds=20, request_id="r").parts()
    assert next(parts)[0] == symbols[0]
    with pytest.raises(ArgusError) as refused:
        next(parts)
    assert refused.value.problem is SOURCE_UNAVAILABLE


def test_all_that_a_large_answer_fetches_again_has_one_deadline(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(service, "HELD_ROWS", 10)
    query = market.query(*symbols, period="1d", start="2026-01-05", end="2026-06-30")
    prepare(query, deadline_seconds=20, request_id="r")
    for symbol in symbols:
        (path,) = tmp_path.rglob(f"{symbol}.parquet")
        damage(path)
    new_process()
    monkeypatch.setitem(config.__dict__, "fetch_timeout", 1.0)

    def slowly(bars: Bars) -> Bars:
        time.sleep(0.2)
        return bars

    market.terminal.change = slowly
    with pytest.raises(ArgusError) as refused:
        list(prepare(query, deadline_seconds=20, request_id="r").parts())
    assert refused.value.problem is DEADLINE


def damage(path: Path) -> None:
    """Change a byte of the first page: the file's end, which says what it covers, stays as it was."""
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(bytes(data))


def test_more_than_one_request_may_hold_is_refused_with_what_would_do(market: Market) -> None:
    many = [f"60{number:04d}.SH" for number in range(3000)]
    with pytest.raises(ArgusError) as refused:
        ask(market, *many, period="1m", start="2026-01-05", end="2026-06-30")
    assert refused.value.problem is TOO_MUCH_DATA
    assert refused.value.params["parameter"] == "symbols"


def test_days_between_are_those_of_the_calendar(market: Market, symbols: list[str]) -> None:
    series = only(ask(market, symbols[3], period="1d", start="2026-01-01", end="2026-06-30"))
    days = {day_of(stamp) for stamp in series.time.tolist()}
    assert days <= set(CHINA.between(date(2026, 1, 1), date(2026, 6, 30)))


@pytest.mark.parametrize("method", ["front_ratio", "back_ratio"])
@pytest.mark.parametrize("period", ["5m", "1d"])
def test_ratios_that_the_source_does_not_give_are_those_of_the_last_closes(
    market: Market, symbols: list[str], method: str, period: str
) -> None:
    market.at("2026-07-31")
    query = {"period": period, "start": "2026-07-01", "end": "2026-07-10", "adjust": method}
    told = ask(market, *symbols[:10], **query)
    market.terminal.without_ratios = True
    dividends.memory.clear()
    Dividends.objects.all().delete()
    assert prepare_now(market.query(*symbols[:10], **query)) is None
    computed = ask(market, *symbols[:10], **query)
    assert computed.missing == {}
    assert any(factors.rows for factors in computed.adjustment.factors.values())  # type: ignore[union-attr]
    for (symbol, one), (other, two) in zip(told.parts(), computed.parts(), strict=True):
        assert symbol == other
        np.testing.assert_allclose(one.close, two.close, atol=1e-6)
    at_once = prepare_now(market.query(*symbols[:10], **query))
    assert at_once is not None
    assert at_once.etag == computed.etag


def test_a_ratio_that_cannot_be_had_is_said_with_the_reason(market: Market, symbols: list[str]) -> None:
    market.terminal.without_ratios = True
    market.at("2026-07-31")
    query = {"period": "5m", "start": "2026-05-06", "end": "2026-05-08"}
    ask(market, symbols[0], **query)
    market.terminal.fetch_dividends(symbols[:1], timeout=5)
    dividends.known(symbols[:1], market.now, deadline=time.monotonic() + 10)
    market.terminal.down = True
    answer = ask(market, symbols[0], adjust="front_ratio", **query)
    assert (answer.missing, list(answer.parts())) == ({symbols[0]: "source_unavailable"}, [])


def test_what_came_before_the_deadline_is_kept_and_the_next_request_gets_further(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BATCH", 10)
    asked = market.query(*symbols, period="1d", start="2026-06-01", end="2026-06-30")
    # The last symbols of a market are here already; the terminal then answers two of its calls and no more.
    ask(market, *symbols[-2:], period="1d", start="2026-06-01", end="2026-06-30")
    begun = len(market.terminal.asked)

    def stops(bars: Bars) -> Bars:
        if len(market.terminal.asked) == begun + 2:
            market.terminal.hold.clear()
        return bars

    market.terminal.change = stops
    part = prepare(asked, deadline_seconds=2, request_id="r")
    here = {symbol for symbol, _ in part.parts()}
    assert len(here) >= 12
    assert set(symbols[-2:]) <= here, "what is here is given although something else was late"
    assert part.missing == dict.fromkeys((symbol for symbol in symbols if symbol not in here), "deadline")
    market.terminal.change = None
    market.terminal.hold.set()
    fetched = len(market.terminal.asked)
    whole = prepare(asked, deadline_seconds=20, request_id="r")
    assert (whole.missing, len(list(whole.parts()))) == ({}, len(symbols))
    assert here.isdisjoint(symbol for words, *_ in market.terminal.asked[fetched:] for symbol in words)


def test_days_before_the_listing_are_known_without_asking(market: Market, symbols: list[str]) -> None:
    symbol = symbols[0]
    Instrument.objects.create(
        symbol=symbol, market="SZ", source="simulated", listed=date(2026, 6, 8), refreshed_at=timezone.now()
    )
    before = ask(market, symbol, period="1d", start="2026-03-02", end="2026-03-31")
    assert (before.missing, before.closed, market.terminal.asked) == ({symbol: "no_bars"}, True, [])
    ask(market, symbol, period="1m", start="2026-06-01", end="2026-06-12")
    assert [(a, b) for _, _, a, b in market.terminal.asked] == [(date(2026, 6, 8), date(2026, 6, 12))]


def test_what_the_terminal_has_nothing_of_is_not_asked_for_again_at_once(market: Market, symbols: list[str]) -> None:
    market.terminal.change = lambda bars: Bars({})
    for _ in range(3):
        answer = ask(market, *symbols[:2], period="1d", start="2026-06-08", end="2026-06-12")
        assert answer.missing == dict.fromkeys(symbols[:2], "no_bars")
    assert len(market.terminal.asked) == 1
    assert prepare_now(market.query(*symbols[:2], period="1d", start="2026-06-08", end="2026-06-12")) is not None


# --- adjustment


def paid_once(market: Market, symbol: str) -> date:
    """The first ex-date of a symbol whose terminal gives no ratios."""
    market.terminal.without_ratios = True
    return date.fromisoformat(market.terminal.fetch_dividends([symbol], timeout=5)[symbol][0].ex_date)


def ratios_of(prepared: Prepared) -> list[float | None]:
    assert prepared.adjustment is not None
    return [row.ratio for factors in prepared.adjustment.factors.values() for row in factors.rows]


@pytest.mark.parametrize("period", ["5m", "1d"])
def test_a_close_of_months_ago_is_not_taken_for_the_last_one(market: Market, symbols: list[str], period: str) -> None:
    symbol, ex_date = symbols[0], paid_once(market, symbols[0])
    query: dict[str, Any] = {
        "period": period,
        "start": str(ex_date + timedelta(days=30)),
        "end": str(ex_date + timedelta(days=40)),
    }
    # Here are days long before the ex-date, days after it, and none around it.
    ask(market, symbol, period="1d", start=str(ex_date - timedelta(days=120)), end=str(ex_date - timedelta(days=110)))
    ask(market, symbol, period="1d", start=query["start"], end=query["end"])
    ask(market, symbol, **query)
    dividends.known([symbol], market.now, deadline=time.monotonic() + 10)
    market.terminal.down = True
    refused = ask(market, symbol, adjust="back_ratio", **query)
    assert (refused.missing, list(refused.parts()), refused.closed) == ({symbol: "source_unavailable"}, [], False)
    assert prepare_now(market.query(symbol, adjust="back_ratio", **query)) is None
    market.terminal.down = False
    computed = ask(market, symbol, adjust="back_ratio", **query)
    market.terminal.without_ratios = False
    dividends.memory.clear()
    Dividends.objects.all().delete()
    told = ask(market, symbol, adjust="back_ratio", **query)
    assert ratios_of(computed)[0] == pytest.approx(ratios_of(told)[0])
    np.testing.assert_allclose(only(computed).close, only(told).close, atol=1e-6)


@pytest.mark.parametrize("method", ["front", "back"])
def test_a_method_without_ratios_shows_those_of_the_source_and_computes_none(
    market: Market, symbols: list[str], method: str
) -> None:
    symbol, ex_date = symbols[0], paid_once(market, symbols[0])
    for around in (ex_date - timedelta(days=120), ex_date + timedelta(days=30)):
        query = {"period": "1d", "start": str(around), "end": str(around + timedelta(days=10)), "adjust": method}
        assert set(ratios_of(ask(market, symbol, **query))) == {None}
    market.terminal.without_ratios = False
    dividends.memory.clear()
    Dividends.objects.all().delete()
    assert all(ratios_of(ask(market, symbol, **query)))


def test_on_the_ex_date_itself_the_last_close_is_that_of_the_day_before(market: Market, symbols: list[str]) -> None:
    symbol, ex_date = symbols[0], paid_once(market, symbols[0])
    market.at(str(ex_date), 11)
    front = ask(market, symbol, period="1d", count="5", adjust="front_ratio")
    plain = ask(market, symbol, period="1d", count="5")
    assert front.missing == {}
    (ratio,) = ratios_of(front)
    assert ratio is not None
    assert ratio > 1
    np.testing.assert_allclose(only(front).close, only(plain).close / ratio, atol=1e-6)


@pytest.mark.parametrize("method", ["front", "back"])
def test_a_reference_price_that_is_not_positive_does_not_matter_to_a_method_without_ratios(
    market: Market, symbols: list[str], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_of_it = Dividend(symbol=symbols[0], ex_date="2026-06-10", cash=1000.0, source="test")
    monkeypatch.setattr(market.terminal, "fetch_dividends", lambda *_, **__: {symbols[0]: (all_of_it,)})
    answer = ask(market, symbols[0], period="1d", start="2026-06-01", end="2026-06-30", adjust=method)
    assert (answer.missing, ratios_of(answer)) == ({}, [None])
    assert len(only(answer))


def test_a_ratio_in_a_market_of_which_nothing_is_known_is_missing_as_its_bars_are(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = "00700.HK"
    paid = Dividend(symbol=unknown, ex_date="2026-06-10", cash=1.0, source="test")
    monkeypatch.setattr(market.terminal, "fetch_dividends", lambda *_, **__: {unknown: (paid,)})
    query = {"period": "5m", "start": "2026-06-22", "end": "2026-06-26", "adjust": "back_ratio"}
    assert ask(market, symbols[0], unknown, **query).missing == {unknown: "unsupported"}


def test_the_factors_of_a_large_answer_stand_in_it_and_the_others_are_counted(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    query = {"period": "1d", "start": "2025-02-05", "end": "2026-06-29", "adjust": "back_ratio"}
    held = ask(market, *symbols, **query).adjustment
    monkeypatch.setattr(service, "HELD_ROWS", 10)
    streamed = ask(market, *symbols, **query).adjustment
    assert held is not None
    assert streamed is not None
    assert list(held.factors) == symbols
    assert (streamed.factors, streamed.more) == (held.factors, 0)
    monkeypatch.setattr(service, "FACTORS_SHOWN", 3)
    some = ask(market, *symbols, **query).adjustment
    assert some is not None
    assert (list(some.factors), some.more) == (symbols[:3], len(symbols) - 3)


class Hangs:
    """A terminal that takes all of the time that it is given, and then has no dividends."""

    def __init__(self) -> None:
        self.given: list[float] = []
        self.asked = threading.Event()

    def __call__(self, symbols: Sequence[str], *, timeout: float) -> Any:
        self.given.append(timeout)
        self.asked.set()
        time.sleep(timeout)
        raise SourceTimeout("the test lets it hang")


def test_a_source_that_hangs_leaves_the_time_to_the_bars_where_there_are_older_dividends(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    market.at("2026-06-29")
    ask(market, *symbols[:2], period="1d", start="2026-06-01", end="2026-06-10", adjust="back")
    market.at("2026-06-30")
    dividends.memory.clear()
    hangs, answers_again = Hangs(), market.terminal.fetch_dividends
    monkeypatch.setattr(market.terminal, "fetch_dividends", hangs)
    query = {"period": "1d", "start": "2026-06-01", "end": "2026-06-26", "adjust": "back"}
    first = ask(market, symbols[0], seconds=3, **query)
    assert first.adjustment is not None
    assert (first.missing, first.adjustment.stale, first.tier_of) == ({}, (symbols[0],), {symbols[0]: Tier.TERMINAL})
    assert max(hangs.given) < 1
    # Just after that it is not asked again, by nobody for whom older rows will do.
    answers: list[Prepared] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(market, *symbols[:2], seconds=3, **query))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [answer.adjustment.stale for answer in answers if answer.adjustment] == [tuple(symbols[:2])] * 3
    assert len(hangs.given) == 1
    monkeypatch.setattr(market.terminal, "fetch_dividends", answers_again)
    monkeypatch.setattr(dividends, "FAILED", 0.0)
    later = ask(market, *symbols[:2], **query).adjustment
    assert later is not None
    assert later.stale == ()


def test_many_who_wait_for_dividends_ask_a_source_that_hangs_once(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    market.at("2026-06-29")
    query = {"period": "1d", "start": "2026-06-01", "end": "2026-06-26", "adjust": "back"}
    ask(market, symbols[0], **query)
    market.at("2026-06-30")
    dividends.memory.clear()
    hangs = Hangs()
    monkeypatch.setattr(market.terminal, "fetch_dividends", hangs)
    found: list[dividends.Known] = []

    def learn(seconds: float) -> None:
        found.append(dividends.known(symbols[:1], market.now, deadline=time.monotonic() + seconds))

    threads = [threading.Thread(target=learn, args=(seconds,)) for seconds in (2, 30, 30)]
    threads[0].start()
    assert hangs.asked.wait(20)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [known.stale for known in found] == [frozenset(symbols[:1])] * 3
    assert len(hangs.given) == 1


def test_dividends_that_were_never_told_are_asked_for_even_after_a_failure(market: Market, symbols: list[str]) -> None:
    query = {"period": "1d", "start": "2026-06-01", "end": "2026-06-26", "adjust": "back"}
    market.terminal.down = True
    with pytest.raises(ArgusError):
        ask(market, symbols[0], **query)
    market.terminal.down = False
    assert ask(market, symbols[0], **query).missing == {}


def test_the_first_bar_of_a_range_is_that_of_a_longer_range(market: Market, symbols: list[str]) -> None:
    """The terminal fills 09:30 up with a price and no volume."""
    symbol = symbols[0]

    def padded(bars: Bars) -> Bars:
        series = bars.series[symbol]
        opening = (series.time + 8 * 60 * MINUTE) % 86_400_000 == 570 * MINUTE
        columns = {name: np.where(opening, 7.77, getattr(series, name)) for name in ("open", "high", "low", "close")}
        return Bars({symbol: series.replace(**columns, volume=np.where(opening, 0, series.volume))})

    market.terminal.change = padded
    both = only(ask(market, symbol, period="5m", start="2026-06-08", end="2026-06-09"))
    alone = only(ask(market, symbol, period="5m", start="2026-06-09", end="2026-06-09"))
    assert alone.equals(both.last(len(alone)))
    assert alone.open[0] != 7.77

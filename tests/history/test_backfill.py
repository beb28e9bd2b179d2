"""Backfills: what they fetch, how they end, and how they go on."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from argus.errors import OUTSIDE_CALENDAR, UNSUPPORTED, ArgusError
from marketdata import universe
from marketdata.cache.tiers import Tier, tiers
from marketdata.history import backfill, fetch, loader
from marketdata.history.fetch import FetchError
from marketdata.history.plan import Chunk
from marketdata.history.service import prepare
from marketdata.models import Backfill
from marketdata.sources.base import Bars, SourceUnavailable
from marketdata.terminals.slots import Priority
from marketdata.types import Period
from marketdata.universe import Universe
from tests.history.conftest import Market

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "SECOND_LOOK", -1.0)
    monkeypatch.setattr(backfill, "PAUSES", (0.01,))


def start(symbols: list[str], **changed: Any) -> Backfill:
    asked = {"period": Period.M1, "first": date(2026, 4, 1), "last": date(2026, 6, 30)} | changed
    return backfill.find(backfill.start(symbols=symbols, **asked).pk)


def test_a_backfill_fetches_month_by_month_and_a_second_one_nothing(market: Market, symbols: list[str]) -> None:
    job = start(symbols[:3])
    assert (job.state, job.chunks_done, job.chunks_total, job.refused) == ("done", job.chunks_total, job.chunks_total, {})
    assert {(first.month, last.month) for _, _, first, last in market.terminal.asked if _} >= {(4, 4), (5, 5), (6, 6)}
    asked = [question for question in market.terminal.asked if question[0]]
    again = start(symbols[:3])
    assert (again.state, again.chunks_total, again.bars) == ("done", 0, 0)
    assert [question for question in market.terminal.asked if question[0]] == asked
    market.terminal.down = True
    query = market.query(*symbols[:3], period="15m", start="2026-04-01", end="2026-06-29")
    assert not prepare(query, deadline_seconds=5, request_id="r").missing


def test_a_backfill_fills_the_files_and_not_the_memory_that_requests_need(market: Market, symbols: list[str]) -> None:
    start(symbols[:3], period=Period.D1)
    assert len(tiers().memory) == 0
    start(symbols[:5], period=Period.D1)
    assert (len(tiers().memory), tiers().stats().lookups) == (0, 0)
    answer = prepare(
        market.query(*symbols[:5], period="1d", start="2026-04-01", end="2026-06-30"), deadline_seconds=5, request_id="r"
    )
    assert set(answer.tier_of.values()) == {Tier.L3}


def test_a_backfill_waits_for_a_terminal_that_is_away_and_goes_on_where_it_was(market: Market, symbols: list[str]) -> None:
    seen: list[int] = []

    def away(bars: Bars) -> Bars:
        seen.append(1)
        market.terminal.down = len(seen) == 2
        return bars

    market.terminal.change = away
    waits: list[float] = []
    sleep = backfill._Run._sleep

    def back(run: Any, seconds: float) -> None:
        waits.append(seconds)
        assert "source_unavailable" in Backfill.objects.get().detail or "test has taken" in Backfill.objects.get().detail
        market.terminal.down = False
        sleep(run, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backfill._Run, "_sleep", back)
        job = start(symbols[:1], last=date(2026, 6, 30))
    assert waits
    assert (job.state, job.detail) == ("done", "")


def test_a_job_whose_worker_has_died_is_taken_again_and_fetches_the_rest(market: Market, symbols: list[str]) -> None:
    start(symbols[:1], first=date(2026, 6, 1))
    asked = len(market.terminal.asked)
    old = timezone.now() - timedelta(seconds=backfill.ABANDONED + 1)
    job = Backfill.objects.create(
        symbols=symbols[:1], period="1m", start=date(2026, 5, 6), end=date(2026, 6, 30), state="running", beat_at=old
    )
    fresh = Backfill.objects.create(
        symbols=symbols[:1], period="1m", start=date(2026, 5, 6), end=date(2026, 6, 30), state="running", beat_at=timezone.now()
    )
    assert backfill.resume_abandoned() == 1
    assert backfill.find(job.pk).state == "done"
    assert backfill.find(fresh.pk).state == "running"
    assert {(first, last) for _, _, first, last in market.terminal.asked[asked:] if _} == {(date(2026, 5, 6), date(2026, 5, 29))}


def test_a_cancelled_job_stops_after_its_chunk_and_can_go_on(market: Market, symbols: list[str]) -> None:
    def cancelling(bars: Bars) -> Bars:
        backfill.cancel(Backfill.objects.get().pk)
        return bars

    market.terminal.change = cancelling
    job = start(symbols[:1])
    assert (job.state, len(market.terminal.asked)) == ("cancelled", 1)
    market.terminal.change = None
    backfill.resume(job.pk)
    job = backfill.find(job.pk)
    assert (job.state, job.finished_at is not None) == ("done", True)


def test_a_worker_that_ends_gives_its_job_back(market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    hand_over = backfill.hand_over
    monkeypatch.setattr(backfill, "hand_over", lambda number: handed.append(number) or handed[1:] or hand_over(number))

    def told_to_end(bars: Bars) -> Bars:
        fetch.ending.set()
        return bars

    market.terminal.change = told_to_end
    job = start(symbols[:1])
    assert (job.state, job.chunks_done, job.chunks_total, job.finished_at) == ("waiting", 1, 3, None)
    assert handed == [job.pk, job.pk], "whoever is there takes it at once"
    fetch.ending.clear()
    market.terminal.change = None
    assert backfill.run(job.pk) == "done"
    job = backfill.find(job.pk)
    assert (job.chunks_done, job.chunks_total) == (3, 3)
    assert sorted(first.month for words, _, first, _ in market.terminal.asked if words) == [4, 5, 6]
    asked = len(market.terminal.asked)
    assert backfill.run(job.pk) == "taken", "a message that comes twice"
    assert len(market.terminal.asked) == asked


def test_while_the_terminal_is_away_a_worker_ends_all_the_same(market: Market, symbols: list[str]) -> None:
    def gone(bars: Bars) -> Bars:
        fetch.ending.set()
        raise SourceUnavailable("gone")

    market.terminal.change = gone
    assert start(symbols[:1]).state == "waiting"


def test_what_was_refused_is_written_down_and_not_stored(market: Market, symbols: list[str]) -> None:
    symbol = symbols[0]

    def zeros(bars: Bars) -> Bars:
        series = bars.series[symbol]
        return Bars(
            {symbol: series.replace(open=series.open * 0, high=series.high * 0, low=series.low * 0, close=series.close * 0)}
        )

    market.terminal.change = zeros
    job = start([symbol], first=date(2026, 6, 1))
    assert (job.state, job.bars) == ("done", 0)
    assert job.refused["zero"] > 4000
    assert job.problems[0]["symbol"] == symbol
    assert "incomplete" in job.detail


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The months whose chunks come too late."""
    months: list[int] = []
    in_time = fetch.bars

    def bars(chunk: Chunk, *, deadline: float, priority: Priority) -> fetch.Fetched:
        assert priority is Priority.BULK
        if chunk.first.month in months:
            raise FetchError("deadline", "no answer within 60 s")
        return in_time(chunk, deadline=deadline, priority=priority)

    monkeypatch.setattr(fetch, "bars", bars)
    return months


def test_a_job_of_which_nothing_came_in_time_has_failed(market: Market, symbols: list[str], late: list[int]) -> None:
    late.extend((5, 6))
    job = start(symbols[:2], first=date(2026, 5, 6))
    assert (job.state, job.bars, backfill.progress(job)["percent"]) == ("failed", 0, 0.0)
    assert job.detail.startswith("deadline")
    assert {problem["reason"] for problem in job.problems} == {"deadline: no answer within 60 s"}
    late.clear()
    backfill.resume(job.pk)
    job = backfill.find(job.pk)
    assert (job.state, job.detail, job.problems) == ("done", "", [])


def test_what_came_too_late_is_asked_for_again_at_the_end_and_told(market: Market, symbols: list[str], late: list[int]) -> None:
    late.append(6)
    job = start(symbols[:2], first=date(2026, 5, 6))
    assert (job.state, job.detail) == ("done", "42 days of symbols stayed incomplete")
    assert (job.chunks_done, job.chunks_total) == (1, 2)
    assert [problem["first"] for problem in job.problems] == ["2026-06-01"]


def test_minutes_of_unknown_hours_are_refused_and_days_are_not(market: Market, symbols: list[str]) -> None:
    with pytest.raises(ArgusError) as refused:
        start(["rb2610.SF", symbols[0]])
    assert (refused.value.problem, refused.value.params["parameter"]) == (UNSUPPORTED, "symbols")
    assert not Backfill.objects.exists()
    assert start([symbols[0]], period=Period.D1).state == "done"
    backfill._check_days("SF", Period.D1, date(2026, 6, 1), date(2026, 6, 30))


def test_what_is_there_is_told_without_reading_its_bars(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(symbols[:2])
    monkeypatch.setattr(tiers().archive, "read_many", None)
    job = start(symbols[:2])
    assert (job.state, job.chunks_total) == ("done", 0)


def test_days_beyond_the_calendar_are_refused_under_the_name_of_their_parameter(market: Market, symbols: list[str]) -> None:
    with pytest.raises(ArgusError) as refused:
        start(symbols[:1], last=date(2027, 1, 4))
    assert (refused.value.problem, refused.value.params["parameter"]) == (OUTSIDE_CALENDAR, "end")


def test_the_command_starts_watches_and_lists(market: Market, symbols: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    universe.set_current(Universe())
    call_command("backfill", "--symbols", symbols[0], "--period", "1d", "--start", "2026-01-05", "--end", "20260630", "--wait")
    assert "done 100 %" in capsys.readouterr().out
    call_command("backfill", "--list")
    assert "1 symbols 1d 2026-01-05 to 2026-06-30" in capsys.readouterr().out

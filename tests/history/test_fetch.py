"""Asking terminals: the next one where one fails, and what is said when none answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest

from argus.config import Config, config
from marketdata import feeds
from marketdata.feeds import Feed
from marketdata.history import fetch, tasks
from marketdata.history.fetch import FetchError
from marketdata.history.plan import Chunk
from marketdata.lease import MemoryLease
from marketdata.publisher import Publisher
from marketdata.sources.base import Unsupported
from marketdata.sources.simulated.clock import ManualClock
from marketdata.types import Period
from tests.history.conftest import Market, Terminal

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def second(market: Market, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A second terminal of the same market; the first is ``market.terminal``."""
    terminal = Terminal(ManualClock(market.now))
    publisher = Publisher(
        feed="main", source="simulated", owner="u", lease=MemoryLease(), send=lambda *_: None, save_snapshot=lambda *_: None
    )
    monkeypatch.setitem(feeds._feeds, "second", Feed(terminal="second", source=terminal, publisher=publisher, config=config))
    monkeypatch.setattr(fetch, "config", Config(terminals=("main", "second")))
    terminal.start()
    terminal.universe(timeout=60)
    yield terminal
    terminal.close()


def june(symbols: list[str]) -> Chunk:
    return Chunk((symbols[0],), Period.D1, date(2026, 6, 1), date(2026, 6, 30))


def bars(chunk: Chunk, seconds: float = 10) -> fetch.Fetched:
    return fetch.bars(chunk, deadline=time.monotonic() + seconds)


def test_the_second_answers_where_the_first_is_down_and_is_asked_first_from_then_on(
    market: Market, symbols: list[str], second: Terminal
) -> None:
    market.terminal.down = True
    assert (bars(june(symbols)).terminal, len(bars(june(symbols)).bars[symbols[0]])) == ("second", 21)
    assert (len(market.terminal.asked), len(second.asked)) == (1, 2)
    market.terminal.down = False
    second.down = True
    assert bars(june(symbols)).terminal == "main"


def test_when_both_fail_both_are_named_with_their_reasons(market: Market, symbols: list[str], second: Terminal) -> None:
    market.terminal.down = True

    def none(bars: Any) -> Any:
        raise Unsupported("no bars of that kind")

    second.change = none
    with pytest.raises(FetchError) as failed:
        bars(june(symbols))
    assert str(failed.value) == "main: the test has taken it down; second: no bars of that kind"
    assert failed.value.reason == "source_unavailable", "the one that may come back"


def test_one_that_is_asked_no_more_for_want_of_time_is_named_too(
    market: Market, symbols: list[str], second: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(terminal: str, *_: Any) -> Any:
        time.sleep(0.3)
        return {"failed": "timeout", "detail": f"{terminal} took too long"}

    monkeypatch.setattr(tasks, "_answer", slow)
    with pytest.raises(FetchError) as failed:
        bars(june(symbols), 0.4)
    assert str(failed.value) == "main: main took too long; no time was left to ask second"
    assert failed.value.reason == "deadline"


def test_one_that_fails_again_and_again_is_tried_less_and_less_often(
    market: Market, symbols: list[str], second: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every tenth second a request would wait for a worker that is gone."""
    now = [1000.0]
    monkeypatch.setattr(fetch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    market.terminal.down = True
    tried: list[float] = []
    for _ in range(100):
        before = len(market.terminal.asked)
        assert fetch.bars(june(symbols), deadline=now[0] + 10).terminal == "second"
        tried += [now[0] - 1000] * (len(market.terminal.asked) - before)
        now[0] += 10
    assert tried == [0, 10, 30, 70, 150, 310, 610, 910]
    market.terminal.down = False
    now[0] += fetch.AVOIDED_AT_MOST
    assert fetch.bars(june(symbols), deadline=now[0] + 10).terminal == "main"
    assert fetch.choose() == ["main", "second"]

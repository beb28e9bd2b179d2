"""Asking terminals: the next one where one fails, several for many symbols, and what is said when none answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from argus.config import config
from marketdata import feeds
from marketdata.feed import Feed
from marketdata.history import fetch, tasks
from marketdata.history.fetch import FetchError
from marketdata.history.plan import Chunk
from marketdata.history.service import prepare
from marketdata.lease import MemoryLease
from marketdata.publisher import Publisher
from marketdata.sources.base import Bars, Capability, Unsupported
from marketdata.sources.simulated.clock import ManualClock
from marketdata.terminals import gate, roster
from marketdata.terminals.roster import PoolSpec, Roster, TerminalSpec
from marketdata.terminals.slots import Priority
from marketdata.types import Period
from tests.history.conftest import Market, Terminal

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def more(market: Market, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Terminal]]]:
    """Makes further terminals of the same market, in one pool with ``market.terminal``, which is called main."""
    with ExitStack() as undo:

        def make(*names: str) -> list[Terminal]:
            made = [Terminal(ManualClock(market.now)) for _ in names]
            for name, terminal in zip(names, made, strict=True):
                publisher = Publisher(
                    feed="main",
                    source="simulated",
                    owner=name,
                    lease=MemoryLease(),
                    send=lambda *_: None,
                    save_snapshot=lambda *_: None,
                )
                feed = Feed(terminal=name, source=terminal, publisher=publisher, config=config)
                monkeypatch.setitem(feeds._feeds, name, feed)
                terminal.start()
                undo.callback(terminal.close)
                terminal.universe(timeout=60)
            want(monkeypatch, *(TerminalSpec(name, "main") for name in ("main", *names)))
            return made

        yield make


@pytest.fixture
def second(more: Callable[..., list[Terminal]]) -> Terminal:
    """A second terminal."""
    return more("second")[0]


def want(monkeypatch: pytest.MonkeyPatch, *terminals: TerminalSpec, **pool: Any) -> None:
    """Have one pool of these terminals."""
    monkeypatch.setattr(roster, "_current", Roster({"main": PoolSpec("main", terminals=terminals, **pool)}))


def june(symbols: Sequence[str]) -> Chunk:
    return Chunk(tuple(symbols), Period.D1, date(2026, 6, 1), date(2026, 6, 30))


def bars(chunk: Chunk, seconds: float = 10) -> fetch.Fetched:
    return fetch.bars(chunk, deadline=time.monotonic() + seconds)


def test_the_second_answers_where_the_first_is_down_and_is_asked_first_from_then_on(
    market: Market, symbols: list[str], second: Terminal
) -> None:
    market.terminal.down = True
    assert (bars(june(symbols[:1])).terminals, len(bars(june(symbols[:1])).bars[symbols[0]])) == (("second",), 21)
    assert (len(market.terminal.asked), len(second.asked)) == (1, 2)
    market.terminal.down = False
    second.down = True
    assert bars(june(symbols[:1])).terminals == ("main",)


def test_when_both_fail_both_are_named_with_their_reasons(market: Market, symbols: list[str], second: Terminal) -> None:
    market.terminal.down = True

    def none(bars: Any) -> Any:
        raise Unsupported("no bars of that kind")

    second.change = none
    with pytest.raises(FetchError) as failed:
        bars(june(symbols[:1]))
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
        bars(june(symbols[:1]), 0.4)
    assert str(failed.value) == "main: main took too long; second was not asked: no time was left"
    assert failed.value.reason == "deadline"


def test_many_symbols_are_divided_among_the_terminals_and_come_back_as_one_answer(
    market: Market, symbols: list[str], more: Callable[..., list[Terminal]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = bars(june(symbols))
    terminals = [market.terminal, *more("second", "third")]
    market.terminal.asked.clear()
    both = threading.Barrier(2)

    def side_by_side(bars: Bars) -> Bars:
        both.wait(30)
        return Bars(bars.series, {"zero": 1})

    for terminal in terminals:
        terminal.change = side_by_side
    monkeypatch.setattr(fetch, "PART", len(symbols) // 2)
    answer = bars(june(symbols), 40)
    assert list(answer.bars) == list(alone.bars)
    assert all(answer.bars[symbol].equals(alone.bars[symbol]) for symbol in alone.bars)
    assert (answer.refused, answer.now, len(set(answer.terminals))) == ({"zero": 2}, alone.now, 2), "two parts, not three"
    assert sorted(len(asked[0]) for terminal in terminals for asked in terminal.asked) == [len(symbols) // 2] * 2


def test_a_part_whose_terminal_fails_comes_from_the_other(
    market: Market, symbols: list[str], second: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PART", 10)
    second.down = True
    answer = bars(june(symbols))
    assert (set(answer.bars), answer.terminals) == (set(symbols), ("main", "main"))
    given, source = fetch.dividends(symbols, deadline=time.monotonic() + 10)
    assert (set(given) <= set(symbols), bool(given), source) == (True, True, "simulated")
    market.terminal.down = True
    with pytest.raises(FetchError):
        bars(june(symbols))


def test_each_market_is_asked_of_its_own_pool(
    market: Market, symbols: list[str], second: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = {market: next(symbol for symbol in symbols if symbol.endswith(market)) for market in ("SH", "SZ")}
    pools = (
        PoolSpec("main", markets=("SH",), terminals=(TerminalSpec("main", "main"),)),
        PoolSpec("other", markets=("SZ",), terminals=(TerminalSpec("second", "other"),)),
    )
    monkeypatch.setattr(roster, "_current", Roster({pool.name: pool for pool in pools}))
    assert bars(june([of["SH"]])).terminals == ("main",)
    assert bars(june([of["SZ"]])).terminals == ("second",)
    fetch.dividends(list(of.values()), deadline=time.monotonic() + 10)
    assert (market.terminal.asked_dividends, second.asked_dividends) == (1, 1)
    with pytest.raises(FetchError) as failed:
        bars(june(["920002.BJ"]))
    assert failed.value.reason == "unsupported"


def test_one_pool_that_is_away_takes_nothing_from_what_the_others_serve(
    market: Market, symbols: list[str], second: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = {market: next(symbol for symbol in symbols if symbol.endswith(market)) for market in ("SH", "SZ")}
    pools = (
        PoolSpec("main", markets=("SH",), terminals=(TerminalSpec("main", "main"),)),
        PoolSpec("other", markets=("SZ",), terminals=(TerminalSpec("second", "other"),)),
    )
    monkeypatch.setattr(roster, "_current", Roster({pool.name: pool for pool in pools}))
    asked = market.query(of["SZ"], of["SH"], "920002.BJ", period="1d", start="2026-06-01", adjust="front")
    second.down = True
    answer = prepare(asked, deadline_seconds=10, request_id="r")
    assert [symbol for symbol, _ in answer.parts()] == [of["SH"]]
    assert answer.missing == {of["SZ"]: "source_unavailable", "920002.BJ": "unsupported"}
    second.down = False
    answer = prepare(asked, deadline_seconds=10, request_id="r")
    assert answer.missing == {"920002.BJ": "unsupported"}
    assert [symbol for symbol, _ in answer.parts()] == [of["SZ"], of["SH"]]


def test_a_terminal_that_has_enough_to_do_lets_a_task_come_again_and_says_so_when_its_time_is_over(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Priority] = []

    def enter(self: gate.Gate, priority: Priority, *_: Any) -> None:
        refused.append(priority)
        if len(refused) < 3:
            raise gate.NotNow(0.0)
        self._inside[priority] += 1

    monkeypatch.setattr(gate.Gate, "enter", enter)
    fetch.bars(june(symbols[:1]), deadline=time.monotonic() + 10, priority=Priority.BULK)
    assert refused == [Priority.BULK] * 3

    def never(self: gate.Gate, *_: Any) -> None:
        raise gate.NotNow(60.0)

    monkeypatch.setattr(gate.Gate, "enter", never)
    with pytest.raises(FetchError) as failed:
        bars(june(symbols[:1]))
    assert failed.value.reason == "deadline"
    assert "main: it had too much to do" in str(failed.value)
    assert len(market.terminal.asked) == 1


def test_one_that_was_probed_without_a_function_is_not_asked_for_it(
    market: Market, symbols: list[str], second: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = roster.current().terminals
    old = replace(specs["main"], capabilities=frozenset({Capability.QUOTES}))
    want(monkeypatch, old, specs["second"])
    assert {bars(june(symbols[:1])).terminals for _ in range(3)} == {("second",)}
    assert market.terminal.asked == []

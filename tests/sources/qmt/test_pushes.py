"""Pushes over an emulated terminal: shapes, loss and recovery, silence, merging, size."""

from __future__ import annotations

import threading

import pytest

from marketdata.sources.base import Capability, Unsupported
from marketdata.sources.qmt.mailbox import BOUND, Mailbox
from marketdata.sources.qmt.parse import parse_ticks
from marketdata.sources.qmt.pushes import RawTick, _Chunk
from marketdata.types import Parsed, ParseError
from tests.emulator import EmulatedTerminal, market
from tests.sources.conformance import PATIENCE, Collector, eventually
from tests.sources.qmt.conftest import Connect

CODE = "600000.SH"


def times(collector: Collector) -> list[int]:
    return [quote.time for quote in collector.quotes[CODE]]


def moment(step: int) -> int:
    return market.OPENED + 3000 * step


def test_whole_quote_pushes_hold_one_tick_of_a_symbol(connected: Connect, terminal: EmulatedTerminal) -> None:
    source, pushed = connected(terminal.address), Collector()
    source.subscribe([CODE], pushed)
    eventually(lambda: moment(0) in times(pushed))
    terminal.advance()
    eventually(lambda: times(pushed)[-1] == moment(1))
    assert [call for call in terminal.called("subscribe_quote") if "tick" in call["arguments"]] == []


def test_single_pushes_hold_a_list_of_ticks(connected: Connect, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(missing=["subscribe_whole_quote"])
    source, pushed = connected(terminal.address), Collector()
    assert Capability.PUSH in source.capabilities()
    source.subscribe([CODE, "000001.SZ"], pushed)
    eventually(lambda: moment(0) in times(pushed), what="the current state, which single subscriptions do not send")
    eventually(lambda: len(terminal.stats()["subscriptions"]) == 2)
    terminal.advance()
    eventually(lambda: times(pushed)[-1] == moment(1))


def test_a_terminal_that_cannot_push_says_so(connected: Connect, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(missing=["subscribe_whole_quote", "subscribe_quote"])
    source = connected(terminal.address)
    assert Capability.PUSH not in source.capabilities()
    with pytest.raises(Unsupported):
        source.subscribe(None, Collector())
    assert source.fetch_quotes([CODE], timeout=PATIENCE).quotes


def test_callbacks_raise_nothing_whatever_comes() -> None:
    """The vendor's wrapper prints and swallows what a callback raises: it must become a ParseError instead."""
    mailbox: Mailbox[RawTick] = Mailbox(BOUND)
    chunk = _Chunk([CODE], mailbox)
    payloads: list[object] = [[1, 2], None, b"\xff", {CODE: None}, {1: {"time": 1}}, {"000001.SZ": []}, {"000002.SZ": [{}, 3]}]
    for datas in payloads:
        chunk.arrived(datas)
    parsed = parse_ticks(mailbox.take(timeout=1), 0)
    assert parsed.quotes == ()
    assert {error.reason for error in parsed.errors} == {"shape", "empty", "symbol"}


def test_an_empty_tick_does_not_hide_the_full_one_that_waits() -> None:
    mailbox: Mailbox[RawTick] = Mailbox(BOUND)
    chunk = _Chunk([CODE], mailbox)
    chunk.arrived({CODE: market.tick(CODE, 1)})
    chunk.arrived({CODE: {}})
    parsed = parse_ticks(mailbox.take(timeout=1), moment(1))
    assert [quote.time for quote in parsed.quotes] == [moment(1)]
    assert [error.reason for error in parsed.errors] == ["empty"]


def test_empty_ticks_of_a_poll_are_parse_errors(connected: Connect, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(empty=["000001.SZ"])
    parsed = connected(terminal.address).fetch_quotes(timeout=PATIENCE)
    assert [(error.symbol, error.reason) for error in parsed.errors] == [("000001.SZ", "empty")]


def test_an_empty_tick_in_a_push_is_a_parse_error(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    errors: list[ParseError] = []
    source.subscribe([CODE], lambda parsed: errors.extend(parsed.errors))
    eventually(lambda: terminal.stats()["subscriptions"])
    terminal.push({CODE: {}})
    eventually(lambda: [error.reason for error in errors] == ["empty"])


def test_subscriptions_lost_with_the_terminal_are_made_again(connected: Connect, terminal: EmulatedTerminal) -> None:
    source, pushed = connected(terminal.address), Collector()
    source.subscribe(None, pushed)
    eventually(lambda: terminal.stats()["subscriptions"])
    child = source.pid
    interruptions = source.status().interruptions
    terminal.restart()
    eventually(lambda: terminal.stats()["subscriptions"], what="subscribed again")
    terminal.advance(5)
    eventually(lambda: times(pushed)[-1] == moment(5))
    assert source.status().interruptions > interruptions
    assert source.pid == child, "a restart of the terminal needs no new process"


def test_subscriptions_outlive_the_child(connected: Connect, terminal: EmulatedTerminal) -> None:
    source, pushed = connected(terminal.address), Collector()
    source.subscribe([CODE], pushed)
    eventually(lambda: terminal.stats()["subscriptions"])
    child = source.pid
    terminal.crash_clients()
    eventually(lambda: source.pid not in (None, child), what="a new child")
    eventually(lambda: terminal.stats()["subscriptions"], what="subscribed again")
    terminal.advance()
    eventually(lambda: times(pushed)[-1] == moment(1))


def test_a_terminal_that_answers_but_pushes_nothing_is_subscribed_again(connected: Connect, terminal: EmulatedTerminal) -> None:
    source, pushed = connected(terminal.address, silence=0.2), Collector()
    source.subscribe(None, pushed)
    eventually(lambda: terminal.stats()["subscriptions"])
    made = len(terminal.called("subscribe_whole_quote"))
    terminal.set_mode(mute=True)
    terminal.advance(3)
    eventually(lambda: len(terminal.called("subscribe_whole_quote")) > made, what="subscribed again")
    eventually(lambda: source.status().interruptions > 0, what="that something may have been missed")
    eventually(lambda: times(pushed)[-1] == moment(3), what="what the pushes had left out")
    connections = len(terminal.called("hello"))

    def another_tick() -> None:
        terminal.advance()

    eventually(lambda: len(terminal.called("hello")) > connections, another_tick, what="connected anew, as it did not help")
    terminal.set_mode(mute=False)
    eventually(lambda: times(pushed)[-1] == moment(terminal.stats()["step"]))


def test_a_quiet_market_is_not_mistaken_for_a_mute_terminal(connected: Connect, terminal: EmulatedTerminal) -> None:
    source, pushed = connected(terminal.address, silence=0.1), Collector()
    source.subscribe(None, pushed)
    eventually(lambda: terminal.stats()["subscriptions"])
    assert source.status().interruptions == 0
    made, looked = len(terminal.called("subscribe_whole_quote")), len(terminal.called("get_full_tick"))
    eventually(lambda: len(terminal.called("get_full_tick")) >= looked + 3, what="three looks at a silent market")
    assert len(terminal.called("subscribe_whole_quote")) == made


def test_all_ticks_of_one_push_are_kept_in_order() -> None:
    mailbox: Mailbox[RawTick] = Mailbox(BOUND)
    chunk = _Chunk([CODE], mailbox)
    chunk.arrived({CODE: [market.tick(CODE, step) for step in (1, 2, 3)]})
    chunk.arrived({CODE: [market.tick(CODE, 4)]})
    parsed = parse_ticks(mailbox.take(timeout=1), moment(4))
    assert [quote.time for quote in parsed.quotes] == [moment(step) for step in (1, 2, 3, 4)]
    assert mailbox.merged == 0


def test_a_mailbox_keeps_all_in_order_up_to_its_bound_and_then_the_newest_of_each() -> None:
    mailbox: Mailbox[int] = Mailbox(bound=4)
    mailbox.put([("a", 1), ("b", 1), ("a", 2)])
    mailbox.put([("c", 1)])
    assert mailbox.take() == [1, 1, 2, 1]
    mailbox.put([("a", 1), ("b", 20), ("a", 2)])
    mailbox.put([("c", 30), ("a", 3)])
    assert (mailbox.take(), mailbox.merged) == ([20, 30, 3], 2)
    mailbox.put((str(n), n) for n in range(50))
    assert mailbox.take() == list(range(50))
    for n in range(1000):
        mailbox.put([(str(n % 10), n)])
    assert len(mailbox._waiting) <= 20
    assert mailbox.take()[-10:] == list(range(990, 1000))


def test_what_a_slow_receiver_has_no_time_for_waits_in_order(connected: Connect, terminal: EmulatedTerminal) -> None:
    source, pushed = connected(terminal.address), Collector()
    blocked, go_on = threading.Event(), threading.Event()

    def slow(parsed: Parsed) -> None:
        blocked.set()
        go_on.wait(PATIENCE)
        pushed(parsed)

    source.subscribe([CODE], slow)
    assert blocked.wait(PATIENCE)
    for _ in range(20):
        terminal.advance()
    go_on.set()
    eventually(lambda: times(pushed)[-1:] == [moment(20)])
    assert list(dict.fromkeys(times(pushed))) == [moment(step) for step in range(21)]
    assert source.status().dropped == 0


def test_a_receiver_that_is_slow_for_long_gets_the_newest_and_the_rest_is_counted(
    connected: Connect, terminal: EmulatedTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketdata.sources.qmt.source.BOUND", 4)
    source = connected(terminal.address)
    received: list[Parsed] = []
    blocked, go_on = threading.Event(), threading.Event()

    def slow(parsed: Parsed) -> None:
        received.append(parsed)
        blocked.set()
        go_on.wait(PATIENCE)

    source.subscribe([CODE], slow)
    assert blocked.wait(PATIENCE)
    for _ in range(20):
        terminal.advance()
    other = Collector()
    source.subscribe([CODE], other)
    eventually(lambda: moment(20) in times(other), what="all pushes have crossed")
    eventually(lambda: source.status().dropped >= 15)
    go_on.set()
    eventually(lambda: received[-1].quotes[-1].time == moment(20))
    assert len(received) < 20


def test_the_universe_is_asked_by_code_in_chunks_and_never_by_market(connected: Connect) -> None:
    with EmulatedTerminal(symbols=1200) as terminal:
        source, pushed = connected(terminal.address), Collector()
        universe = source.universe(timeout=PATIENCE)
        assert len(source.fetch_quotes(timeout=PATIENCE).quotes) == len(universe) == 1200 + len(market.INDICES)
        source.subscribe(None, pushed)
        eventually(lambda: set(pushed.quotes) == set(universe))
        asked = [call for call in terminal.stats()["calls"] if call["method"] in ("get_full_tick", "subscribe_whole_quote")]
        assert max(call["codes"] for call in asked) == 499
        assert all("." in code for call in asked for code in call["first"])


def test_pushes_of_thousands_pass_the_pure_python_bson_complete(connected: Connect) -> None:
    with EmulatedTerminal(symbols=2500) as terminal:
        source, pushed = connected(terminal.address), Collector()
        source.subscribe(None, pushed)
        eventually(lambda: sum(terminal.stats()["subscriptions"]) > 2500)
        terminal.advance()
        eventually(lambda: len(pushed.quotes) > 2500 and all(series[-1].time == moment(1) for series in pushed.quotes.values()))


def test_one_level_books_and_raw_doubles_come_through(connected: Connect, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(levels=1)
    terminal.place({CODE: {**market.tick(CODE, 1, 1), "lastPrice": 10.070000000000002}})
    (found,) = connected(terminal.address).fetch_quotes([CODE], timeout=PATIENCE).quotes
    assert (len(found.bid_price), len(found.ask_price), found.price) == (1, 1, 10.07)

"""Level-2 trades over an emulated terminal: the recorded session, loss and recovery, the limit, and what has no room."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketdata.continuity import Continuity
from marketdata.sources.base import Capability, State, Unsupported
from marketdata.sources.qmt.mailbox import BOUND, Backlog
from marketdata.sources.qmt.parse_trades import parse_trades
from marketdata.sources.qmt.trades import LIMIT, RawTrade, _Line
from marketdata.sources.replay.formats import open_recording
from marketdata.types import ParsedTrades, ParseError, Side, Trade
from tests.emulator import EmulatedTerminal, market
from tests.emulator.level2 import executions
from tests.sources.conformance import PATIENCE, Collector, TradeCollector, eventually
from tests.sources.qmt.conftest import Connect

CODE, OTHER = "600000.SH", "000001.SZ"
FILE = "ashare_l2_orders_trades/tradeData.zip"
ROW: dict[str, Any] = {
    "time": 1_754_616_600_500,
    "price": 11.370000000000001,
    "volume": 300,
    "amount": 3411.0000000000005,
    "tradeIndex": 17037,
    "buyNo": 144909,
    "sellNo": 5491,
    "tradeType": 0,
    "tradeFlag": 1,
}
NOW = 1_754_616_601_000


def parsed(code: object = CODE, **changes: Any) -> Trade | ParseError:
    """A row as it becomes with some fields changed."""
    found = parse_trades([(code, {**ROW, **changes})], NOW)
    (value,) = (*found.trades, *found.errors)
    return value


def test_a_row_becomes_a_trade_with_its_price_on_the_tick() -> None:
    assert parsed() == Trade(
        symbol=CODE,
        time=ROW["time"],
        index=17037,
        price=11.37,
        volume=300,
        amount=3411.0,
        side=Side.BUY,
        source="qmt",
    )


@pytest.mark.parametrize(("flag", "side"), [(1, Side.BUY), (2, Side.SELL), (0, None), (None, None), (9, None)])
def test_the_flag_is_the_side_that_took_the_liquidity(flag: int | None, side: Side | None) -> None:
    value = parsed(tradeFlag=flag)
    assert isinstance(value, Trade)
    assert value.side is side


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tradeFlag": 3, "price": 0.0}, "cancel"),
        ({"price": 0.0}, "price"),
        ({"price": -1.0}, "price"),
        ({"price": 1.797e308}, "price"),
        ({"price": "11"}, "shape"),
        ({"volume": 0}, "volume"),
        ({"volume": -300}, "volume"),
        ({"volume": 2147483647}, "volume"),
        ({"volume": 3}, "volume"),
        ({"tradeIndex": None}, "index"),
        ({"tradeIndex": -1}, "index"),
        ({"tradeIndex": 1.5}, "index"),
        ({"tradeIndex": float("nan")}, "index"),
        ({"time": 0}, "time"),
        ({"time": NOW + 2 * 86_400_000}, "time"),
        ({"code": "nonsense"}, "symbol"),
    ],
)
def test_what_is_no_trade_says_why(changes: dict[str, Any], reason: str) -> None:
    value = parsed(**changes)
    assert isinstance(value, ParseError)
    assert value.reason == reason


def test_rows_of_no_shape_are_refused_and_an_unknown_amount_is_none() -> None:
    for record in (None, {}, [], 7, "row"):
        found = parse_trades([(CODE, record)], NOW)
        assert [error.reason for error in found.errors] == ["shape" if record != {} else "index"]
    value = parsed(amount=None)
    assert isinstance(value, Trade)
    assert value.amount is None


def test_callbacks_raise_nothing_whatever_comes() -> None:
    backlog: Backlog[RawTrade] = Backlog(BOUND)
    line = _Line(backlog)
    payloads: list[object] = [[1, 2], None, b"\xff", {CODE: None}, {CODE: {"price": 1}}, {1: [ROW]}, {CODE: [ROW, 3]}, {CODE: []}]
    for datas in payloads:
        line.arrived(datas)
    found = parse_trades(backlog.take(timeout=1), NOW)
    assert len(found.trades) == 1
    assert {error.reason for error in found.errors} == {"shape", "index", "symbol"}
    line.ended = True
    line.arrived({CODE: [ROW]})
    assert backlog.take(timeout=0) == []


def test_a_backlog_merges_nothing_and_counts_what_it_has_no_room_for() -> None:
    backlog: Backlog[int] = Backlog(bound=4)
    backlog.put([1, 1, 2])
    backlog.put([3])
    assert (backlog.dropped, backlog.overflows) == (0, 0)
    backlog.put([4, 5])
    backlog.put([6])
    assert (backlog.dropped, backlog.overflows) == (3, 1)
    assert backlog.take() == [1, 1, 2, 3]
    backlog.put([7, 8, 9, 10, 11])
    backlog.put([12])
    assert (backlog.take(), backlog.dropped, backlog.overflows) == ([7, 8, 9, 10], 5, 2)


@pytest.fixture(scope="module")
def recorded(data_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """The first 6,000 raw rows of each code."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for execution in executions(data_dir / FILE):
        if len(found[execution.code]) < 6000:
            found[execution.code].append(execution.row)
    return found


def test_a_recorded_session_passes_the_vendors_client_complete_and_in_order(
    connected: Connect, terminal: EmulatedTerminal, recorded: Mapping[str, list[dict[str, Any]]], data_dir: Path
) -> None:
    source, pushed = connected(terminal.address), TradeCollector()
    reasons: Counter[str] = Counter()

    def took(parsed: ParsedTrades) -> None:
        pushed(parsed)
        reasons.update(error.reason for error in parsed.errors)

    source.subscribe_trades(took).watch(frozenset(recorded))
    eventually(lambda: terminal.stats()["trades"] == sorted(recorded))
    for first in range(0, 6000, 500):
        terminal.push_trades({code: rows[first : first + 500] for code, rows in recorded.items()})
    wanted: dict[str, list[Trade]] = defaultdict(list)
    for _, value in open_recording(data_dir / FILE).rows():
        if isinstance(value, Trade):
            wanted[value.symbol].append(msgspec.structs.replace(value, source="qmt"))
    cancels = sum(row["tradeFlag"] == 3 for row in recorded[OTHER])
    assert cancels > 100
    eventually(lambda: pushed.count(CODE) == 6000 and pushed.count(OTHER) == 6000 - cancels)
    for code, series in pushed.trades.items():
        assert series == wanted[code][: len(series)]
    assert reasons == {"cancel": cancels}
    assert source.status().dropped == 0


def test_a_recorded_session_is_replayed_to_the_vendors_client_at_its_pace(vendor: Callable[..., Any], data_dir: Path) -> None:
    options = [f"--replay={data_dir / FILE}", f"--anchor={time.time()}", "--from=09:31:00", "--speed=100"]
    with EmulatedTerminal(replay=options) as terminal:
        script = f"""
import time
heard = []
xtdata.connect(port={terminal.port})
xtdata.subscribe_quote("{CODE}", period="l2transaction", count=0, callback=lambda datas: heard.extend(datas["{CODE}"]))
for _ in range(600):
    time.sleep(0.05)
    if len(heard) > 100: break
show(heard)
"""
        heard, _ = vendor(script)
    rows = [execution.row for execution in executions(data_dir / FILE) if execution.code == CODE]
    first = rows.index(heard[0])
    assert len(heard) > 100
    assert heard == rows[first : first + len(heard)]


def test_what_is_no_longer_watched_is_unsubscribed(connected: Connect, terminal: EmulatedTerminal) -> None:
    source = connected(terminal.address)
    one, two = source.subscribe_trades(TradeCollector()), source.subscribe_trades(TradeCollector())
    assert terminal.stats()["trades"] == []
    one.watch(frozenset({CODE, OTHER}))
    two.watch(frozenset({OTHER}))
    eventually(lambda: terminal.stats()["trades"] == [OTHER, CODE])
    one.watch(frozenset({CODE}))
    two.watch(frozenset())
    eventually(lambda: terminal.stats()["trades"] == [CODE])
    one.close()
    eventually(lambda: terminal.stats()["trades"] == [])
    assert terminal.stats()["subscriptions"] == []


def test_subscriptions_lost_with_the_terminal_are_made_again_and_it_shows(connected: Connect, terminal: EmulatedTerminal) -> None:
    source, pushed = connected(terminal.address), TradeCollector()
    source.subscribe_trades(pushed).watch(frozenset({CODE}))
    eventually(lambda: terminal.stats()["trades"] == [CODE])
    child, interruptions = source.pid, source.status().interruptions
    terminal.restart()
    eventually(lambda: terminal.stats()["trades"] == [CODE], what="subscribed again")
    terminal.advance()
    eventually(lambda: pushed.count(CODE) == 3)
    eventually(lambda: source.status().interruptions > interruptions)
    assert source.pid == child


def test_subscriptions_outlive_the_child(connected: Connect, terminal: EmulatedTerminal) -> None:
    source, pushed = connected(terminal.address), TradeCollector()
    source.subscribe_trades(pushed).watch(frozenset({CODE}))
    eventually(lambda: terminal.stats()["trades"] == [CODE])
    child, interruptions = source.pid, source.status().interruptions
    terminal.crash_clients()
    eventually(lambda: source.pid not in (None, child), what="a new child")
    eventually(lambda: terminal.stats()["trades"] == [CODE], what="subscribed again")
    terminal.advance()
    eventually(lambda: pushed.count(CODE) == 3)
    assert source.status().interruptions > interruptions


@pytest.mark.parametrize("mode", ["missing", "failing"])
def test_without_level_2_trades_are_unsupported_and_the_terminal_is_up(
    connected: Connect, terminal: EmulatedTerminal, mode: str
) -> None:
    terminal.set_mode(**{mode: ["subscribe_quote l2transaction"]})
    source, pushed = connected(terminal.address), Collector()
    assert source.capabilities() >= {Capability.QUOTES, Capability.PUSH}
    assert Capability.TRADES not in source.capabilities()
    with pytest.raises(Unsupported):
        source.subscribe_trades(TradeCollector())
    source.subscribe([CODE], pushed)
    eventually(lambda: pushed.quotes[CODE])
    assert (source.status().state, source.status().restarts) == (State.UP, 0)


def test_who_watched_before_it_was_known_is_told_that_there_is_no_level_2(started: Connect, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(missing=["subscribe_quote l2transaction"])
    errors: list[ParseError] = []
    source = started(terminal.address)
    source.subscribe_trades(lambda parsed: errors.extend(parsed.errors)).watch(frozenset({CODE}))
    eventually(lambda: [(error.symbol, error.reason) for error in errors] == [(CODE, "unsupported")])


def test_beyond_the_limit_symbols_are_refused_by_name_until_there_is_room(connected: Connect) -> None:
    with EmulatedTerminal(symbols=2 * LIMIT) as terminal:
        source = connected(terminal.address)
        codes = [code for code in source.universe(timeout=PATIENCE) if code not in market.INDICES]
        first, more = sorted(codes[:LIMIT]), codes[LIMIT : LIMIT + 5]
        errors: list[ParseError] = []
        subscription = source.subscribe_trades(lambda parsed: errors.extend(parsed.errors))
        subscription.watch(frozenset(first))
        eventually(lambda: terminal.stats()["trades"] == first)
        subscription.watch(frozenset([*first, *more]))
        eventually(lambda: len(errors) == 5)
        assert {(error.symbol, error.reason) for error in errors} == {(code, "limit") for code in more}
        assert terminal.stats()["trades"] == first, "who has a place keeps it"
        subscription.watch(frozenset([*first[5:], *more]))
        eventually(lambda: terminal.stats()["trades"] == sorted([*first[5:], *more]))
        subscription.watch(None)
        eventually(lambda: len({error.symbol for error in errors}) > LIMIT)
        assert len(terminal.stats()["trades"]) == LIMIT
        assert len(errors) == len(source.universe(timeout=PATIENCE)) - LIMIT + 5


def test_a_receiver_that_is_slow_for_long_loses_trades_and_the_status_says_so(
    connected: Connect, terminal: EmulatedTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketdata.sources.qmt.trade_subscription.BOUND", 7)
    source = connected(terminal.address)
    pushed, other = TradeCollector(), TradeCollector()
    blocked, go_on = threading.Event(), threading.Event()

    def slow(parsed: ParsedTrades) -> None:
        pushed(parsed)
        blocked.set()
        assert go_on.wait(PATIENCE)

    source.subscribe_trades(slow).watch(frozenset({CODE}))
    eventually(lambda: terminal.stats()["trades"] == [CODE])
    continuity = Continuity()
    continuity.look(source.status(), 1.0, subscribed=True)
    terminal.advance()
    assert blocked.wait(PATIENCE)
    monkeypatch.undo()
    source.subscribe_trades(other).watch(frozenset({CODE}))
    for _ in range(5):
        terminal.advance()
    eventually(lambda: other.count(CODE) and other.trades[CODE][-1].index == 62, what="all have crossed")
    status = source.status()
    assert (status.dropped, status.interruptions) == (8, 1)
    continuity.look(status, 2.0, subscribed=True)
    assert continuity.since == 2.0
    go_on.set()
    eventually(lambda: pushed.count(CODE) == 3 + 7)
    assert [trade.index for trade in pushed.trades[CODE]] == [10, 11, 12, 20, 21, 22, 30, 31, 32, 40]

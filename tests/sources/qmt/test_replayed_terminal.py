"""Emulated terminals that show a recorded session: in step with each other, every row once, at the present after a restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketdata.ingest import Ingest
from marketdata.sources.qmt.parse import parse_tick
from marketdata.types import Quote
from tests.emulator import EmulatedTerminal
from tests.emulator.replay import Pace, Session, of_day
from tests.emulator.sequence import Expected, Fault, expected, faults, identity
from tests.sources.conformance import PATIENCE, eventually
from tests.sources.qmt.conftest import Connect

FILE = "20211201snapshot_30stocks.zip"
SPEED = 20.0
START = "09:40:00"


@pytest.fixture(scope="module")
def session(data_dir: Path) -> Session:
    return Session([data_dir / "ashare_l1_snapshots" / FILE])


@pytest.fixture
def anchor() -> float:
    return time.time()


@pytest.fixture
def terminals(data_dir: Path, anchor: float) -> Iterator[list[EmulatedTerminal]]:
    options = [f"--replay={data_dir / 'ashare_l1_snapshots' / FILE}", f"--anchor={anchor}", f"--from={START}", f"--speed={SPEED}"]
    with EmulatedTerminal(name="one", replay=options) as one, EmulatedTerminal(name="two", replay=options) as two:
        yield [one, two]


def test_every_row_is_pushed_once_and_in_order(
    vendor: Callable[..., Any], terminals: list[EmulatedTerminal], session: Session
) -> None:
    script = f"""
import time
heard, codes = [], {session.codes}
xtdata.connect(port={terminals[0].port})
xtdata.subscribe_whole_quote(codes, lambda datas: heard.extend(datas.items()))
for _ in range(600):
    time.sleep(0.05)
    if len(heard) > 20 * len(codes): break
show(heard)
"""
    heard, _ = vendor(script)
    for code, wanted in expected(session).items():
        parsed = [parse_tick(code, tick, time.time_ns() // 1_000_000) for name, tick in heard if name == code]
        arrived = [identity(msgspec.to_builtins(quote)) for quote in parsed]
        assert len(arrived) > 1
        assert faults(code, wanted, arrived) == []


def test_two_terminals_show_the_same_at_the_same_moment_and_one_that_was_killed_is_at_the_present(
    connected: Connect, terminals: list[EmulatedTerminal], session: Session, anchor: float
) -> None:
    one, two = (connected(terminal.address) for terminal in terminals)
    terminals[1].kill()
    eventually(lambda: two.status().state != "up")
    terminals[1].start()
    eventually(lambda: two.status().state == "up")
    pace = Pace(anchor, of_day(session, START), SPEED)
    for source in (one, two):
        before = session.state(session.position(pace.moment(time.time())))
        quotes = source.fetch_quotes(timeout=PATIENCE).quotes
        after = session.state(session.position(pace.moment(time.time())))
        assert [quote.symbol for quote in quotes] == session.codes
        for quote in quotes:
            assert before[quote.symbol].time <= quote.time <= after[quote.symbol].time


def test_the_terminal_knows_its_codes_and_their_limits_of_the_day(
    connected: Connect, terminals: list[EmulatedTerminal], session: Session
) -> None:
    source = connected(terminals[0].address)
    assert source.universe(timeout=PATIENCE) == tuple(session.codes)
    assert [item.symbol for item in source.fetch_instruments(session.codes, timeout=PATIENCE)] == session.codes
    eventually(
        lambda: all(
            (quote.limit_up or 0) > (quote.prev_close or 0) > 0 for quote in source.fetch_quotes(timeout=PATIENCE).quotes
        ),
        what="quotes with limits",
    )


@pytest.mark.parametrize("file", [FILE, "tick.zip"])
def test_ingest_takes_every_quote_that_is_expected(data_dir: Path, file: str) -> None:
    session = Session([data_dir / "ashare_l1_snapshots" / file])
    now = time.time_ns() // 1_000_000
    parsed = [parse_tick(row.code, row.tick(), now) for row in session.rows]
    quotes = [quote for quote in parsed if isinstance(quote, Quote)]
    accepted = Ingest().take(quotes)
    assert (len(quotes), accepted.late, accepted.clock_resets) == (len(session.rows), 0, 0)
    assert accepted.accepted == sum(len(wanted.quotes) for wanted in expected(session).values())


def test_what_is_missing_twice_and_foreign_is_found() -> None:
    wanted = Expected([b"a", b"b", b"c", b"d", b"e"])
    assert faults("x", wanted, [b"b", b"c", b"d"]) == []
    assert faults("x", wanted, [b"b", b"d", b"c", b"d", b"z", b"e"]) == [
        Fault("missing", "x", 2, 1),
        Fault("again", "x", 2, 2),
        Fault("again", "x", 3, 3),
        Fault("foreign", "x", -1, 4),
    ]

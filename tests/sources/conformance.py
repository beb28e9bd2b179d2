"""How a source is brought to the shared conformance tests, and what every value that a source gives must obey.

A source's own folder holds ``case.py`` with ``CASES``: a name for each way in which the source is to be tested -> a
function that takes pytest's request (for fixtures such as ``data_dir``) and returns a context manager of a ``SourceCase``.
The context is where terminals are started and files are made; it is left after the source was closed.
"""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from marketdata import symbols
from marketdata.sources.base import Source, SourceError, State
from marketdata.types import Bar, Parsed, ParsedTrades, Period, Quote, Trade, TradingStatus

PATIENCE = 30.0
"""Seconds after which a condition that was waited for counts as never coming."""

AUCTIONS = {TradingStatus.OPENING_AUCTION, TradingStatus.CLOSING_AUCTION, TradingStatus.UNKNOWN}
"""In these the best bid may equal the best ask: both stand at the matched price. (Not every format tells the phase.)"""


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class SourceCase:
    """One way in which a source is tested.

    ``make`` gives a new source, not started. ``symbols`` have a quote once it is up. ``advance`` lets the market move on a
    little (nothing where it moves by itself); it is called again and again until what is waited for has come.
    ``periods`` are those of which there are bars, ``market`` one whose trading dates are known; ``trades`` trade as the market
    moves on, at least two of them where the source has trades.
    """

    name: str
    make: Callable[[], Source]
    symbols: tuple[str, ...]
    advance: Callable[[], None] = _nothing
    periods: tuple[Period, ...] = ()
    market: str = "SH"
    trades: tuple[str, ...] = ()


CaseContext = Callable[[pytest.FixtureRequest], AbstractContextManager[SourceCase]]


def cases() -> dict[str, CaseContext]:
    """Every case of every source."""
    found: dict[str, CaseContext] = {}
    for path in sorted(Path(__file__).parent.glob("*/case.py")):
        module = importlib.import_module(f"tests.sources.{path.parent.name}.case")
        named: Mapping[str, CaseContext] = module.CASES
        found.update(named)
    return found


def eventually(condition: Callable[[], object], advance: Callable[[], None] = _nothing, what: str = "") -> None:
    """Wait for a condition, letting the market move on meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what or condition}"
        advance()
        time.sleep(0.01)


def wait_up(source: Source) -> None:
    """Wait until a started source is up."""
    eventually(lambda: source.status().state in (State.UP, State.FINISHED), what=f"{source.name} up")


def in_time(call: Callable[[], object]) -> object:
    """What a call gives, or the ``SourceError`` that it raises; fails where it does not come back."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except SourceError as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert outcome, "the call did not come back"
    return outcome[0]


@dataclass
class Collector:
    """A callback that keeps what it was given, by symbol and in order."""

    deliveries: int = 0
    quotes: dict[str, list[Quote]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, parsed: Parsed) -> None:
        self.deliveries += 1
        for quote in parsed.quotes:
            self.quotes[quote.symbol].append(quote)


@dataclass
class TradeCollector:
    """The same of trades."""

    deliveries: int = 0
    trades: dict[str, list[Trade]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, parsed: ParsedTrades) -> None:
        self.deliveries += 1
        for trade in parsed.trades:
            self.trades[trade.symbol].append(trade)

    def count(self, symbol: str) -> int:
        """How many have come of a symbol."""
        return len(self.trades.get(symbol, ()))


def running() -> set[object]:
    """The threads and child processes there are, without the helper that Python itself keeps for child processes."""
    children = psutil.Process().children(recursive=True)
    processes = {child.pid for child in children if child.is_running() and not _is_python_helper(child)}
    return {*threading.enumerate(), *processes}


def _is_python_helper(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or "resource_tracker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return True


def is_canonical(symbol: str) -> bool:
    """Whether a symbol is in its one canonical form."""
    return symbols.parse(symbol) == symbol


def trading_day(ms: int) -> str:
    """The day in Shanghai, by which volumes accumulate."""
    return (datetime.fromtimestamp(ms / 1000, UTC) + timedelta(hours=8)).date().isoformat()


def quote_problems(quote: Quote) -> list[str]:
    """What is wrong with one quote, whatever its source."""
    problems = [] if is_canonical(quote.symbol) else [f"{quote.symbol} is not canonical"]
    if not _plausible(quote.time):
        problems.append(f"time {quote.time}")
    if not quote.source:
        problems.append("no source")
    for name in ("volume", "amount", "trades", "open_interest"):
        value = getattr(quote, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            problems.append(f"{name} {value}")
    return problems + _price_problems(quote) + _book_problems(quote)


def _plausible(ms: int) -> bool:
    return isinstance(ms, int) and datetime(1990, 1, 1, tzinfo=UTC) <= datetime.fromtimestamp(ms / 1000, UTC) < datetime(
        2100, 1, 1, tzinfo=UTC
    )


def _price_problems(quote: Quote) -> list[str]:
    names = ("price", "open", "high", "low", "prev_close", "limit_up", "limit_down")
    prices = {name: getattr(quote, name) for name in names if getattr(quote, name) is not None}
    tick = symbols.price_tick(quote.symbol)
    problems = [f"{name} {value} is no price" for name, value in prices.items() if not _is_price(value)]
    problems += [f"{name} {value} off the tick {tick}" for name, value in prices.items() if not _on_tick(value, tick)]
    for lower, upper in (
        ("low", "price"),
        ("price", "high"),
        ("low", "open"),
        ("open", "high"),
        ("price", "limit_up"),
        ("limit_down", "price"),
    ):
        if lower in prices and upper in prices and prices[lower] > prices[upper]:
            problems.append(f"{lower} {prices[lower]} above {upper} {prices[upper]}")
    return problems


def _book_problems(quote: Quote) -> list[str]:
    problems = []
    for side, prices, volumes in (
        ("bid", quote.bid_price, quote.bid_volume),
        ("ask", quote.ask_price, quote.ask_volume),
    ):
        if len(prices) != len(volumes) or len(prices) > 10:
            problems.append(f"{side}: {len(prices)} prices, {len(volumes)} volumes")
        outwards = sorted(set(prices), reverse=side == "bid")
        if list(prices) != outwards:
            problems.append(f"{side} prices {prices} do not run outwards")
        if not all(map(_is_price, prices)) or not all(volume > 0 for volume in volumes):
            problems.append(f"{side}: an absent level has an entry")
        if not all(_on_tick(price, symbols.price_tick(quote.symbol)) for price in prices):
            problems.append(f"{side} prices {prices} off the tick")
    if quote.bid_price and quote.ask_price:
        bid, ask = quote.bid_price[0], quote.ask_price[0]
        if bid > ask or (bid == ask and quote.status not in AUCTIONS):
            problems.append(f"crossed: {bid} {ask} in {quote.status}")
    return problems


def _is_price(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _on_tick(value: float, tick: float | None) -> bool:
    return tick is None or symbols.round_price(value, tick) == value


def order_problems(quotes: list[Quote]) -> list[str]:
    """What is wrong with one symbol's quotes in the order in which they came."""
    problems = []
    for earlier, later in pairwise(quotes):
        if later.time < earlier.time:
            problems.append(f"time went back from {earlier.time} to {later.time}")
        same_day = trading_day(earlier.time) == trading_day(later.time)
        for name in ("volume", "amount", "trades"):
            before, after = getattr(earlier, name), getattr(later, name)
            if same_day and before is not None and after is not None and after < before:
                problems.append(f"{name} fell from {before} to {after}")
    return problems


def bar_problems(bar: Bar) -> list[str]:
    """What is wrong with one bar, whatever its source."""
    problems = []
    if not (is_canonical(bar.symbol) and _plausible(bar.time) and bar.source):
        problems.append(f"{bar.symbol} {bar.time} {bar.source!r}")
    if not bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high:
        problems.append(f"open {bar.open} high {bar.high} low {bar.low} close {bar.close}")
    if not all(_is_price(price) and _on_tick(price, symbols.price_tick(bar.symbol)) for price in (bar.open, bar.high, bar.low)):
        problems.append("a price that is none or off the tick")
    if bar.volume < 0 or (bar.amount is not None and bar.amount < 0):
        problems.append(f"volume {bar.volume} amount {bar.amount}")
    return problems


def trade_problems(trades: list[Trade]) -> list[str]:
    """What is wrong with one symbol's trades in the order in which they came, whatever their source."""
    problems = []
    for trade in trades:
        if not (is_canonical(trade.symbol) and _plausible(trade.time) and trade.source and isinstance(trade.index, int)):
            problems.append(f"{trade}")
        if not (_is_price(trade.price) and _on_tick(trade.price, symbols.price_tick(trade.symbol))):
            problems.append(f"price {trade.price}")
        if not (math.isfinite(trade.volume) and trade.volume > 0):
            problems.append(f"volume {trade.volume}")
        if trade.amount is not None and abs(trade.amount - trade.price * trade.volume) > 0.005:
            problems.append(f"amount {trade.amount} of {trade.volume} at {trade.price}")
    for earlier, later in pairwise(trades):
        same_day = trading_day(earlier.time) == trading_day(later.time)
        if later.time < earlier.time or (same_day and later.index <= earlier.index):
            problems.append(f"{later.time} {later.index} after {earlier.time} {earlier.index}")
    return problems

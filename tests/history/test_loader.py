"""What several processes bring and keep, each with a memory of its own over the same files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import numpy as np
import pytest

from marketdata.cache import tiers as tiers_module
from marketdata.cache import ttl
from marketdata.cache.archive import Archive
from marketdata.cache.memory import Memory
from marketdata.cache.shared import Shared
from marketdata.cache.tiers import Tier, Tiers, tiers
from marketdata.calendar import CHINA, DAY, midnight
from marketdata.history import fetch, loader, service
from marketdata.history.plan import Chunk
from marketdata.history.service import Prepared, prepare, prepare_now
from marketdata.series import Series, from_bars
from marketdata.sources.base import Bars
from marketdata.types import Bar, Period
from tests.history.conftest import MINUTE, Market

pytestmark = [pytest.mark.django_db(transaction=True)]

HALF: dict[str, Any] = {"period": "1d", "start": "2026-01-05", "end": "2026-06-30"}
JUNE: dict[str, Any] = {"period": "1d", "start": "2026-06-01", "end": "2026-06-30"}


def ask(market: Market, *symbols: str, **parameters: Any) -> Prepared:
    return prepare(market.query(*symbols, **parameters), deadline_seconds=20, request_id="r1")


def only(prepared: Prepared) -> Series:
    ((_, series),) = prepared.parts()
    return series


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Does something as another process would, with a memory of its own over the same files."""
    other = Tiers(
        market=tiers().market, memory=Memory(64 * 1024 * 1024), shared=Shared(""), archive=Archive(tiers_module.config.archive)
    )

    def do(work: Callable[[], Any]) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(loader, "tiers", lambda: other)
            patch.setattr(service, "tiers", lambda: other)
            return work()

    yield do
    other.close()


@pytest.mark.parametrize("held", [300_000, 10], ids=["held", "read while it is written"])
def test_what_another_process_has_brought_is_not_asked_for_again(
    market: Market,
    symbols: list[str],
    elsewhere: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    held: int,
) -> None:
    ask(market, symbols[0], **JUNE)
    whole = elsewhere(lambda: ask(market, symbols[0], **HALF))
    monkeypatch.setattr(service, "HELD_ROWS", held)
    asked = len(market.terminal.asked)
    assert prepare_now(market.query(symbols[0], **HALF)) is None
    answer = ask(market, symbols[0], **HALF)
    assert only(answer).equals(only(whole))
    assert (answer.tier_of, answer.missing) == ({symbols[0]: Tier.L3}, {})
    assert len(market.terminal.asked) == asked


def test_what_another_process_brings_meanwhile_is_waited_for_and_not_fetched(
    market: Market, symbols: list[str], elsewhere: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    symbol = symbols[0]
    ask(market, symbol, **JUNE)
    shared, uses = tiers().shared, tiers().heat.uses
    rest = Chunk((symbol,), Period.D1, date(2026, 1, 5), date(2026, 5, 29))
    tries: list[str] = []

    def lock(key: str, seconds: float) -> Callable[[], None] | None:
        tries.append(key)
        if len(tries) == 5:
            elsewhere(lambda: loader.store(fetch.bars(rest, deadline=time.monotonic() + 20), rest, CHINA))
        return None if len(tries) < 8 else lambda: None

    monkeypatch.setattr(shared, "on", True)
    monkeypatch.setattr(shared, "_call", lambda work: None)
    monkeypatch.setattr(shared, "lock", lock)
    [key] = tiers().memory.peek_many(tiers().heat._uses)
    before = uses(key)
    answer = ask(market, symbol, **HALF)
    assert len(only(answer)) > 100
    assert len(market.terminal.asked) == 2, "June, and what the other has asked for"
    assert uses(key) - before == 2, "a look before the wait and one after it, however long that was"


def test_what_the_source_refuses_again_and_again_is_asked_for_ever_more_rarely(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    symbol, bad = symbols[0], midnight(date(2026, 6, 10))

    def zeros(bars: Bars) -> Bars:
        series = bars.series[symbol]
        return Bars({symbol: series.replace(open=np.where((series.time > bad) & (series.time < bad + DAY), 0.0, series.open))})

    believed: list[float] = []
    rule = ttl.nothing
    monkeypatch.setattr(ttl, "nothing", lambda *args, **named: believed.append(rule(*args, **named)) or believed[-1])
    market.at("2026-06-27", 12)
    market.terminal.change = zeros
    for _ in range(4):
        assert not ask(market, symbol, period="1d", start="2026-06-08", end="2026-06-12").closed
        tiers()._nothing.remove_if(lambda key: True)
    assert believed == [30.0, 120.0, 480.0, 1920.0]


@pytest.mark.parametrize("after, believed", [(300, 1.0), (4_999, 1.0), (5_000, 55.0)])
def test_a_minute_that_has_just_ended_is_believed_for_a_second_only(
    market: Market, symbols: list[str], monkeypatch: pytest.MonkeyPatch, after: int, believed: float
) -> None:
    good: list[float] = []
    put = Tiers.put_forming
    monkeypatch.setattr(
        Tiers, "put_forming", lambda self, bars: good.extend(seconds for _, seconds in bars.values()) or put(self, bars)
    )
    symbol, ten = symbols[0], midnight(date(2026, 6, 30)) + 600 * MINUTE
    bar = Bar(
        symbol=symbol, period=Period.M1, time=ten, open=9.0, high=9.0, low=9.0, close=9.0, volume=100, amount=900.0, source="s"
    )
    market.terminal.change = lambda bars: Bars({symbol: from_bars([bar])})
    market.set(ten + after)
    assert only(ask(market, symbol, period="1m", start="2026-06-30", end="2026-06-30")).time.tolist() == [ten]
    assert good == [believed]

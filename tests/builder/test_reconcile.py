"""Built bars against the terminal's own: what is equal is settled, what differs is replaced, stored and shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import msgspec
import pytest
from django.test import Client
from django.urls import reverse
from prometheus_client import REGISTRY

from argus.config import Config
from marketdata import feeds, reconcile
from marketdata.builder import BarBuilder, LiveBar
from marketdata.feed import Feed
from marketdata.lease import MemoryLease
from marketdata.models import BarDifference
from marketdata.publisher import Publisher
from marketdata.reconcile import Difference, compare, run, store
from marketdata.series import Series, from_bars
from marketdata.sources.base import Bars, Capability, SourceTimeout
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.tasks import reconcile_bars
from marketdata.types import Bar, Parsed, Period
from tests.api.conftest import Keys, client, keys
from tests.builder.quotes import EVERYTHING, Tape, at, of
from tests.feeds.scripted import ScriptedSource
from tests.sources.simulated.moments import market, moment

__all__ = ["client", "keys"]

M1, D1 = Period.M1, Period.D1


def built(symbol: str = "600000.SH") -> list[LiveBar]:
    tape = Tape(symbol)
    builder = BarBuilder()
    builder.take(tape.quote(text, 10.0, 137) for text in ("09:25:00", "09:30:30", "09:31:30"))
    return builder.closed()


def as_terminal(bar: LiveBar, **changes: object) -> Bar:
    """The terminal's bar of the same minute."""
    same = {name: getattr(bar, name) for name in Bar.__struct_fields__ if name not in ("suspended", "source")}
    return msgspec.structs.replace(Bar(**same, source="qmt"), **changes)


def test_equal_bars_do_not_differ() -> None:
    bars = built()
    assert compare(bars, {"600000.SH": [as_terminal(bar) for bar in bars]}) == []
    assert compare(bars, {}) == []


@pytest.mark.parametrize(
    ("symbol", "field", "value", "differs"),
    [
        ("600000.SH", "close", 10.004, False),
        ("600000.SH", "close", 10.01, True),
        ("600000.SH", "volume", 100, False),
        ("600000.SH", "volume", 200, True),
        ("600000.SH", "volume", 138, True),
        ("IF2206.IF", "volume", 100, True),
        ("600000.SH", "amount", 1370.9, False),
        ("600000.SH", "amount", 1372.0, True),
        ("600000.SH", "amount", None, False),
    ],
)
def test_a_number_differs_where_both_can_tell(symbol: str, field: str, value: float | None, differs: bool) -> None:
    first, *_ = built(symbol)
    found = compare([first], {symbol: [as_terminal(first, **{field: value})]})
    assert found == ([Difference(symbol, M1, at("09:30"), field, getattr(first, field), value)] if differs else [])


def test_a_zero_filled_bar_is_none() -> None:
    first, *_ = built()
    assert compare([first], {"600000.SH": [as_terminal(first, open=0.0, high=0.0, low=0.0, close=0.0, volume=0)]}) == []


class Terminal(ScriptedSource):
    """A source with bars."""

    def __init__(self) -> None:
        super().__init__()
        self.bars: dict[str, list[Bar]] = {}
        self.requests: list[tuple[tuple[str, ...], Period]] = []
        self.down = False

    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities() | {Capability.BARS}

    def fetch_bars(self, symbols, period, *, start=None, end=None, **_) -> Bars:  # type: ignore[no-untyped-def,override]
        if self.down:
            raise SourceTimeout("no answer")
        self.requests.append((tuple(symbols), period))
        chosen: dict[str, Series] = {}
        for symbol in symbols:
            bars = [bar for bar in self.bars.get(symbol, []) if bar.period is period and start <= bar.time <= end]
            if bars:
                chosen[symbol] = from_bars(bars)
        return Bars(chosen)


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def feed(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    """A feed whose market stands at 09:33:30, with four minutes of one symbol: the last still forms."""
    tape = Tape()
    terminal.answer = Parsed(
        tuple(tape.quote(text, 10.0, 137) for text in ("09:25:00", "09:30:30", "09:31:30", "09:32:30", "09:33:10"))
    )
    publisher = Publisher(
        feed="main",
        source=terminal.name,
        owner="t",
        lease=MemoryLease(),
        send=lambda feed, blob: None,
        save_snapshot=lambda feed, blob: None,
        clock=lambda: at("09:33:30"),
    )
    feed = Feed(terminal="t", source=terminal, publisher=publisher, config=Config(source_timeout=5, stale_after=60))
    feed.start()
    monkeypatch.setitem(feeds._feeds, "t", feed)
    assert feed.poll() == "ok"
    yield feed
    feed.stop()


@pytest.mark.django_db
def test_what_closed_a_minute_ago_is_settled_and_differences_are_stored(feed: Feed, terminal: Terminal) -> None:
    bars = feed.bars.builder.closed()
    terminal.bars["600000.SH"] = [as_terminal(bars[0], volume=100), as_terminal(bars[1], high=10.05, volume=300)]
    assert run(feed) == {"equal": 1, "different": 1, "absent": 1}
    assert [(bar.time, bar.volume) for bar in feed.bars.builder.closed()] == [(at("09:32"), 137), (at("09:33"), 137)]
    held = feed.bars.builder.current({M1: None, Period.M5: None})
    # The equal one keeps the finer number that was built, the different one is the terminal's.
    assert [bar.volume for bar in of(held, Period.M5)] == [137 + 300 + 3 * 137]
    assert {(row.field, row.built, row.terminal) for row in BarDifference.objects.all()} == {
        ("high", 10.0, 10.05),
        ("volume", 137.0, 300.0),
    }
    assert BarDifference.objects.all()[0].time == datetime.fromtimestamp(at("09:31") / 1000, UTC)


@pytest.mark.django_db
def test_nothing_is_asked_twice(feed: Feed, terminal: Terminal) -> None:
    terminal.bars["600000.SH"] = [as_terminal(bar) for bar in feed.bars.builder.closed()]
    assert reconcile_bars("t") == 3
    assert reconcile_bars("t") == 0
    assert terminal.requests == [(("600000.SH",), M1)]


def test_every_symbols_turn_comes(feed: Feed, terminal: Terminal) -> None:
    tapes = [Tape(f"60{number:04}.SH") for number in range(130)]
    terminal.answer = Parsed(tuple(tape.quote(text, 10.0, 1) for text in ("09:25:00", "09:30:30") for tape in tapes))
    assert feed.poll() == "ok"
    first, second, third = ({bar.symbol for bar in feed.bars.provisional(50)} for _ in range(3))
    assert not first & second
    assert len(first | second | third) == 130


@pytest.mark.django_db
def test_a_terminal_that_does_not_answer_settles_nothing(feed: Feed, terminal: Terminal) -> None:
    terminal.down = True
    assert reconcile_bars("t") == 0
    assert reconcile_bars("nobody") == 0
    assert REGISTRY.get_sample_value("argus_bar_reconciliations_total", {"terminal": "t", "outcome": "failed"})
    assert len(feed.bars.builder.closed()) == 4


@pytest.mark.django_db
def test_a_bar_that_differs_again_is_stored_once_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "KEPT", 3)
    rows = [Difference("600000.SH", M1, at("09:31") + 60_000 * number, "close", 1.0, 2.0) for number in range(5)]
    store(rows)
    store([msgspec.structs.replace(rows[-1], terminal=3.0)])
    assert [(row.time.minute, row.terminal) for row in BarDifference.objects.all()] == [(35, 3.0), (34, 2.0), (33, 2.0)]


def test_built_minutes_and_days_are_those_of_the_simulated_exchange() -> None:
    """Its bars are made from the very events that its quotes show, so every number must be the same."""
    first, last = "2026-03-04 09:10:00", "2026-03-04 15:31:00"
    builder = BarBuilder()
    bars: list[LiveBar] = []
    with market(first) as (source, clock):
        seen: dict[str, object] = {}
        while clock.now() <= moment(last):
            quotes = [quote for quote in source.fetch_quotes(None, timeout=10).quotes if seen.get(quote.symbol) != quote]
            seen.update((quote.symbol, quote) for quote in quotes)
            builder.take(quotes)
            builder.advance(clock.now())
            bars += [bar for bar in builder.drain(EVERYTHING) if bar.closed]
            clock.advance(1000)
        close = moment("2026-03-04 15:00:00")
        for period in (M1, D1):
            found = fetch(source, period, moment(first), moment(last))
            ours = of(bars, period)
            assert compare(ours, found) == []
            # The simulated market has minutes of the fixed-price session after the close, too.
            traded = {(bar.symbol, bar.time) for row in found.values() for bar in row if bar.volume and bar.time <= close}
            assert {(bar.symbol, bar.time) for bar in ours} == traded
    assert builder.counts.late == 0
    assert len(of(bars, M1)) > 1000


def fetch(source: SimulatedSource, period: Period, start: int, end: int) -> dict[str, tuple[Bar, ...]]:
    answer = source.fetch_bars(source.universe(timeout=10), period, start=start, end=end, timeout=60)
    return {symbol: series.bars(symbol, period, source.name) for symbol, series in answer.series.items()}


async def test_differences_are_answered_newest_first(client: httpx.AsyncClient, keys: Keys) -> None:
    await BarDifference.objects.abulk_create(
        BarDifference(
            symbol=symbol,
            period="1m",
            time=datetime.fromtimestamp(at("09:31") / 1000, UTC),
            field="volume",
            built=1.0,
            terminal=2.0,
        )
        for symbol in ("600000.SH", "000001.SZ")
    )
    url, headers = "/api/v1/market_data/bar_differences", {"X-API-Key": keys.reader}
    answer = (await client.get(url, headers=headers)).json()
    assert [row["symbol"] for row in answer["differences"]] == ["000001.SZ", "600000.SH"]
    answer = (await client.get(url, params={"symbol": "sh600000", "limit": "1"}, headers=headers)).json()
    assert [{**row, "found_at": 0} for row in answer["differences"]] == [
        {
            "symbol": "600000.SH",
            "period": "1m",
            "time": at("09:31"),
            "field": "volume",
            "built": 1.0,
            "terminal": 2.0,
            "found_at": 0,
        }
    ]


@pytest.mark.parametrize("parameter", ["limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "symbol=%00", "symbol=", "sym=1"])
async def test_bad_parameters_are_named(client: httpx.AsyncClient, keys: Keys, parameter: str) -> None:
    response = await client.get(f"/api/v1/market_data/bar_differences?{parameter}", headers={"X-API-Key": keys.reader})
    assert response.status_code == 400
    assert response.json()["parameter"] == parameter.partition("=")[0]


def test_the_admin_lists_differences(admin_client: Client) -> None:
    store([Difference("600000.SH", M1, at("09:31"), "close", 10.0, 10.01)])
    page = admin_client.get(reverse("admin:marketdata_bardifference_changelist"))
    assert page.status_code == 200
    assert "10.01" in page.content.decode()

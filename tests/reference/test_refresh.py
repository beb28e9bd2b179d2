"""What a terminal says of its reference data reaches the database, step by step; what is reconciled follows it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import pytest

from argus.config import Config
from marketdata import feeds, metrics, tasks
from marketdata.exchanges import Kind
from marketdata.feed import Feed
from marketdata.lease import MemoryLease
from marketdata.models import Instrument as Row
from marketdata.models import MainContract, Sector, TradingDates
from marketdata.publisher import Publisher
from marketdata.reference import days
from marketdata.reference import refresh as reference
from marketdata.sources.base import Capability, Source, SourceTimeout, SourceUnavailable, Unsupported
from marketdata.sources.qmt.source import QmtSource
from marketdata.sources.simulated.source import SimulatedSource
from marketdata.terminals import roster, states
from marketdata.terminals.models import Pool, Terminal
from marketdata.terminals.states import TerminalReport
from marketdata.types import Instrument, Parsed
from tests.emulator import EmulatedTerminal, child_environment
from tests.feeds.scripted import ScriptedSource, quote
from tests.sources.conformance import wait_up

pytestmark = pytest.mark.django_db


@pytest.fixture
def source() -> ScriptedSource:
    source = ScriptedSource()
    source.answer = Parsed((quote("600000.SH"), quote("000001.SZ")))
    source.instruments = [Instrument(symbol="600000.SH", name="浦发银行", source="scripted")]
    source.sectors = {"few": ("600000.SH",)}
    return source


def feed_of(source: Source, pool: str = "main") -> Feed:
    publisher = Publisher(
        feed=pool, source=source.name, owner="t", lease=MemoryLease(), send=lambda *_: None, save_snapshot=lambda *_: None
    )
    return Feed(terminal="t", source=source, publisher=publisher, config=Config())


@pytest.fixture
def feed(source: ScriptedSource) -> Feed:
    return feed_of(source)


def test_instruments_sectors_and_names_are_stored(feed: Feed) -> None:
    assert reference.refresh(feed) == 2
    assert dict(Row.objects.values_list("symbol", "name")) == {"600000.SH": "浦发银行", "000001.SZ": ""}
    assert Sector.objects.get(name="few").symbols == ["600000.SH"]


def test_a_new_listing_is_reconciled_after_the_next_refresh_and_names_stay(feed: Feed, source: ScriptedSource) -> None:
    reference.refresh(feed)
    source.answer = Parsed((quote("600000.SH"), quote("301234.SZ")))
    source.instruments = []
    reference.refresh(feed)
    assert feed.universe == ("600000.SH", "301234.SZ")
    assert dict(Row.objects.values_list("symbol", "quoted")) == {"600000.SH": True, "000001.SZ": False, "301234.SZ": True}
    assert Row.objects.get(symbol="600000.SH").name == "浦发银行"


def test_only_the_active_publisher_refreshes(feed: Feed) -> None:
    assert not reference.due(feed)
    feed.publisher.hold()
    assert reference.due(feed)
    feed.reference_at = time.monotonic()
    assert not reference.due(feed)


class RichSource(ScriptedSource):
    """A source that has everything; ``broken`` are the functions that do not answer, ``lacking`` those that it has not."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.lacking: set[str] = set()
        self.answer = Parsed((quote("600000.SH"), quote("000300.SH")))
        self.sectors = {"few": ("600000.SH",)}

    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability)

    def _may(self, function: str) -> None:
        if function in self.broken:
            raise SourceTimeout(function)
        if function in self.lacking:
            raise Unsupported(function)

    def fetch_sectors(self, *, timeout: float) -> dict[str, tuple[str, ...]]:
        self._may("sectors")
        return self.sectors

    def fetch_instruments(self, symbols: Sequence[str], *, timeout: float) -> Iterable[Instrument]:
        self._may("instruments")
        return [Instrument(symbol=symbol, name=f"名{symbol[:6]}", source=self.name) for symbol in symbols]

    def fetch_codes(self, kind: Kind, *, timeout: float) -> tuple[str, ...]:
        self._may("codes")
        codes = {Kind.INDEX: ("000300.SH", "000905.SH"), Kind.FUND: ("510300.SH",), Kind.FUTURE: ("IF2612.IF",)}
        return codes.get(kind, ())

    def fetch_main_contracts(self, *, timeout: float) -> dict[str, str]:
        self._may("main_contracts")
        return {"IF.IF": "IF2612.IF"}

    def fetch_index_weights(self, index: str, *, timeout: float) -> dict[str, float]:
        self._may("weights")
        return {"600000.SH": 1.0, "000001.SZ": 99.0} if index == "000300.SH" else {}

    def fetch_trading_dates(self, market: str, *, timeout: float) -> tuple[str, ...]:
        self._may("trading_dates")
        return ("2026-12-31", "2027-01-04") if market == "SH" else ()


@pytest.fixture
def rich() -> Iterator[RichSource]:
    yield RichSource()
    TradingDates.objects.all().delete()
    days.load()


def test_everything_that_a_source_offers_is_kept(rich: RichSource) -> None:
    assert reference.refresh(feed_of(rich)) == 2
    assert {row.symbol: (row.kind, row.quoted, row.name) for row in Row.objects.all()} == {
        "600000.SH": ("stock", True, "名600000"),
        "000300.SH": ("index", True, "名000300"),
        "000905.SH": ("index", False, "名000905"),
        "510300.SH": ("fund", False, "名510300"),
        "IF2612.IF": ("future", False, "名IF2612"),
    }
    assert Row.objects.get(symbol="600000.SH").initials == "m600000"
    assert dict(MainContract.objects.values_list("product", "symbol")) == {"IF.IF": "IF2612.IF"}
    index = Sector.objects.get(name="000300.SH")
    assert (index.symbols, index.weights) == (["000001.SZ", "600000.SH"], {"000001.SZ": 99.0, "600000.SH": 1.0})
    assert TradingDates.objects.get().dates == ["2026-12-31", "2027-01-04"]
    assert days.calendar_of("SH").last.isoformat() == "2027-01-04"


def test_a_second_refresh_changes_nothing_and_keeps_weights_and_what_is_not_quoted(rich: RichSource) -> None:
    from marketdata.models import Revision

    reference.refresh(feed_of(rich))
    revision = Revision.objects.get().number
    before = Row.objects.get(symbol="510300.SH").refreshed_at
    reference.refresh(feed_of(rich))
    assert Revision.objects.get().number == revision
    assert Sector.objects.filter(name="000300.SH").exists()
    assert Row.objects.get(symbol="510300.SH").refreshed_at > before
    assert not Row.objects.get(symbol="510300.SH").quoted


STEPS = {
    "sectors": "sectors",
    "instruments": "instruments",
    "codes": "funds",
    "main_contracts": "main_contracts",
    "weights": "weights",
    "trading_dates": "trading_dates",
}


@pytest.mark.parametrize("function", STEPS)
def test_a_step_that_fails_is_counted_keeps_what_is_stored_and_stops_no_other(rich: RichSource, function: str) -> None:
    reference.refresh(feed_of(rich))
    stored = [list(model.objects.values_list("pk", flat=True)) for model in (Row, Sector, MainContract, TradingDates)]
    counter = metrics.REFERENCE_STEPS.labels("t", STEPS[function], "failed")
    failures = counter._value.get()
    rich.broken = {function}
    rich.answer = Parsed((*rich.answer.quotes, quote("600001.SH")))
    assert reference.refresh(feed_of(rich)) == 3
    assert counter._value.get() > failures
    assert Row.objects.filter(symbol="600001.SH", quoted=True).exists()
    for model, before in zip((Row, Sector, MainContract, TradingDates), stored, strict=True):
        assert set(before) <= set(model.objects.values_list("pk", flat=True))


@pytest.mark.parametrize("function", STEPS)
def test_a_step_that_the_terminal_does_not_have_stops_no_other(rich: RichSource, function: str) -> None:
    rich.lacking = {function}
    unsupported = metrics.REFERENCE_STEPS.labels("t", STEPS[function], "unsupported")
    before = unsupported._value.get()
    assert reference.refresh(feed_of(rich)) == 2
    assert unsupported._value.get() > before
    others = {"main_contracts": MainContract, "trading_dates": TradingDates}
    assert all(model.objects.exists() for name, model in others.items() if name != function)


def test_a_source_that_does_not_tell_its_symbols_changes_nothing(rich: RichSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*, timeout: float) -> tuple[str, ...]:
        raise SourceUnavailable("down")

    monkeypatch.setattr(rich, "universe", down)
    with pytest.raises(SourceUnavailable):
        reference.refresh(feed_of(rich))
    assert not Row.objects.exists()


def test_the_simulated_market_is_kept_end_to_end() -> None:
    source = SimulatedSource(symbols=40)
    source.start()
    try:
        wait_up(source)
        assert reference.refresh(feed_of(source)) == 40
    finally:
        source.close()
    assert Row.objects.filter(quoted=True, initials__startswith="mn").count() == 40
    assert Sector.objects.filter(name="沪深A股").exists()
    assert "2026-11-20" in TradingDates.objects.get(market="SH").dates
    assert days.known_of("SH").conflicts == ()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    "missing", [[], ["get_main_contract", "get_weight_in_index", "get_trading_dates_by_market", "get_sector_list"]]
)
def test_a_terminal_is_kept_as_far_as_it_has_the_functions(missing: list[str]) -> None:
    with EmulatedTerminal() as terminal:
        terminal.set_mode(missing=missing)
        source = QmtSource(name="main", address=terminal.address, timeout=30.0)
        source.start()
        try:
            wait_up(source)
            symbols = reference.refresh(feed_of(source))
        finally:
            source.close()
    assert Row.objects.filter(quoted=True).count() == symbols
    option = Row.objects.get(symbol="10008800.SHO")
    assert (option.kind, option.underlying, option.option_type, option.strike, option.quoted) == (
        "option",
        "510300.SH",
        "call",
        4.1,
        False,
    )
    assert Row.objects.get(symbol="000001.SZ").pinyin == "pinganyinhang"
    assert MainContract.objects.exists() == (not missing)
    assert Sector.objects.filter(weights__isnull=False).exists() == (not missing)


def lacking(*missing: Capability) -> RichSource:
    """A source that has everything but these."""
    source = RichSource()
    able = frozenset(Capability) - frozenset(missing)
    source.capabilities = lambda: able  # type: ignore[method-assign]
    return source


@pytest.fixture
def two() -> Iterator[None]:
    """A pool of two terminals, ``t`` and ``other``."""
    pool = Pool.objects.create(name="main")
    for name in ("t", "other"):
        Terminal.objects.create(pool=pool, name=name)
    roster.look()
    yield
    roster.forget()


def tell(name: str, *able: Capability) -> None:
    states.tell(name, TerminalReport(pool="main", process=name, source="scripted", state="up", capabilities=able))


@pytest.mark.usefixtures("two")
def test_what_the_publishers_terminal_lacks_is_asked_of_another_that_has_it() -> None:
    feed = feed_of(lacking(Capability.SECTORS, Capability.MAIN_CONTRACTS, Capability.INDEX_WEIGHTS))
    assert reference.elsewhere(feed) == {}
    tell("t", *Capability)
    assert reference.elsewhere(feed) == {}, "nobody asks himself"
    tell("other", Capability.SECTORS, Capability.MAIN_CONTRACTS)
    found = {Capability.SECTORS: "other", Capability.MAIN_CONTRACTS: "other"}
    assert reference.elsewhere(feed) == found
    Terminal.objects.filter(name="other").update(drained=True)
    roster.look()
    assert reference.elsewhere(feed) == {}


@pytest.mark.usefixtures("two")
def test_the_other_terminal_refreshes_its_steps_alone_and_the_publisher_leaves_them_as_they_are(rich: RichSource) -> None:
    poor = feed_of(lacking(Capability.SECTORS, Capability.MAIN_CONTRACTS))
    needs = (Capability.SECTORS, Capability.MAIN_CONTRACTS)
    assert reference.refresh(poor, others=needs) == 2
    assert not MainContract.objects.exists()
    assert set(Sector.objects.values_list("name", flat=True)) == {"000300.SH"}
    rich.broken = {"instruments", "codes", "weights", "trading_dates"}
    reference.refresh_steps(feed_of(rich), needs)
    assert MainContract.objects.get().symbol == "IF2612.IF"
    assert set(Sector.objects.values_list("name", flat=True)) == {"few", "000300.SH"}
    quoted = set(Row.objects.filter(quoted=True).values_list("symbol", flat=True))
    assert quoted == {"600000.SH", "000300.SH"}
    reference.refresh(poor, others=needs)
    assert (MainContract.objects.count(), Sector.objects.count()) == (1, 2)


@pytest.mark.usefixtures("two")
def test_the_publishers_worker_sends_the_steps_to_the_others_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = feed_of(lacking(Capability.SECTORS, Capability.INDEX_WEIGHTS))
    feed.publisher.hold()
    tell("other", *Capability)
    sent: list[tuple[object, object]] = []
    monkeypatch.setattr(feeds, "running", {"t": feed}.get)
    monkeypatch.setattr(tasks.refresh_steps, "apply_async", lambda args, queue, expires: sent.append((args, queue)))
    assert tasks.refresh_reference("t") == 2
    assert sent == [(("other", ["index_weights", "sectors"]), "terminal.other")]


@pytest.fixture
def pools() -> Iterator[None]:
    """Two pools: one of the index futures, one of all else."""
    Pool.objects.create(name="futures", markets="IF")
    Pool.objects.create(name="stocks")
    roster.look()
    yield
    roster.forget()


@pytest.mark.usefixtures("pools")
def test_each_of_two_pools_tells_of_its_own_markets_and_takes_nothing_from_the_other(rich: RichSource) -> None:
    futures = RichSource()
    futures.answer = Parsed((quote("IF2612.IF"), quote("IF2703.IF"), quote("600001.SH")))
    futures.sectors = {"other": ("IF2612.IF",)}
    futures.fetch_main_contracts = lambda *, timeout: {"IF.IF": "IF2703.IF", "rb.SF": "rb2701.SF"}  # type: ignore[method-assign]

    def quoted() -> set[str]:
        return set(Row.objects.filter(quoted=True).values_list("symbol", flat=True))

    rich.fetch_main_contracts = lambda *, timeout: {"IF.IF": "IF2612.IF", "rb.SF": "rb2705.SF"}  # type: ignore[method-assign]
    for _ in range(2):
        assert reference.refresh(feed_of(rich, "stocks")) == 2
        assert reference.refresh(feed_of(futures, "futures")) == 2
        assert quoted() == {"600000.SH", "000300.SH", "IF2612.IF", "IF2703.IF"}
        assert dict(MainContract.objects.values_list("product", "symbol")) == {"IF.IF": "IF2703.IF", "rb.SF": "rb2705.SF"}
        assert set(Sector.objects.values_list("name", flat=True)) == {"few", "000300.SH"}
    futures.answer = Parsed((quote("IF2703.IF"),))
    reference.refresh(feed_of(futures, "futures"))
    assert quoted() == {"600000.SH", "000300.SH", "IF2703.IF"}

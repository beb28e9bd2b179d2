"""A source whose answers a test scripts: the fake at the edge of the feed's tests."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from marketdata.exchanges import Kind
from marketdata.sources.base import Bars, Capability, OnParsed, SourceStatus, SourceUnavailable, State
from marketdata.types import Dividend, Instrument, Parsed, Period, Quote


class ScriptedSource:
    """Answers what it is told to; ``hold`` keeps a fetch waiting until it is set."""

    name = "scripted"

    def __init__(self, *, push: bool = False) -> None:
        self.push = push
        self.state = State.UP
        self.dropped = 0
        self.interruptions = 0
        self.answer = Parsed()
        self.hold = threading.Event()
        self.hold.set()
        self.fetching = threading.Event()
        self.asked: list[Sequence[str] | None] = []
        self.request_ids: list[str] = []
        self.on_parsed: OnParsed | None = None
        self.closed = False
        self.instruments: list[Instrument] = []
        self.sectors: dict[str, tuple[str, ...]] = {}

    def start(self) -> None: ...

    def close(self) -> None:
        self.closed = True
        self.hold.set()

    def status(self) -> SourceStatus:
        return SourceStatus(state=self.state, dropped=self.dropped, interruptions=self.interruptions)

    def capabilities(self) -> frozenset[Capability]:
        found = {Capability.QUOTES, Capability.INSTRUMENTS, Capability.SECTORS}
        return frozenset(found | {Capability.PUSH} if self.push else found)

    def universe(self, *, timeout: float) -> tuple[str, ...]:
        return tuple(quote.symbol for quote in self.answer.quotes)

    def fetch_quotes(self, symbols: Sequence[str] | None = None, *, timeout: float, request_id: str = "") -> Parsed:
        self.asked.append(symbols)
        self.request_ids.append(request_id)
        self.fetching.set()
        self.hold.wait(timeout)
        if self.state != State.UP:
            raise SourceUnavailable("down")
        return self.answer

    def subscribe(self, symbols: Sequence[str] | None, on_parsed: OnParsed) -> ScriptedSource:
        self.on_parsed = on_parsed
        return self

    def fetch_bars(self, symbols: Sequence[str], period: Period, **_: object) -> Bars:
        return Bars({})

    def fetch_dividends(self, symbols: Sequence[str], *, timeout: float) -> dict[str, tuple[Dividend, ...]]:
        return {}

    def fetch_codes(self, kind: Kind, *, timeout: float) -> tuple[str, ...]:
        return ()

    def fetch_main_contracts(self, *, timeout: float) -> dict[str, str]:
        return {}

    def fetch_index_weights(self, index: str, *, timeout: float) -> dict[str, float]:
        return {}

    def fetch_instruments(self, symbols: Sequence[str], *, timeout: float) -> Iterable[Instrument]:
        return self.instruments

    def fetch_sectors(self, *, timeout: float) -> dict[str, tuple[str, ...]]:
        return self.sectors

    def fetch_trading_dates(self, market: str, *, timeout: float) -> tuple[str, ...]:
        return ()


def quote(symbol: str = "600000.SH", time: int = 1, price: float = 10.0, volume: int = 100) -> Quote:
    return Quote(symbol=symbol, time=time, price=price, volume=volume, source="scripted")

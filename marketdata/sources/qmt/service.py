"""What each request of Argus means in calls to the terminal, in the child."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from marketdata import symbols
from marketdata.sources.base import SourceUnavailable, Unsupported
from marketdata.sources.qmt import childlog, messages, parse_history, parse_reference
from marketdata.sources.qmt.parse import DAY, Limits, parse_ticks
from marketdata.sources.qmt.pushes import chunks
from marketdata.sources.qmt.terminal import Terminal
from marketdata.types import Bar, Instrument, Parsed, Period

BARS_PER_DAY: Final[dict[Period, float]] = {
    Period.M1: 240,
    Period.M5: 48,
    Period.M15: 16,
    Period.M30: 8,
    Period.H1: 4,
    Period.D1: 1,
    Period.W1: 0.2,
    Period.MON1: 1 / 22,
}
CALENDAR_DAYS_PER_SESSION: Final = 1.6
LONGEST_HOLIDAY: Final = 15
"""Days: how far back a download must go so that ``count`` bars are in it, with room for the holidays."""


def now_ms() -> int:
    """This machine's clock."""
    return int(time.time() * 1000)


class Service:
    """Answers requests on the one thread that calls the terminal."""

    def __init__(self, terminal: Terminal, limits: Mapping[str, Limits]) -> None:
        self._terminal = terminal
        self._limits = limits
        self._kept: dict[str, tuple[tuple[int, str], Any]] = {}

    def answer(self, request: messages.Request) -> object:
        """The answer to one request. Raises ``SourceError``."""
        match request:
            case messages.FetchQuotes(wanted):
                return self.quotes(wanted)
            case messages.FetchBars():
                return self.bars(request)
            case messages.FetchInstruments(wanted):
                return self.instruments(wanted)
            case messages.FetchSectorNames():
                return tuple(str(name) for name in self._terminal.ask("get_sector_list") or ())
            case messages.FetchSectors(names):
                return {name: self._constituents(name) for name in names}
            case messages.FetchTradingDates(market):
                return self.trading_dates(market)
            case messages.FetchUniverse():
                return self.universe()

    def quotes(self, wanted: Sequence[str] | None) -> Parsed:
        """The full tick of symbols, fewer than 500 in a call, by code and never by a market's token."""
        ticks: list[tuple[object, object]] = []
        for codes in chunks(self.universe() if wanted is None else wanted):
            ticks.extend(self._full_tick(codes).items())
        return parse_ticks(ticks, now_ms(), self._limits)

    def _full_tick(self, codes: list[str]) -> dict[Any, Any]:
        answer = self._terminal.ask("get_full_tick", codes)
        if not isinstance(answer, dict):
            raise SourceUnavailable(f"get_full_tick answered {type(answer).__name__}")
        return answer

    def universe(self) -> tuple[str, ...]:
        """The constituents of the A-share sectors and the core indices; read once a day and after each connection."""
        found: tuple[str, ...] = self._once("universe", self._read_universe)
        return found

    def _read_universe(self) -> tuple[str, ...]:
        found: set[str] = set()
        for alternatives in parse_reference.UNIVERSE:
            for names in alternatives:
                parts = [self._constituents(name) for name in names]
                if all(parts):
                    found.update(*parts)
                    break
        if not found:
            sectors = " or ".join("、".join(part) for part in parse_reference.UNIVERSE[0])
            raise SourceUnavailable(f"the terminal knows no constituents of {sectors}: download the sector data there")
        indices = self._full_tick(list(parse_reference.CORE_INDICES))
        found.update(code for code in parse_reference.CORE_INDICES if indices.get(code))
        return tuple(sorted(found))

    def _constituents(self, name: str) -> tuple[str, ...]:
        return parse_reference.parse_symbols(self._terminal.ask("get_stock_list_in_sector", name) or ())

    def trading_dates(self, market: str) -> tuple[str, ...]:
        """Not by get_trading_calendar, which downloads first and does not exist in older terminals."""
        return parse_reference.parse_dates(self._terminal.ask("get_trading_dates", market, "", "", -1) or ())

    def instruments(self, codes: Sequence[str]) -> tuple[Instrument, ...]:
        """Details, one call each; the vendor's list function does the same."""
        details = ((code, self._terminal.ask("get_instrument_detail", code)) for code in codes)
        found = (parse_reference.parse_instrument(code, detail) for code, detail in details)
        return tuple(instrument for instrument in found if instrument is not None)

    def bars(self, request: messages.FetchBars) -> messages.Bars:
        """Download, read, parse. Times go over as texts of Beijing, both of one type: the client refuses mixed ones."""
        codes = list(request.symbols)
        start = "" if request.start is None else parse_history.beijing_text(request.start)
        end = "" if request.end is None else parse_history.beijing_text(request.end)
        self._download(codes, request, end)
        count = request.count if request.count is not None and request.start is None else -1
        frames = self._terminal.history(codes, request.period.value, start, end, count)
        refused: Counter[str] = Counter()
        bars: dict[str, tuple[Bar, ...]] = {}
        for code, frame in frames.items():
            dates = self._dates_of(symbols.market_of(code))
            found, bad = parse_history.parse_bars(code, request.period, frame.to_dict("records"), dates=dates, now=now_ms())
            refused.update(bad)
            if found := _within(found, request):
                bars[found[0].symbol] = found
        if refused:
            childlog.write("warning", "qmt_bars_refused", period=request.period, symbols=len(codes), **refused)
        return messages.Bars(bars, dict(refused))

    def _download(self, codes: list[str], request: messages.FetchBars, end: str) -> None:
        first = request.start
        if first is None and request.count is not None:
            sessions = math.ceil(request.count / BARS_PER_DAY[request.period])
            days = int(sessions * CALENDAR_DAYS_PER_SESSION) + LONGEST_HOLIDAY
            first = (request.end if request.end is not None else now_ms()) - days * DAY
        start = "" if first is None else parse_history.beijing_text(first)
        try:
            self._terminal.ask("download_history_data2", codes, parse_history.DOWNLOADED[request.period], start, end)
        except Unsupported as error:
            childlog.write("info", "qmt_download_unsupported", detail=str(error))

    def _dates_of(self, market: str) -> frozenset[str] | None:
        found: frozenset[str] | None = self._once(f"dates {market}", lambda: self._read_dates(market))
        return found

    def _read_dates(self, market: str) -> frozenset[str] | None:
        try:
            return frozenset(self.trading_dates(market)) or None
        except Unsupported:
            return None

    def _once(self, name: str, read: Callable[[], Any]) -> Any:
        """What is read once per connection and Beijing day."""
        of = (self._terminal.generation, parse_history.beijing_date(now_ms()))
        if name not in self._kept or self._kept[name][0] != of:
            self._kept[name] = (of, read())
        return self._kept[name][1]


def _within(bars: tuple[Bar, ...], request: messages.FetchBars) -> tuple[Bar, ...]:
    ordered = sorted({bar.time: bar for bar in bars}.values(), key=lambda bar: bar.time)
    low = -math.inf if request.start is None else request.start
    high = math.inf if request.end is None else request.end
    found = [bar for bar in ordered if low <= bar.time <= high]
    return tuple(found if request.count is None else found[-request.count :] if request.count > 0 else [])

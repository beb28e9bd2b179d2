"""What each request of Argus means in calls to the terminal, in the child."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from marketdata import calendar, periods, symbols
from marketdata.exchanges import Kind
from marketdata.series import Series
from marketdata.sources.base import SourceError, SourceUnavailable, Unsupported
from marketdata.sources.qmt import childlog, messages, parse_history, parse_reference
from marketdata.sources.qmt.parse import DAY, Limits, day_of, parse_ticks
from marketdata.sources.qmt.pushes import chunks
from marketdata.sources.qmt.terminal import PROBE_CODE, SINGLE_SUBSCRIPTIONS, Terminal, WrongPeer
from marketdata.types import Dividend, Instrument, Parsed, Period

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
AFTER_HOURS_LIMIT: Final = 0.20
"""The daily limit of the boards that trade at the close after hours: STAR Market and ChiNext."""
SETTLE: Final = 1.0
"""Seconds that the first word of today's bars may take."""


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
            case messages.FetchDividends(wanted):
                return self.dividends(wanted)
            case messages.FetchCodes(kind):
                return self.codes(kind)
            case messages.FetchMainContracts(products):
                return self.main_contracts(products)
            case messages.FetchIndexWeights(index):
                return self.index_weights(index)

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
        details = ((code, self._terminal.ask("get_instrument_detail", code, True)) for code in codes)
        found = (parse_reference.parse_instrument(code, detail) for code, detail in details)
        return tuple(instrument for instrument in found if instrument is not None)

    def bars(self, request: messages.FetchBars) -> messages.Bars:
        """Download, read, parse; what was still forming when this began is left out."""
        codes = list(request.symbols)
        clock = self._clock(codes)
        first = request.start if request.start is not None else _first_of(request, clock)
        if first is not None and first > min(clock, request.end if request.end is not None else clock):
            return messages.Bars({}, {})
        start, end = ("" if time is None else parse_history.beijing_text(time, request.period) for time in (first, request.end))
        self._download(codes, request.period, start, end)
        last = clock if request.end is None else min(request.end, clock)
        reaches_today = day_of(last) == day_of(clock)
        frames: dict[str, Any] = {}
        for part in _parts(codes, SINGLE_SUBSCRIPTIONS) if reaches_today else [codes]:
            with self._today(part, request.period, clock) if reaches_today else contextlib.nullcontext():
                frames |= self._terminal.history(part, request.period.value, start, end, -1)
        refused: Counter[str] = Counter()
        bars: dict[str, messages.Packed] = {}
        for code, frame in frames.items():
            dates = self._dates_of(symbols.market_of(code))
            columns = {name: frame[name].to_numpy() for name in frame.columns}
            series, bad = parse_history.parse_bars(code, request.period, columns, dates=dates, now=now_ms())
            refused.update(bad)
            series = _over(series.between(request.start, last), request.period, code, max(clock, now_ms()))
            if series := series.last(request.count) if request.count is not None else series:
                bars[code] = messages.pack(series)
        if refused:
            childlog.write("warning", "qmt_bars_refused", period=request.period, symbols=len(codes), **refused)
        return messages.Bars(bars, dict(refused))

    def _clock(self, codes: list[str]) -> int:
        """The terminal's own time: that of the newest tick among the codes and the index that ticks all day.

        A bar is over once the terminal itself has come past its end, whatever this machine's clock says.
        """
        times: list[float] = []
        with contextlib.suppress(Unsupported):
            for part in chunks([PROBE_CODE, *codes]):
                ticks = [tick for tick in self._full_tick(part).values() if isinstance(tick, Mapping)]
                times += [tick["time"] for tick in ticks if isinstance(tick.get("time"), int | float)]
        return int(max(times, default=now_ms()))

    @contextlib.contextmanager
    def _today(self, codes: list[str], period: Period, clock: int) -> Iterator[None]:
        """Within this the terminal has today's bars: it has them of what is subscribed.

        One single subscription each, never more than the vendor recommends, and ended again, because a terminal's memory
        grows with them. Waits until each code has been heard of, and ``SETTLE`` at most: a halted one says nothing. Without
        the function, or where it fails, what the terminal has is read.
        """
        heard = Heard(codes)
        numbers: tuple[int, ...] = ()
        try:
            numbers = self._terminal.subscribe_bars(codes, period.value, parse_history.beijing_text(clock, Period.D1), heard)
        except WrongPeer:
            raise
        except SourceError as error:
            childlog.write("info", "qmt_no_bar_subscription", detail=str(error))
        else:
            heard.wait(SETTLE)
        try:
            yield
        finally:
            self._terminal.unsubscribe(numbers)

    def _download(self, codes: list[str], period: Period, start: str, end: str) -> None:
        try:
            self._terminal.ask("download_history_data2", codes, parse_history.DOWNLOADED[period], start, end)
        except Unsupported as error:
            childlog.write("info", "qmt_download_unsupported", detail=str(error))

    def dividends(self, codes: Sequence[str]) -> dict[str, tuple[Dividend, ...]]:
        """What each has given, one call each."""
        found = {}
        for code in codes:
            frame = self._terminal.ask("get_divid_factors", code)
            rows = {} if frame is None else frame.to_dict("index")
            if given := parse_reference.parse_dividends(code, rows):
                found[code] = given
        return found

    def codes(self, kind: Kind) -> tuple[str, ...]:
        """The constituents of the sectors that hold a kind, without those of another kind and what is no instrument."""
        found: set[str] = set()
        for alternatives in parse_reference.SECTORS.get(kind, ()):
            for names in alternatives:
                parts = [self._constituents(name) for name in names]
                found.update(*parts)
                if all(parts):
                    break
        return tuple(
            sorted(code for code in found if symbols.kind(code) in (kind, None) and not parse_reference.is_continuous(code))
        )

    def main_contracts(self, products: Sequence[str]) -> dict[str, str]:
        """One call each; a product that the terminal does not know is left out."""
        found: dict[str, str] = {}
        failure: SourceError | None = None
        for product in products:
            code, _, market = product.rpartition(".")
            try:
                answer = self._terminal.ask("get_main_contract", f"{code}00.{market}")
            except (WrongPeer, Unsupported):
                raise
            except SourceError as error:
                if not self._terminal.connected:
                    raise
                failure = error
                continue
            contracts = parse_reference.parse_symbols([answer])
            if contracts and symbols.kind(contracts[0]) is Kind.FUTURE:
                found[product] = contracts[0]
        if failure is not None and not found:
            raise failure
        return found

    def index_weights(self, index: str) -> dict[str, float]:
        """The terminal's table, downloaded first where it is empty (once a day: the vendor's download says nothing)."""
        weights = parse_reference.parse_weights(self._terminal.ask("get_index_weight", index))
        if not weights:
            self._once("index weights", self._download_weights)
            weights = parse_reference.parse_weights(self._terminal.ask("get_index_weight", index))
        return weights

    def _download_weights(self) -> None:
        with contextlib.suppress(Unsupported):
            self._terminal.ask("download_index_weight")

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


class Heard:
    """A subscription's callback that notes of which codes something has come. Runs on the vendor's threads."""

    def __init__(self, codes: Iterable[str]) -> None:
        self._changed = threading.Condition()
        self._silent = set(codes)

    def __call__(self, datas: object) -> None:
        with self._changed:
            self._silent.difference_update(datas if isinstance(datas, Mapping) else ())
            self._changed.notify()

    def wait(self, timeout: float) -> None:
        """Until all have been heard of, or the timeout (seconds) is over."""
        with self._changed:
            self._changed.wait_for(lambda: not self._silent, timeout)


def _over(series: Series, period: Period, code: str, now: int) -> Series:
    """Without the day on which the fixed-price session after the close still adds to the volume."""
    item = symbols.range_of(code)
    if period is not Period.D1 or not len(series) or item is None or item.kind is not Kind.STOCK:
        return series
    if item.limit != AFTER_HOURS_LIMIT:
        return series
    day = calendar.day_of(int(series.time[-1]))
    return series if now >= periods.closed_after(item.market, day, after_hours=True) else series.pick(slice(0, -1))


def _first_of(request: messages.FetchBars, clock: int) -> int | None:
    """How far back ``count`` bars reach, holidays and what is still forming included; None: to the beginning."""
    if request.count is None:
        return None
    sessions = math.ceil(request.count / BARS_PER_DAY[request.period])
    days = int(sessions * CALENDAR_DAYS_PER_SESSION) + LONGEST_HOLIDAY
    return (request.end if request.end is not None else clock) - days * DAY


def _parts(codes: list[str], size: int) -> list[list[str]]:
    return [codes[first : first + size] for first in range(0, len(codes), size)]

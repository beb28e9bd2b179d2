"""Bars of a live day, built from its quotes: the forming one and the closed ones of every period.

A quote accumulates over its day, so a minute is the difference of two quotes. The rules, all of them:

* **1m** bars are folded from quotes; 5m, 15m, 30m and 1h bars are merged from closed 1m bars, and the forming one of them is
  what has been merged plus the forming minute. They agree with each other by construction.
* **1d** is the quote's own open, high, low, price, volume and amount, which are the exchange's.
* **Which minute.** A snapshot of 09:31:00.000 shows what traded up to then and belongs to the bar stamped 09:31; one of
  09:31:00.001 to that of 09:32. At the beginning of a session it is the other way round: 09:30:00.000 and 13:00:00.000 belong
  to 09:31 and 13:01, because nothing of the auction or the morning can be new then (seven of thirty recorded Shanghai
  instruments show their first continuous trades in the snapshot of 09:30:00). Around the clock a minute is half-open, from
  00:00.000 to 00:59.999, as Binance's own bars are. What traded between two snapshots belongs to the later one's minute.
* **Opening auction**: everything before 09:30:00 is the bar stamped 09:30 (recorded volumes appear from 09:25:00 to 09:25:03)
  and is in the first bar of the longer periods. Quotes before the auction's call belong to no bar.
* **Lunch and close**: snapshots after 11:30 belong to 11:30 until 13:00; those up to five minutes after 15:00 (the closing
  auction is published until 15:00:03) belong to 15:00. Later volume is that of the fixed-price session, in 1d alone.
* **Closing**: a quote of a later minute closes a bar; so does the market's clock, four seconds after the bar's end, thirty
  seconds after the end of a session.
* **A minute without a trade has no bar.** A quote shows trading where its volume differs from the last one's, or its price
  does once continuous trading has begun. What was missed (a halt, lost quotes) lands in the next quote's minute.
* **A late quote** is one from before the last; it is refused and counted. Three in a row, each newer than the one before,
  are a clock that was set back, as in ``marketdata.ingest``: the forming minute is given up and the third one counts. A quote
  whose minute the clock has closed already is counted as late too: its volume lands in the next bar, its prices in 1d alone.
* **Volume that goes down** within a day is a correction: no minute is negative, and the minutes that follow make up for it,
  so that the day's sum is right as soon as it can be.
* **A late start**: the first quote of a day that shows volume after the day's first bar is where counting begins; no bar
  that began before it is given (1d is). Where the volume is still nil, or the bar is the day's first, nothing was missed.
* **High and low** of a minute include the day's new high or low, also where it lay between two snapshots. Its open is
  the first snapshot's price; the day's open in the minute of the day's first trade.
* **A new day** begins with its first quote; whatever was open is closed before. On days on which the market is known to be
  closed there are no bars; on days beyond the calendar a quote is proof enough of trading.
* **Markets whose hours are not known** have no bars; their quotes are counted. Where quotes have no volume (crypto recordings)
  bars have none, and without the day's own numbers there is no 1d.

Every bar is ``provisional`` until ``settle`` has brought the terminal's own.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

import msgspec

from marketdata import periods, symbols
from marketdata.calendar import (
    AFTER_HOURS,
    AROUND_THE_CLOCK,
    CHINA,
    DAY,
    OutsideCalendar,
    TradingCalendar,
    day_of,
    midnight,
)
from marketdata.exchanges import Kind
from marketdata.types import Bar, Number, Period, Quote

PERIODS: Final = (Period.M1, Period.M5, Period.M15, Period.M30, Period.H1, Period.D1)
"""What is built, shortest first."""
MINUTE: Final = 60_000
D1: Final = len(PERIODS) - 1

GRACE, SESSION_GRACE = 4_000, 30_000
"""Milliseconds of the market's clock between a bar's end and its closing without a quote: snapshots stand 3 s apart."""
AFTER_CLOSE: Final = 5 * MINUTE
"""How long after the close snapshots still show the closing auction: the fixed-price session begins then."""
LATE_IN_A_ROW: Final = 3
HELD: Final = 70
"""Closed minutes of a symbol that are kept to be settled: an hour's, and ten for the terminal to bring them."""
MONEY_DECIMALS: Final = 3
NEVER: Final = 1 << 60
BOARDS_AFTER_HOURS: Final = 0.20
"""The price limit by which STAR Market and ChiNext stocks are told: those have the fixed-price session."""


class LiveBar(msgspec.Struct, frozen=True, tag_field="type", tag="kline", kw_only=True):
    """One bar of the running day; ``time`` is its end in ms, of 1d the market's close.

    ``volume`` is None where the source's quotes have none; ``prev_close`` is that of the day's bar alone.
    """

    symbol: str
    period: Period
    time: int
    open: float
    high: float
    low: float
    close: float
    volume: Number | None
    amount: float | None = None
    prev_close: float | None = None
    open_interest: Number | None = None
    closed: bool
    provisional: bool
    source: str


class _Slot(NamedTuple):
    """A minute of a market's day, all in ms since midnight.

    Quotes of ``since`` < time <= ``until`` belong to it; ``due`` is when the clock closes it. ``parts`` are begin and end of
    the longer bars that it is in. The first bar of a day begins at 0; ``auction`` is the opening auction's.
    """

    since: int
    until: int
    begin: int
    end: int
    due: int
    auction: bool
    parts: tuple[tuple[int, int], ...]


class _Grid:
    """The minutes of one market's ordinary day, and to which of them a snapshot belongs.

    (``periods.end_of`` tells it of a trade, which is in the minute that has begun; a snapshot shows the trades before it.)
    """

    def __init__(self, market: str) -> None:
        phases = periods.phases_of(market)
        self.around_the_clock = phases is AROUND_THE_CLOCK
        self.opens = phases[0].start
        self.close = periods.close_at(market)
        stretches = periods.stretches(market)
        longer = [periods.bar_ends(market, period) for period in PERIODS[1:D1]]
        slots: list[_Slot] = []
        for end in periods.bar_ends(market, Period.M1):
            stretch = next((stretch for stretch in stretches if stretch[0] < end <= stretch[1]), None)
            since, until, grace = end - MINUTE, end, GRACE
            if stretch is None:
                # The opening auction.
                since, until = self.opens - 1, end - 1
            elif self.around_the_clock:
                since, until = since - 1, until - 1
            else:
                if since == stretch[0]:
                    since -= 1
                if end == stretch[1]:
                    until = next((start - 1 for start, _ in stretches if start > end), end + AFTER_CLOSE)
                    grace = SESSION_GRACE
            parts = tuple(_around(ends, end) for ends in longer)
            slots.append(_Slot(since, until, slots[-1].end if slots else 0, end, end + grace, stretch is None, parts))
        self.slots = tuple(slots)
        self._untils = [slot.until for slot in slots]
        self.by_end = {slot.end: slot for slot in slots}

    def slot(self, since_midnight: int) -> _Slot | None:
        """The minute that a quote belongs to; None before the day's opening and after its last bar."""
        position = bisect_left(self._untils, since_midnight)
        return None if position == len(self.slots) or since_midnight < self.opens else self.slots[position]


def _around(ends: tuple[int, ...], minute: int) -> tuple[int, int]:
    """Begin and end of the longer bar that holds a minute."""
    position = bisect_left(ends, minute)
    return ends[position - 1] if position else 0, ends[position]


@cache
def _grid(market: str) -> _Grid | None:
    try:
        return _Grid(market)
    except periods.UnknownHours:
        return None


class _Row(msgspec.Struct, gc=False):
    """A bar's numbers. ``begin`` and ``end`` in ms."""

    begin: int
    end: int
    open: float
    high: float
    low: float
    close: float
    volume: Number | None
    amount: float | None
    interest: Number | None
    provisional: bool = True
    prev_close: float | None = None
    """Of the day's bar alone."""


def _merged(first: _Row | None, then: _Row, begin: int, end: int) -> _Row:
    """A longer bar with one more minute in it."""
    if first is None:
        return _Row(
            begin, end, then.open, then.high, then.low, then.close, then.volume, then.amount, then.interest, then.provisional
        )
    return _Row(
        begin,
        end,
        first.open,
        max(first.high, then.high),
        min(first.low, then.low),
        then.close,
        None if first.volume is None or then.volume is None else first.volume + then.volume,
        None if first.amount is None or then.amount is None else round(first.amount + then.amount, MONEY_DECIMALS),
        then.interest,
        first.provisional or then.provisional,
    )


class _Held:
    """A symbol's last closed minutes as plain numbers, 80 bytes each: 5,500 symbols are 31 MB, as objects they were 100."""

    WIDTH = 10

    __slots__ = ("_numbers", "lost")

    def __init__(self) -> None:
        self._numbers = array("d")
        self.lost = 0
        """The end of the newest minute that is no longer here."""

    def put(self, row: _Row) -> None:
        """Add a minute, or replace the one with its end."""
        numbers, width = self._numbers, self.WIDTH
        fresh = array("d", [math.nan if value is None else value for value in msgspec.structs.astuple(row)[: self.WIDTH]])
        position = len(numbers)
        while position and numbers[position - width + 1] >= row.end:
            position -= width
        same = position < len(numbers) and numbers[position + 1] == row.end
        numbers[position : position + width * same] = fresh
        if len(numbers) > HELD * width:
            self.lost = int(numbers[1])
            del numbers[:width]

    def rows(self, after: int, until: int = NEVER) -> list[_Row]:
        """The minutes with ends in (after, until], in order."""
        numbers, width = self._numbers, self.WIDTH
        position = len(numbers)
        found = []
        while position and numbers[position - width + 1] > after:
            position -= width
            if numbers[position + 1] <= until:
                found.append(_row(numbers[position : position + width]))
        return found[::-1]


def _row(numbers: array[float]) -> _Row:
    begin, end, opened, high, low, close, volume, amount, interest, provisional = numbers
    return _Row(
        int(begin),
        int(end),
        opened,
        high,
        low,
        close,
        _number(volume),
        None if math.isnan(amount) else amount,
        _number(interest),
        bool(provisional),
    )


def _number(value: float) -> Number | None:
    return None if math.isnan(value) else int(value) if value.is_integer() else value


class _State:
    """What is known of one symbol on its day."""

    __slots__ = (
        "after_hours",
        "amount",
        "begin",
        "close",
        "closed_until",
        "day_closed",
        "day_ends",
        "due",
        "end",
        "grid",
        "held",
        "high",
        "last",
        "late",
        "low",
        "midnight",
        "open",
        "parts",
        "quote",
        "since",
        "slot",
        "source",
        "symbol",
        "until",
        "volume",
        "whole_from",
    )

    def __init__(self, symbol: str, source: str) -> None:
        self.symbol = symbol
        self.source = source
        self.grid = _grid(periods.hours_of(symbol))
        self.after_hours = _has_after_hours(symbol)
        self.quote: Quote | None = None
        self.held = _Held()
        self.last: list[_Row | None] = [None] * len(PERIODS)
        self.late: tuple[Quote | None, int, int] = (None, 0, 0)
        """The quote after which late ones came, how many, and the time of the last."""
        self.closed_until = 0
        self.midnight = self.day_ends = 0
        self.since = self.until = 0
        self.due = NEVER
        self._begin_day()

    def begin_day(self, midnight_ms: int) -> None:
        """Forget the day before; around the clock there is nothing to forget."""
        self.midnight, self.day_ends = midnight_ms, midnight_ms + DAY
        self.day_closed = False
        assert self.grid is not None
        if not self.grid.around_the_clock:
            self.quote = None
            self._begin_day()

    def _begin_day(self) -> None:
        self.slot: _Slot | None = None
        self.begin = self.end = 0
        self.open: float | None = None
        self.high = self.low = self.close = 0.0
        self.volume: Number = 0
        self.amount = 0.0
        self.parts: list[_Row | None] = [None] * (D1 - 1)
        self.whole_from = 0
        self.day_closed = False


def _has_after_hours(symbol: str) -> bool:
    found = symbols.range_of(symbol)
    return found is not None and found.kind is Kind.STOCK and found.limit == BOARDS_AFTER_HOURS


_NOTHING: Final = Quote(symbol="", time=0, volume=0, amount=0.0, source="")
"""A day before its first trade."""


@dataclass(slots=True)
class Counts:
    """What did not become part of a bar, in quotes."""

    late: int = 0
    clock_resets: int = 0
    corrections: int = 0
    unknown_hours: int = 0
    closed_days: int = 0


class BarBuilder:
    """The bars of one feed. Not thread-safe: one owner."""

    def __init__(self, calendar_of: Callable[[str], TradingCalendar] = lambda market: CHINA) -> None:
        """``calendar_of``: a market's trading days; it may raise ``OutsideCalendar``."""
        self.counts = Counts()
        self._calendar_of = calendar_of
        self._states: dict[str, _State] = {}
        self._dirty: set[_State] = set()
        self._closed: list[tuple[_State, int, _Row]] = []
        self._due = NEVER
        self._now = 0

    def take(self, quotes: Iterable[Quote]) -> None:
        """Accepted quotes, each symbol's in order."""
        states, dirty = self._states, self._dirty
        for quote in quotes:
            state = states.get(quote.symbol)
            if state is None:
                state = states[quote.symbol] = _State(quote.symbol, quote.source)
            if not state.since < quote.time <= state.until and not self._turn(state, quote):
                continue
            last, price, volume = state.quote, quote.price, quote.volume
            state.quote = quote
            if price is None or (volume == last.volume and (price == last.price or state.slot.auction)):  # type: ignore[union-attr]
                continue
            self._fold(state, last, quote, price)  # type: ignore[arg-type]
            dirty.add(state)

    def advance(self, now: int) -> None:
        """Close what has ended by the market's clock. ``now`` must not run ahead of the quotes: read the clock before the
        quotes that wait, and hand those in first."""
        self._now = now
        if now < self._due:
            return
        due = NEVER
        for state in self._states.values():
            if state.due <= now:
                self._expire(state, now)
            due = min(due, state.due)
        self._due = due

    def drain(self, wanted: Mapping[Period, Collection[str] | None]) -> list[LiveBar]:
        """What has changed since the last drain, of what is wanted (None: every symbol): closed bars in order, then the
        forming ones. Call it after every ``take``, also with nothing wanted: what is not wanted now is not kept."""
        bars = [
            _live(state, index, row, closed=True)
            for state, index, row in self._closed
            if PERIODS[index] in wanted and _is_in(state.symbol, wanted[PERIODS[index]])
        ]
        for index, chosen in _built(wanted):
            for state in self._dirty if chosen is None else self._chosen(chosen):
                if state in self._dirty and (row := self._forming(state, index)) is not None:
                    bars.append(_live(state, index, row, closed=False))
        self._closed.clear()
        self._dirty.clear()
        return bars

    def current(self, wanted: Mapping[Period, Collection[str] | None]) -> list[LiveBar]:
        """The last closed and the forming bar of everything that is wanted: what a new subscriber begins with."""
        bars = []
        for index, chosen in _built(wanted):
            for state in self._states.values() if chosen is None else self._chosen(chosen):
                if (last := state.last[index]) is not None:
                    bars.append(_live(state, index, last, closed=True))
                if (row := self._forming(state, index)) is not None:
                    bars.append(_live(state, index, row, closed=False))
        return bars

    def closed(self, chosen: Collection[str] | None = None, since: int = 0) -> list[LiveBar]:
        """Closed bars of 1m and 1d with ends from ``since`` on that are still provisional, each symbol's in order."""
        bars = []
        for state in self._states.values() if chosen is None else self._chosen(chosen):
            rows = [(0, row) for row in state.held.rows(since - 1)]
            if (day := state.last[D1]) is not None and day.end >= since:
                rows.append((D1, day))
            bars += [_live(state, index, row, closed=True) for index, row in rows if row.provisional]
        return bars

    def settle(self, bars: Iterable[Bar]) -> list[LiveBar]:
        """Put the terminal's own closed bars (1m, 1d) in the place of ours: what to publish again, no longer provisional.

        A longer bar is given again where a minute of it changed, and once all of them are settled. A bar that is still
        forming here, one that is no longer held and one that is settled so already are left alone.
        """
        found: list[LiveBar] = []
        for bar in bars:
            state = self._states.get(bar.symbol)
            if state is None or bar.period not in (Period.M1, Period.D1):
                continue
            row = _Row(0, bar.time, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.amount, bar.open_interest, False)
            row.prev_close = bar.prev_close
            found += self._settle_day(state, row) if bar.period is Period.D1 else self._settle_minute(state, row)
        return found

    def _chosen(self, chosen: Collection[str]) -> list[_State]:
        states = self._states
        return [states[symbol] for symbol in chosen if symbol in states]

    # One quote

    def _fold(self, state: _State, last: Quote, quote: Quote, price: float) -> None:
        """Take a quote that shows trading into the forming minute."""
        volume, before = quote.volume, last.volume
        if volume is not None and before is not None and volume < before:
            self.counts.corrections += 1
            if price == last.price:
                return
        high = low = price
        if quote.high is not None and quote.high > price and (last.high is None or quote.high > last.high):
            high = quote.high
        if quote.low is not None and quote.low < price and (last.low is None or quote.low < last.low):
            low = quote.low
        if state.open is None:
            state.open = opened = price if quote.open is None or last.open is not None else quote.open
            state.high, state.low = max(high, opened), min(low, opened)
        else:
            if high > state.high:
                state.high = high
            if low < state.low:
                state.low = low
        state.close = price

    def _turn(self, state: _State, quote: Quote) -> bool:
        """Deal with a quote that is not of the forming minute. Whether it is to be folded into what forms now."""
        if state.grid is None:
            self.counts.unknown_hours += 1
            return False
        last, time = state.quote, quote.time
        if last is not None and time < last.time and not self._is_reset(state, last, quote):
            return False
        if not state.midnight <= time < state.day_ends and not self._begin_day(state, time):
            self.counts.closed_days += 1
            return False
        slot = state.grid.slot(time - state.midnight)
        if slot is None and time - state.midnight < state.grid.opens:
            return False
        end = slot.end + state.midnight if slot else NEVER
        if state.slot is not None:
            self._close_minute(state)
        self._close_parts(state, slot.begin + state.midnight if slot else NEVER)
        if state.quote is None:
            self._begin(state, slot, quote)
        if slot is None or end <= state.closed_until:
            # After the last bar, or of a minute that the clock has closed.
            assert state.quote is not None
            if slot is not None and quote.volume != state.quote.volume:
                self.counts.late += 1
            state.quote = quote
            self._dirty.add(state)
            self._plan(state)
            return False
        state.closed_until = max(state.closed_until, slot.begin + state.midnight)
        state.slot, state.begin, state.end = slot, slot.begin + state.midnight, end
        state.since, state.until = slot.since + state.midnight, slot.until + state.midnight
        self._plan(state)
        return True

    def _is_reset(self, state: _State, last: Quote, quote: Quote) -> bool:
        """Whether a late quote is the third of a clock that was set back; then what forms is given up."""
        after, count, time = state.late
        if after is not last:
            count, time = 0, 0
        if quote.time <= time:
            self.counts.late += 1
            return False
        state.late = (last, count + 1, quote.time)
        if count + 1 < LATE_IN_A_ROW:
            self.counts.late += 1
            return False
        self.counts.clock_resets += 1
        state.slot = state.open = None
        state.closed_until = 0 if state.last[0] is None else state.last[0].end
        if quote.time < state.midnight:
            # What there is of the later day never was.
            state.quote, state.parts = None, [None] * len(state.parts)
        return True

    def _begin_day(self, state: _State, time: int) -> bool:
        """Close the day before and begin that of a time; False where the market is known to be closed on it."""
        assert state.grid is not None
        start = midnight(day_of(time))
        if not state.grid.around_the_clock and not self._trades_on(state.symbol, start):
            return False
        self._close_day(state)
        state.begin_day(start)
        return True

    def _trades_on(self, symbol: str, start: int) -> bool:
        try:
            return self._calendar_of(symbols.market_of(symbol)).is_trading_day(day_of(start))
        except OutsideCalendar:
            return True

    def _begin(self, state: _State, slot: _Slot | None, quote: Quote) -> None:
        """The first quote of a day: begin from nothing, or from the quote where something may have been missed."""
        assert state.grid is not None
        if quote.volume == 0 or (slot is not None and slot.auction):
            state.quote = _NOTHING
            return
        state.quote, state.whole_from = quote, quote.time + state.grid.around_the_clock
        state.volume, state.amount = quote.volume or 0, quote.amount or 0.0

    # What ends

    def _close_minute(self, state: _State) -> None:
        """End the forming minute; a row where it had trades and was seen from its beginning."""
        row, slot = self._minute(state), state.slot
        assert slot is not None and state.quote is not None
        state.closed_until = max(state.closed_until, state.end)
        state.slot = state.open = None
        state.since = state.until
        if row is None:
            return
        state.volume = max(state.volume, state.quote.volume or 0)
        state.amount = max(state.amount, state.quote.amount or 0.0)
        for index, (begin, end) in enumerate(slot.parts):
            state.parts[index] = _merged(state.parts[index], row, begin + state.midnight, end + state.midnight)
        if row.begin < state.whole_from:
            return
        state.held.put(row)
        self._publish(state, 0, row)
        self._close_parts(state, row.end)

    def _close_parts(self, state: _State, until: int) -> None:
        """End the longer bars whose end has been reached."""
        for index, part in enumerate(state.parts):
            if part is not None and part.end <= until:
                state.parts[index] = None
                if part.begin >= state.whole_from:
                    self._publish(state, index + 1, part)

    def _close_day(self, state: _State) -> None:
        if state.slot is not None:
            self._close_minute(state)
        self._close_parts(state, NEVER)
        row = self._forming(state, D1)
        state.day_closed = True
        if row is not None:
            self._publish(state, D1, row)

    def _publish(self, state: _State, index: int, row: _Row) -> None:
        state.last[index] = row
        self._closed.append((state, index, row))

    def _expire(self, state: _State, now: int) -> None:
        at = now - state.midnight
        if state.slot is not None and state.slot.due <= at:
            self._close_minute(state)
        assert state.grid is not None
        for part in state.parts:
            if part is not None and state.grid.by_end[part.end - state.midnight].due <= at:
                self._close_parts(state, part.end)
        if now >= self._day_due(state):
            self._close_day(state)
        self._plan(state)

    def _plan(self, state: _State) -> None:
        """When the clock has something to close here next."""
        assert state.grid is not None
        due = NEVER if state.day_closed else self._day_due(state)
        if state.slot is not None:
            due = min(due, state.slot.due + state.midnight)
        for part in state.parts:
            if part is not None:
                due = min(due, state.grid.by_end[part.end - state.midnight].due + state.midnight)
        state.due = due
        self._due = min(self._due, due)

    def _day_due(self, state: _State) -> int:
        assert state.grid is not None
        if state.grid.around_the_clock:
            return NEVER
        end = AFTER_HOURS[-1].end if state.after_hours else state.grid.close
        return state.midnight + end + SESSION_GRACE

    # What forms

    def _minute(self, state: _State) -> _Row | None:
        """The forming minute; None without a trade."""
        quote = state.quote
        if state.open is None or state.slot is None or quote is None:
            return None
        volume = None if quote.volume is None else max(0, quote.volume - state.volume)
        amount = None if quote.amount is None else max(0.0, round(quote.amount - state.amount, MONEY_DECIMALS))
        return _Row(state.begin, state.end, state.open, state.high, state.low, state.close, volume, amount, quote.open_interest)

    def _forming(self, state: _State, index: int) -> _Row | None:
        """The forming bar of a period; None without a trade, and where its beginning was missed."""
        if index == D1:
            return _day_row(state)
        minute = self._minute(state)
        row: _Row | None
        if index == 0:
            row = minute
        else:
            row = state.parts[index - 1]
            if minute is not None and state.slot is not None:
                begin, end = state.slot.parts[index - 1]
                row = _merged(row, minute, begin + state.midnight, end + state.midnight)
        return None if row is None or row.begin < state.whole_from else row

    # What the terminal says

    def _settle_day(self, state: _State, row: _Row) -> list[LiveBar]:
        ours = state.last[D1]
        if ours is None or ours.end != row.end or not ours.provisional:
            return []
        row.begin, row.prev_close = ours.begin, row.prev_close or ours.prev_close
        state.last[D1] = row
        return [_live(state, D1, row, closed=True)]

    def _settle_minute(self, state: _State, row: _Row) -> list[LiveBar]:
        assert state.grid is not None
        start = midnight(day_of(row.end - 1))
        slot = state.grid.by_end.get(row.end - start)
        if slot is None or row.end <= state.held.lost or not self._is_over(state, row.end):
            return []
        state.closed_until = max(state.closed_until, row.end)
        row.begin = slot.begin + start
        if state.held.rows(row.end - 1, row.end) == [row]:
            return []
        state.held.put(row)
        last = state.last[0]
        if last is not None and last.end == row.end:
            state.last[0] = row
        found = [_live(state, 0, row, closed=True)]
        for index, (begin, end) in enumerate(slot.parts, 1):
            found += self._settle_part(state, index, begin + start, end + start)
        return found

    def _is_over(self, state: _State, end: int) -> bool:
        """Whether a minute is over here: a later quote has come, or the clock has passed it and nothing forms."""
        return end <= state.closed_until or (state.slot is None and end <= self._now - GRACE)

    def _settle_part(self, state: _State, index: int, begin: int, end: int) -> list[LiveBar]:
        """Merge a longer bar anew from its minutes."""
        if begin < max(state.held.lost, state.whole_from):
            return []
        row: _Row | None = None
        for minute in state.held.rows(begin, end):
            row = _merged(row, minute, begin, end)
        forming, last = state.parts[index - 1], state.last[index]
        if row is None:
            return []
        if end > state.closed_until or (forming is not None and forming.end == end):
            state.parts[index - 1] = row
            self._dirty.add(state)
            self._plan(state)
            return []
        if last is not None and last.end == end:
            if row == last:
                return []
            state.last[index] = row
        elif row.provisional:
            return []
        return [_live(state, index, row, closed=True)]


def _day_row(state: _State) -> _Row | None:
    """The day's bar by the quote's own numbers; None once it is closed and before the first trade."""
    quote = state.quote
    if quote is None or state.grid is None or state.day_closed or not quote.volume:
        return None
    if quote.open is None or quote.high is None or quote.low is None or quote.price is None:
        return None
    return _Row(
        state.midnight,
        state.midnight + state.grid.close,
        quote.open,
        quote.high,
        quote.low,
        quote.price,
        quote.volume,
        quote.amount,
        quote.open_interest,
        prev_close=quote.prev_close,
    )


def _built(wanted: Mapping[Period, Collection[str] | None]) -> list[tuple[int, Collection[str] | None]]:
    """What is wanted of the periods that are built, by their place in ``PERIODS``."""
    return [(index, wanted[period]) for index, period in enumerate(PERIODS) if period in wanted]


def _is_in(symbol: str, chosen: Collection[str] | None) -> bool:
    return chosen is None or symbol in chosen


def _live(state: _State, index: int, row: _Row, *, closed: bool) -> LiveBar:
    return LiveBar(
        symbol=state.symbol,
        period=PERIODS[index],
        time=row.end,
        open=row.open,
        high=row.high,
        low=row.low,
        close=row.close,
        volume=row.volume,
        amount=row.amount,
        prev_close=row.prev_close if index == D1 else None,
        open_interest=row.interest,
        closed=closed,
        provisional=row.provisional,
        source=state.source,
    )

"""The builder itself: quotes in, bars out. Its rules stand at the top of ``marketdata.builder``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from marketdata import symbols
from marketdata.builder.grid import GRACE, SESSION_GRACE, Slot
from marketdata.builder.rows import D1, MONEY_DECIMALS, NEVER, PERIODS, LiveBar, Row, merged
from marketdata.builder.state import NOTHING, State, day_row, live
from marketdata.calendar import AFTER_HOURS, CHINA, OutsideCalendar, TradingCalendar, day_of, midnight
from marketdata.types import Bar, Period, Quote

LATE_IN_A_ROW: Final = 3


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
        self._states: dict[str, State] = {}
        self._dirty: set[State] = set()
        self._closed: list[tuple[State, int, Row]] = []
        self._due = NEVER
        self._now = 0

    def take(self, quotes: Iterable[Quote]) -> None:
        """Accepted quotes, each symbol's in order."""
        states, dirty = self._states, self._dirty
        for quote in quotes:
            state = states.get(quote.symbol)
            if state is None:
                state = states[quote.symbol] = State(quote.symbol, quote.source)
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
            live(state, index, row, closed=True)
            for state, index, row in self._closed
            if PERIODS[index] in wanted and _is_in(state.symbol, wanted[PERIODS[index]])
        ]
        for index, chosen in _built(wanted):
            for state in self._dirty if chosen is None else self._chosen(chosen):
                if state in self._dirty and (row := self._forming(state, index)) is not None:
                    bars.append(live(state, index, row, closed=False))
        self._closed.clear()
        self._dirty.clear()
        return bars

    def current(self, wanted: Mapping[Period, Collection[str] | None]) -> list[LiveBar]:
        """The last closed and the forming bar of everything that is wanted: what a new subscriber begins with."""
        bars = []
        for index, chosen in _built(wanted):
            for state in self._states.values() if chosen is None else self._chosen(chosen):
                if (last := state.last[index]) is not None:
                    bars.append(live(state, index, last, closed=True))
                if (row := self._forming(state, index)) is not None:
                    bars.append(live(state, index, row, closed=False))
        return bars

    def closed(self, chosen: Collection[str] | None = None, since: int = 0) -> list[LiveBar]:
        """Closed bars of 1m and 1d with ends from ``since`` on that are still provisional, each symbol's in order."""
        bars = []
        for state in self._states.values() if chosen is None else self._chosen(chosen):
            rows = [(0, row) for row in state.held.rows(since - 1)]
            if (day := state.last[D1]) is not None and day.end >= since:
                rows.append((D1, day))
            bars += [live(state, index, row, closed=True) for index, row in rows if row.provisional]
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
            row = Row(0, bar.time, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.amount, bar.open_interest, False)
            row.prev_close = bar.prev_close
            found += self._settle_day(state, row) if bar.period is Period.D1 else self._settle_minute(state, row)
        return found

    def _chosen(self, chosen: Collection[str]) -> list[State]:
        states = self._states
        return [states[symbol] for symbol in chosen if symbol in states]

    # One quote

    def _fold(self, state: State, last: Quote, quote: Quote, price: float) -> None:
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

    def _turn(self, state: State, quote: Quote) -> bool:
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

    def _is_reset(self, state: State, last: Quote, quote: Quote) -> bool:
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
        state.since = state.until
        state.closed_until = 0 if state.last[0] is None else state.last[0].end
        if quote.time < state.midnight:
            # What there is of the later day never was.
            state.quote, state.parts = None, [None] * len(state.parts)
        return True

    def _begin_day(self, state: State, time: int) -> bool:
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

    def _begin(self, state: State, slot: Slot | None, quote: Quote) -> None:
        """The first quote of a day: begin from nothing, or from the quote where something may have been missed."""
        assert state.grid is not None
        if quote.volume == 0 or (slot is not None and slot.auction):
            state.quote = NOTHING
            return
        state.quote, state.whole_from = quote, quote.time + state.grid.around_the_clock
        state.volume, state.amount = quote.volume or 0, quote.amount or 0.0

    # What ends

    def _close_minute(self, state: State) -> None:
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
            state.parts[index] = merged(state.parts[index], row, begin + state.midnight, end + state.midnight)
        if row.begin < state.whole_from:
            return
        state.held.put(row)
        self._publish(state, 0, row)
        self._close_parts(state, row.end)

    def _close_parts(self, state: State, until: int) -> None:
        """End the longer bars whose end has been reached."""
        for index, part in enumerate(state.parts):
            if part is not None and part.end <= until:
                state.parts[index] = None
                if part.begin >= state.whole_from:
                    self._publish(state, index + 1, part)

    def _close_day(self, state: State) -> None:
        if state.slot is not None:
            self._close_minute(state)
        self._close_parts(state, NEVER)
        row = self._forming(state, D1)
        state.day_closed = True
        if row is not None:
            self._publish(state, D1, row)

    def _publish(self, state: State, index: int, row: Row) -> None:
        state.last[index] = row
        self._closed.append((state, index, row))

    def _expire(self, state: State, now: int) -> None:
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

    def _plan(self, state: State) -> None:
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

    def _day_due(self, state: State) -> int:
        assert state.grid is not None
        if state.grid.around_the_clock:
            return NEVER
        end = AFTER_HOURS[-1].end if state.after_hours else state.grid.close
        return state.midnight + end + SESSION_GRACE

    # What forms

    def _minute(self, state: State) -> Row | None:
        """The forming minute; None without a trade."""
        quote = state.quote
        if state.open is None or state.slot is None or quote is None:
            return None
        volume = None if quote.volume is None else max(0, quote.volume - state.volume)
        amount = None if quote.amount is None else max(0.0, round(quote.amount - state.amount, MONEY_DECIMALS))
        return Row(state.begin, state.end, state.open, state.high, state.low, state.close, volume, amount, quote.open_interest)

    def _forming(self, state: State, index: int) -> Row | None:
        """The forming bar of a period; None without a trade, and where its beginning was missed."""
        if index == D1:
            return day_row(state)
        minute = self._minute(state)
        row: Row | None
        if index == 0:
            row = minute
        else:
            row = state.parts[index - 1]
            if minute is not None and state.slot is not None:
                begin, end = state.slot.parts[index - 1]
                row = merged(row, minute, begin + state.midnight, end + state.midnight)
        return None if row is None or row.begin < state.whole_from else row

    # What the terminal says

    def _settle_day(self, state: State, row: Row) -> list[LiveBar]:
        ours = state.last[D1]
        if ours is None or ours.end != row.end or not ours.provisional:
            return []
        row.begin, row.prev_close = ours.begin, row.prev_close or ours.prev_close
        state.last[D1] = row
        return [live(state, D1, row, closed=True)]

    def _settle_minute(self, state: State, row: Row) -> list[LiveBar]:
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
        found = [live(state, 0, row, closed=True)]
        for index, (begin, end) in enumerate(slot.parts, 1):
            found += self._settle_part(state, index, begin + start, end + start)
        return found

    def _is_over(self, state: State, end: int) -> bool:
        """Whether a minute is over here: a later quote has come, or the clock has passed it and nothing forms."""
        return end <= state.closed_until or (state.slot is None and end <= self._now - GRACE)

    def _settle_part(self, state: State, index: int, begin: int, end: int) -> list[LiveBar]:
        """Merge a longer bar anew from its minutes."""
        if begin < max(state.held.lost, state.whole_from):
            return []
        row: Row | None = None
        for minute in state.held.rows(begin, end):
            row = merged(row, minute, begin, end)
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
        return [live(state, index, row, closed=True)]


def _built(wanted: Mapping[Period, Collection[str] | None]) -> list[tuple[int, Collection[str] | None]]:
    """What is wanted of the periods that are built, by their place in ``PERIODS``."""
    return [(index, wanted[period]) for index, period in enumerate(PERIODS) if period in wanted]


def _is_in(symbol: str, chosen: Collection[str] | None) -> bool:
    return chosen is None or symbol in chosen

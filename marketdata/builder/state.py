"""What is known of one symbol on its day."""

from __future__ import annotations

from typing import Final

from marketdata import periods, symbols
from marketdata.builder.grid import Slot, grid_of
from marketdata.builder.rows import D1, NEVER, PERIODS, Held, LiveBar, Row
from marketdata.calendar import DAY
from marketdata.exchanges import Kind
from marketdata.types import Number, Quote

BOARDS_AFTER_HOURS: Final = 0.20
"""The price limit by which STAR Market and ChiNext stocks are told: those have the fixed-price session."""


class State:
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
        self.grid = grid_of(periods.hours_of(symbol))
        self.after_hours = _has_after_hours(symbol)
        self.quote: Quote | None = None
        self.held = Held()
        self.last: list[Row | None] = [None] * len(PERIODS)
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
        self.slot: Slot | None = None
        self.begin = self.end = 0
        self.open: float | None = None
        self.high = self.low = self.close = 0.0
        self.volume: Number = 0
        self.amount = 0.0
        self.parts: list[Row | None] = [None] * (D1 - 1)
        self.whole_from = 0
        self.day_closed = False


def _has_after_hours(symbol: str) -> bool:
    found = symbols.range_of(symbol)
    return found is not None and found.kind is Kind.STOCK and found.limit == BOARDS_AFTER_HOURS


NOTHING: Final = Quote(symbol="", time=0, volume=0, amount=0.0, source="")
"""A day before its first trade."""


def day_row(state: State) -> Row | None:
    """The day's bar by the quote's own numbers; None once it is closed and before the first trade."""
    quote = state.quote
    if quote is None or state.grid is None or state.day_closed or not quote.volume:
        return None
    if quote.open is None or quote.high is None or quote.low is None or quote.price is None:
        return None
    return Row(
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


def live(state: State, index: int, row: Row, *, closed: bool) -> LiveBar:
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

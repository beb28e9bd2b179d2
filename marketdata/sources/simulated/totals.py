"""What instruments' days come to, many days at a time: the tape's arithmetic over arrays, one event of every day per step.

It draws the same chance and rounds in the same order, so that its totals are those of ``Tape`` to the last digit: a test
holds both together. Of many days one takes a twentieth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from marketdata.calendar import Phase
from marketdata.sources.simulated.days import Frame, frame
from marketdata.sources.simulated.instruments import Listing
from marketdata.sources.simulated.tape import (
    AUCTION_SIZE,
    CLOSING,
    LOG,
    OPENING,
    PACE,
    SNAPSHOT,
    WAITING,
    draws_of,
    patience_of,
    shock_of,
    turns_of,
    usual_lots,
)
from marketdata.types import TradingStatus

Ints = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

BATCH: Final = 1_000_000
"""Events that are drawn at a time, 8 MB."""
_LOG: Final = np.array(LOG)
_PACE: Final = np.array(PACE)
AVERAGE_PACE: Final = 0.95
"""Of ``PACE`` over a trading day, rounded down."""


class Totals(NamedTuple):
    """A day when it is over. Prices and ``amount`` in 0.01 yuan; of a halted day everything but its frame is 0."""

    frame: Frame
    open: int
    high: int
    low: int
    close: int
    volume: int
    amount: int


@dataclass(slots=True)
class _Day:
    listing: Listing
    day: date
    frame: Frame
    events: int
    """How many are drawn for it: more than it will have, as good as always."""


def totals(wanted: Iterable[tuple[Listing, date]], seed: int) -> list[Totals]:
    """Of every instrument and day, in the order given."""
    days = [_Day(listing, day, frame(listing, seed, day), _events(listing)) for listing, day in wanted]
    found = [Totals(item.frame, 0, 0, 0, 0, 0, 0) for item in days]
    # Days with about as many events take about as many steps.
    left = sorted((n for n, item in enumerate(days) if not item.frame.halted), key=lambda n: _order(days[n]))
    while left:
        again: list[int] = []
        for batch in _batches(left, days):
            run = _Run([days[number] for number in batch], seed)
            for number, *values in zip(batch, *(column.tolist() for column in run.columns()), strict=True):
                found[number] = Totals(days[number].frame, *values)
            again += [batch[position] for position in np.flatnonzero(run.short).tolist()]
        for number in again:
            days[number].events *= 2
        left = again
    return found


def _order(item: _Day) -> tuple[int, int]:
    return len(item.listing.phases), item.events


def _batches(numbers: Sequence[int], days: Sequence[_Day]) -> Iterator[list[int]]:
    """As many of the days as can be run at once: of the same phases, and of no more than ``BATCH`` events."""
    batch: list[int] = []
    drawn = 0
    for number in numbers:
        item = days[number]
        if batch and (drawn + item.events > BATCH or item.listing.phases != days[batch[0]].listing.phases):
            yield batch
            batch, drawn = [], 0
        batch.append(number)
        drawn += item.events
    if batch:
        yield batch


def _events(listing: Listing) -> int:
    """The events to expect of a day, each ``1 / activity`` snapshots after the one before, and seven times their deviation."""
    trading = sum(phase.end - phase.start for phase in listing.phases if phase.status not in WAITING) / 1000
    mean = trading / SNAPSHOT * min(1.0, listing.activity / AVERAGE_PACE)
    return int(mean + 7 * math.sqrt(mean)) + 2 * len(listing.phases)


class _Run:
    """Days of the same phases, a lane each. ``short``: the lanes whose draws did not suffice, and whose totals are wrong."""

    def __init__(self, days: Sequence[_Day], seed: int) -> None:
        def column(values: Iterable[Any]) -> Any:
            return np.array(list(values))

        drawn = b"".join(
            draws_of(item.listing, seed, item.day)(64 * item.events).to_bytes(8 * item.events, "little") for item in days
        )
        self._draws: Ints = np.frombuffer(drawn, "<i8")
        ends = np.cumsum(column(item.events for item in days))
        self._next: Ints = ends - column(item.events for item in days)
        self._last: Ints = ends
        self._slot: Ints = column(item.listing.key % SNAPSHOT for item in days)
        self._patience = column(patience_of(item.listing) for item in days)
        self._smallest: Ints = column(item.listing.board.smallest for item in days)
        self._loose: Ints = column(63 if item.listing.board.step == 1 else 0 for item in days)
        self._lots: Ints = column(usual_lots(item.listing, seed, item.frame.prev_close) for item in days)
        self._shock = column(shock_of(item.frame) for item in days)
        self._open: Ints = column(item.frame.open for item in days)
        self._close: Ints = column(item.frame.close for item in days)
        self._swing: Ints = column(item.frame.swing for item in days)
        self._limit_up: Ints = column(item.frame.limit_up for item in days)
        self._limit_down: Ints = column(item.frame.limit_down for item in days)
        self._strayed = np.zeros(len(days))
        self._high = self._open.copy()
        self._low = self._open.copy()
        self._volume: Ints = np.zeros(len(days), np.int64)
        self._amount: Ints = np.zeros(len(days), np.int64)
        self.short: Flags = np.zeros(len(days), np.bool_)
        self._run(days[0].listing.phases)

    def columns(self) -> tuple[Ints, ...]:
        """Open, high, low, close, volume and amount."""
        return self._open, self._high, self._low, self._close, self._volume, self._amount

    def _run(self, phases: tuple[Phase, ...]) -> None:
        turns = turns_of(phases, 0)
        left = TradingStatus.PRE_OPEN
        for (start, status), (end, _) in pairwise(turns):
            # A turn is an event of its own, and its draw says when the next one comes.
            if left is TradingStatus.OPENING_AUCTION:
                self._auction(self._open)
            elif left is TradingStatus.CLOSING_AUCTION:
                self._auction(self._close)
            if status in WAITING:
                self._next += 1
            else:
                self._phase(status, start, end)
            left = status

    def _auction(self, price: Ints) -> None:
        self._trade(slice(None), price, AUCTION_SIZE)

    def _phase(self, status: TradingStatus, start: int, end: int) -> None:
        """Every event from the turn at ``start`` up to the one at ``end``, which is left to the next phase."""
        lanes = np.arange(len(self._next))
        at, until = start + self._slot, end + self._slot
        turning = True
        while len(lanes):
            there = self._next[lanes] < self._last[lanes]
            if not there.all():
                self.short[lanes[~there]] = True
                lanes, at, until = lanes[there], at[there], until[there]
            # The words are unsigned where the tape draws them; read as signed, the masks make up for it.
            draw = self._draws[self._next[lanes]]
            self._next[lanes] += 1
            if status is TradingStatus.CONTINUOUS and not turning:
                traded = draw & 7 != 0
                self._trade_on(lanes[traded], at[traded], draw[traded])
            elif status is TradingStatus.AFTER_HOURS and not turning:
                self._trade(lanes, self._close[lanes], draw >> 19 & 0xFFFF)
            turning = False
            gap = _LOG[draw >> 54 & 1023] * self._patience[lanes] * _PACE[at // 1800]
            at = at + SNAPSHOT * (1 + gap.astype(np.int64))
            goes_on = at < until
            lanes, at, until = lanes[goes_on], at[goes_on], until[goes_on]

    def _trade_on(self, lanes: Ints, at: Ints, draw: Ints) -> None:
        """Trades on the way from the open to the close."""
        done = (at - OPENING) / (CLOSING - OPENING)
        strayed = self._strayed[lanes] * 0.97 + self._shock[lanes] * ((draw >> 3 & 0xFFFF) - 32768)
        self._strayed[lanes] = strayed
        begin = self._open[lanes]
        drawn = begin + (self._close[lanes] - begin) * done + self._swing[lanes] * 4 * done * (1 - done)
        price = (drawn + strayed + 0.5).astype(np.int64)
        within = np.maximum(np.minimum(price, self._limit_up[lanes]), self._limit_down[lanes])
        self._trade(lanes, within, draw >> 19 & 0xFFFF)

    def _trade(self, lanes: Any, price: Ints, size: Any) -> None:
        lots = 1 + self._lots[lanes] * size // (66_000 - size)
        shares = lots * self._smallest[lanes] + (size & self._loose[lanes])
        self._high[lanes] = np.maximum(self._high[lanes], price)
        self._low[lanes] = np.minimum(self._low[lanes], price)
        self._volume[lanes] += shares
        self._amount[lanes] += shares * price

"""One instrument's trading day, event by event: the state that its snapshots show.

An event is a snapshot in which something has changed: a change of phase, an auction's matched price, or trades or a new
book in continuous trading. Snapshots stand 3 s apart, each instrument's on one of the three seconds. All trades of a
snapshot are at its price, so volume, amount, high and low are exactly those of the prices shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from random import Random

from marketdata.calendar import Phase, midnight, phase_at
from marketdata.sources.simulated.chance import mix, unit
from marketdata.sources.simulated.days import DAY_BEGINS, Frame, frame
from marketdata.sources.simulated.instruments import Listing
from marketdata.types import TradingStatus

SNAPSHOT = 3
"""Seconds."""

OPENING, CLOSING = 34_200, 53_820
"""09:30 and 14:57: between them the price goes from the open towards the close."""

NEVER = 1 << 40

LOG = tuple(math.log((index + 0.5) / 1024) for index in range(1024))
PACE = tuple({19: 0.6, 20: 0.9, 21: 1.1, 22: 1.2, 26: 1.1, 27: 1.2, 28: 1.0, 29: 0.8}.get(index, 1.0) for index in range(48))
"""By half hour of the day, how long the gaps between events are: trading is busiest after the open and before the close."""

CONTINUOUS, AFTER_HOURS = TradingStatus.CONTINUOUS, TradingStatus.AFTER_HOURS
AUCTION_SIZE = 62_000
"""What stands in for the 16 bits of ``_trade`` when an auction trades."""

WAITING = frozenset({TradingStatus.PRE_OPEN, TradingStatus.BREAK, TradingStatus.CLOSED})
"""Phases in which nothing changes but the phase."""


@lru_cache(maxsize=16)
def turns_of(phases: tuple[Phase, ...], slot: int) -> tuple[tuple[int, TradingStatus], ...]:
    """The snapshots that show a new phase, and the phase. One that never comes stands at the end."""
    starts = [phase.start // 1000 for phase in phases] + [phases[-1].end // 1000]
    turns = [(start + slot, phase_at(phases, start * 1000)) for start in starts]
    return ((DAY_BEGINS + slot, TradingStatus.PRE_OPEN), *turns, (NEVER, TradingStatus.CLOSED))


def draws_of(listing: Listing, seed: int, day: date) -> Callable[[int], int]:
    """What gives the day's chance, 64 bits for each event; as many times 64 bits at once are those of as many events."""
    return Random(mix(seed, listing.key, day.toordinal())).getrandbits


def patience_of(listing: Listing) -> float:
    """How long the gaps between events are, as a factor of ``LOG``."""
    return 1 / math.log(1 - listing.activity)


def shock_of(frame: Frame) -> float:
    """How far one event moves the price from its way, for each unit of its chance; in 0.01 yuan."""
    return frame.prev_close * 0.0015 / 32768


class Tape:
    """The state after every event up to a time. Prices and ``amount`` in 0.01 yuan, times in seconds since midnight.

    ``matched`` and ``matched_volume`` are what an auction would trade at the moment; ``draw`` is what the book is made of.
    """

    __slots__ = (
        "_auction_from",
        "_bits",
        "_lots",
        "_next_turn",
        "_patience",
        "_shock",
        "_strayed",
        "_turn",
        "_turns",
        "_waiting",
        "amount",
        "at",
        "draw",
        "due",
        "events",
        "frame",
        "high",
        "listing",
        "low",
        "matched",
        "matched_volume",
        "midnight",
        "opened",
        "price",
        "status",
        "trades",
        "volume",
    )

    def __init__(self, listing: Listing, seed: int, day: date, events: int = 0) -> None:
        self.listing = listing
        self.frame = frame(listing, seed, day)
        self.midnight = midnight(day)
        self.events = events
        self.status = TradingStatus.PRE_OPEN
        self.price = self.opened = self.high = self.low = 0
        self.volume = self.amount = self.trades = 0
        self.matched = self.matched_volume = self.draw = 0
        self._turns = turns_of(listing.phases, listing.key % SNAPSHOT)
        self._turn = 0
        self.at = self.due = self._next_turn = self._turns[0][0]
        self._waiting = True
        self._bits = draws_of(listing, seed, day)
        self._patience = patience_of(listing)
        self._shock = shock_of(self.frame)
        self._strayed = 0.0
        self._lots = usual_lots(listing, seed, self.frame.prev_close)
        self._auction_from = 0

    @property
    def time(self) -> int:
        """The time of the last event, in ms since the epoch."""
        return self.midnight + self.at * 1000

    def run(self, until: int) -> None:
        """Take in every event up to a time of day."""
        while self.due <= until:
            self.at = self.due
            self.events += 1
            self.draw = draw = self._bits(64)
            status = self.status
            if self.at >= self._next_turn:
                self._enter()
            elif status is CONTINUOUS:
                # One event in eight changes the book alone.
                if draw & 7:
                    self._trade(self._next_price(draw >> 3 & 0xFFFF), draw >> 19 & 0xFFFF)
            elif status is AFTER_HOURS:
                self._trade(self.frame.close, draw >> 19 & 0xFFFF)
            else:
                self._match()
            due = self.at + SNAPSHOT * (1 + int(LOG[draw >> 54] * self._patience * PACE[self.at // 1800]))
            self.due = self._next_turn if due > self._next_turn or self._waiting else due

    def _enter(self) -> None:
        left, status = self.status, self._turns[self._turn][1]
        self._turn += 1
        self._waiting = self.frame.halted or status in WAITING
        if self.frame.halted:
            self.status, self._next_turn = TradingStatus.HALTED, NEVER
            return
        self.status, self._next_turn = status, self._turns[self._turn][0]
        if left is TradingStatus.OPENING_AUCTION:
            self._auction_trade(self.frame.open)
        elif left is TradingStatus.CLOSING_AUCTION:
            self._auction_trade(self.frame.close)
        if status in (TradingStatus.OPENING_AUCTION, TradingStatus.CLOSING_AUCTION):
            self._auction_from = self.price or self.frame.prev_close
            self._match()

    def _match(self) -> None:
        """The auction's matched price and volume: they near what the auction ends with as it goes on."""
        frame = self.frame
        closing = self.status is TradingStatus.CLOSING_AUCTION
        start, end = self._turns[self._turn - 1][0], self._next_turn
        target = frame.close if closing else frame.open
        done = (self.at - start) / (end - start)
        stray = self._shock * ((self.draw & 0xFFFF) - 32768) * (1 - done)
        self.matched = frame.within_limits(round(self._auction_from + (target - self._auction_from) * done + stray))
        lots = 1 + int(self._auction_lots() * (0.1 + 0.9 * done))
        self.matched_volume = lots * self.listing.board.smallest

    def _auction_lots(self) -> int:
        return self._lots * (10 if self.status is TradingStatus.OPENING_AUCTION else 20)

    def _auction_trade(self, price: int) -> None:
        self._trade(price, AUCTION_SIZE)
        self.matched = self.matched_volume = 0

    def _next_price(self, chance: int) -> int:
        frame = self.frame
        done = (self.at - OPENING) / (CLOSING - OPENING)
        self._strayed = self._strayed * 0.97 + self._shock * (chance - 32768)
        drawn = frame.open + (frame.close - frame.open) * done + frame.swing * 4 * done * (1 - done)
        return frame.within_limits(int(drawn + self._strayed + 0.5))

    def _trade(self, price: int, size: int) -> None:
        """Trades at one price. ``size`` (16 bits) makes few of them large."""
        board = self.listing.board
        lots = 1 + self._lots * size // (66_000 - size)
        shares = lots * board.smallest
        if board.step == 1:
            shares += size & 63
        if not self.opened:
            self.opened = self.high = self.low = price
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.price = price
        self.volume += shares
        self.amount += shares * price
        self.trades += 1 + (lots & 7)


def usual_lots(listing: Listing, seed: int, prev_close: int) -> int:
    """The smallest orders that a snapshot's trades usually make up: some 50,000 yuan, far more in few instruments."""
    value = 50_000 / math.sqrt(unit(seed, listing.key, 7))
    return max(1, int(value / (prev_close / 100 * listing.board.smallest)))

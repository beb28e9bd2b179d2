"""The trades that stand behind the simulated quotes: what each snapshot's volume is made of, and a push of them.

A snapshot's trades are as many as its quote counts, at its price and its time, and their volumes add up to its own. They are
numbered from 1 on each day, by the very count that the quote shows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import date
from typing import NamedTuple

from marketdata.calendar import midnight
from marketdata.sources.base import OnTrades
from marketdata.sources.simulated.chance import mix
from marketdata.sources.simulated.clock import Clock
from marketdata.sources.simulated.days import trading_day_at, trading_day_before
from marketdata.sources.simulated.market import Market
from marketdata.sources.simulated.push import CLOSING, STEP
from marketdata.sources.simulated.snapshot import NAME
from marketdata.sources.simulated.tape import CONTINUOUS, NEVER, Tape
from marketdata.types import ParsedTrades, Side, Trade

logger = logging.getLogger(__name__)

AT_ONCE = 2000
"""Trades, about, in one call."""
END_OF_DAY = 86_400


def trades(tape: Tape, until: int) -> Iterator[Trade]:
    """Run a tape event by event up to a time of day (seconds), and give the trades of each."""
    while tape.due <= until:
        before, count, volume = tape.price, tape.trades, tape.volume
        tape.run(tape.due)
        if tape.volume > volume:
            yield from _split(tape, before, count, tape.volume - volume)


def _split(tape: Tape, before: int, count: int, volume: int) -> Iterator[Trade]:
    """The trades of the tape's last event, beyond the day's first ``count`` ones; of whole lots where these suffice."""
    price, time, smallest = tape.price, tape.time, tape.listing.board.smallest
    for index in range(count + 1, tape.trades + 1):
        chance = mix(tape.draw, index)
        left = tape.trades - index
        size = volume
        if left:
            unit = smallest if volume >= (left + 1) * smallest else 1
            pieces = volume // unit
            size = unit * min(pieces - left, 1 + (chance >> 1) % (2 * pieces // (left + 1)))
        volume -= size
        yield Trade(
            symbol=tape.listing.symbol,
            time=time,
            index=index,
            price=price / 100,
            volume=size,
            amount=size * price / 100,
            side=_side(tape, before, chance),
            source=NAME,
        )


def _side(tape: Tape, before: int, chance: int) -> Side | None:
    """Whoever moved the price; an auction's and the after-hours' trades take no liquidity."""
    if tape.status is not CONTINUOUS:
        return None
    if tape.price == before:
        return Side.BUY if chance & 1 else Side.SELL
    return Side.BUY if tape.price > before else Side.SELL


class Wish(NamedTuple):
    """What is watched (None: all), and since when of the market's time (ms)."""

    symbols: frozenset[str] | None
    since: int


class TradePush:
    """Gives every trade of what is watched, from then on, in the order of the market's time. Nothing is lost and nothing is
    merged while the callback blocks: what follows is made when it returns, of tapes of its own, one for each watched symbol.

    A clock that jumps to another day finishes the one that it leaves; ``interruptions`` counts the times that it left out
    whole days in between. An error in the callback is logged and counted in ``failures``, and the push goes on.
    """

    def __init__(self, market: Market, seed: int, clock: Clock, on_trades: OnTrades, on_end: Callable[[TradePush], None]) -> None:
        self.interruptions = 0
        self.failures = 0
        self._market = market
        self._seed = seed
        self._clock = clock
        self._on_trades = on_trades
        self._on_end = on_end
        self._day: date | None = None
        self._tapes: dict[str, Tape] = {}
        self._wish = Wish(frozenset(), 0)
        self._changed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="simulated-trades", daemon=True)

    def start(self) -> None:
        """Begin; the thread sleeps until something is watched."""
        self._thread.start()

    def watch(self, symbols: frozenset[str] | None) -> None:
        """Push these symbols' trades from now on."""
        self._wish = Wish(symbols, self._clock.now())
        self._changed.set()

    def end(self) -> None:
        """Let the thread end by itself, soon."""
        self._ended = True
        self._changed.set()

    def close(self, timeout: float = CLOSING) -> None:
        """End the push and wait for a callback that runs, unless called from it."""
        self.end()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        self._on_end(self)

    def _run(self) -> None:
        followed = self._wish
        while not self._ended:
            self._changed.clear()
            wish = self._wish
            now = self._clock.now()
            if self._tapes:
                self._advance(now)
            if wish is not followed and not self._ended:
                self._follow(wish)
                followed = wish
                # The clock may have gone on since the wish.
                continue
            self._wait(now - now % STEP + STEP if self._tapes else None)

    def _follow(self, wish: Wish) -> None:
        """Tapes of these symbols alone; new ones stand where the clock stood when they were wished for."""
        if not self._tapes:
            self._day = trading_day_at(wish.since)
        day = self._day
        assert day is not None
        kept, self._tapes = self._tapes, {}
        for position in self._market.positions(None if wish.symbols is None else sorted(wish.symbols)):
            if self._ended:
                return
            listing = self._market.listings[position]
            tape = kept.get(listing.symbol)
            if tape is None:
                tape = Tape(listing, self._seed, day)
                tape.run((wish.since - midnight(day)) // 1000)
            self._tapes[listing.symbol] = tape

    def _advance(self, now: int) -> None:
        today = trading_day_at(now)
        if self._day is not None and today > self._day:
            self._play(END_OF_DAY)
            self.interruptions += trading_day_before(today) != self._day
            self._day = today
            self._tapes = {symbol: Tape(tape.listing, self._seed, today) for symbol, tape in self._tapes.items()}
        if today == self._day:
            self._play((now - midnight(today)) // 1000)

    def _play(self, until: int) -> None:
        """All trades up to a time of day, second by second where there are any."""
        made: list[Trade] = []
        while not self._ended:
            second = min((tape.due for tape in self._tapes.values()), default=NEVER)
            if second <= until:
                for tape in self._tapes.values():
                    if tape.due <= second:
                        made.extend(trades(tape, second))
            if made and (second > until or len(made) >= AT_ONCE):
                self._deliver(tuple(made))
                made.clear()
            if second > until:
                return

    def _deliver(self, made: tuple[Trade, ...]) -> None:
        wanted = self._wish.symbols
        # What is no longer watched is not told, even where it was made already.
        told = made if wanted is None else tuple(trade for trade in made if trade.symbol in wanted)
        if not told:
            return
        try:
            self._on_trades(ParsedTrades(told))
        except Exception:
            self.failures += 1
            logger.exception("source_callback_failed", extra={"failures": self.failures})

    def _wait(self, until: int | None) -> None:
        if until is None:
            self._changed.wait()
            return
        while (delay := self._clock.delay(until)) > 0 and not self._changed.is_set():
            self._changed.wait(delay)

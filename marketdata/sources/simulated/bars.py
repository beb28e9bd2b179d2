"""Bars of the simulated market, made of the very events that its quotes showed: minute by minute, or what days come to.

Minutes run from just after their beginning to their end stamp, the end included; the opening auction stands in the
minute stamped 09:30, the closing auction in the one stamped 15:00. A minute without a trade has no bar; a day on which
the instrument was halted has one that says so. Bars that are still forming are not given. A day's bar is stamped 15:00
and is given once trading is over for the day, after hours included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby, islice

import numpy as np

from marketdata.calendar import A_SHARES, day_of, midnight
from marketdata.series import Floats, Series, from_bars
from marketdata.sources.simulated.days import HISTORY, trading_day_at, trading_day_before
from marketdata.sources.simulated.instruments import Listing
from marketdata.sources.simulated.snapshot import NAME
from marketdata.sources.simulated.tape import SNAPSHOT, Tape
from marketdata.sources.simulated.totals import Totals, totals
from marketdata.types import Bar, Period

OPEN, CLOSE = A_SHARES[2].start // 1000, A_SHARES[-1].end // 1000
"""09:30 and 15:00, in seconds since midnight."""

MINUTE = 60


@dataclass(slots=True)
class Minute:
    """What has traded up to an end stamp (seconds since midnight). Prices and ``amount`` in 0.01 yuan."""

    end: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    amount: int = 0


def _end_of(second: int) -> int:
    end = -(-second // MINUTE) * MINUTE
    if second < OPEN:
        return OPEN
    # The closing auction's trades are published up to two seconds after 15:00.
    return CLOSE if CLOSE <= second < CLOSE + SNAPSHOT else end


def _traded(tape: Tape, until: int) -> list[Minute]:
    """The minutes of a fresh tape's day up to a time of day."""
    minutes: list[Minute] = []
    volume = amount = 0
    while tape.due <= until:
        tape.run(tape.due)
        if tape.volume == volume:
            continue
        end, price = _end_of(tape.at), tape.price
        if not minutes or minutes[-1].end != end:
            minutes.append(Minute(end, price, price, price, price))
        minute = minutes[-1]
        minute.high, minute.low, minute.close = max(minute.high, price), min(minute.low, price), price
        minute.volume += tape.volume - volume
        minute.amount += tape.amount - amount
        volume, amount = tape.volume, tape.amount
    return minutes


def _minute_bars(listing: Listing, seed: int, day: date, now: int) -> list[Bar]:
    tape = Tape(listing, seed, day)
    until = (now - tape.midnight) // 1000
    return [
        Bar(
            symbol=listing.symbol,
            period=Period.M1,
            time=tape.midnight + minute.end * 1000,
            open=minute.open / 100,
            high=minute.high / 100,
            low=minute.low / 100,
            close=minute.close / 100,
            volume=minute.volume,
            amount=minute.amount / 100,
            source=NAME,
        )
        for minute in _traded(tape, until)
        # A minute is over once its last snapshot is: the closing auction's comes up to two seconds late.
        if until >= minute.end + SNAPSHOT - 1
    ]


def minutes(listing: Listing, seed: int, *, now: int, start: int | None, end: int | None, count: int | None) -> Series:
    """The last ``count`` bars of 1m with end stamps in [start, end] that were complete at ``now``."""
    newest_first = (
        bar
        for day in _days_backwards(now, start, end)
        for bar in reversed(_minute_bars(listing, seed, day, now))
        if (start is None or bar.time >= start) and (end is None or bar.time <= end)
    )
    return from_bars(tuple(islice(newest_first, count))[::-1])


def days(
    listings: Sequence[Listing], seed: int, *, now: int, start: int | None, end: int | None, count: int | None
) -> dict[str, Series]:
    """Symbol -> the same of 1d, of many instruments at once: each trading day that is over has one."""
    wanted: list[tuple[Listing, date]] = []
    for listing in listings:
        over = listing.phases[-1].end + SNAPSHOT * 1000
        newest_first = (
            day
            for day in _days_backwards(now, start, end)
            if now >= midnight(day) + over and (start is None or _stamp(day) >= start) and (end is None or _stamp(day) <= end)
        )
        wanted += [(listing, day) for day in islice(newest_first, count)][::-1]
    found: dict[str, Series] = {}
    made = zip(wanted, totals(wanted, seed), strict=True)
    for listing, rows in groupby(made, lambda row: row[0][0]):
        found[listing.symbol] = _series([(day, total) for (_, day), total in rows])
    return found


def _stamp(day: date) -> int:
    return midnight(day) + CLOSE * 1000


def _series(days: Sequence[tuple[date, Totals]]) -> Series:
    """Bars of one instrument's days; a halted day's is flat."""
    totals = [total for _, total in days]
    prev_close = np.array([total.frame.prev_close for total in totals])
    halted = np.array([total.frame.halted for total in totals])

    def price(name: str) -> Floats:
        return np.where(halted, prev_close, [getattr(total, name) for total in totals]) / 100

    return Series(
        time=np.array([_stamp(day) for day, _ in days]),
        open=price("open"),
        high=price("high"),
        low=price("low"),
        close=price("close"),
        volume=np.array([total.volume for total in totals]),
        amount=np.array([total.amount for total in totals]) / 100,
        prev_close=prev_close / 100,
        open_interest=np.full(len(days), np.nan),
        suspended=halted,
    )


def _days_backwards(now: int, start: int | None, end: int | None) -> Iterator[date]:
    """Trading days of the history, the last one first, that may hold something of the range."""
    day = trading_day_at(now)
    first = HISTORY if start is None else max(HISTORY, day_of(start))
    while day >= first:
        if end is None or midnight(day) <= end:
            yield day
        day = trading_day_before(day)

"""Quotes as a test writes them: a time of day, what has traded up to then, and at which price."""

from __future__ import annotations

from datetime import date

from marketdata.builder import PERIODS, BarBuilder, LiveBar
from marketdata.calendar import midnight
from marketdata.types import Period, Quote

DAY = date(2022, 6, 1)
"""A Wednesday; the next day traded too, the one after did not."""
EVERYTHING = dict.fromkeys(PERIODS)


def at(text: str, day: date = DAY) -> int:
    """A time of day such as ``09:31:00.000`` in ms."""
    hours, minutes, seconds = text.split(":") if text.count(":") == 2 else (*text.split(":"), "0")
    return midnight(day) + int(hours) * 3_600_000 + int(minutes) * 60_000 + round(float(seconds) * 1000)


class Tape:
    """One symbol's quotes: open, high, low, volume and amount follow from what is told."""

    def __init__(self, symbol: str = "600000.SH", day: date = DAY, prev_close: float = 9.9) -> None:
        self.symbol, self.day, self.prev_close = symbol, day, prev_close
        self.price: float | None = None
        self.open: float | None = None
        self.high: float | None = None
        self.low: float | None = None
        self.volume, self.amount = 0, 0.0

    def quote(self, time: str, price: float | None = None, volume: int = 0, *, through: tuple[float, ...] = ()) -> Quote:
        """After ``volume`` more shares at ``price``, some of them at the prices ``through`` which the price went."""
        if price is not None:
            prices = (*through, price)
            self.price = price
            self.open = prices[0] if self.open is None else self.open
            self.high, self.low = max(*prices, self.high or price), min(*prices, self.low or price)
            self.volume += volume
            self.amount = round(self.amount + volume * price, 3)
        return Quote(
            symbol=self.symbol,
            time=at(time, self.day),
            price=self.price,
            open=self.open,
            high=self.high,
            low=self.low,
            prev_close=self.prev_close,
            volume=self.volume,
            amount=self.amount,
            source="test",
        )


def built(*quotes: Quote, until: int | None = None) -> list[LiveBar]:
    """Every bar that a sequence of quotes makes, the clock advanced to ``until`` at the end."""
    builder = BarBuilder()
    builder.take(quotes)
    if until is not None:
        builder.advance(until)
    return builder.drain(EVERYTHING)


def of(bars: list[LiveBar], period: Period) -> list[LiveBar]:
    """Those of one period."""
    return [bar for bar in bars if bar.period is period]

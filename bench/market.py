"""The market of the benchmark: 5,500 symbols, sweeps of encoded quotes of one size, and who subscribes to what."""

from __future__ import annotations

import random

import msgspec

from marketdata.types import Quote, TradingStatus

SYMBOLS = tuple(
    [f"{600000 + i:06d}.SH" for i in range(2310)]
    + [f"{i + 1:06d}.SZ" for i in range(2890)]
    + [f"{920000 + i:06d}.BJ" for i in range(300)]
)
VARIANTS = 8
"""Sweeps that differ from each other and take turns: every quote of a sweep is a change."""


def sweep(variant: int) -> dict[str, bytes]:
    """Symbol -> the quote's JSON object without its ``seq``; each has the same length in every variant."""
    encode = msgspec.json.Encoder().encode
    bodies = {}
    for index, symbol in enumerate(SYMBOLS):
        price = 10.11 + (index + variant) % 9 / 100 + index % 70
        quote = Quote(
            symbol=symbol,
            time=1_760_000_000_000 + variant * 3000,
            price=round(price, 2),
            open=10.11,
            high=99.99,
            low=10.01,
            prev_close=10.11,
            volume=1_000_100 + variant * 100,
            amount=12345678.5 + variant,
            trades=1234,
            bid_price=tuple(round(price - 0.01 * (level + 1), 2) for level in range(5)),
            bid_volume=(1100, 1200, 1300, 1400, 1500),
            ask_price=tuple(round(price + 0.01 * (level + 1), 2) for level in range(5)),
            ask_volume=(1100, 1200, 1300, 1400, 1500),
            status=TradingStatus.CONTINUOUS,
            source="simulated",
        )
        bodies[symbol] = encode(quote)
    return bodies


def choose(connections: int, each: int | None, seed: int = 7) -> list[list[str] | None]:
    """What each connection subscribes to: 20 % of the symbols have 80 % of the subscriptions; None is the whole market."""
    if each is None:
        return [None] * connections
    rng = random.Random(seed)
    popular = SYMBOLS[::5]
    rest = [symbol for symbol in SYMBOLS if symbol not in set(popular)]
    chosen = []
    for _ in range(connections):
        hot = min(round(each * 0.8), len(popular))
        chosen.append(rng.sample(popular, hot) + rng.sample(rest, each - hot))
    return chosen

"""A tape's state as a quote, with the five-level book that stands around its price."""

from __future__ import annotations

from marketdata.sources.simulated.chance import mix
from marketdata.sources.simulated.tape import Tape
from marketdata.types import Quote, TradingStatus

NAME = "simulated"
LEVELS = 5
DEPTH = tuple((6 * level, 3 + level) for level in range(LEVELS))
"""For each level: where its chance stands among the bits, and how much more usually lies further out."""

AUCTIONS = (TradingStatus.OPENING_AUCTION, TradingStatus.CLOSING_AUCTION)

Side = tuple[tuple[float, ...], tuple[int, ...]]
NO_SIDE: Side = ((), ())


def quote(tape: Tape) -> Quote:
    """The snapshot of a tape's last event."""
    frame, traded = tape.frame, tape.opened > 0
    bids, asks = _book(tape)
    return Quote(
        symbol=tape.listing.symbol,
        time=tape.time,
        price=tape.price / 100 if traded else None,
        open=tape.opened / 100 if traded else None,
        high=tape.high / 100 if traded else None,
        low=tape.low / 100 if traded else None,
        prev_close=frame.prev_close / 100,
        volume=tape.volume,
        amount=tape.amount / 100,
        trades=tape.trades,
        bid_price=bids[0],
        bid_volume=bids[1],
        ask_price=asks[0],
        ask_volume=asks[1],
        status=tape.status,
        limit_up=frame.limit_up / 100,
        limit_down=frame.limit_down / 100,
        source=NAME,
    )


def _book(tape: Tape) -> tuple[Side, Side]:
    """Bids and asks. In an auction both show the matched price and volume, as the exchanges' own snapshots do."""
    if tape.status in AUCTIONS:
        matched: Side = ((tape.matched / 100,), (tape.matched_volume,))
        return matched, matched
    if not tape.price:
        return NO_SIDE, NO_SIDE
    frame, price, chance = tape.frame, tape.price, mix(tape.draw)
    if price == frame.limit_up:
        # Sealed: nobody sells at a price that all want to pay.
        return _side(tape, price, -1, frame.limit_down, chance, 20), NO_SIDE
    if price == frame.limit_down:
        return NO_SIDE, _side(tape, price, 1, frame.limit_up, chance, 20)
    spread = 1 + (chance & 1) * (price // 4000)
    bid, ask = (price, price + spread) if chance & 2 else (price - spread, price)
    return (
        _side(tape, max(bid, frame.limit_down), -1, frame.limit_down, chance, 1),
        _side(tape, min(ask, frame.limit_up), 1, frame.limit_up, chance >> 30, 1),
    )


def _side(tape: Tape, best: int, step: int, limit: int, chance: int, weight: int) -> Side:
    """Up to five levels outwards from the best one, none of them beyond the day's limit."""
    step *= 1 + best // 10_000
    count = min(LEVELS, (limit - best) // step + 1)
    prices = tuple([price / 100 for price in range(best, best + step * count, step)])
    smallest = tape.listing.board.smallest
    if tape.listing.board.step == 1:
        sizes = [(chance >> shift & 63, shape) for shift, shape in DEPTH[:count]]
        return prices, tuple([(1 + size * shape * weight) * smallest + size for size, shape in sizes])
    return prices, tuple([(1 + (chance >> shift & 63) * shape * weight) * smallest for shift, shape in DEPTH[:count]])

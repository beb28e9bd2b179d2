"""When an instrument enters another phase of trading or comes to one of the day's limits or leaves it: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from marketdata.types import LimitState, Quote, TradingStatus, limit_state


class _Standing(msgspec.Struct):
    """Of a quote."""

    symbol: str = ""
    time: int = 0
    price: float | None = None
    status: TradingStatus = TradingStatus.UNKNOWN
    limit_up: float | None = None
    limit_down: float | None = None
    source: str = ""


class Status(msgspec.Struct, tag_field="type", tag="status"):
    """How an instrument stands since ``time`` (ms)."""

    symbol: str
    time: int
    status: TradingStatus
    limit: LimitState | None
    limit_up: float | None
    limit_down: float | None
    source: str


_decode = msgspec.json.Decoder(_Standing).decode
_decode_status = msgspec.json.Decoder(Status).decode
_encode = msgspec.json.Encoder().encode


class Statuses:
    """How each symbol stands, as was last told. Not thread-safe: one owner."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[TradingStatus, LimitState | None]] = {}

    def turned(self, quotes: Iterable[Quote]) -> set[str]:
        """The symbols of which some quote stands otherwise than was told: those alone need a closer look, which takes longer."""
        get, found = self._states.get, set()
        for quote in quotes:
            price, up, down = quote.price, quote.limit_up, quote.limit_down
            limit = None
            if price is not None:
                if up is not None and price >= up:
                    limit = LimitState.UP
                elif down is not None and price <= down:
                    limit = LimitState.DOWN
            told = get(quote.symbol)
            if told is None or told[0] is not quote.status or told[1] is not limit:
                found.add(quote.symbol)
        return found

    def find(self, quotes: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
        """Symbol and status, as a JSON object without its ``seq``, of every quote (the JSON object, with ``seq`` or without) that
        stands otherwise than was told; a symbol of which nothing was told is one."""
        states, found = self._states, []
        for symbol, quote in quotes.items():
            now = _decode(quote)
            limit = limit_state(now.price, now.limit_up, now.limit_down)
            if states.get(symbol) != (now.status, limit):
                status = Status(symbol, now.time, now.status, limit, now.limit_up, now.limit_down, now.source)
                found.append((symbol, _encode(status)))
        return found

    def know(self, quotes: Mapping[str, bytes]) -> None:
        """It was told how those quotes stand, and of no other symbol anything."""
        standings = ((symbol, _decode(quote)) for symbol, quote in quotes.items())
        self._states = {symbol: (s.status, limit_state(s.price, s.limit_up, s.limit_down)) for symbol, s in standings}

    def note(self, told: Iterable[tuple[str, bytes]]) -> None:
        """Those were told."""
        for symbol, body in told:
            status = _decode_status(body)
            self._states[symbol] = (status.status, status.limit)

    def take(self, quotes: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
        """The same as ``find``, and it is told."""
        found = self.find(quotes)
        self.note(found)
        return found

"""Which quotes a filter lets through: decided on their numbers, which are read once for all filters.

A quote passes where it meets all conditions; a number that is not known meets none. ``only_changed`` asks besides that one of
its fields differs from the symbol's quote before it, or that that one did not meet the conditions: so whoever is in step has, of
every symbol that meets them, these fields as they are now, and no filter needs to remember what it has let through to whom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from enum import StrEnum
from fractions import Fraction
from math import isfinite
from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import force_setattr

from marketdata.types import DataType, Number

FILTERED = frozenset({DataType.QUOTE, DataType.PRICE, DataType.VOLUME, DataType.ORDERBOOK})
"""The data types that a filter goes with: states that every quote brings."""

_MARGIN = 1e-9
"""A change nearer than this to the one asked for (absolute and relative) is compared exactly; doubles are good for 1e-13."""


class QuoteField(StrEnum):
    """The fields of a quote that ``only_changed`` may name, in the quote's order."""

    PRICE = "price"
    OPEN = "open"
    HIGH = "high"
    LOW = "low"
    PREV_CLOSE = "prev_close"
    VOLUME = "volume"
    AMOUNT = "amount"
    TRADES = "trades"
    BID_PRICE = "bid_price"
    BID_VOLUME = "bid_volume"
    ASK_PRICE = "ask_price"
    ASK_VOLUME = "ask_volume"
    LIMIT_UP = "limit_up"
    LIMIT_DOWN = "limit_down"
    OPEN_INTEREST = "open_interest"
    PREV_SETTLEMENT = "prev_settlement"


Positive = Annotated[float, Meta(ge=0)]


class Filter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, cache_hash=True):
    """What a quote must meet, as clients write it; equal filters are one to the hub.

    Prices in the instrument's currency; ``min_change_pct`` in percent of the previous close, up or down; ``min_volume`` of the
    day, in the quote's unit. Raises ``ValueError`` where nothing could pass or no condition is named.
    """

    min_price: float | None = None
    max_price: float | None = None
    min_change_pct: Positive | None = None
    min_volume: Positive | None = None
    only_changed: Annotated[tuple[QuoteField, ...], Meta(min_length=1)] | None = None

    def __post_init__(self) -> None:
        numbers = [self.min_price, self.max_price, self.min_change_pct, self.min_volume]
        given = [number for number in numbers if number is not None]
        if not given and self.only_changed is None:
            raise ValueError("A filter needs a condition; null takes a filter away")
        if not all(map(isfinite, given)):
            raise ValueError("A filter's numbers must be finite")
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise ValueError("`min_price` is above `max_price`")
        if self.only_changed is not None:
            # In whatever order they were named.
            named = set(self.only_changed)
            force_setattr(self, "only_changed", tuple(field for field in QuoteField if field in named))


class Numbers(Struct, gc=False):
    """What filters ask of a quote. A subclass has the fields that some ``only_changed`` names, as they are written."""

    symbol: str = ""
    quote: bytes = b""
    """The fragment that they were read from."""
    price: float | None = None
    prev_close: float | None = None
    volume: Number | None = None


class Filters:
    """The filters in use, and the numbers that they are decided on. ``quotes`` is a store's symbol -> newest fragment.

    Numbers are kept until their quote is replaced, so at most one per symbol, and for ``only_changed`` the quote before it.
    """

    def __init__(self, quotes: Mapping[str, bytes]) -> None:
        self._quotes = quotes
        self._uses: dict[Filter, int] = {}
        self._watched: frozenset[QuoteField] = frozenset()
        self._decode = _decoder(self._watched)
        self._newest: dict[str, Numbers] = {}
        self._before: dict[str, Numbers | bytes] = {}
        self._released = False

    @property
    def kept(self) -> int:
        """How many quotes something is kept of."""
        return len(self._newest.keys() | self._before.keys())

    def take(self, filter: Filter) -> None:
        """Somebody uses the filter from now on."""
        self._uses[filter] = self._uses.get(filter, 0) + 1
        self._look_around()

    def release(self, filter: Filter) -> None:
        """One who took the filter uses it no more. What was kept for it goes with the next message: who only changes something
        takes it again at once."""
        self._uses[filter] -= 1
        if not self._uses[filter]:
            del self._uses[filter]
            self._released = True

    def read(self, symbols: Iterable[str]) -> list[Numbers]:
        """The numbers of the symbols' newest quotes, where there are any."""
        quotes, newest, decode = self._quotes, self._newest, self._decode
        rows = []
        for symbol in symbols:
            quote = quotes.get(symbol)
            if quote is None:
                continue
            numbers = newest.get(symbol)
            if numbers is None or numbers.quote is not quote:
                numbers = newest[symbol] = decode(quote)
                numbers.symbol, numbers.quote = symbol, quote
            rows.append(numbers)
        return rows

    def passing(self, filter: Filter, rows: list[Numbers]) -> set[str]:
        """Those of a message's symbols that pass, with the numbers that it brings; ``note`` the message afterwards."""
        rows = _meeting(filter, rows)
        if filter.only_changed is None:
            return {numbers.symbol for numbers in rows}
        values = attrgetter(*filter.only_changed)
        found, same = set(), []
        for numbers in rows:
            symbol = numbers.symbol
            before = self._before.get(symbol)
            if before is None:
                found.add(symbol)
                continue
            earlier = self._numbers(symbol, before) if isinstance(before, bytes) else before
            if values(earlier) != values(numbers):
                found.add(symbol)
            else:
                same.append(earlier)
        known = {numbers.symbol for numbers in _meeting(filter, same)}
        found.update(numbers.symbol for numbers in same if numbers.symbol not in known)
        return found

    def admitted(self, filter: Filter, symbols: Iterable[str]) -> set[str]:
        """Those of the symbols whose newest quotes meet all conditions but ``only_changed``."""
        return {numbers.symbol for numbers in _meeting(filter, self.read(symbols))}

    def note(self, quotes: Mapping[str, bytes]) -> None:
        """These quotes have been decided on: they are what later ones are compared with."""
        if self._released:
            self._look_around()
        if self._watched:
            newest, before = self._newest, self._before
            for symbol, quote in quotes.items():
                numbers = newest.get(symbol)
                before[symbol] = quote if numbers is None or numbers.quote is not quote else numbers

    def forget(self, symbols: Set[str]) -> None:
        """Have nothing of these symbols any more."""
        for symbol in symbols:
            self._newest.pop(symbol, None)
            self._before.pop(symbol, None)

    def _look_around(self) -> None:
        """Read and keep what the filters need that are in use now."""
        self._released = False
        watched = frozenset(field for filter in self._uses for field in filter.only_changed or ())
        if watched != self._watched:
            before = self._before if self._watched else self._quotes
            self._before = {s: b if isinstance(b, bytes) else b.quote for s, b in before.items()} if watched else {}
            self._watched, self._decode = watched, _decoder(watched)
            self._newest = {}
        if not self._uses:
            self._newest = {}

    def _numbers(self, symbol: str, quote: bytes) -> Numbers:
        numbers = self._decode(quote)
        numbers.symbol, numbers.quote = symbol, quote
        return numbers


def _meeting(filter: Filter, rows: list[Numbers]) -> list[Numbers]:
    """Those that meet all conditions but ``only_changed``: one condition after the other, each on what the last one left."""
    if (least := filter.min_volume) is not None:
        rows = [row for row in rows if (volume := row.volume) is not None and volume >= least]
    if (least := filter.min_price) is not None:
        rows = [row for row in rows if (price := row.price) is not None and price >= least]
    if (most := filter.max_price) is not None:
        rows = [row for row in rows if (price := row.price) is not None and price <= most]
    if (least := filter.min_change_pct) is not None:
        surely, perhaps = least * (1 + _MARGIN) + _MARGIN, least * (1 - _MARGIN) - _MARGIN
        rows = [
            row
            for row in rows
            if (price := row.price) is not None
            and (close := row.prev_close)
            and (moved := abs(price - close) * 100) >= abs(close) * perhaps
            and (moved > abs(close) * surely or _change_pct(price, close) >= Fraction(repr(least)))
        ]
    return rows


def _change_pct(price: float, close: float) -> Fraction:
    """The change as anybody reckons who reads the two numbers: from 10.0 to 10.2 it is 2."""
    exact = Fraction(repr(close))
    return abs(Fraction(repr(price)) - exact) * 100 / abs(exact)


def _decoder(watched: frozenset[QuoteField]) -> Callable[[bytes], Numbers]:
    fields = [
        (field.value, Raw, Raw(b"null")) for field in QuoteField if field in watched and field not in Numbers.__struct_fields__
    ]
    kind: Any = msgspec.defstruct("Numbers", fields, bases=(Numbers,), gc=False) if fields else Numbers
    return msgspec.json.Decoder(kind).decode

"""Live bars on their way to subscribers: the forming ones, of which the newest counts, and the closed ones, each an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from marketdata import events
from marketdata.batch import Bars, Events
from marketdata.builder import LiveBar
from marketdata.events import Event
from marketdata.types import KLINES, DataType, Period

Wanted = Mapping[DataType, frozenset[str] | None]
"""The bars and trades that somebody wants: data type -> symbols, None for all of them."""

KLINE_OF = {period: data_type for data_type, period in KLINES.items()}
"""The data type of each period's bars."""


def is_wanted(wanted: Wanted, data_type: DataType, symbol: str) -> bool:
    """Whether somebody wants something of a symbol."""
    names = wanted.get(data_type, frozenset())
    return names is None or symbol in names


def beyond(wanted: Wanted, had: Wanted) -> Wanted:
    """What is wanted and was not had."""
    news: dict[DataType, frozenset[str] | None] = {}
    for data_type, names in wanted.items():
        before = had.get(data_type, frozenset())
        if before is not None and (names is None or names - before):
            news[data_type] = None if names is None else names - before
    return news


def by_period(wanted: Wanted) -> dict[Period, frozenset[str] | None]:
    """The bars among what is wanted, as a builder is asked for them."""
    return {KLINES[data_type]: names for data_type, names in wanted.items() if data_type in KLINES}


Forming = dict[Period, dict[str, tuple[int, bytes]]]
"""Period -> symbol -> the end (ms) of the bar that forms, and its JSON object without its ``seq``."""


class Group(NamedTuple):
    """What is to be said of bars: those that closed, in order, and then those that form."""

    forming: Forming = {}
    closed: tuple[Event, ...] = ()


_encode = msgspec.json.Encoder().encode


def group(bars: Iterable[LiveBar]) -> Group:
    """Bars of the same symbol and period in order: the last of the forming ones counts, unless it has closed since."""
    forming: Forming = {}
    closed = []
    for bar in bars:
        body = _encode(bar)
        symbols = forming.setdefault(bar.period, {})
        if not bar.closed:
            symbols[bar.symbol] = (bar.time, body)
            continue
        closed.append(Event(KLINE_OF[bar.period], bar.symbol, body))
        if (before := symbols.get(bar.symbol)) is not None and before[0] <= bar.time:
            del symbols[bar.symbol]
    return Group({period: symbols for period, symbols in forming.items() if symbols}, tuple(closed))


def numbered(group: Group, tail: bytes) -> tuple[Bars, Events]:
    """A group as a batch carries it, each object with ``tail`` for its closing brace."""
    return numbered_forming(group.forming, tail), events.numbered(group.closed, tail)


def numbered_forming(forming: Forming, tail: bytes) -> Bars:
    """Forming bars as a batch carries them, each object with ``tail`` for its closing brace."""
    return {
        period: (list(symbols), [body[:-1] + tail for _, body in symbols.values()])
        for period, symbols in forming.items()
        if symbols
    }


class _Stamp(msgspec.Struct, frozen=True):
    time: int


_stamp = msgspec.json.Decoder(_Stamp).decode


def then(older: Forming, newer: Group) -> Forming:
    """The bars that form after what came later: those that closed meanwhile are gone."""
    result = {period: dict(symbols) for period, symbols in older.items()}
    for data_type, symbol, body in newer.closed:
        symbols = result.get(KLINES[data_type], {})
        if (before := symbols.get(symbol)) is not None and before[0] <= _stamp(body).time:
            del symbols[symbol]
    for period, symbols in newer.forming.items():
        result.setdefault(period, {}).update(symbols)
    return result


def among(forming: Forming, wanted: Wanted) -> Forming:
    """What of the forming bars is wanted."""
    result: Forming = {}
    for period, names in by_period(wanted).items():
        symbols = forming.get(period, {})
        kept = symbols if names is None else {symbol: bar for symbol, bar in symbols.items() if symbol in names}
        if kept:
            result[period] = kept
    return result

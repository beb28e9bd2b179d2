"""Where a page of JSON ends and the next begins: an opaque, signed text that belongs to one query.

With the first page the range's open end and the day of a front adjustment are fixed and travel with the cursor, so bars that
arrive between two pages shift nothing: no row comes twice, none is left out.
"""

from __future__ import annotations

from datetime import date
from hashlib import blake2b
from typing import Any, Final

import msgspec
from django.core import signing

from argus.errors import CURSOR_INVALID, ArgusError
from marketdata.api.formats.json import Position
from marketdata.calendar import DAY, day_of
from marketdata.history.query import POINT_IN_TIME, HistoryQuery
from marketdata.periods import MINUTES

SALT: Final = "argus.history.cursor"
LONGEST: Final = 400
"""Characters; a longer text is refused unread."""
TRADING_DAYS: Final = 0.69
"""Of the days of a year, those on which the exchanges trade; a bit more than there are."""
PER_DAY: Final = {"1d": 1.0, "1w": 1 / 5, "1mon": 1 / 20}
"""Bars of a trading day."""


def digest(query: HistoryQuery) -> str:
    """What tells one query from another."""
    return blake2b(query.canonical(), digest_size=12).hexdigest()


def fixed(query: HistoryQuery, now: int) -> HistoryQuery:
    """The query with its open ends as they are at a time (ms); bars that end later are in none of its pages."""
    end = now if query.end is None else min(query.end, now)
    as_of = query.as_of or (day_of(now) if query.adjust in POINT_IN_TIME else None)
    return msgspec.structs.replace(query, end=max(end, query.start or 0), as_of=as_of)


def per_page(query: HistoryQuery, limit: int) -> int:
    """How many symbols fill a page, going by what a symbol has when it trades every day; at least one."""
    if query.count is not None:
        rows = float(query.count)
    else:
        assert query.start is not None
        assert query.end is not None
        days = (query.end - query.start) / DAY * TRADING_DAYS + 1
        rows = days * (PER_DAY[query.period] if query.period in PER_DAY else 240 / MINUTES[query.period])
    return max(1, int(limit / max(rows, 1.0)) + 1)


def write(query: HistoryQuery, pages: HistoryQuery, position: Position) -> str:
    """The cursor of a position in the answer to ``query``, which ``pages`` is with its ends fixed."""
    as_of = pages.as_of.isoformat() if pages.as_of else None
    return signing.dumps([digest(query), pages.end, as_of, position.symbol, position.after], salt=SALT)


def read(text: str, query: HistoryQuery) -> tuple[HistoryQuery, Position]:
    """The query with its ends as they were fixed, and where this page begins. Raises CURSOR_INVALID."""
    if len(text) > LONGEST:
        raise _invalid("The cursor is longer than any that was given out.")
    try:
        belongs, end, as_of, symbol, after = _signed(text)
    except (signing.BadSignature, ValueError):
        raise _invalid("The cursor is damaged; take it as it stands in the page before.") from None
    if belongs != digest(query):
        raise _invalid("The cursor belongs to another query; repeat all parameters of the page before, or begin without it.")
    fixed = msgspec.structs.replace(query, end=end, as_of=None if as_of is None else date.fromisoformat(as_of))
    return fixed, Position(symbol, after)


def _signed(text: str) -> Any:
    return signing.loads(text, salt=SALT)


def _invalid(detail: str) -> ArgusError:
    return ArgusError(CURSOR_INVALID, detail, parameter="cursor")

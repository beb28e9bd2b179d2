"""What every reader of a recorded file gives: rows in the file's order, each with its place on the timeline."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

import msgspec

from marketdata.types import ParseError, Quote, Trade

SOURCE = "replay"
"""What stands in every value's ``source``."""

Row = tuple[int, Quote | Trade | ParseError]
"""(ms on the timeline, value). A file row is exactly one of these; the ms never decrease within a recording."""


class RecordingError(ValueError):
    """A file that cannot be replayed: missing, of no known format, or damaged where nothing can be read past."""


class Reason(StrEnum):
    """Why a row did not become a quote, or a trade."""

    COLUMNS = "columns"
    """A CSV row with more or fewer fields than the header."""
    SYMBOL = "symbol"
    """No instrument that we can name."""
    TIME = "time"
    """No date and time of day."""
    PRICE = "price"
    """A price that is no number, negative or infinite; a trade without one."""
    VOLUME = "volume"
    """A volume, amount or count that is no number or negative; a trade of none."""
    INDEX = "index"
    """A trade without its exchange's number."""
    CANCEL = "cancel"
    """A well-formed record among trades that is none: an order that was cancelled."""
    FRAME = "frame"
    """Not ``<receive ns> <json>``, or JSON without the fields that its kind of message has."""
    NOT_A_QUOTE = "not_a_quote"
    """A well-formed record of another kind: a depth update, a subscription's answer."""
    DAMAGED = "damaged"
    """The file ends here before its time; what stands before it was read."""


class Span(msgspec.Struct, frozen=True):
    """What a pass over a whole recording found: its symbols in order of appearance, and its first and last ms."""

    symbols: tuple[str, ...]
    first: int
    last: int
    rows: int


class Recording(Protocol):
    """An opened file. Cheap to make: only the format has been looked at.

    ``trades``: whether its rows are trades; else they are quotes.
    """

    trades: bool

    def scan(self) -> Span:
        """Read the file once for what it holds. Raises ``RecordingError``."""

    def rows(self) -> Iterator[Row]:
        """Every row, from the first. May be called again. Raises ``RecordingError``."""


def refused(symbol: str, reason: Reason, detail: str) -> ParseError:
    """The value of a row that did not become a quote or a trade. ``detail`` is cut to what a log line can hold."""
    return ParseError(symbol=symbol, reason=reason.value, detail=detail[:200])

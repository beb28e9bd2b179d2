"""What the answers with reference data are made of; their OpenAPI description is made from these types."""

from __future__ import annotations

from datetime import datetime

import msgspec

from marketdata import models
from marketdata.calendar import SHANGHAI
from marketdata.types import TradingStatus


def shown(moment: datetime | None) -> str | None:
    """A time as people read it: ISO 8601 in Beijing time."""
    return None if moment is None else moment.astimezone(SHANGHAI).isoformat(timespec="seconds")


class InstrumentRow(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument; null is not known. ``quoted``: the source quotes it at present. Days are ISO dates."""

    symbol: str
    name: str | None
    kind: str | None
    market: str
    price_tick: float | None
    lot: int | None
    listed: str | None
    delisted: str | None
    """Of a contract its last trading day."""
    multiplier: float | None
    underlying: str | None
    option_type: str | None
    strike: float | None
    pinyin: str | None
    initials: str | None
    quoted: bool
    source: str
    refreshed_at: str | None

    @classmethod
    def of(cls, row: models.Instrument) -> InstrumentRow:
        """The row as it is answered."""
        return cls(
            symbol=row.symbol,
            name=row.name or None,
            kind=row.kind or None,
            market=row.market,
            price_tick=row.price_tick,
            lot=row.lot,
            listed=row.listed.isoformat() if row.listed else None,
            delisted=row.delisted.isoformat() if row.delisted else None,
            multiplier=row.multiplier,
            underlying=row.underlying or None,
            option_type=row.option_type or None,
            strike=row.strike,
            pinyin=row.pinyin or None,
            initials=row.initials or None,
            quoted=row.quoted,
            source=row.source,
            refreshed_at=shown(row.refreshed_at),
        )


class Constituent(msgspec.Struct, frozen=True):
    """A symbol of a sector; ``weight`` in percent where the sector is an index whose weights are known."""

    symbol: str
    name: str | None
    weight: float | None


class SectorRow(msgspec.Struct, frozen=True):
    """A sector and how many symbols it has."""

    name: str
    size: int
    weighted: bool
    """Whether the constituents' weights are known."""
    source: str
    refreshed_at: str | None


class Contract(msgspec.Struct, frozen=True):
    """A futures contract; ``main`` where the source calls it its product's main one."""

    symbol: str
    name: str | None
    main: bool
    listed: str | None
    delisted: str | None
    """Its last trading day."""
    price_tick: float | None
    multiplier: float | None
    quoted: bool


class Product(msgspec.Struct, frozen=True):
    """A futures product, such as IF.IF, with its contracts in order of their symbols."""

    product: str
    market: str
    main: str | None
    contracts: list[Contract]


class Main(msgspec.Struct, frozen=True):
    """A product's main contract."""

    product: str
    symbol: str
    source: str
    refreshed_at: str | None


class PhaseRow(msgspec.Struct, frozen=True):
    """A part of the day: ISO times and the same in ms since the epoch, the end excluded."""

    status: TradingStatus
    start: str
    end: str
    start_ms: int
    end_ms: int


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A day of a market."""

    date: str
    market: str
    is_trading_day: bool
    previous_trading_day: str | None
    """Null where the calendar begins after it."""
    next_trading_day: str | None
    """Null where the calendar ends before it."""
    phases: list[PhaseRow] | None
    """Empty on a day without trading; null where the hours of the market, or those of that time, are not known."""
    after_hours: list[PhaseRow] | None
    """What follows for instruments with the fixed-price session after the close (STAR Market, ChiNext)."""


class CalendarRow(msgspec.Struct, frozen=True):
    """Whose word a calendar is, and how far it goes; ``conflicts`` are days that the source tells otherwise (at most ten)."""

    first: str
    last: str
    source: str
    refreshed_at: str | None
    conflicts: list[str]


class RejectedRow(msgspec.Struct, frozen=True):
    """A word of the request that stands for nothing, as the stream's ``rejected`` has it."""

    symbol: str
    code: int
    name: str
    reason: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in every answer with reference data. ``as_of`` is ``refreshed_at`` under the name that all answers have."""

    source: str | None
    """Who told it; several with commas between."""
    refreshed_at: str | None
    """When the source last told the oldest row of the answer."""
    as_of: str | None
    request_id: str


class Dates(Answer, frozen=True, kw_only=True):
    """ISO dates in order; ``complete`` is false where the calendar does not cover all that was asked (``detail`` says why)."""

    data: list[str]
    market: str
    complete: bool
    detail: str | None
    calendar: CalendarRow


class DayAnswer(Answer, frozen=True, kw_only=True):
    """One day of a market."""

    data: Day
    calendar: CalendarRow


class Instruments(Answer, frozen=True, kw_only=True):
    """A page of instruments, the best fit first; ``cursor`` asks for the next page, null on the last."""

    data: list[InstrumentRow]
    cursor: str | None


class InstrumentDetails(Answer, frozen=True, kw_only=True):
    """The instruments in the order asked."""

    data: list[InstrumentRow]
    rejected: list[RejectedRow]


class Sectors(Answer, frozen=True, kw_only=True):
    """All sectors, by name."""

    data: list[SectorRow]


class Constituents(Answer, frozen=True, kw_only=True):
    """A sector's symbols in the source's order, of an index with weights the heaviest first."""

    data: list[Constituent]
    sector: str


class Futures(Answer, frozen=True, kw_only=True):
    """Products by market and name."""

    data: list[Product]


class MainAnswer(Answer, frozen=True, kw_only=True):
    """One product's main contract."""

    data: Main


class Options(Answer, frozen=True, kw_only=True):
    """Options by last trading day, strike and side."""

    data: list[InstrumentRow]
    underlying: str

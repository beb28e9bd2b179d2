"""Prices made comparable across dividends and splits, by the factors of each ex-date.

What one share becomes on its ex-date: with ``cash`` c, ``bonus`` b, ``gift`` g, ``rights`` r at ``rights_price`` q, and P the
last close before, the reference price is (P - c + r q) / (1 + b + g + r) (SSE trading rules 2023, 4.3.2; SZSE trading rules
2023, 4.3.2). The methods and their names are the terminal's (xtdata ``dividend_type``):

* ``front``: every price before an ex-date becomes its own reference price: p -> (p - c + r q) / (1 + b + g + r), once for
  each ex-date after the bar's day, the earliest first. Large dividends may take early prices below zero.
* ``back``: the inverse for each ex-date up to the bar's day, the latest first: p -> p (1 + b + g + r) + c - r q.
* ``front_ratio``: prices are divided by the product of the ratios of the ex-dates after the bar's day.
* ``back_ratio``: prices are multiplied by the product of the ratios of the ex-dates up to the bar's day.

The ratio of an ex-date is the last close over the reference price, not rounded in between: the source's own
(``Dividend.ratio``) where it gave one, else by the last close before the ex-date where that is known for certain
(``last_closes``). Fronts are relative to ``as_of`` (the terminal's are relative to the end of what was asked), so a bar's price
does not depend on the range asked.

Prices are open, high, low, close and ``prev_close``, which is on its own day's footing (on an ex-date: the reference price).
Volume, amount and open interest are not adjusted. Adjusted prices are rounded once, at the end: to ``tick`` where one is
given, else to 0.000001. Bars of days or less can be adjusted; longer ones are made of adjusted ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import Any, Final

import msgspec
import numpy as np

from marketdata.aggregate import split_days
from marketdata.calendar import OutsideCalendar, TradingCalendar
from marketdata.series import Floats, Series
from marketdata.types import Adjust, Dividend

DIGITS: Final = 6
"""Decimal digits of an adjusted price."""

EPOCH: Final = date(1970, 1, 1).toordinal()

ALGORITHMS: Final[dict[Adjust, str]] = {
    Adjust.NONE: "prices as traded",
    Adjust.FRONT: "front: (price - cash + rights * rights_price) / (1 + bonus + gift + rights) for each ex-date after the bar",
    Adjust.BACK: "back: price * (1 + bonus + gift + rights) + cash - rights * rights_price for each ex-date up to the bar",
    Adjust.FRONT_RATIO: "front_ratio: price / product of (last close / reference price) of the ex-dates after the bar",
    Adjust.BACK_RATIO: "back_ratio: price * product of (last close / reference price) of the ex-dates up to the bar",
}
"""Method -> what it does, for the answer."""

PRICES: Final = ("open", "high", "low", "close", "prev_close")
"""The columns that are adjusted."""

RATIOS: Final = frozenset({Adjust.FRONT_RATIO, Adjust.BACK_RATIO})


class RatioUnknown(LookupError):
    """The source did not say what the ratio of an ex-date is, and the last close before it is not known, or its reference price
    would not be positive."""

    def __init__(self, dividend: Dividend) -> None:
        super().__init__(f"the ratio of {dividend.symbol} on its ex-date {dividend.ex_date} is not known")
        self.symbol = dividend.symbol
        self.ex_date = dividend.ex_date


class Factor(msgspec.Struct, frozen=True, kw_only=True):
    """One ex-date as it was used. The amounts are per share, as in ``Dividend``.

    ``ratio``: last close over reference price; ``cumulative``: the product of it and those of all earlier ex-dates. Both
    None where they are not known.
    """

    ex_date: str
    ratio: float | None
    cumulative: float | None
    cash: float
    bonus: float
    gift: float
    rights: float
    rights_price: float


class Factors(msgspec.Struct, frozen=True, kw_only=True):
    """How a series was adjusted, for the answer; ``rows`` ascend by ex-date."""

    method: Adjust
    algorithm: str
    as_of: str | None
    rows: tuple[Factor, ...]


def gives_ratio(dividend: Dividend) -> bool:
    """Whether the source itself says what its ratio is."""
    return dividend.ratio is not None and 0 < dividend.ratio < math.inf


def reference_price(dividend: Dividend, prev_close: float) -> float:
    """The price on the ex-date that is worth as much as the last close before; the exchange rounds it to the tick."""
    return (prev_close - dividend.cash + dividend.rights * dividend.rights_price) / _shares(dividend)


def ratio_of(dividend: Dividend, prev_close: float) -> float | None:
    """Last close over reference price; None where the reference price would not be positive."""
    reference = reference_price(dividend, prev_close)
    return prev_close / reference if reference > 0 else None


def last_closes(daily: Series, known: Collection[int], ex_dates: Iterable[date], calendar: TradingCalendar) -> dict[str, float]:
    """Ex-date (ISO) -> the last close before it, where ``daily``, unadjusted bars of days, have it for certain.

    ``known``: the days (``date.toordinal``) of which all is known. A trading day that is not known, between a bar and the
    ex-date, may have had a later close: then there is none.
    """
    days = split_days(daily.time)[0]
    found: dict[str, float] = {}
    for ex_date in ex_dates:
        after = int(np.searchsorted(days, ex_date.toordinal() - EPOCH))
        if not after:
            continue
        since = date.fromordinal(int(days[after - 1]) + EPOCH)
        try:
            between = calendar.between(since, date.fromordinal(ex_date.toordinal() - 1))
        except OutsideCalendar:
            continue
        if all(day.toordinal() in known for day in between):
            found[ex_date.isoformat()] = float(daily.close[after - 1])
    return found


def factors(dividends: Iterable[Dividend], method: Adjust, *, as_of: date | None, closes: Mapping[str, float]) -> Factors:
    """The ex-dates that ``adjust`` knows, those after ``as_of`` left out. Arguments are those of ``adjust``."""
    rows: list[Factor] = []
    cumulative: float | None = 1.0
    for dividend in _known(dividends, as_of):
        ratio = _ratio(dividend, closes)
        cumulative = None if ratio is None or cumulative is None else cumulative * ratio
        rows.append(
            Factor(
                ex_date=dividend.ex_date,
                ratio=ratio,
                cumulative=cumulative,
                cash=dividend.cash,
                bonus=dividend.bonus,
                gift=dividend.gift,
                rights=dividend.rights,
                rights_price=dividend.rights_price,
            )
        )
    return Factors(
        method=method, algorithm=ALGORITHMS[method], as_of=None if as_of is None else as_of.isoformat(), rows=tuple(rows)
    )


def adjust(
    series: Series,
    dividends: Iterable[Dividend],
    method: Adjust,
    *,
    as_of: date | None,
    closes: Mapping[str, float],
    tick: float | None = None,
) -> Series:
    """Unadjusted bars of a day or less, adjusted.

    A dividend with an ex-date after ``as_of`` does not exist; None: all exist, announced ones of the future too. Bars after
    ``as_of`` are the caller's to leave out. ``dividends``: one per ex-date, in any order. ``closes``: as ``last_closes`` gives
    them, for the ex-dates of which the source gave no ratio; methods that are not of ratios need none.

    Raises ``RatioUnknown`` where a ratio method needs a ratio that is not known.
    """
    known = [] if method is Adjust.NONE else _known(dividends, as_of)
    if not known or not len(series):
        return series
    passed = np.searchsorted(np.array([_number(dividend) for dividend in known]), split_days(series.time)[0], "right")
    if method in RATIOS:
        scale, shift = _products(_ratios(series, known, method, closes), method), np.zeros(len(known) + 1)
    else:
        scale, shift = _compositions(known, method)
    scales, shifts = scale[passed], shift[passed]
    moves = (scales != 1.0) | (shifts != 0.0)
    return series.replace(**{name: _moved(getattr(series, name), scales, shifts, moves, tick) for name in PRICES})


def _moved(prices: Floats, scales: Floats, shifts: Floats, moves: Any, tick: float | None) -> Floats:
    moved = prices * scales + shifts
    if tick is not None:
        moved = np.rint(moved / tick) * tick
    return np.where(moves, np.round(moved, DIGITS), prices)


def _shares(dividend: Dividend) -> float:
    return 1.0 + dividend.bonus + dividend.gift + dividend.rights


def _number(dividend: Dividend) -> int:
    """Its ex-date in days since 1970-01-01."""
    return date.fromisoformat(dividend.ex_date).toordinal() - EPOCH


def _known(dividends: Iterable[Dividend], as_of: date | None) -> list[Dividend]:
    ordered = sorted(dividends, key=_number)
    return ordered if as_of is None else [dividend for dividend in ordered if dividend.ex_date <= as_of.isoformat()]


def _ratio(dividend: Dividend, closes: Mapping[str, float]) -> float | None:
    """The source's own, else that of the last close; None where neither is known."""
    if gives_ratio(dividend):
        return dividend.ratio
    close = closes.get(dividend.ex_date)
    return None if close is None else ratio_of(dividend, close)


def _ratios(series: Series, dividends: list[Dividend], method: Adjust, closes: Mapping[str, float]) -> Floats:
    """The ratio of each dividend; 1 where it is not known and enters into the price of no bar."""
    found: list[float] = []
    for dividend in dividends:
        ratio = _ratio(dividend, closes)
        if ratio is None and _matters(series, dividend, method):
            raise RatioUnknown(dividend)
        found.append(1.0 if ratio is None else ratio)
    return np.array(found)


def _matters(series: Series, dividend: Dividend, method: Adjust) -> bool:
    """Whether the dividend's ratio enters into the price of any of the bars."""
    first, last = split_days(series.time[[0, -1]])[0].tolist()
    return bool(first < _number(dividend) if method is Adjust.FRONT_RATIO else _number(dividend) <= last)


def _products(ratios: Floats, method: Adjust) -> Floats:
    """The scale of prices by how many ex-dates have passed."""
    if method is Adjust.BACK_RATIO:
        return np.concatenate(([1.0], np.cumprod(ratios)))
    return 1.0 / np.concatenate((np.cumprod(ratios[::-1])[::-1], [1.0]))


def _compositions(dividends: list[Dividend], method: Adjust) -> tuple[Floats, Floats]:
    """The scale and the shift of prices by how many ex-dates have passed: what their ex-dates do, one after the other."""
    scale, shift = np.ones(len(dividends) + 1), np.zeros(len(dividends) + 1)
    if method is Adjust.BACK:
        for position, dividend in enumerate(dividends):
            extra = dividend.cash - dividend.rights * dividend.rights_price
            scale[position + 1] = scale[position] * _shares(dividend)
            shift[position + 1] = shift[position] + scale[position] * extra
        return scale, shift
    for position, dividend in reversed(list(enumerate(dividends))):
        paid = dividend.rights * dividend.rights_price - dividend.cash
        scale[position] = scale[position + 1] / _shares(dividend)
        shift[position] = shift[position + 1] + scale[position] * paid
    return scale, shift

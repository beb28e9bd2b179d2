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
(``Dividend.ratio``) where it gave one, else by the close of the last bar before the ex-date. Fronts are relative to
``as_of`` (the terminal's are relative to the end of what was asked), so a bar's price does not depend on the range asked.

Prices are open, high, low, close and ``prev_close``, which is on its own day's footing (on an ex-date: the reference price).
Volume, amount and open interest are not adjusted. Adjusted prices are rounded once, at the end: to ``tick`` where one is
given, else to 0.000001. Bars of days or less can be adjusted; longer ones are made of adjusted ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import date
from typing import Any, Final

import msgspec
import numpy as np

from marketdata.aggregate import split_days
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
    """Neither the source nor the bars at hand say what the ratio of an ex-date is.

    The bars must reach from before the ex-date to the ex-date or beyond, or their last close is not the last before it.
    """

    def __init__(self, dividend: Dividend) -> None:
        super().__init__(f"the last close of {dividend.symbol} before its ex-date {dividend.ex_date} is not known")
        self.symbol = dividend.symbol
        self.ex_date = dividend.ex_date


class Factor(msgspec.Struct, frozen=True, kw_only=True):
    """One ex-date as it was used. The amounts are per share, as in ``Dividend``.

    ``ratio``: last close over reference price; ``cumulative``: the product of it and those of all earlier ex-dates. Both
    None where the method does not need them and they are not known.
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


def ratio_of(dividend: Dividend, prev_close: float) -> float:
    """Last close over reference price. Raises ``RatioUnknown`` where the reference price would not be positive."""
    reference = reference_price(dividend, prev_close)
    if not reference > 0:
        raise RatioUnknown(dividend)
    return prev_close / reference


def factors(
    series: Series, dividends: Iterable[Dividend], method: Adjust, *, as_of: date | None, daily: Series | None = None
) -> Factors:
    """The ex-dates that ``adjust`` knows, those after ``as_of`` left out. Arguments and errors are those of ``adjust``."""
    rows: list[Factor] = []
    cumulative: float | None = 1.0
    known = _known(dividends, as_of)
    for dividend, ratio in zip(known, _ratios(series, known, method, daily), strict=True):
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
    tick: float | None = None,
    daily: Series | None = None,
) -> Series:
    """Unadjusted bars of a day or less, adjusted.

    A dividend with an ex-date after ``as_of`` does not exist; None: all exist, announced ones of the future too. Bars after
    ``as_of`` are the caller's to leave out. ``dividends``: one per ex-date, in any order. ``daily``: unadjusted bars from
    which the last closes before ex-dates are taken; without it the series itself.

    Raises ``RatioUnknown`` where a ratio method needs a ratio that nobody gave.
    """
    known = [] if method is Adjust.NONE else _known(dividends, as_of)
    if not known or not len(series):
        return series
    passed = np.searchsorted(np.array([_number(dividend) for dividend in known]), split_days(series.time)[0], "right")
    if method in RATIOS:
        ratios = np.array([1.0 if ratio is None else ratio for ratio in _ratios(series, known, method, daily)])
        scale, shift = _products(ratios, method), np.zeros(len(known) + 1)
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


def _ratios(series: Series, dividends: list[Dividend], method: Adjust, daily: Series | None) -> list[float | None]:
    """The ratio of each dividend; None where it is not known and enters into the price of no bar."""
    closes = series if daily is None else daily
    days = split_days(closes.time)[0]
    found: list[float | None] = []
    for dividend in dividends:
        ratio = dividend.ratio
        if not gives_ratio(dividend):
            # Without a bar on the ex-date or after it the last bar at hand need not be the last before it.
            after = int(np.searchsorted(days, _number(dividend)))
            ratio = ratio_of(dividend, float(closes.close[after - 1])) if 0 < after < len(days) else None
        if ratio is None and _matters(series, dividend, method):
            raise RatioUnknown(dividend)
        found.append(ratio)
    return found


def _matters(series: Series, dividend: Dividend, method: Adjust) -> bool:
    """Whether the dividend's ratio enters into the price of any bar."""
    if method not in RATIOS or not len(series):
        return False
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

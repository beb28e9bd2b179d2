"""Prices are rounded to the nearest multiple of the tick, and to the float that prints as that decimal."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.exchanges import FUTURES, RANGES
from marketdata.symbols import round_price

TICKS = sorted({float(item.tick) for item in RANGES} | {float(tick) for group in FUTURES.values() for tick in group.values()})


@pytest.mark.parametrize(
    ("value", "tick", "rounded"),
    [
        (11.370000000000001, 0.01, 11.37),
        (5.55 * 0.9, 0.01, 5.0),
        (10.05 * 1.1, 0.01, 11.06),
        (5263.200000000001, 0.2, 5263.2),
        (101.12499999, 0.005, 101.125),
        (3335.74581, 0.0001, 3335.7458),
        (78340.4, 10, 78340.0),
        (0.1 + 0.2, 0.001, 0.3),
        (0.0, 0.01, 0.0),
        (-37.630000000000003, 0.01, -37.63),
        (-0.001, 0.01, 0.0),
        (61234.560000000005, None, 61234.56),
    ],
)
def test_known_cases(value: float, tick: float | None, rounded: float) -> None:
    assert repr(round_price(value, tick)) == repr(rounded)


@given(st.integers(-(10**9), 10**9), st.sampled_from(TICKS))
def test_a_multiple_of_the_tick_with_binary_noise_comes_back_exactly(steps: int, tick: float) -> None:
    exact = Decimal(repr(tick)) * steps
    clean = float(exact)
    for noisy in (clean, math.nextafter(clean, math.inf), math.nextafter(clean, -math.inf), steps * tick):
        assert round_price(noisy, tick) == clean
        assert Decimal(repr(round_price(noisy, tick))) == exact


@given(st.floats(-1e7, 1e7), st.sampled_from(TICKS))
def test_the_result_is_the_nearest_multiple_in_its_shortest_form(value: float, tick: float) -> None:
    grid = Decimal(repr(tick))
    shown = Decimal(repr(round_price(value, tick)))
    assert shown % grid == 0
    assert abs(shown - Decimal(value)) <= grid * Decimal("0.500002")


@given(st.integers(1, 10**7), st.sampled_from([0.9, 1.1, 0.8, 1.2, 0.7, 1.3]))
def test_limit_prices_round_halves_as_the_exchanges_do(cents: int, factor: float) -> None:
    expected = (Decimal(cents) / 100 * Decimal(repr(factor))).quantize(Decimal("0.01"), ROUND_HALF_UP)
    assert round_price(cents / 100 * factor, 0.01) == float(expected)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1.7976931348623157e308])
def test_what_is_no_price_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not a price"):
        round_price(value, 0.01)


@pytest.mark.parametrize("tick", [0, -0.01, math.inf])
def test_what_is_no_tick_is_refused(tick: float) -> None:
    with pytest.raises(ValueError, match="not a price tick"):
        round_price(1.0, tick)

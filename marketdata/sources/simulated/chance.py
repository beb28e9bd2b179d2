"""Chance that depends on its arguments alone: the same numbers in, the same number out, on every machine."""

from __future__ import annotations

MASK = (1 << 64) - 1


def mix(*parts: int) -> int:
    """64 well-mixed bits (the finaliser of splitmix64 over all parts)."""
    value = 0
    for part in parts:
        value = value * 0x9E3779B97F4A7C15 + part + 1
    value &= MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def unit(*parts: int) -> float:
    """A number in (0, 1)."""
    return ((mix(*parts) >> 11) + 0.5) / (1 << 53)


def noise(key: int, position: int, period: int) -> float:
    """A slowly moving number in [-1, 1]: straight lines between independent values ``period`` apart."""
    index, rest = divmod(position, period)
    before, after = 2 * unit(key, period, index) - 1, 2 * unit(key, period, index + 1) - 1
    return before + (after - before) * rest / period

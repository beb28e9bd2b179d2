"""Quotes per second, counted in a ring."""

from __future__ import annotations

from marketdata.throughput import Throughput


def test_nothing_is_known_before_the_first_count() -> None:
    throughput = Throughput()
    assert throughput.last(3, now=100.0) == [None, None, None]
    throughput.add(5, now=100.2)
    assert throughput.last(3, now=101.0) == [None, None, 5]


def test_seconds_are_counted_apart_and_silence_is_zero() -> None:
    throughput = Throughput()
    throughput.add(5, now=100.2)
    throughput.add(2, now=100.9)
    throughput.add(1, now=102.0)
    assert throughput.last(3, now=103.5) == [7, 0, 1]


def test_the_second_that_runs_is_not_complete() -> None:
    throughput = Throughput()
    throughput.add(5, now=100.2)
    throughput.add(9, now=101.1)
    assert throughput.last(2, now=101.9) == [None, 5]


def test_the_ring_forgets_what_is_older_than_it_is_long() -> None:
    throughput = Throughput(seconds=4)
    throughput.add(5, now=100.0)
    throughput.add(1, now=104.0)
    assert throughput.last(10, now=105.0) == [0, 0, 1], "never more than the ring holds, and no old count for a new second"

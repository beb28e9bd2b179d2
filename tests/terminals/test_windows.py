"""Maintenance windows: what operators write, and what it means."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.utils.translation import override
from hypothesis import given
from hypothesis import strategies as st

from marketdata.terminals import windows
from marketdata.terminals.windows import EXAMPLE, Window, begins, ends, inside, parse

EVERY_DAY = tuple(range(7))


def ms(text: str) -> int:
    """A time in Shanghai; 2026-07-06 is a Monday."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Asia/Shanghai")).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" ; ", ()),
        ("daily 05:00-05:40", (Window(EVERY_DAY, 300, 340),)),
        ("Daily 5:00 - 5:40;", (Window(EVERY_DAY, 300, 340),)),
        ("sat-sun 00:00-24:00", (Window((5, 6), 0, 1440),)),
        ("mon,wed 22:30-01:00", (Window((0, 2), 1350, 1500),)),
        ("wed, mon - tue, mon 22:30-00:00", (Window((0, 1, 2), 1350, 1440),)),
        ("fri-mon 01:00-02:00", (Window((0, 4, 5, 6), 60, 120),)),
        ("tue-tue 01:00-02:00", (Window((1,), 60, 120),)),
        ("mon-sun 01:00-02:00", (Window(EVERY_DAY, 60, 120),)),
    ],
)
def test_what_a_text_means(text: str, expected: tuple[Window, ...]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("05:00-05:40", "a window is days and two times"),
        ("daily", "a window is days and two times"),
        ("daily 05:00", "a window is days and two times"),
        ("daily 05:00-05:40 mon", "a window is days and two times"),
        ("daily 05:00-05:40, mon 06:00-07:00", "; separates windows"),
        ("daily,mon 05:00-05:40", "'daily' is not a day"),
        ("monday 05:00-05:40", "'monday' is not a day"),
        ("mon- 05:00-05:40", "'' is not a day"),
        ("mon,,tue 05:00-05:40", "'' is not a day"),
        ("daily 25:00-05:40", "'25:00' is not a time"),
        ("daily 05:60-06:40", "'05:60' is not a time"),
        ("daily 05:00-24:01", "'24:01' is not a time"),
        ("daily 0500-0540", "'0500' is not a time"),
        ("daily ٠٥:00-05:40", "a window is days and two times"),
        ("daily 24:00-01:00", "24:00 can only be an end"),
        ("daily 05:00-05:00", "it ends when it starts"),
        ("daily 05:00-05:40; mon 7", "'mon 7'"),
    ],
)
def test_a_text_that_means_nothing_is_refused_with_the_reason_and_an_example(text: str, why: str) -> None:
    with override("en"), pytest.raises(ValueError) as refusal:
        parse(text)
    assert why in str(refusal.value)
    assert EXAMPLE in str(refusal.value)


def test_the_example_is_one_and_canonical() -> None:
    assert windows.format(parse(EXAMPLE)) == EXAMPLE


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("mon-sun 5:00-5:40", "daily 05:00-05:40"),
        ("tue,mon,wed,fri 22:00-0:00", "mon-wed,fri 22:00-24:00"),
        ("fri-mon 22:00-6:00;", "mon,fri-sun 22:00-06:00"),
    ],
)
def test_the_canonical_text(text: str, canonical: str) -> None:
    assert windows.format(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "when", "end"),
    [
        ("daily 05:00-05:40", "2026-07-06T04:59:59.999", None),
        ("daily 05:00-05:40", "2026-07-06T05:00", "2026-07-06T05:40"),
        ("daily 05:00-05:40", "2026-07-06T05:39:59.999", "2026-07-06T05:40"),
        ("daily 05:00-05:40", "2026-07-06T05:40", None),
        ("mon 22:30-01:00", "2026-07-06T23:00", "2026-07-07T01:00"),
        ("mon 22:30-01:00", "2026-07-07T00:30", "2026-07-07T01:00"),
        ("mon 22:30-01:00", "2026-07-06T00:30", None),
        ("sun 22:30-01:00", "2026-07-06T00:30", "2026-07-06T01:00"),
        ("sat-sun 00:00-24:00", "2026-07-11T00:00", "2026-07-12T00:00"),
        ("sat-sun 00:00-24:00", "2026-07-12T23:59", "2026-07-13T00:00"),
        ("sat-sun 00:00-24:00", "2026-07-13T00:00", None),
    ],
)
def test_when_one_is_inside_and_until_when(text: str, when: str, end: str | None) -> None:
    (window,) = parse(text)
    if end is None:
        assert inside([window], ms(when)) is None
        with pytest.raises(ValueError, match="is not within"):
            ends(window, ms(when))
    else:
        assert inside([window], ms(when)) == window
        assert ends(window, ms(when)) == ms(end)


def test_of_windows_that_overlap_the_first_is_named() -> None:
    both = parse("mon 05:00-06:00; daily 05:30-07:00")
    assert inside(both, ms("2026-07-06T05:45")) == both[0]
    assert inside(both, ms("2026-07-06T06:15")) == both[1]


@pytest.mark.parametrize(
    ("days", "start", "end"),
    [((), 0, 1), ((1, 0), 0, 1), ((0, 0), 0, 1), ((7,), 0, 1), ((0,), 1440, 1441), ((0,), 5, 5), ((0,), -1, 5), ((0,), 60, 1500)],
)
def test_no_other_windows_can_be_made(days: tuple[int, ...], start: int, end: int) -> None:
    with pytest.raises(ValueError, match=r"days must|a window starts"):
        Window(days, start, end)


@st.composite
def one(draw: st.DrawFn) -> Window:
    days = tuple(sorted(draw(st.sets(st.integers(0, 6), min_size=1))))
    start = draw(st.integers(0, 1439))
    return Window(days, start, draw(st.integers(start + 1, max(1440, start + 1439))))


@given(st.lists(one(), max_size=4).map(tuple))
def test_what_is_formatted_reads_as_the_same(given_windows: tuple[Window, ...]) -> None:
    assert parse(windows.format(given_windows)) == given_windows


@given(st.text(alphabet="daily montuewedsun0123456789:-,; ", max_size=40))
def test_any_text_is_windows_or_a_value_error(text: str) -> None:
    try:
        found = parse(text)
    except ValueError as error:
        assert EXAMPLE in str(error)
    else:
        assert parse(windows.format(found)) == found


@given(one(), st.integers(0, 14 * 1440 - 1))
def test_inside_is_what_counting_the_minutes_says(window: Window, minute: int) -> None:
    begin = datetime(2026, 7, 6, tzinfo=ZoneInfo("Asia/Shanghai"))
    minutes = {
        day * 1440 + within
        for day in range(-7, 21)
        if (begin + timedelta(days=day)).weekday() in window.days
        for within in range(window.start, window.end)
    }
    when = ms("2026-07-06") + minute * 60_000
    assert (inside([window], when) == window) is (minute in minutes)
    if minute in minutes:
        assert minute < (ends(window, when) - ms("2026-07-06")) // 60_000 <= minute + window.end - window.start
        assert (ends(window, when) - ms("2026-07-06")) // 60_000 % 1440 == window.end % 1440


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("", "2026-07-06T12:00", None),
        ("daily 05:00-05:40", "2026-07-06T04:59", "2026-07-06T05:00"),
        ("daily 05:00-05:40", "2026-07-06T05:00", "2026-07-07T05:00"),
        ("mon 05:00-05:40", "2026-07-06T05:00", "2026-07-13T05:00"),
        ("daily 22:30-01:00; sat-sun 00:00-24:00", "2026-07-10T23:00", "2026-07-11T00:00"),
    ],
)
def test_when_the_next_window_begins(text: str, now: str, expected: str | None) -> None:
    assert begins(parse(text), ms(now)) == (None if expected is None else ms(expected))

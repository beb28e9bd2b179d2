"""A request's words become a query, or a refusal that names the parameter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.errors import INVALID_ARGUMENT, OUTSIDE_CALENDAR, ArgusError
from marketdata.calendar import CHINA, DAY
from marketdata.history.query import make, read_time
from marketdata.types import Adjust, Period

GOOD: dict[str, Any] = {"symbols": ["000001.SZ"], "period": "1d", "start": "2026-01-05", "end": "2026-01-09"}


def ask(**changed: Any) -> Any:
    return make(**(GOOD | changed), calendar=CHINA)


def test_a_day_alone_is_the_whole_of_it() -> None:
    query = ask(start="20260105", end="2026-01-05")
    assert query.end - query.start == DAY - 1
    moment = ask(start="2026-01-05T09:31", end=None)
    assert moment.start - query.start == (9 * 60 + 31) * 60_000
    assert ask(start="20260105093100").start == ask(start="2026-01-05 09:31:00").start == moment.start
    assert ask(start=str(moment.start)).start == moment.start


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05T09:31",
        "2026-01-05 09:31:00",
        "20260105093100",
        "202601050931",
        "20260105T093100",
        "2026-01-05T09:31+08:00",
        "2026-01-05T09:31:00.000+0800",
        "2026-01-05T09:31 08:00",
        "2026-01-05T01:31Z",
        "20260105T013100z",
        "2026-01-04T20:31:00-05:00",
        "2026-01-05T07:01:00+05:30",
        "1767576660000",
    ],
)
def test_a_moment_is_the_same_in_whatever_zone_it_is_written(text: str) -> None:
    assert ask(start=text).start == 1_767_576_660_000


def test_a_moment_may_have_a_fraction_of_a_second_and_lie_in_the_last_century() -> None:
    assert ask(start="2026-01-05T01:31:00.25Z").start == 1_767_576_660_250
    assert ask(start="2026-01-05T09:31:00,250999").start == 1_767_576_660_250
    # 12 digits of milliseconds, which are no date.
    assert ask(start="946686600000").start == ask(start="2000-01-01T08:30").start == 946_686_600_000


@pytest.mark.parametrize(
    ("changed", "parameter"),
    [
        ({"symbols": []}, "symbols"),
        ({"period": "2m"}, "period"),
        ({"adjust": "forward"}, "adjust"),
        ({"start": "2026-02-30"}, "start"),
        ({"start": "2026-01-12"}, "start"),
        ({"start": None}, "start"),
        ({"count": "0"}, "count"),
        ({"count": "1000001"}, "count"),
        ({"count": "-5"}, "count"),
        ({"count": "²"}, "count"),
        ({"end": "tomorrow"}, "end"),
        ({"as_of": "2026-01-09"}, "as_of"),
        ({"as_of": "2026-01-09", "adjust": "back"}, "as_of"),
        ({"as_of": "2026-01-02", "adjust": "front"}, "as_of"),
        ({"fields": ["close", "vwap"]}, "fields"),
        ({"period": ""}, "period"),
        ({"start": "2026-01-05T09:31+25:00"}, "start"),
        ({"start": "2026-01-05T24:00"}, "start"),
        ({"start": "0001-01-01T00:00+14:00"}, "start"),
        ({"end": "9999-12-31T23:00-12:00"}, "end"),
        ({"start": "1767576660"}, "start"),
    ],
)
def test_what_cannot_be_is_refused_under_its_name(changed: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ArgusError) as refused:
        ask(**changed)
    assert (refused.value.problem, refused.value.params["parameter"]) == (INVALID_ARGUMENT, parameter)


@pytest.mark.parametrize(
    ("changed", "parameter"),
    [
        ({"start": "1980-01-01"}, "start"),
        ({"start": "2027-01-04", "end": None}, "start"),
        ({"start": None, "count": "5", "end": "2027-01-04"}, "end"),
        ({"end": "2027-01-04"}, "end"),
        ({"start": None, "count": "5", "end": "1980-01-04"}, "end"),
        ({"adjust": "front", "as_of": "1980-01-01"}, "as_of"),
    ],
)
def test_no_guess_is_made_outside_the_calendar(changed: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ArgusError) as refused:
        ask(**changed)
    assert (refused.value.problem, refused.value.params["parameter"]) == (OUTSIDE_CALENDAR, parameter)


def test_the_calendar_s_first_and_last_day_lie_within_it() -> None:
    query = ask(start="1990-12-19", end="2026-12-31", adjust="front", as_of="2026-12-31")
    assert (query.period, query.adjust) == (Period.D1, Adjust.FRONT)


@given(st.text(max_size=30), st.text(max_size=12), st.text(max_size=8))
def test_no_word_is_answered_with_anything_but_a_refusal(moment: str, count: str, other: str) -> None:
    for changed in (
        {"start": moment},
        {"end": moment},
        {"count": count},
        {"period": other},
        {"as_of": moment, "adjust": "front"},
    ):
        try:
            ask(**changed)
        except ArgusError as refused:
            assert refused.params["parameter"] in {*changed, "start"}


@given(
    st.from_regex(r"[0-9]{1,20}([-T: ][0-9]{0,4}){0,5}", fullmatch=True)
    | st.from_regex(r"[0-9]{4}-(0[1-9]|1[0-2])-[0-2][0-9]T[0-2][0-9]:[0-5][0-9](Z|[+ -][0-2][0-9]:?[0-9]{2})", fullmatch=True)
)
def test_what_looks_like_a_time_is_one_or_is_refused(word: str) -> None:
    try:
        assert isinstance(read_time(word, "start", is_end=False), int)
    except ArgusError as refused:
        assert refused.params["parameter"] == "start"

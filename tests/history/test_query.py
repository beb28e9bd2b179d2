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
        ({"fields": ["close", "vwap"]}, "fields"),
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
        ({"adjust": "front", "as_of": "1980-01-01"}, "as_of"),
    ],
)
def test_no_guess_is_made_outside_the_calendar(changed: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ArgusError) as refused:
        ask(**changed)
    assert (refused.value.problem, refused.value.params["parameter"]) == (OUTSIDE_CALENDAR, parameter)


def test_an_end_beyond_the_calendar_means_up_to_now() -> None:
    assert ask(end="2030-01-01").period is Period.D1
    assert ask(adjust="front", as_of="2026-03-02").adjust is Adjust.FRONT


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


@given(st.from_regex(r"[0-9]{1,20}([-T: ][0-9]{0,4}){0,5}", fullmatch=True))
def test_what_looks_like_a_time_is_one_or_is_refused(word: str) -> None:
    try:
        assert isinstance(read_time(word, "start", is_end=False), int)
    except ArgusError as refused:
        assert refused.params["parameter"] == "start"

"""Changes of an instrument's phase and of its standing at the day's limits."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.ingest import Ingest
from marketdata.statuses import Statuses
from marketdata.types import LimitState, Quote, TradingStatus

CONTINUOUS, BREAK = TradingStatus.CONTINUOUS, TradingStatus.BREAK


def quote(
    symbol: str = "A",
    time: int = 1,
    price: float | None = 10.0,
    status: TradingStatus = CONTINUOUS,
    limits: tuple[float | None, float | None] = (11.0, 9.0),
) -> Quote:
    return Quote(symbol=symbol, time=time, price=price, status=status, limit_up=limits[0], limit_down=limits[1], source="test")


def body(one: Quote) -> dict[str, bytes]:
    return Ingest().take([one]).groups[0]


def test_the_first_sight_of_a_symbol_and_every_change_are_told() -> None:
    statuses = Statuses()
    told = []
    for n, (price, status) in enumerate(
        [
            (10.0, CONTINUOUS),
            (10.5, CONTINUOUS),
            (11.0, CONTINUOUS),
            (11.0, BREAK),
            (11.0, BREAK),
            (10.9, BREAK),
            (9.0, CONTINUOUS),
        ]
    ):
        told += [(n, msgspec.json.decode(text)) for _, text in statuses.take(body(quote(time=n, price=price, status=status)))]
    assert [(n, text["time"], text["status"], text["limit"]) for n, text in told] == [
        (0, 0, "continuous", None),
        (2, 2, "continuous", "up"),
        (3, 3, "break", "up"),
        (5, 5, "break", None),
        (6, 6, "continuous", "down"),
    ]
    assert list(told[0][1].items()) == [
        ("type", "status"),
        ("symbol", "A"),
        ("time", 0),
        ("status", "continuous"),
        ("limit", None),
        ("limit_up", 11.0),
        ("limit_down", 9.0),
        ("source", "test"),
    ]


def test_what_was_found_is_told_only_once_that_is_noted() -> None:
    statuses = Statuses()
    found = statuses.find(body(quote()))
    assert statuses.find(body(quote())) == found != []
    statuses.note(found)
    assert statuses.find(body(quote())) == []


def test_who_begins_a_term_knows_how_the_newest_quotes_stand_and_no_more() -> None:
    statuses = Statuses()
    statuses.take(body(quote("B")))
    statuses.know({"A": body(quote(price=11.0))["A"][:-1] + b',"seq":4}'})
    assert statuses.find(body(quote(price=11.0))) == []
    assert [symbol for symbol, _ in statuses.find(body(quote("B")))] == ["B"]


@given(st.data())
def test_the_quick_look_passes_over_no_change(data: st.DataObject) -> None:
    prices = st.sampled_from([None, 8.9, 9.0, 10.0, 11.0, 11.1])
    limits = st.sampled_from([(11.0, 9.0), (None, None), (11.0, None), (None, 9.0)])
    statuses = Statuses()
    for n in range(data.draw(st.integers(1, 12))):
        one = quote(
            data.draw(st.sampled_from("AB")),
            n,
            data.draw(prices),
            data.draw(st.sampled_from([CONTINUOUS, BREAK])),
            data.draw(limits),
        )
        found = statuses.find(body(one))
        assert {symbol for symbol, _ in found} == statuses.turned([one])
        statuses.note(found)


@pytest.mark.parametrize(("price", "limit"), [(11.0, LimitState.UP), (9.0, LimitState.DOWN), (10.0, None), (None, None)])
def test_the_limit_is_that_of_the_quote(price: float | None, limit: LimitState | None) -> None:
    one = quote(price=price)
    ((_, text),) = Statuses().take(body(one))
    assert msgspec.json.decode(text)["limit"] == limit == one.limit

"""The body is the stored fragments, joined, and says how old they are."""

from __future__ import annotations

import json
import time

import pytest

from argus.config import config
from argus.errors import UNKNOWN_SYMBOL
from marketdata.api import latest
from marketdata.latest import LatestStore
from marketdata.universe import Rejected
from tests.api.conftest import batch, quote, take


@pytest.fixture
def two() -> LatestStore:
    found = LatestStore()
    take(found, batch(1, quote("600000.SH", 10.05), quote("000001.SZ", 0.1 + 0.2)))
    return found


def body(latest_store: LatestStore, symbols: list[str] | None, **options: object) -> dict[str, object]:
    options = {"stale_after": 10, "request_id": "r1", **options}
    return json.loads(latest.body(latest_store, symbols, **options))  # type: ignore[arg-type]


def test_quotes_come_in_the_order_asked_and_what_has_none_is_named(two: LatestStore) -> None:
    answer = body(two, ["000001.SZ", "600036.SH", "600000.SH"])
    assert [item["symbol"] for item in answer["data"]] == ["000001.SZ", "600000.SH"]  # type: ignore[attr-defined]
    assert answer["missing"] == ["600036.SH"]


def test_fragments_pass_byte_for_byte(two: LatestStore) -> None:
    found = latest.body(two, ["000001.SZ"], stale_after=10, request_id="r1")
    assert two.fragments["000001.SZ"] in found
    assert b'"price":0.30000000000000004,' in found


def test_the_whole_store_is_answered_where_no_symbols_are_named(two: LatestStore) -> None:
    answer = body(two, None, expected=["600000.SH", "600036.SH"])
    assert {item["symbol"] for item in answer["data"]} == {"000001.SZ", "600000.SH"}  # type: ignore[attr-defined]
    assert answer["missing"] == ["600036.SH"]


def test_it_says_where_the_stream_stands_and_when_the_source_last_answered(two: LatestStore) -> None:
    answer = body(two, [])
    assert answer["streams"] == {"main": {"epoch": 7, "seq": 1}}
    assert answer["source"] == "simulated"
    assert answer["as_of"] == "2026-08-05T10:25:02.113+08:00"
    assert answer["stale"] is False
    assert answer["request_id"] == "r1"


def test_a_silent_source_makes_the_answer_stale_and_keeps_the_data(two: LatestStore) -> None:
    two.feeds["main"].canary_arrived = time.monotonic() - 32
    answer = body(two, ["600000.SH"])
    assert answer["stale"] is True
    assert answer["age"] == pytest.approx(32, abs=5)
    assert len(answer["data"]) == 1  # type: ignore[arg-type]


def test_the_feed_that_is_silent_longest_counts(two: LatestStore) -> None:
    take(two, batch(1, quote("IF2509.IF", 4000.2), feed="futures", canary=1785896000000))
    assert body(two, [])["as_of"] == "2026-08-05T10:13:20.000+08:00"
    take(two, batch(1, quote("BTCUSDT.BINANCE", 61000.1), feed="crypto", canary=None))
    answer = body(two, [])
    assert (answer["as_of"], answer["stale"]) == (None, False), "it has its time to begin"
    two.feeds["crypto"].since -= config.stale_after
    answer = body(two, [])
    assert (answer["as_of"], answer["stale"]) == (None, True)


def test_before_the_first_message_there_is_nothing_and_it_is_stale() -> None:
    assert body(LatestStore(), ["600000.SH"]) == {
        "data": [],
        "streams": {},
        "source": None,
        "as_of": None,
        "stale": True,
        "age": None,
        "missing": ["600000.SH"],
        "rejected": [],
        "request_id": "r1",
    }


def test_rejected_words_are_named_as_on_the_stream(two: LatestStore) -> None:
    answer = body(two, [], rejected=[Rejected("x" * 200, UNKNOWN_SYMBOL, "why")])
    assert answer["rejected"] == [{"symbol": "x" * 80, "code": 421, "name": "unknown_symbol", "reason": "why"}]

"""A gap certificate over REST, of a journal in this process and of one in Redis."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import Client as Browser

from argus.config import config
from marketdata import journal
from marketdata.batch import Term
from marketdata.journal import MemoryJournal, RedisJournal
from streaming import runtime
from tests.streaming.returning import Source, trade
from tests.streaming.server import SYMBOLS, Server, quote, until

A = SYMBOLS[0]


async def ask(key: str | None, **query: str) -> Any:
    headers = {"X-API-Key": key} if key else {}
    return await sync_to_async(Browser().get)("/api/v1/stream/gap", query, headers=headers)


@pytest.fixture(params=["memory", "redis"])
def journals(request: pytest.FixtureRequest, clean_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the journal is; it keeps some forty trades."""
    if request.param == "memory":
        kept: journal.Journal = MemoryJournal(most=16_000)
    else:
        kept = RedisJournal(request.getfixturevalue("redis_url"), most=6_000)
    monkeypatch.setattr(journal, "_journals", {config.redis_url: kept})


async def heard(epoch: int, seq: int) -> None:
    """Wait until the hub has come that far."""
    await until(lambda: runtime.current().hub.position("main") == (epoch, seq), "the hub to hear it")  # type: ignore[union-attr]


@pytest.fixture
async def told(journals: None, source: Source) -> Source:
    await source.tell(quote(A), happened=[trade(A, 1), trade(A, 2)])
    await source.tell(kept=False)
    await source.tell(happened=[trade(A, 3)])
    await heard(1, 3)
    return source


async def test_what_the_journal_has_is_filled(told: Source, key: str) -> None:
    answer = (await ask(key, **{"from": "1-1", "to": "1-1"})).json()
    assert (answer["feed"], answer["from"], answer["to"]) == ("main", {"epoch": 1, "seq": 1}, {"epoch": 1, "seq": 1})
    assert (answer["filled"], answer["source"], answer["reason"]) == (True, "journal", "")
    assert (answer["messages"], answer["events"]) == (1, {"trade": 2})


async def test_what_it_has_not_is_not(told: Source, key: str) -> None:
    answer = (await ask(key, feed="main", **{"from": "1-1"})).json()
    assert (answer["to"], answer["filled"], answer["source"]) == ({"epoch": 1, "seq": 3}, False, "none")
    assert answer["reason"] == "hole"


async def test_what_the_journal_has_let_go_of_is_out_of_reach(journals: None, source: Source, key: str) -> None:
    for index in range(1, 101):
        await source.tell(happened=[trade(A, index)])
    await heard(1, 100)
    gone = (await ask(key, **{"from": "1-1"})).json()
    assert (gone["from"], gone["to"]) == ({"epoch": 1, "seq": 1}, {"epoch": 1, "seq": 100})
    assert (gone["filled"], gone["source"], gone["reason"]) == (False, "none", "out_of_reach")
    # What it still has of these.
    assert gone["events"] == {"trade": gone["messages"]}
    assert 10 < gone["messages"] < 90
    reach = 101 - gone["messages"]
    there = (await ask(key, **{"from": f"1-{reach}"})).json()
    assert (there["filled"], there["reason"], there["messages"]) == (True, "", gone["messages"])
    beyond = (await ask(key, **{"from": f"1-{reach - 1}"})).json()
    assert (beyond["filled"], beyond["reason"]) == (False, "out_of_reach")


async def test_a_change_of_publisher_that_lost_nothing_is_filled(journals: None, source: Source, key: str) -> None:
    await source.tell(happened=[trade(A, 1)])
    await source.tell(happened=[trade(A, 2)])
    source.epoch, source.seq = 7, 0
    await source.tell()
    await source.tell(happened=[trade(A, 3), trade(A, 4)], term=Term(1, 2, recovered=True))
    await heard(7, 2)
    answer = (await ask(key, **{"from": "1-2"})).json()
    assert (answer["from"], answer["to"]) == ({"epoch": 1, "seq": 2}, {"epoch": 7, "seq": 2})
    assert (answer["filled"], answer["source"], answer["reason"]) == (True, "journal", "")
    assert (answer["messages"], answer["events"]) == (3, {"trade": 3})
    # Before the new publisher has said after whom it goes on, nobody knows.
    answer = (await ask(key, **{"from": "1-2", "to": "7-1"})).json()
    assert (answer["filled"], answer["reason"]) == (False, "unknown_epoch")


async def test_a_change_of_publisher_that_may_have_lost_something_says_why(journals: None, source: Source, key: str) -> None:
    await source.tell(happened=[trade(A, 1)])
    source.epoch, source.seq = 2, 0
    await source.tell(happened=[trade(A, 2)], term=Term(1, 1, recovered=False, reason="feed_broken"))
    await source.tell(happened=[trade(A, 3)])
    await heard(2, 2)
    across = (await ask(key, **{"from": "1-1"})).json()
    after = (await ask(key, **{"from": "2-2"})).json()
    assert (across["filled"], across["source"], across["reason"]) == (False, "none", "feed_broken")
    assert (after["filled"], after["messages"], after["events"]) == (True, 1, {"trade": 1})


async def test_the_last_messages_of_a_publisher_that_the_journal_has_not_are_a_hole(
    journals: None, source: Source, key: str
) -> None:
    await source.tell(happened=[trade(A, 1)])
    await source.tell(happened=[trade(A, 2)], kept=False)
    source.epoch, source.seq = 2, 0
    await source.tell(term=Term(1, 2, recovered=True))
    await heard(2, 1)
    answer = (await ask(key, **{"from": "1-1"})).json()
    assert (answer["filled"], answer["reason"], answer["events"]) == (False, "hole", {"trade": 1})


async def test_of_a_publisher_that_is_not_known_here_nothing_is_certified(told: Source, key: str) -> None:
    answer = (await ask(key, **{"from": "2-1"})).json()
    assert (answer["from"], answer["to"]) == ({"epoch": 2, "seq": 1}, {"epoch": 1, "seq": 3})
    assert (answer["filled"], answer["source"], answer["reason"]) == (False, "none", "unknown_epoch")


async def test_what_has_not_been_published_is_not_filled_and_where_nothing_was_missed_nothing_is_missing(
    told: Source, key: str
) -> None:
    beyond = (await ask(key, **{"from": "1-3", "to": "1-4"})).json()
    assert (beyond["filled"], beyond["reason"]) == (False, "hole")
    nothing = (await ask(key, **{"from": "1-4"})).json()
    assert (nothing["to"], nothing["filled"], nothing["messages"]) == ({"epoch": 1, "seq": 3}, True, 0)


async def test_a_journal_that_does_not_answer_certifies_nothing(
    clean_process: None, redis_server: Any, monkeypatch: pytest.MonkeyPatch, source: Source, key: str
) -> None:
    monkeypatch.setattr(journal, "_journals", {config.redis_url: RedisJournal(redis_server.url)})
    await source.tell(happened=[trade(A, 1)])
    await heard(1, 1)
    redis_server.stop()
    answer = (await ask(key, **{"from": "1-1"})).json()
    assert (answer["filled"], answer["source"], answer["reason"]) == (False, "none", "unavailable")


@pytest.mark.parametrize(
    ("query", "status", "parameter"),
    [
        ({}, 400, "from"),
        ({"from": "1"}, 400, "from"),
        ({"from": "1-0"}, 400, "from"),
        ({"from": "1-1", "to": "x-1"}, 400, "to"),
        ({"from": "1-1", "feed": "none"}, 404, "feed"),
        ({"from": "1-1", "until": "1-2"}, 400, "until"),
    ],
)
async def test_a_wrong_question_is_told_what_is_wrong(
    told: Source, key: str, query: dict[str, str], status: int, parameter: str
) -> None:
    answer = await ask(key, **query)
    assert (answer.status_code, answer.json()["parameter"]) == (status, parameter)


async def test_a_key_is_needed(server: Server) -> None:
    assert (await ask(None, **{"from": "1-1"})).status_code == 401

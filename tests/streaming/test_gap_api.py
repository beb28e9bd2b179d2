"""A gap certificate over REST."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import Client as Browser

from streaming import runtime
from tests.streaming.returning import Source, trade
from tests.streaming.server import SYMBOLS, Server, quote, until

A = SYMBOLS[0]


async def ask(key: str | None, **query: str) -> Any:
    headers = {"X-API-Key": key} if key else {}
    return await sync_to_async(Browser().get)("/api/v1/stream/gap", query, headers=headers)


@pytest.fixture
async def told(source: Source) -> Source:
    await source.tell(quote(A), happened=[trade(A, 1), trade(A, 2)])
    await source.tell(kept=False)
    await source.tell(happened=[trade(A, 3)])
    await until(lambda: runtime.current().hub.position("main")[1] == 3, "the hub to hear it")  # type: ignore[union-attr]
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

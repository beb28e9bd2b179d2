"""A ticket over REST, for a browser's connection."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import cache
from django.core.cache.backends.redis import RedisCache
from django.test import Client as Browser

from argus.access import keys
from argus.errors import ArgusError
from streaming import tickets
from tests.streaming.server import Server, client, new_key, until


def post(key: str | None, **headers: str) -> Any:
    return Browser().post("/api/v1/stream/ticket", headers=({"X-API-Key": key} if key else {}) | headers)


async def test_a_key_gets_a_ticket_that_opens_a_connection(server: Server, key: str) -> None:
    answer = await sync_to_async(post)(key)
    assert (answer.status_code, answer["Cache-Control"], answer.json()["expires_in"]) == (201, "no-store", 30)
    async with client(server, path=f"/ws/market_data?ticket={answer.json()['ticket']}", origin="https://elsewhere.test") as one:  # type: ignore[arg-type]
        assert (await one.receive())["authenticated"] is True


async def test_a_ticket_expires(server: Server, key: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(tickets, "SECONDS", 0.05)
    ticket = await sync_to_async(tickets.issue)(key)
    await until(lambda: cache.get(tickets._name(ticket)) is None, "the ticket to expire")
    async with client(server, path=f"/ws?ticket={ticket}") as one:
        assert (await one.receive())["name"] == "ticket_invalid"


async def test_a_ticket_works_once_through_redis_too(redis_url: str, monkeypatch: Any) -> None:
    shared = RedisCache(redis_url, {})
    monkeypatch.setattr(tickets, "cache", shared)
    secret = keys.new()
    ticket = await sync_to_async(tickets.issue)(secret.text)
    assert await tickets.redeem(ticket) == (secret.prefix, secret.digest)
    with pytest.raises(ArgusError, match="ticket_invalid"):
        await tickets.redeem(ticket)
    await shared.aclose()


def test_without_a_key_there_is_no_ticket(clean_process: None) -> None:
    for key in (None, "nonsense"):
        answer = post(key)
        assert answer.status_code == 401
        assert answer.json()["name"] in ("not_authenticated", "key_invalid")


async def test_a_ticket_costs_a_request(clean_process: None) -> None:
    _, text = await new_key(requests=1)
    answers = [await sync_to_async(post)(text) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 429]

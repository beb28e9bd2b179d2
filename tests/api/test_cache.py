"""The three addresses of the cache: who may ask, what is refused under which name, what the answers say."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from marketdata.cache.tiers import tiers
from tests.api.conftest import Keys
from tests.cache.blocks import daily, day_key, month, month_key

STATS, CLEAR, OPTIMIZE = (f"/api/v1/cache/{name}" for name in ("stats", "clear", "optimize"))
CALLS = [("GET", STATS), ("DELETE", CLEAR), ("POST", OPTIMIZE)]


def fill() -> None:
    cache = tiers()
    for symbol in ("000001.SZ", "600000.SH"):
        cache.put(day_key(symbol)._replace(market=cache.market), daily())
        cache.put(month_key(symbol)._replace(market=cache.market), month())


async def call(client: httpx.AsyncClient, key: str, method: str, path: str, **params: Any) -> httpx.Response:
    return await client.request(method, path, params=params, headers={"X-API-Key": key})


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_they_are_for_operators(client: httpx.AsyncClient, keys: Keys, method: str, path: str) -> None:
    assert (await client.request(method, path)).status_code == 401
    assert (await call(client, keys.reader, method, path)).status_code == 403
    answer = await call(client, keys.operator, method, path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() >= {"process", "shared", "request_id"}
    other = await call(client, keys.operator, "PUT", path)
    assert other.status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "params", "parameter"),
    [
        ("GET", STATS, {"tier": "l1"}, "tier"),
        ("DELETE", CLEAR, {"teir": "l1"}, "teir"),
        ("DELETE", CLEAR, {"tier": "l4"}, "tier"),
        ("DELETE", CLEAR, {"tier": "terminal"}, "tier"),
        ("DELETE", CLEAR, {"tier": ""}, "tier"),
        ("DELETE", CLEAR, {"tier": ["l1", "l2"]}, "tier"),
        ("DELETE", CLEAR, {"symbol": "../../etc"}, "symbol"),
        ("DELETE", CLEAR, {"symbol": ""}, "symbol"),
        ("DELETE", CLEAR, {"symbol": "*"}, "symbol"),
        ("DELETE", CLEAR, {"period": "5m"}, "period"),
        ("DELETE", CLEAR, {"period": "1y"}, "period"),
        ("POST", OPTIMIZE, {"seconds": "0"}, "seconds"),
        ("POST", OPTIMIZE, {"seconds": "61"}, "seconds"),
        ("POST", OPTIMIZE, {"seconds": "１"}, "seconds"),
        ("POST", OPTIMIZE, {"seconds": "nan"}, "seconds"),
        ("POST", OPTIMIZE, {"deep": "1"}, "deep"),
    ],
)
async def test_a_wrong_parameter_is_named_and_nothing_is_done(
    client: httpx.AsyncClient, keys: Keys, method: str, path: str, params: dict[str, Any], parameter: str
) -> None:
    fill()
    answer = await call(client, keys.operator, method, path, **params)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["parameter"] == parameter
    assert len(tiers().memory) == 4


async def test_stats_tell_what_lies_where(client: httpx.AsyncClient, keys: Keys) -> None:
    fill()
    tiers().get(day_key("000001.SZ")._replace(market=tiers().market))
    body = (await call(client, keys.operator, "GET", STATS)).json()
    assert body["hit_rate"] == 1.0
    assert body["shared"] is False
    assert body["tiers"]["l1"]["entries"] == 4
    assert body["tiers"]["l1"]["bytes"] <= body["tiers"]["l1"]["limit"] == 256 * 1024 * 1024
    assert body["tiers"]["l2"]["on"] is False
    assert body["tiers"]["l3"]["entries"] == 4
    assert body["tiers"]["l1"]["events"]["hits"] == 1
    assert body["hottest"] == [{"symbol": "000001.SZ", "period": "1d", "part": "all", "uses": 1}]


async def test_clearing_says_how_much(client: httpx.AsyncClient, keys: Keys) -> None:
    fill()

    async def clear(**params: str) -> Any:
        return (await call(client, keys.operator, "DELETE", CLEAR, **params)).json()["cleared"]

    assert await clear(tier="l1", symbol="sz000001", period="1d") == {"l1": 1}
    assert await clear(tier="l1,l3", symbol="000001.SZ") == {"l1": 1, "l3": 2}
    assert await clear() == {"l1": 2, "l2": 0, "l3": 2}


async def test_optimizing_reports_and_another_one_meanwhile_is_asked_to_wait(client: httpx.AsyncClient, keys: Keys) -> None:
    fill()
    body = (await call(client, keys.operator, "POST", OPTIMIZE, seconds="5")).json()
    assert (body["finished"], body["files"], body["checked"], body["corrupt"]) == (True, 4, 4, 0)
    with tiers()._optimizing:
        answer = await call(client, keys.operator, "POST", OPTIMIZE)
    assert answer.status_code == 503
    assert answer.json()["retryable"] is True


async def test_the_schema_shows_them_with_examples(client: httpx.AsyncClient, keys: Keys) -> None:
    schema = (await client.get("/api/schema", params={"format": "json"}, headers={"X-API-Key": keys.operator})).json()
    for method, path in CALLS:
        operation = schema["paths"][path][method.lower()]
        [example] = operation["responses"]["200"]["content"]["application/json"]["examples"].values()
        answer = (await call(client, keys.operator, method, path)).json()
        assert answer.keys() == example["value"].keys()
    assert {item["name"] for item in schema["paths"][CLEAR]["delete"]["parameters"]} == {"tier", "symbol", "period"}

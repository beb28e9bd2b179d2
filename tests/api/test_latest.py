"""Latest quotes over REST: the plain route and the DRF views give the same answers, refusals and headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.test import Client

from marketdata.latest import LatestStore
from tests.api.conftest import PRICES, SYMBOLS, UNQUOTED, Keys

LATEST = "/api/v1/market_data/latest"
FULL = "/api/v1/market_data/full"
ALIASES = {LATEST: ["/latest_market", "/api/latest_market"], FULL: ["/full_market", "/api/full_market"]}

Get = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("filled")


@pytest.fixture(params=["route", "view"])
def get(request: pytest.FixtureRequest, client: httpx.AsyncClient) -> Get:
    """Asks the plain ASGI route, or Django's view."""

    async def from_route(path: str, key: str | None = None, **headers: str) -> httpx.Response:
        return await client.get(path, headers={**({"X-API-Key": key} if key else {}), **headers})

    async def from_view(path: str, key: str | None = None, **headers: str) -> httpx.Response:
        django = Client(headers={**({"X-API-Key": key} if key else {}), **headers})
        answer = await sync_to_async(django.get)(path)
        return httpx.Response(answer.status_code, headers=list(answer.items()), content=answer.content)

    return from_route if request.param == "route" else from_view


async def test_the_newest_quotes_come_in_the_order_asked_in_every_form(get: Get, keys: Keys, filled: LatestStore) -> None:
    answer = await get(f"{LATEST}?symbols=sh600000,000001.XSHE,{UNQUOTED}", keys.reader)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert [(item["symbol"], item["price"], item["seq"]) for item in body["data"]] == [
        ("600000.SH", 10.05, 1841),
        ("000001.SZ", 11.38, 1842),
    ]
    assert body["missing"] == [UNQUOTED]
    assert body["streams"] == {"main": {"epoch": 7, "seq": 1842}}
    assert (body["source"], body["stale"]) == ("simulated", False)
    assert filled.fragments["600000.SH"] in answer.content


async def test_the_old_names_answer_the_same(get: Get, keys: Keys) -> None:
    for path, query in ((LATEST, "?symbols=600000.SH"), (FULL, "?market=SZ")):
        data = (await get(path + query, keys.reader)).json()["data"]
        assert data
        for alias in ALIASES[path]:
            assert (await get(alias + query, keys.reader)).json()["data"] == data


async def test_groups_are_taken_as_on_the_stream(get: Get, keys: Keys) -> None:
    body = (await get(f"{LATEST}?symbols=sector:沪深300,market:BJ", keys.reader)).json()
    assert [item["symbol"] for item in body["data"]] == ["600000.SH", "000001.SZ", "920002.BJ"]
    body = (await get(f"{LATEST}?symbols=*", keys.reader)).json()
    assert {item["symbol"] for item in body["data"]} == set(SYMBOLS)


async def test_the_full_market_is_everything_or_the_markets_named(get: Get, keys: Keys) -> None:
    body = (await get(FULL, keys.reader)).json()
    assert {item["symbol"]: item["price"] for item in body["data"]} == {**PRICES, "000001.SZ": 11.38}
    assert body["missing"] == [UNQUOTED]
    body = (await get(f"{FULL}?market=SZ,bse", keys.reader)).json()
    assert [item["symbol"] for item in body["data"]] == ["000001.SZ", "000002.SZ", "920002.BJ"]


async def test_what_is_partly_unknown_is_answered_with_the_rest_named(get: Get, keys: Keys) -> None:
    answer = await get(f"{LATEST}?symbols=600000.SH,000001,600001.SH,xx", keys.reader)
    assert answer.status_code == 200
    assert [item["symbol"] for item in answer.json()["data"]] == ["600000.SH"]
    rejected = answer.json()["rejected"]
    assert [(item["symbol"], item["name"]) for item in rejected] == [
        ("000001", "ambiguous_symbol"),
        ("600001.SH", "unknown_symbol"),
        ("xx", "invalid_symbol"),
    ]
    assert "000001.SH" in rejected[0]["reason"]
    assert "000001.SZ" in rejected[0]["reason"]


@pytest.mark.parametrize(
    ("path", "status", "name", "parameter"),
    [
        (LATEST, 400, "invalid_argument", "symbols"),
        (f"{LATEST}?symbols=", 400, "invalid_argument", "symbols"),
        (f"{LATEST}?symbols=,,", 400, "invalid_argument", "symbols"),
        (f"{LATEST}?symbol=600000.SH", 400, "invalid_argument", "symbol"),
        (f"{LATEST}?symbols=600000.SH&fields=price", 400, "invalid_argument", "fields"),
        (f"{LATEST}?symbols=600001.SH,600002.SH", 404, "unknown_symbol", "symbols"),
        (f"{LATEST}?symbols=000001", 400, "ambiguous_symbol", "symbols"),
        (f"{LATEST}?symbols=sector:没有", 404, "unknown_sector", "symbols"),
        (f"{FULL}?market=XX", 404, "unknown_sector", "market"),
        (f"{FULL}?market=HK", 404, "unknown_sector", "market"),
    ],
)
async def test_a_wrong_request_is_refused_with_the_parameter_named(
    get: Get, keys: Keys, path: str, status: int, name: str, parameter: str
) -> None:
    answer = await get(path, keys.reader)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["name"], problem["parameter"]) == (status, name, parameter)
    assert problem["type"] == f"urn:argus:problem:{name}"
    assert problem["detail"]
    if name != "invalid_argument":
        assert all(item["reason"] for item in problem["rejected"])


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        (f"{LATEST}?symbols=600000,600519,000002.SZ,920002", "symbols"),
        (f"{LATEST}?symbols=*", "symbols"),
        (FULL, "market"),
        (f"{FULL}?market=SH,SZ", "market"),
    ],
)
async def test_more_symbols_than_the_plan_allows_are_refused(get: Get, keys: Keys, query: str, parameter: str) -> None:
    answer = await get(query, keys.small)
    assert answer.status_code == 403
    problem = answer.json()
    assert (problem["name"], problem["limit"], problem["parameter"]) == ("symbol_limit", 3, parameter)


async def test_a_market_within_the_plan_s_limit_is_answered(get: Get, keys: Keys) -> None:
    assert (await get(f"{FULL}?market=SZ", keys.small)).status_code == 200
    assert (await get(f"{FULL}?market=SH", keys.small)).status_code == 403


async def test_every_answer_tells_the_quota_and_the_one_too_many_when_to_come_back(get: Get, keys: Keys) -> None:
    left = []
    for path in (f"{LATEST}?symbols=600000", LATEST, f"{LATEST}?symbols=nothing", f"{LATEST}?symbols=600000"):
        answer = await get(path, keys.small)
        assert answer.headers["ratelimit-limit"] == "4"
        left.append(answer.headers["ratelimit-remaining"])
    assert left == ["3", "2", "1", "0"]
    answer = await get(f"{LATEST}?symbols=600000", keys.small)
    assert answer.status_code == 429
    assert answer.json()["name"] == "rate_limited"
    assert answer.headers["ratelimit-remaining"] == "0"
    assert 1 <= int(answer.headers["retry-after"]) <= 60


async def test_nothing_is_told_without_a_good_key(get: Get, keys: Keys) -> None:
    for key in (None, "wrong", keys.reader[:-1] + ("a" if keys.reader[-1] != "a" else "b")):
        for path in (f"{LATEST}?symbols=600000", FULL, "/latest_market?symbols=600000", "/full_market"):
            answer = await get(path, key)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["name"] in ("not_authenticated", "key_invalid")


async def test_the_problem_is_told_in_the_language_that_the_caller_accepts(get: Get, keys: Keys) -> None:
    answer = await get(LATEST, keys.reader, **{"Accept-Language": "en-GB,en;q=0.8"})
    assert answer.json()["title"] == "An argument is missing or has a wrong value."


async def test_the_answer_and_its_problem_carry_the_caller_s_request_id(client: httpx.AsyncClient, keys: Keys) -> None:
    for path in (f"{LATEST}?symbols=600000", LATEST):
        answer = await client.get(path, headers={"Authorization": f"Bearer {keys.reader}", "X-Request-ID": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.json()["request_id"] == "mine-1"


async def test_head_answers_the_headers_alone_and_other_methods_are_refused(client: httpx.AsyncClient, keys: Keys) -> None:
    path, headers = f"{LATEST}?symbols=600000", {"X-API-Key": keys.reader}
    head = await client.head(path, headers=headers)
    full = await client.get(path, headers=headers)
    assert head.status_code == 200
    assert head.content == b""
    # The request ids in the bodies have one length.
    assert head.headers["content-length"] == full.headers["content-length"] == str(len(full.content))
    refused = await client.post(path, headers=headers)
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD"


async def test_an_unreadable_query_is_refused(client: httpx.AsyncClient, keys: Keys) -> None:
    answer = await client.get(LATEST + "?" + "&".join(f"a{i}=1" for i in range(50)), headers={"X-API-Key": keys.reader})
    assert (answer.status_code, answer.json()["name"]) == (400, "invalid_argument")

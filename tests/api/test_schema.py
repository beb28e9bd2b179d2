"""The OpenAPI schema tells the truth: real answers and its own examples are valid against it."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.test import Client
from drf_spectacular.validation import validate_schema
from jsonschema import Draft202012Validator

from marketdata.api.formats.negotiate import MEDIA
from marketdata.api.history import PARAMETERS
from marketdata.history.query import read_day, read_time
from tests.api.conftest import Keys

LATEST = "/api/v1/market_data/latest"
FULL = "/api/v1/market_data/full"
HISTORY = "/api/v1/market_data/history"


@pytest.fixture
async def schema(client: httpx.AsyncClient, keys: Keys) -> dict[str, Any]:
    answer = await client.get("/api/schema", params={"format": "json"}, headers={"X-API-Key": keys.reader})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def check(schema: dict[str, Any], name: str, value: Any) -> None:
    Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": schema["components"]}).validate(value)


async def test_it_is_a_valid_openapi_document_of_the_versioned_addresses(schema: dict[str, Any]) -> None:
    validate_schema(schema)
    assert {LATEST, FULL, "/api/v1/stream/ticket"} <= set(schema["paths"])
    assert not any("_market" in path for path in schema["paths"])
    assert schema["paths"][LATEST]["get"]["security"] == [{"bearer": []}, {"apiKey": []}]


@pytest.mark.usefixtures("filled")
async def test_real_answers_are_valid(schema: dict[str, Any], client: httpx.AsyncClient, keys: Keys) -> None:
    headers = {"X-API-Key": keys.reader}
    for path in (f"{LATEST}?symbols=600000,600036,000001,xx", FULL, f"{FULL}?market=SZ"):
        body = (await client.get(path, headers=headers)).json()
        assert body["data"]
        check(schema, "LatestQuotes", body)
    for path in (LATEST, f"{LATEST}?symbols=600001.SH", f"{FULL}?market=XX"):
        check(schema, "Problem", (await client.get(path, headers=headers)).json())
    check(schema, "Problem", (await client.get(LATEST)).json())


async def test_an_answer_with_a_field_missing_would_be_found_out(schema: dict[str, Any]) -> None:
    validator = Draft202012Validator({"$ref": "#/components/schemas/Quote", "components": schema["components"]})
    assert not validator.is_valid({"type": "quote", "symbol": "600000.SH"})


@pytest.mark.parametrize("method", ["get", "post"])
async def test_history_is_described_with_its_formats_its_headers_and_its_problems(schema: dict[str, Any], method: str) -> None:
    operation = schema["paths"][HISTORY][method]
    answered = operation["responses"]["200"]
    assert set(answered["content"]) == set(MEDIA.values())
    assert {"Argus-Source", "Argus-As-Of", "Argus-Stale", "Argus-Stamp", "Argus-Adjustment", "ETag"} <= set(answered["headers"])
    body = schema["paths"][HISTORY]["post"]["requestBody"]["content"]["application/json"]["schema"]
    described = set(body["properties"]) if method == "post" else {one["name"] for one in operation["parameters"]}
    assert described == PARAMETERS
    assert {"400", "401", "403", "404", "406", "413", "429", "501", "503", "504", "default"} <= set(operation["responses"])
    for response in operation["responses"].values():
        for content in response.get("content", {}).values():
            for example in content.get("examples", {}).values():
                check(schema, content["schema"]["$ref"].rpartition("/")[2], example["value"])


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "start",
            "2026-01-05 20260105 20260105093100 2026-01-05T09:31 2026-01-05T01:31Z 2026-01-05T01:31:00.5-05:00 1767576660000",
            "x",
        ),
        ("as_of", "2026-01-05 20260105", "2026-01-05T09:31"),
    ],
)
async def test_the_schema_s_patterns_take_what_the_service_takes(schema: dict[str, Any], name: str, good: str, bad: str) -> None:
    [pattern] = [one["schema"]["pattern"] for one in schema["paths"][HISTORY]["get"]["parameters"] if one["name"] == name]
    assert not re.fullmatch(pattern, bad)
    for text in good.split():
        assert re.fullmatch(pattern, text), text
        (read_time(text, name, is_end=False) if name == "start" else read_day(text, name))


async def test_every_example_is_valid_and_every_response_has_one(schema: dict[str, Any]) -> None:
    for path in (LATEST, FULL):
        responses = schema["paths"][path]["get"]["responses"]
        assert responses.pop("default")["content"].keys() == {"application/problem+json"}
        for status, response in responses.items():
            [(media, content)] = response["content"].items()
            assert media == ("application/json" if status == "200" else "application/problem+json")
            [example] = content["examples"].values()
            check(schema, content["schema"]["$ref"].rpartition("/")[2], example["value"])
            if status != "200":
                assert str(example["value"]["status"]) == status


async def test_the_schema_and_its_page_are_closed_without_a_key_or_a_session(client: httpx.AsyncClient, keys: Keys) -> None:
    assert (await client.get("/api/schema")).status_code == 401
    page = await client.get("/api/docs")
    assert page.status_code == 302
    assert page.headers["location"] == "/admin/login/?next=/api/docs"
    assert (await client.get("/api/docs", headers={"X-API-Key": keys.reader})).status_code == 200
    assert (await client.get("/api/docs", headers={"X-API-Key": "wrong"})).status_code == 401


@pytest.mark.django_db(transaction=True)
async def test_an_administrator_s_session_opens_them(client: httpx.AsyncClient) -> None:
    def sign_in() -> str:
        user = get_user_model().objects.create_superuser("root", password="x")
        django = Client()
        django.force_login(user)
        return django.cookies["sessionid"].value

    client.cookies["sessionid"] = await sync_to_async(sign_in)()
    page = await client.get("/api/docs")
    assert page.status_code == 200
    assert "/static/drf_spectacular_sidecar/" in page.text
    assert "//cdn" not in page.text
    assert (await client.get("/api/schema")).status_code == 200

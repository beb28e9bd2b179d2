"""The OpenAPI schema tells the truth: real answers and its own examples are valid against it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.test import Client
from drf_spectacular.validation import validate_schema
from jsonschema import Draft202012Validator

from tests.api.conftest import Keys

LATEST = "/api/v1/market_data/latest"
FULL = "/api/v1/market_data/full"


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

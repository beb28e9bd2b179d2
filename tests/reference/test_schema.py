"""The OpenAPI description of reference data is valid, and so are its examples and real answers against it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from jsonschema import Draft202012Validator

from tests.reference.conftest import Get

TAG = "reference data"
REAL = {
    "trading_dates": "/api/v1/trading_dates?count=3&end=2026-11-20",
    "calendar_day": "/api/v1/calendar/day?date=2026-11-20",
    "instruments": "/api/v1/instruments?q=payh",
    "instrument_detail": "/api/v1/instruments/000001.SZ,600777.SH",
    "sectors": "/api/v1/sectors",
    "sector": "/api/v1/sectors/000300.SH",
    "indices": "/api/v1/indices",
    "etfs": "/api/v1/etfs",
    "futures": "/api/v1/futures",
    "main_contract": "/api/v1/futures/IF/main",
    "options": "/api/v1/options?underlying=510300",
}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(SchemaGenerator().get_schema(public=True), default=str))
    return found


def operations(schema: dict[str, Any]) -> dict[str, Any]:
    found = [path["get"] for path in schema["paths"].values() if "get" in path]
    return {operation["operationId"]: operation for operation in found if operation["tags"] == [TAG]}


def check(schema: dict[str, Any], reference: str, value: Any) -> None:
    Draft202012Validator({"$ref": reference, "components": schema["components"]}).validate(value)


def test_it_is_valid_and_describes_the_versioned_addresses_alone(schema: dict[str, Any]) -> None:
    validate_schema(schema)
    assert set(operations(schema)) == set(REAL)
    assert not {"/stock_list", "/instrument_detail", "/api/get_trading_dates"} & set(schema["paths"])


def test_every_example_is_valid(schema: dict[str, Any]) -> None:
    for operation in operations(schema).values():
        responses = dict(operation["responses"])
        # Whatever else goes wrong, with no status of its own to show.
        assert responses.pop("default")["content"].keys() == {"application/problem+json"}
        assert {"200", "400", "401"} <= set(responses)
        for response in responses.values():
            for content in response.get("content", {}).values():
                [example] = content["examples"].values()
                check(schema, content["schema"]["$ref"], example["value"])


@pytest.mark.django_db
@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("operation", REAL)
def test_real_answers_are_valid(schema: dict[str, Any], get: Get, operation: str) -> None:
    answer = json.loads(get(REAL[operation]).content)
    assert answer["data"]
    reference = operations(schema)[operation]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    check(schema, reference, answer)
    with pytest.raises(Exception, match="required"):
        check(schema, reference, {name: value for name, value in answer.items() if name != "data"})

"""Every operation of the OpenAPI document, asked with whatever it allows and with what it does not: never a 500.

Answers must be as documented: their status, their media type, their schema. A 5xx passes where it is a problem document that
the operation documents (the source does not offer it, is away, or did not answer in time).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CheckContext
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.embedded import Embedded, embedded
from tests.e2e.service import wait_for

pytestmark = pytest.mark.timeout(240)

EXAMPLES = 25
DOCUMENTED = {501, 503, 504}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with embedded(tmp_path_factory.mktemp("fuzz"), ARGUS_FETCH_TIMEOUT="5") as running:
        path = f"{running.base}/api/v1/market_data/latest?symbols=sector:沪深300"
        wait_for(lambda: httpx.get(path, headers={"X-API-Key": running.key}).status_code == 200, "the reference data")
        yield running


def operations() -> dict[str, APIOperation]:
    """Label -> operation of the document that the service publishes."""
    document = SchemaGenerator().get_schema(request=None, public=True)
    plain = json.loads(json.dumps(document, default=str))
    found = (result.ok() for result in schemathesis.openapi.from_dict(plain).get_all_operations())
    return {operation.label: operation for operation in found}


OPERATIONS = operations()


def no_undocumented_failure(context: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> bool | None:
    """No 5xx but those that the operation documents, each as a problem document that a client can read."""
    if response.status_code >= 500:
        where = f"{case.method} {case.formatted_path} {case.query} {case.body!r}: {response.status_code} {response.text[:500]}"
        assert response.status_code in DOCUMENTED, where
        assert str(response.status_code) in case.operation.definition.raw["responses"], where
        assert response.json()["name"] != "internal", where
    return None


CHECKS = [no_undocumented_failure, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", OPERATIONS)
def test_no_operation_fails_and_every_answer_is_as_documented(up: Embedded, label: str, mode: GenerationMode) -> None:
    @seed(20261121)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=up.base, headers={"X-API-Key": up.key}, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:
        # An operation without parameters has nothing that could be wrong.
        assert mode is GenerationMode.NEGATIVE

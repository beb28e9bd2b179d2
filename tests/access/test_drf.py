"""The REST framework's views: closed by default, one check, the quota on every answer, problem documents for every error."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import Http404
from django.test import Client
from django.urls import path
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from argus.access import check, services
from argus.access.address import parse_network
from argus.access.drf import OperateScope
from argus.access.models import APIKey
from argus.errors import DEADLINE, SOURCE_UNAVAILABLE, ArgusError
from tests.access.factory import make_key, make_plan

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


class Undeclared(APIView):
    """A view whose author has thought of nothing."""

    def get(self, request: Request) -> Response:
        return Response({"prefix": request.auth.prefix, "user": request.user.prefix})

    def post(self, request: Request) -> Response:
        return Response(request.data)


class Operators(Undeclared):
    permission_classes = [OperateScope]


class Fails(APIView):
    errors: dict[str, Exception] = {
        "argus": ArgusError(SOURCE_UNAVAILABLE, "Terminal main is down.", terminal="main"),
        "retry": ArgusError(DEADLINE, retry_after=3),
        "404": Http404(),
        "denied": exceptions.PermissionDenied(),
        "validation": serializers.ValidationError({"start": ["Not a date."]}),
        "bug": ZeroDivisionError("a secret detail"),
    }

    def get(self, request: Request, kind: str) -> Response:
        raise self.errors[kind]


urlpatterns = [
    path("undeclared", Undeclared.as_view()),
    path("operators", Operators.as_view()),
    path("fails/<str:kind>", Fails.as_view()),
]


@pytest.fixture
def client() -> Client:
    return Client(headers={"accept-language": "en"})


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def quota_of(response: Any) -> tuple[str, ...]:
    return tuple(response.headers.get(f"RateLimit-{name}", "-") for name in ("Limit", "Remaining", "Reset"))


def assert_problem(response: Any, status: int, name: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["name"] == name
    assert document["type"] == f"urn:argus:problem:{name}"
    return document


def test_a_view_with_nothing_declared_refuses_who_has_no_key(client: Client) -> None:
    for response in (client.get("/undeclared"), client.post("/undeclared"), client.delete("/undeclared")):
        document = assert_problem(response, 401, "not_authenticated")
        assert document["code"] == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="argus"'
        assert quota_of(response) == ("-", "-", "-")


def test_a_signed_in_administrator_without_a_key_is_refused_as_well(admin_client: Client) -> None:
    assert_problem(admin_client.get("/undeclared"), 401, "not_authenticated")


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_key_is_let_in_by_either_header(client: Client, header: str) -> None:
    key, text = make_key()
    response = client.get("/undeclared", headers={header: f"Bearer {text}" if header == "authorization" else text})
    assert response.json() == {"prefix": key.prefix, "user": key.prefix}


def test_wrong_expired_revoked_and_misplaced_keys_are_told_apart(client: Client) -> None:
    _, text = make_key(networks=["10.0.0.0/8"])
    assert_problem(client.get("/undeclared", headers=bearer(text)), 403, "address_not_allowed")
    assert client.get("/undeclared", headers=bearer(text), REMOTE_ADDR="10.1.1.1").status_code == 200
    assert_problem(client.get("/undeclared", headers=bearer(text + "x")), 401, "key_invalid")
    services.revoke_keys(keys=APIKey.objects.all())
    check.cache.clear()
    assert_problem(client.get("/undeclared", headers=bearer(text)), 401, "key_revoked")


def test_a_forwarded_address_counts_only_from_a_trusted_proxy(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = make_key(networks=["10.0.0.0/8"])
    headers = bearer(text) | {"x-forwarded-for": "10.1.1.1"}
    assert_problem(client.get("/undeclared", headers=headers), 403, "address_not_allowed")
    monkeypatch.setattr(check, "_trusted", (parse_network("127.0.0.1"),))
    assert client.get("/undeclared", headers=headers).status_code == 200


def test_the_quota_is_on_every_answer_to_a_good_key(client: Client) -> None:
    _, text = make_key(make_plan(requests_per_minute=6))
    answers = [
        client.get("/undeclared", headers=bearer(text)),
        client.get("/operators", headers=bearer(text)),
        client.put("/undeclared", headers=bearer(text)),
        client.get("/undeclared", headers=bearer(text) | {"accept": "application/xml"}),
        client.post("/undeclared", "{", content_type="application/json", headers=bearer(text)),
        client.get("/fails/argus", headers=bearer(text)),
    ]
    assert [answer.status_code for answer in answers] == [200, 403, 405, 406, 400, 503]
    assert [quota_of(answer)[:2] for answer in answers] == [("6", str(left)) for left in range(5, -1, -1)]
    assert all(1 <= int(quota_of(answer)[2]) <= 60 for answer in answers)


def test_beyond_the_quota_the_answer_says_when_to_come_back(client: Client) -> None:
    _, text = make_key(make_plan(requests_per_minute=1))
    client.get("/undeclared", headers=bearer(text))
    for address in ("/undeclared", "/operators"):
        response = client.get(address, headers=bearer(text))
        if address == "/undeclared":
            document = assert_problem(response, 429, "rate_limited")
            assert document["retryable"] is True
            assert 1 <= int(response.headers["Retry-After"]) == document["retry_after"] <= 60
        else:
            assert_problem(response, 429, "rate_limited")
        assert quota_of(response)[:2] == ("1", "0")


def test_a_scope_that_is_missing_is_named(client: Client) -> None:
    _, text = make_key()
    document = assert_problem(client.get("/operators", headers=bearer(text)), 403, "forbidden")
    assert document["scope"] == "operate"
    _, text = make_key(scopes=["operate"])
    assert client.get("/operators", headers=bearer(text)).status_code == 200
    assert_problem(client.get("/undeclared", headers=bearer(text)), 403, "forbidden")


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("argus", 503, "source_unavailable"),
        ("404", 404, "not_found"),
        ("denied", 403, "forbidden"),
        ("validation", 400, "invalid_argument"),
    ],
)
def test_errors_are_problem_documents(client: Client, kind: str, status: int, name: str) -> None:
    _, text = make_key()
    document = assert_problem(client.get(f"/fails/{kind}", headers=bearer(text)), status, name)
    if kind == "argus":
        assert (document["detail"], document["terminal"]) == ("Terminal main is down.", "main")
    if kind == "validation":
        assert document["errors"] == {"start": [{"message": "Not a date.", "code": "invalid"}]}


def test_a_problem_that_knows_when_it_is_over_says_so(client: Client) -> None:
    _, text = make_key()
    assert client.get("/fails/retry", headers=bearer(text)).headers["Retry-After"] == "3"


@pytest.mark.parametrize(
    ("body", "kind", "name"),
    [
        ("{", "application/json", "bad_json"),
        ("[" * 100_000, "application/json", "bad_json"),
        ("x", "text/x", "unsupported_media_type"),
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem(client: Client, body: str, kind: str, name: str) -> None:
    _, text = make_key()
    response = client.post("/undeclared", body, content_type=kind, headers=bearer(text))
    assert response.json()["name"] == name


def test_methods_that_are_not_there_are_a_problem_with_those_that_are(client: Client) -> None:
    _, text = make_key()
    response = client.delete("/undeclared", headers=bearer(text))
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "GET, POST, HEAD, OPTIONS"


def test_a_fault_of_ours_is_a_problem_that_tells_nothing_of_it(client: Client) -> None:
    _, text = make_key()
    client.raise_request_exception = False
    response = client.get("/fails/bug", headers=bearer(text))
    assert_problem(response, 500, "internal")
    assert "secret" not in response.content.decode()
    client.raise_request_exception = True
    with pytest.raises(ZeroDivisionError):
        client.get("/fails/bug", headers=bearer(text))


def test_a_problem_carries_the_request_id(client: Client, rf: Any) -> None:
    _, text = make_key()
    response = client.get("/fails/404", headers=bearer(text) | {"x-request-id": "abc-1"})
    assert response.json()["request_id"] == "abc-1"


def test_a_problem_is_in_the_language_that_the_caller_accepts(client: Client) -> None:
    english = client.get("/undeclared", headers={"accept-language": "en"}).json()
    assert english["title"] == "An API key is required."
    assert client.get("/undeclared", headers={"accept-language": "zh-hans"}).json()["name"] == english["name"]

"""Addresses where nothing is answer programs with problem documents and people with a page; nothing else is open."""

from __future__ import annotations

import httpx
import pytest
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from argus import pages
from argus.asgi import ROUTES


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/nothing", "/api/"])
async def test_programs_get_a_problem_document(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"X-Request-ID": "mine-2", "Accept-Language": "en"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["name"], answer.json()["request_id"]) == ("not_found", "mine-2")


async def test_people_get_a_page_in_their_language(client: httpx.AsyncClient) -> None:
    answer = await client.get("/i18n/nothing", headers={"Accept-Language": "en"})
    assert answer.status_code == 404
    assert "There is nothing at this address." in answer.text
    assert answer.headers["content-type"].startswith("text/html")


def test_an_error_of_ours_tells_nothing_but_its_request_id(rf: RequestFactory) -> None:
    assert pages.internal(rf.get("/api/v1/x")).status_code == 500
    page = pages.internal(rf.get("/admin/x"))
    assert page.status_code == 500
    assert b"Traceback" not in page.content


def _paths(resolver: URLResolver, prefix: str = "/") -> list[str]:
    found = []
    for item in resolver.url_patterns:
        path = prefix + str(item.pattern)
        if isinstance(item, URLResolver):
            found += _paths(item, path)
        elif isinstance(item, URLPattern):
            found.append(path)
    return found


# The sign-in itself, its way out and its texts, and the choice of the language.
OPEN = {"/", "/health", "/health/live", "/health/ready", "/admin/login/", "/admin/logout/", "/admin/jsi18n/", "/i18n/setlang/"}


@pytest.mark.django_db
def test_nothing_is_open_but_health_and_the_sign_in() -> None:
    django = Client()
    paths = [path for path in _paths(get_resolver()) if "<" not in path and "(?P" not in path]
    assert "/admin/access/apikey/" in paths
    for path in set(paths) - OPEN:
        status = django.get(path.replace("^", "").replace("$", "")).status_code
        assert status in (302, 401, 405), (path, status)


async def test_no_plain_route_is_open_but_health(client: httpx.AsyncClient) -> None:
    for path in set(ROUTES) - OPEN:
        assert (await client.get(path)).status_code == 401, path

"""Nothing is open by default: every address refuses who is not known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import URLResolver, get_resolver
from django.utils.regex_helper import normalize
from rest_framework.settings import api_settings

from argus.access.drf import KeyAuthentication, PlanQuota, ReadScope

pytestmark = pytest.mark.django_db

OPEN = ("/admin/login/", "/admin/jsi18n/", "/i18n/")
"""What anybody may see: the way in, and in which language."""
EXAMPLES = {"app_label": "access"}


def addresses(resolver: URLResolver, prefix: str = "/") -> Iterator[str]:
    """An example address of every pattern."""
    for entry in resolver.url_patterns:
        form, names = normalize(entry.pattern.regex.pattern)[0]
        address = prefix + form % {name: EXAMPLES.get(name, "1") for name in names}
        if isinstance(entry, URLResolver):
            yield from addresses(entry, address)
        else:
            yield address


def test_the_framework_is_closed_by_default() -> None:
    assert [KeyAuthentication] == api_settings.DEFAULT_AUTHENTICATION_CLASSES
    assert [ReadScope] == api_settings.DEFAULT_PERMISSION_CLASSES
    assert [PlanQuota] == api_settings.DEFAULT_THROTTLE_CLASSES


def test_every_address_of_django_refuses_an_anonymous_caller(client: Client) -> None:
    found = [address for address in addresses(get_resolver(settings.ROOT_URLCONF)) if not address.startswith(OPEN)]
    assert {"/admin/", "/admin/access/apikey/", "/admin/access/apikey/1/change/", "/api/v1/market_data/latest"} <= set(found)
    open_to_all = []
    for address in found:
        for method in ("get", "post", "put", "delete"):
            response: Any = getattr(client, method)(address)
            to_sign_in = response.status_code == 302 and response.headers["Location"].startswith("/admin/")
            if response.status_code not in (401, 403, 404, 405) and not to_sign_in:
                open_to_all.append((method, address, response.status_code))
    assert open_to_all == []


async def test_every_route_ahead_of_django_refuses_an_anonymous_caller() -> None:
    from argus.asgi import ROUTES

    statuses: dict[str, int] = {}
    for path, application in ROUTES.items():
        requests = iter([{"type": "http.request", "body": b""}])

        async def send(message: MutableMapping[str, Any], path: str = path) -> None:
            if message["type"] == "http.response.start":
                statuses[path] = message["status"]

        async def receive(requests: Iterator[MutableMapping[str, Any]] = requests) -> MutableMapping[str, Any]:
            # As a server does: after the body nothing comes until the client goes.
            return next(requests, None) or await asyncio.Future()

        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "client": ("192.0.2.1", 1)}
        await application(scope, receive, send)
    assert "/api/v1/market_data/latest" in statuses
    assert {path: status for path, status in statuses.items() if status != 401 and not path.startswith("/health")} == {}


def test_the_admins_sign_in_can_be_reached(client: Client) -> None:
    assert client.get("/admin/login/").status_code == 200

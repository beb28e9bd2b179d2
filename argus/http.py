"""Plain ASGI answers: what the routes ahead of Django read from a scope and send back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

import msgspec
from django.conf import settings
from django.utils.translation import get_supported_language_variant, override
from django.utils.translation.trans_real import parse_accept_lang_header

from argus import requestid
from argus.errors import INVALID_ARGUMENT, METHOD_NOT_ALLOWED, ArgusError
from argus.requestid import Scope, Send

JSON = "application/json"
PROBLEM = "application/problem+json"
TEXT = "text/plain; charset=utf-8"
MAX_PARAMETERS = 20
NOSNIFF = (b"x-content-type-options", b"nosniff")
REMEMBERED = 1024
"""Bytes of a query up to which what it says is remembered: the same ones come again and again."""

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""

Problems = Callable[[Scope, Send, ArgusError, Headers], Awaitable[None]]
"""How an error is told to the client: ``answer_problem``, or as another vendor's clients expect it."""


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers, names in lower case; of a repeated one the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def query_of(scope: Scope) -> Mapping[str, Sequence[str]]:
    """The query's parameters. Raises INVALID_ARGUMENT."""
    text = scope["query_string"]
    try:
        return _remembered(text) if len(text) <= REMEMBERED else _parse(text)
    except ValueError as error:
        raise ArgusError(INVALID_ARGUMENT, f"The query cannot be read: {error}.") from None


def _parse(text: bytes) -> Mapping[str, Sequence[str]]:
    return parse_qs(text.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)


_remembered = lru_cache(maxsize=1024)(_parse)


def require_get(scope: Scope) -> None:
    """Refuse what is neither GET nor HEAD."""
    require_method(scope, ("GET", "HEAD"))


def require_method(scope: Scope, methods: Sequence[str]) -> None:
    """Refuse what is none of these methods."""
    if scope["method"] not in methods:
        detail = f"{scope['method']} is not allowed here; use {methods[0]}."
        raise ArgusError(METHOD_NOT_ALLOWED, detail, allowed=list(methods))


async def answer(scope: Scope, send: Send, status: int, body: bytes, content_type: str, headers: Headers = ()) -> None:
    """Send a whole answer; to HEAD without its body."""
    fields = [
        (b"content-type", content_type.encode("latin-1")),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        NOSNIFF,
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def answer_json(scope: Scope, send: Send, status: int, value: Any, headers: Headers = ()) -> None:
    """Send a value as JSON."""
    await answer(scope, send, status, msgspec.json.encode(value), JSON, headers)


async def answer_problem(scope: Scope, send: Send, error: ArgusError, headers: Headers = ()) -> None:
    """Send an error as an RFC 9457 problem document, in the language that the caller accepts."""
    with override(language_of(headers_of(scope).get("accept-language", ""))):
        body = msgspec.json.encode(error.document(requestid.current()))
    await answer(scope, send, error.problem.status, body, PROBLEM, [*headers, *problem_headers(error)])


def quota_headers(limit: int, remaining: int, reset_seconds: int) -> list[tuple[bytes, bytes]]:
    """What is left of the caller's requests of this minute (names as in draft-ietf-httpapi-ratelimit-headers-03)."""
    return [
        (b"ratelimit-limit", b"%d" % limit),
        (b"ratelimit-remaining", b"%d" % remaining),
        (b"ratelimit-reset", b"%d" % reset_seconds),
    ]


def problem_headers(error: ArgusError) -> list[tuple[bytes, bytes]]:
    """The headers that HTTP asks for beside certain problems."""
    fields: list[tuple[bytes, bytes]] = []
    if "remaining" in error.params:
        fields += quota_headers(error.params["limit"], error.params["remaining"], error.params["retry_after"])
    if "retry_after" in error.params:
        fields.append((b"retry-after", b"%d" % max(1, error.params["retry_after"])))
    if error.problem.status == 401:
        fields.append((b"www-authenticate", b'Bearer realm="argus"'))
    if error.problem is METHOD_NOT_ALLOWED:
        fields.append((b"allow", ", ".join(error.params.get("allowed", ("GET", "HEAD"))).encode()))
    return fields


def language_of(accept: str) -> str:
    """The language of ours that an ``Accept-Language`` likes best."""
    for language, _ in parse_accept_lang_header(accept):
        try:
            return get_supported_language_variant(language)
        except LookupError:
            continue
    return settings.LANGUAGE_CODE

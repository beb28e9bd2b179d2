"""A JSON answer to another vendor's client, compressed where it says that it takes that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from argus import compress
from argus.http import JSON
from argus.streamed import Reply
from marketdata.api.history import SMALL

_encode = msgspec.json.Encoder().encode


def json_reply(value: Any, headers: Mapping[str, str], fields: Iterable[tuple[str, str]] = ()) -> Reply:
    """The value as the whole answer to a request with these headers (names in lower case)."""
    body = _encode(value)
    coding = compress.IDENTITY if len(body) < SMALL else compress.choose(headers.get("accept-encoding"))
    if coding != compress.IDENTITY:
        body = b"".join(compress.compressed((body,), coding))
        fields = (*fields, ("content-encoding", coding))
    about = [
        ("content-type", JSON),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        ("vary", "Accept-Encoding"),
    ]
    return Reply(status=200, headers=[*about, *fields], chunks=iter((body,)), quick=True)

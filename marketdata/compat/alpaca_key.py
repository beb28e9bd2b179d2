"""The Argus key in what an Alpaca client shows: an id and a secret, of which either is the key, whatever the other one is."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from argus.access import check, keys


def key_among(*words: str | None) -> str | None:
    """The word that is an Argus key; where none is, the last that is not empty, so that it is refused as not known."""
    given = [word.strip() for word in words if word and word.strip()]
    return next((word for word in given if keys.prefix_of(word)), given[-1] if given else None)


def key_in(headers: Mapping[str, str]) -> str | None:
    """The same of headers (names in lower case): Alpaca's two, HTTP basic with both, or what Argus takes everywhere."""
    shown = key_among(headers.get("apca-api-key-id"), headers.get("apca-api-secret-key"))
    return shown or check.key_of(headers) or _basic(headers.get("authorization", ""))


def _basic(authorization: str) -> str | None:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return key_among(user, password)

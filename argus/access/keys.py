"""API keys as texts: made, taken apart and hashed.

A key is ``argus_<prefix>_<secret>``: eight characters that may be shown, then 256 random bits. What is stored is the
SHA-256 of the whole text; a text of that much randomness needs no slow hash, and the check runs on every request.
"""

from __future__ import annotations

import re
import secrets
import string
from hashlib import sha256

import msgspec

PREFIX_LENGTH = 8
_ALPHABET = string.ascii_lowercase + string.digits
_KEY = re.compile(r"argus_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_PREFIX = re.compile(r"(?:argus_)?([a-z0-9]{8})(?:_[A-Za-z0-9_-]{43})?")


class Secret(msgspec.Struct, frozen=True):
    """A new key. Its text is shown to its owner once; neither ``repr`` nor ``str`` shows it."""

    text: str
    prefix: str
    digest: str

    def __repr__(self) -> str:
        return f"Secret(prefix={self.prefix!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("prefix", self.prefix)]


def new() -> Secret:
    """A new random key."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(PREFIX_LENGTH))
    text = f"argus_{prefix}_{secrets.token_urlsafe(32)}"
    return Secret(text, prefix, digest(text))


def digest(text: str) -> str:
    """What is stored of a key: the SHA-256 of its text, in hex. A character that no key has becomes one that no key has."""
    return sha256(text.encode("ascii", "replace")).hexdigest()


def prefix_of(text: str) -> str | None:
    """The prefix of a whole key, or None if the text cannot be one."""
    match = _KEY.fullmatch(text)
    return match[1] if match else None


def prefix_in(words: str) -> str | None:
    """The prefix in what a person typed: the prefix alone, with ``argus_`` before it, or a whole key."""
    match = _PREFIX.fullmatch(words.strip())
    return match[1] if match else None

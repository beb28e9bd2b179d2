"""Content codings: which of them a client takes, and a body compressed piece by piece."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import zstandard

IDENTITY: Final = "identity"
CODINGS: Final = ("zstd", "gzip", IDENTITY)
"""What is spoken here, what is preferred first."""

LEVELS: Final = {"zstd": 3, "gzip": 4}
"""Where each is about as fast as the bodies are made."""


def choose(accept_encoding: str | None) -> str:
    """The coding for an ``Accept-Encoding`` (RFC 9110, 12.5.3): the one the client likes best, of equals our first.

    Whoever accepts none of ours gets the body as it is, which is what the RFC leaves to a server.
    """
    if not accept_encoding:
        return IDENTITY
    wanted: dict[str, float] = {}
    for item in accept_encoding.split(","):
        coding, *parameters = (part.strip().lower() for part in item.split(";"))
        wanted[{"x-gzip": "gzip"}.get(coding, coding)] = quality(parameters)
    others = wanted.pop("*", 0.0)
    liked = {coding: wanted.get(coding, 0.0 if coding == IDENTITY else others) for coding in CODINGS}
    best = max(CODINGS, key=lambda coding: liked[coding])
    return best if liked[best] else IDENTITY


def quality(parameters: Iterable[str]) -> float:
    """The q of an item of an ``Accept`` header; 1 where there is none, 0 where it cannot be read."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            text = value.strip()
            digits = text.replace(".", "", 1)
            return min(1.0, float(text)) if digits.isascii() and digits.isdigit() else 0.0
    return 1.0


def compressed(chunks: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """The chunks in a coding. Each comes out as soon as it has gone in, so that a reader is never kept waiting."""
    if coding == IDENTITY:
        yield from chunks
        return
    compressor: Any
    if coding == "zstd":
        compressor = zstandard.ZstdCompressor(level=LEVELS["zstd"]).compressobj()
        flush, finish = zstandard.COMPRESSOBJ_FLUSH_BLOCK, zstandard.COMPRESSOBJ_FLUSH_FINISH
    else:
        compressor = zlib.compressobj(LEVELS["gzip"], zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        flush, finish = zlib.Z_SYNC_FLUSH, zlib.Z_FINISH
    for chunk in chunks:
        yield compressor.compress(chunk) + compressor.flush(flush)
    yield compressor.flush(finish)

"""Content codings: what a client likes best, and bodies that a reader can follow chunk by chunk."""

from __future__ import annotations

import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from argus.compress import CODINGS, IDENTITY, choose, compressed


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip", "gzip"),
        ("*", "zstd"),
        ("*;q=0.1, zstd;q=0", "gzip"),
        ("br", "identity"),
        ("gzip;q=0", "identity"),
        ("identity;q=0, *;q=0", "identity"),
        ("identity, gzip;q=0.5", "identity"),
        ("GZIP; Q=0.8", "gzip"),
        ("gzip;q=nonsense", "identity"),
    ],
)
def test_the_client_s_wish_decides_and_of_equals_the_better_one(accept: str | None, coding: str) -> None:
    assert choose(accept) == coding


@given(st.text())
def test_any_header_has_an_answer(accept: str) -> None:
    assert choose(accept) in CODINGS


@pytest.mark.parametrize("coding", CODINGS)
def test_every_chunk_can_be_read_as_soon_as_it_is_there(coding: str) -> None:
    chunks = [b"a" * 5000, b"b" * 10, b"c" * 70_000]
    read = {
        "zstd": zstandard.ZstdDecompressor().decompressobj().decompress,
        "gzip": zlib.decompressobj(16 + zlib.MAX_WBITS).decompress,
        IDENTITY: bytes,
    }[coding]
    came = [read(piece) for piece in compressed(chunks, coding)]
    assert came[:3] == chunks
    assert b"".join(came) == b"".join(chunks)

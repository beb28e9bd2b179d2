"""As much BSON as a terminal speaks, written from the specification (bsonspec.org, 1.1) and not with the vendor's codec."""

from __future__ import annotations

import struct
from typing import Any


def encode(document: dict[str, Any]) -> bytes:
    """A document."""
    body = b"".join(_element(str(key), value) for key, value in document.items())
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def _element(key: str, value: Any) -> bytes:
    name = key.encode() + b"\0"
    match value:
        case bool():
            return b"\x08" + name + (b"\1" if value else b"\0")
        case None:
            return b"\x0a" + name
        case int() if -(2**31) <= value < 2**31:
            return b"\x10" + name + struct.pack("<i", value)
        case int():
            return b"\x12" + name + struct.pack("<q", value)
        case float():
            return b"\x01" + name + struct.pack("<d", value)
        case str():
            text = value.encode()
            return b"\x02" + name + struct.pack("<i", len(text) + 1) + text + b"\0"
        case bytes():
            return b"\x05" + name + struct.pack("<i", len(value)) + b"\0" + value
        case dict():
            return b"\x03" + name + encode(value)
        case list() | tuple():
            return b"\x04" + name + encode({str(index): item for index, item in enumerate(value)})
    raise TypeError(f"{key}: {type(value).__name__}")


def decode(data: bytes) -> dict[str, Any]:
    """A document's values; arrays become lists."""
    return _document(data, 0)[0]


def _document(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    end = at + struct.unpack_from("<i", data, at)[0] - 1
    at += 4
    found: dict[str, Any] = {}
    while at < end:
        kind = data[at]
        stop = data.index(b"\0", at + 1)
        name = data[at + 1 : stop].decode()
        found[name], at = _value(kind, data, stop + 1)
    return found, end + 1


def _value(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    match kind:
        case 0x01:
            return struct.unpack_from("<d", data, at)[0], at + 8
        case 0x02:
            length = struct.unpack_from("<i", data, at)[0]
            return data[at + 4 : at + 3 + length].decode(), at + 4 + length
        case 0x03:
            return _document(data, at)
        case 0x04:
            items, after = _document(data, at)
            return list(items.values()), after
        case 0x05:
            length = struct.unpack_from("<i", data, at)[0]
            return data[at + 5 : at + 5 + length], at + 5 + length
        case 0x08:
            return data[at] == 1, at + 1
        case 0x0A:
            return None, at
        case 0x10:
            return struct.unpack_from("<i", data, at)[0], at + 4
        case 0x12:
            return struct.unpack_from("<q", data, at)[0], at + 8
    raise ValueError(f"element type {kind:#x}")

"""One text message on its way out, framed for WebSocket once and shared by everybody who gets the same."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming.coverage import Changes, Coverage

_TEXT = 0x81  # FIN, opcode 1; a server does not mask (RFC 6455, 5.2)
_medium = Struct("!BBH").pack
_large = Struct("!BBQ").pack


def _header(size: int) -> bytes:
    return bytes((_TEXT, size)) if size < 126 else _large(_TEXT, 127, size)


class Frame:
    """A text message. ``parts`` go to the socket one after the other; the large one is never copied.

    ``count`` is how many fragments a data message carries. ``changes`` and ``coverage`` say what stands in it, for a
    client that has no room for it now.
    """

    __slots__ = ("changes", "count", "coverage", "parts", "size")

    def __init__(
        self,
        head: bytes,
        body: bytes = b"",
        tail: bytes = b"",
        count: int = 0,
        changes: Changes | None = None,
        coverage: Coverage | None = None,
    ) -> None:
        self.size = size = len(head) + len(body) + len(tail)
        # Most frames by far are of the medium size; the call is spared.
        header = _medium(_TEXT, 126, size) if 126 <= size < 65536 else _header(size)
        self.parts = (header + head, body, tail)
        self.count = count
        self.changes = changes
        self.coverage = coverage

    def text(self) -> str:
        """The message without its WebSocket header, for servers that frame themselves."""
        framed = b"".join(self.parts)
        return framed[len(framed) - self.size :].decode()

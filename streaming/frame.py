"""One message on its way out, framed for WebSocket once and shared by everybody who gets the same."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming.codecs import Codec, Head
    from streaming.coverage import Changes, Coverage

_TEXT, _BINARY = 0x81, 0x82  # FIN, opcode 1 or 2; a server does not mask (RFC 6455, 5.2)
_medium = Struct("!BBH").pack
_large = Struct("!BBQ").pack


def _header(first: int, size: int) -> bytes:
    return bytes((first, size)) if size < 126 else _large(first, 127, size)


class Frame:
    """A message. ``parts`` go to the socket one after the other; the large one is never copied.

    ``count`` is how many fragments a data message carries. ``changes`` and ``coverage`` say which states stand in it (how they
    stand, if ``snapshot``), ``events`` what happened, for a client that has no room for it now.
    """

    __slots__ = ("binary", "changes", "count", "coverage", "events", "parts", "size", "snapshot")

    def __init__(
        self,
        head: bytes,
        body: bytes = b"",
        tail: bytes = b"",
        count: int = 0,
        changes: Changes | None = None,
        coverage: Coverage | None = None,
        *,
        binary: bool = False,
    ) -> None:
        self.size = size = len(head) + len(body) + len(tail)
        self.binary = binary
        first = _BINARY if binary else _TEXT
        # Most frames by far are of the medium size; the call is spared.
        header = _medium(first, 126, size) if 126 <= size < 65536 else _header(first, size)
        self.parts = (header + head, body, tail)
        self.count = count
        self.changes = changes
        self.coverage = coverage
        self.events: Events | None = None
        self.snapshot = False

    def payload(self) -> bytes:
        """The message without its WebSocket header, for servers that frame themselves."""
        framed = b"".join(self.parts)
        return framed[len(framed) - self.size :]


class Events:
    """What happened, apart from the states of the same message: what must not be merged for those who are sent these later."""

    __slots__ = ("_codec", "_frames", "_head", "_pieces", "size")

    def __init__(self, codec: Codec, head: Head, pieces: Sequence[bytes]) -> None:
        self.size = sum(map(len, pieces))
        self._codec = codec
        self._head = head
        self._pieces = pieces
        self._frames: dict[bool, Frame] = {}

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def place(self) -> tuple[str, int, int]:
        """Feed, epoch and seq of their message."""
        return (self._head.feed, self._head.epoch, self._head.seq)

    def is_within(self, feed: str, position: tuple[int, int]) -> bool:
        """Whether they are of a feed's message up to this one."""
        return self._head.feed == feed and (self._head.epoch, self._head.seq) <= position

    def own(self, codec: Codec, subscription: str, *, redelivered: bool) -> Frame:
        """Their message to a subscription that acknowledges them."""
        head = self._head._replace(subscription=subscription, redelivered=redelivered, more=True)
        return codec.frame(codec.head(head), self._pieces)

    def frame(self, *, more: bool = False) -> Frame:
        """Their own message. ``more``: states of it, or of one before, are still to come."""
        more = more or self._head.more
        if more not in self._frames:
            frame = self._codec.frame(self._codec.head(self._head._replace(more=more)), self._pieces)
            frame.events = self
            self._frames[more] = frame
        return self._frames[more]

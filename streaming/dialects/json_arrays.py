"""What the dialects' text codecs share: a message is a JSON array of objects, and has no place for a position."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.codecs import Head
from streaming.coverage import Changes, Coverage
from streaming.frame import Frame


class JsonArrays:
    """The data messages of a ``Codec``."""

    packed = False
    plain = False

    def head(self, head: Head) -> bytes:
        """See ``Codec``."""
        return b"["

    def frame(
        self, head: bytes, pieces: Sequence[bytes], changes: Changes | None = None, coverage: Coverage | None = None
    ) -> Frame:
        """See ``Codec``."""
        return Frame(head, b",".join(pieces), b"]", len(pieces), changes, coverage)

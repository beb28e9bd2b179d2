"""What a publisher sends through the channel layer: one message, one blob, whatever number of quotes it carries.

The blob is a msgpack array (``Batch``) whose ``body`` is the quotes' JSON fragments joined by newlines (JSON has no raw
newline), in the order of ``symbols``. The publisher encodes each quote once; whoever receives the blob splits it and
joins fragments into frames without decoding them.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """One message of one feed. A symbol stands in it once at most.

    ``(feed, epoch, seq)`` names the message: ``epoch`` is the publisher's fencing token (a larger one wins), ``seq``
    counts up by one per message within it. ``published`` is the publisher's clock in ms. ``canary`` is the time (ms) at
    which the source last answered with at least one quote that parsed; a message may carry a canary and no quotes.
    """

    feed: str
    epoch: int
    seq: int
    published: int
    source: str
    canary: int | None
    snapshot: bool
    symbols: list[str]
    body: bytes

    def fragments(self) -> list[bytes]:
        """The quotes' JSON objects, in the order of ``symbols``."""
        return self.body.split(b"\n") if self.symbols else []


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)


def encode(batch: Batch) -> bytes:
    """The blob of a batch."""
    return _encoder.encode(batch)


def decode(blob: bytes) -> Batch:
    """The batch of a blob. Raises ``msgspec.MsgspecError`` on anything else."""
    return _decoder.decode(blob)


def join(fragments: Iterable[bytes]) -> bytes:
    """The body of a batch."""
    return b"\n".join(fragments)


def seq_of(fragment: bytes) -> int:
    """The ``seq`` that a fragment ends with: that of the message which last changed it."""
    return int(fragment[fragment.rindex(b":") + 1 : -1])

"""What a publisher sends through the channel layer: one message, one blob, whatever number of quotes and events it carries.

The blob is a msgpack array (``Batch``) whose ``fragments`` are the quotes' JSON objects, in the order of ``symbols``. The
publisher encodes each quote once; whoever receives the blob joins fragments into frames without decoding them. (A list
decodes three times as fast as one body that has to be split: 0.8 against 2.2 ms for 5,500 quotes.)
"""

from __future__ import annotations

import msgspec

from marketdata.types import DataType, Period

Bars = dict[Period, tuple[list[str], list[bytes]]]
"""Period -> symbols and the fragments of their forming bars, side by side."""
Events = dict[DataType, tuple[list[str], list[bytes]]]
"""Data type -> symbols and fragments, side by side and in order; a symbol may stand there more than once."""


class Term(msgspec.Struct, frozen=True, array_like=True):
    """How a publisher began: after whom, and whether all that its predecessor had not published has been published now.

    ``epoch`` and ``seq`` are those of the predecessor's last message, (0, 0) where none is known. ``reason`` says why
    something may be missing: first_term, not_in_step, feed_broken, overflow or barrier_lost. ``heard`` is the last of these
    messages that anybody can have heard, where the predecessor died with more of them in the journal: the quotes of these have
    been published anew.
    """

    epoch: int
    seq: int
    recovered: bool
    reason: str = ""
    heard: tuple[int, int] | None = None


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """One message of one feed. A symbol stands in it once at most.

    ``(feed, epoch, seq)`` names the message: ``epoch`` is the publisher's fencing token (a larger one wins), ``seq``
    counts up by one per message within it. ``published`` is the publisher's clock in ms. ``canary`` is the time (ms) at
    which the source last answered with at least one quote that parsed; a message may carry a canary and no quotes.
    ``clock`` is the market's time (ms) where that is not the wall clock's: of a simulated or recorded market.
    ``bars`` are the forming ones that somebody wants; a symbol stands in a period once at most. ``events`` are closed bars,
    trades and changes of status, each of them one JSON object; those of a symbol came before its forming bar. A snapshot has
    neither. ``term`` stands in one message of an epoch, the one that ends the takeover: its quotes are all that was known before.
    """

    feed: str
    epoch: int
    seq: int
    published: int
    source: str
    canary: int | None
    clock: int | None
    snapshot: bool
    symbols: list[str]
    fragments: list[bytes]
    bars: Bars = {}
    term: Term | None = None
    events: Events = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)


def encode(batch: Batch) -> bytes:
    """The blob of a batch."""
    return _encoder.encode(batch)


def decode(blob: bytes) -> Batch:
    """The batch of a blob. Raises ``msgspec.MsgspecError`` on anything else."""
    batch = _decoder.decode(blob)
    if len(batch.symbols) != len(batch.fragments):
        raise msgspec.ValidationError(f"{len(batch.symbols)} symbols, but {len(batch.fragments)} fragments")
    for what, parts in (("bars", batch.bars.values()), ("events", batch.events.values())):
        for symbols, fragments in parts:
            if len(symbols) != len(fragments):
                raise msgspec.ValidationError(f"{what} of {len(symbols)} symbols, but {len(fragments)} fragments")
    return batch


class _Head(msgspec.Struct, frozen=True, array_like=True):
    feed: str
    epoch: int
    seq: int


_head = msgspec.msgpack.Decoder(_Head).decode


def position_of(blob: bytes) -> tuple[int, int]:
    """Epoch and seq of a blob's batch, at a tenth of what it takes to decode. Raises ``msgspec.MsgspecError``."""
    head = _head(blob)
    return (head.epoch, head.seq)


def seq_of(fragment: bytes) -> int:
    """The ``seq`` that a fragment ends with: that of the message which last changed it."""
    return int(fragment[fragment.rindex(b":") + 1 : -1])


def without_seq(fragment: bytes) -> bytes:
    """The object as it was before it was numbered."""
    return fragment[: fragment.rindex(b",")] + b"}"

"""How messages look on a connection: JSON, MessagePack, or compressed JSON; another vendor's dialect is one more codec.

What is sent to many is made once for each codec: a message (``Announcement``), a fragment (``streaming.lanes``), a frame.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from marketdata.types import DataType
from streaming.coverage import Changes, Coverage
from streaming.frame import Frame
from streaming.protocol import Failure, Message

WORTH_DEFLATING = 1024
"""Bytes below which a message goes out as it is."""
DEFLATE_LEVEL = 1


class Head(NamedTuple):
    """What a data message says of itself. ``more``: what belongs to it is still to come, so that a client which resumes from
    here would miss something. ``subscription``: it is one to be acknowledged."""

    feed: str
    epoch: int
    seq: int
    snapshot: bool = False
    more: bool = False
    subscription: str = ""
    redelivered: bool = False


class Codec(Protocol):
    """One way to write. Stateless, and one object for all connections that use it."""

    name: str
    packed: bool
    """Whether a client's binary messages are MessagePack."""
    plain: bool
    """Whether fragments are taken as they are: ``fragment`` need not be asked."""

    def encode(self, message: Message | Failure) -> Frame | None:
        """A control message; None where there is none of the kind."""

    def fragment(self, data_type: DataType, fragment: bytes) -> bytes | None:
        """One of our JSON objects as it is written here; None where it is not told."""

    def head(self, head: Head) -> bytes:
        """What begins a data message, made once for all frames of it."""

    def frame(
        self, head: bytes, pieces: Sequence[bytes], changes: Changes | None = None, coverage: Coverage | None = None
    ) -> Frame:
        """A data message of fragments that ``fragment`` has made."""


class Json:
    """``argus.v1.json``: text."""

    name = "argus.v1.json"
    packed = False
    plain = True

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode

    def text(self, message: Message | Failure) -> bytes:
        """The JSON of a message."""
        return self._encode(message.error.reply(message.id) if isinstance(message, Failure) else message)

    def encode(self, message: Message | Failure) -> Frame | None:
        """See ``Codec``."""
        return Frame(self.text(message))

    def fragment(self, data_type: DataType, fragment: bytes) -> bytes | None:
        """See ``Codec``."""
        return fragment

    def head(self, head: Head) -> bytes:
        """See ``Codec``."""
        marks = (b',"snapshot":true' if head.snapshot else b"") + (b',"more":true' if head.more else b"")
        if head.subscription:
            marks += b',"subscription":%s' % self._encode(head.subscription)
            marks += b',"redelivered":true' if head.redelivered else b""
        return b'{"type":"data","feed":%s,"epoch":%d,"seq":%d%s,"data":[' % (
            self._encode(head.feed),
            head.epoch,
            head.seq,
            marks,
        )

    def frame(
        self, head: bytes, pieces: Sequence[bytes], changes: Changes | None = None, coverage: Coverage | None = None
    ) -> Frame:
        """See ``Codec``."""
        return Frame(head, b",".join(pieces), b"]}", len(pieces), changes, coverage)


class Deflated(Json):
    """``argus.v1.json.deflate``: a binary message is a text message in zlib's format (RFC 1950); short ones stay text.

    A frame is compressed when it is made, so once for all who share it, and with no memory per connection.
    """

    name = "argus.v1.json.deflate"

    def encode(self, message: Message | Failure) -> Frame | None:
        """See ``Codec``."""
        text = self.text(message)
        return Frame(text) if len(text) < WORTH_DEFLATING else Frame(zlib.compress(text, DEFLATE_LEVEL), binary=True)

    def frame(
        self, head: bytes, pieces: Sequence[bytes], changes: Changes | None = None, coverage: Coverage | None = None
    ) -> Frame:
        """See ``Codec``."""
        body = b",".join(pieces)
        if len(head) + len(body) < WORTH_DEFLATING:
            return Frame(head, body, b"]}", len(pieces), changes, coverage)
        deflater = zlib.compressobj(DEFLATE_LEVEL)
        parts = [deflater.compress(head), deflater.compress(body), deflater.compress(b"]}"), deflater.flush()]
        return Frame(b"".join(parts), b"", b"", len(pieces), changes, coverage, binary=True)


class MessagePack:
    """``argus.v1.msgpack``: binary, the same messages as maps."""

    name = "argus.v1.msgpack"
    packed = True
    plain = False

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._read = msgspec.json.Decoder().decode

    def encode(self, message: Message | Failure) -> Frame | None:
        """See ``Codec``."""
        said = message.error.reply(message.id) if isinstance(message, Failure) else message
        return Frame(self._encode(said), binary=True)

    def fragment(self, data_type: DataType, fragment: bytes) -> bytes | None:
        """See ``Codec``."""
        return self._encode(self._read(fragment))

    def head(self, head: Head) -> bytes:
        """See ``Codec``."""
        marks = {name: getattr(head, name) for name in ("snapshot", "more", "subscription", "redelivered") if getattr(head, name)}
        fields = {"type": "data", "feed": head.feed, "epoch": head.epoch, "seq": head.seq, **marks}
        # A map of one entry more: its value, the array of fragments, follows.
        return bytes((0x80 | len(fields) + 1,)) + self._encode(fields)[1:] + self._encode("data")

    def frame(
        self, head: bytes, pieces: Sequence[bytes], changes: Changes | None = None, coverage: Coverage | None = None
    ) -> Frame:
        """See ``Codec``."""
        return Frame(head + array_header(len(pieces)), b"".join(pieces), b"", len(pieces), changes, coverage, binary=True)


def array_header(count: int) -> bytes:
    """What begins a MessagePack array of so many objects."""
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2) if count < 65536 else b"\xdd" + count.to_bytes(4)


JSON = Json()
DEFLATED = Deflated()
MSGPACK = MessagePack()
SUBPROTOCOLS: dict[str, Codec] = {codec.name: codec for codec in (JSON, MSGPACK, DEFLATED)}
"""What a connection may negotiate."""


class Announcement:
    """One message to many connections."""

    def __init__(self, message: Message | Failure) -> None:
        self._message = message
        self._frames: dict[Codec, Frame | None] = {}

    def frame(self, codec: Codec) -> Frame | None:
        """As it is written there; None where that has no such message."""
        if codec not in self._frames:
            self._frames[codec] = codec.encode(self._message)
        return self._frames[codec]

"""The WebSocket of an Alpaca client: what it speaks by its ``Content-Type``, its key in Alpaca's headers or first message."""

from __future__ import annotations

from collections.abc import Mapping

from marketdata.compat.alpaca_key import key_in
from streaming.codecs import Codec
from streaming.consumers import StreamConsumer
from streaming.dialects.alpaca import AlpacaSession
from streaming.dialects.alpaca_codec import JSON, MSGPACK

PACKED = b"application/msgpack"


class AlpacaConsumer(StreamConsumer):
    """One connection at ``/compat/alpaca/v2/{feed}``."""

    codecs: Mapping[str, Codec] = {}
    codec: Codec = JSON
    make_session = AlpacaSession
    session: AlpacaSession

    def choose_codec(self, subprotocol: str | None) -> Codec:
        """How the connection speaks; Alpaca has no subprotocols."""
        self.session.feed = self.scope["url_route"]["kwargs"]["feed"]
        content_type = dict(self.scope["headers"]).get(b"content-type", b"")
        return MSGPACK if content_type.partition(b";")[0].strip().lower() == PACKED else JSON

    def key_of(self, headers: Mapping[str, str]) -> str | None:
        """The key that a handshake's headers show."""
        return key_in(headers)

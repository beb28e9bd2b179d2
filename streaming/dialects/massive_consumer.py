"""The WebSocket of a Massive client: its key comes in its first message."""

from __future__ import annotations

from collections.abc import Mapping

from streaming.codecs import Codec
from streaming.consumers import StreamConsumer
from streaming.dialects.massive import MassiveSession
from streaming.dialects.massive_codec import JSON


class MassiveConsumer(StreamConsumer):
    """One connection at ``/compat/massive/stocks``."""

    codecs: Mapping[str, Codec] = {}
    codec: Codec = JSON
    make_session = MassiveSession

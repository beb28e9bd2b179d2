"""Subscriptions whose client says what it has dealt with: at least once, in order, sent again until it does, and bounded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from marketdata.ledger import Position
from streaming.codecs import Codec
from streaming.frame import Events, Frame

if TYPE_CHECKING:
    from streaming.connection import Connection
    from streaming.views import View

AGAIN = 10.0
"""Seconds without a word about an event after which it is sent again."""
MOST = 20_000
MOST_BYTES = 8 * 1024 * 1024
"""Events that may wait to be acknowledged; one more ends the connection, whose client comes back and resumes."""


class _Sent:
    """Events of one message. ``at``: when (monotonic) they were last sent, None before the first time."""

    __slots__ = ("at", "events", "times")

    def __init__(self, events: Events, times: int = 0) -> None:
        self.events = events
        self.at: float | None = None
        self.times = times


class Acknowledged:
    """One such subscription. It is a receiver of its ``view`` beside the connection, and sends frames of its own.

    ``acked``: feed -> the last message that the client has said it is done with. A connection that is behind or held is not sent
    anything; what is kept goes out when it has room again.
    """

    def __init__(self, connection: Connection, name: str, codec: Codec) -> None:
        self.view: View | None = None
        self.acked: dict[str, Position] = {}
        self._connection = connection
        self._name = name
        self._codec = codec
        self._kept: deque[_Sent] = deque()
        self._heard: tuple[str, int, int] | None = None
        self._count = self._bytes = 0

    def __len__(self) -> int:
        """How many events wait to be acknowledged."""
        return self._count

    def deliver(self, frame: Frame) -> bool:
        """See ``Receiver``. States are nothing to it, nor is what the client was done with elsewhere, nor a message's events once
        more: each message is one frame, as the client acknowledges it as a whole."""
        events = frame.events
        if events is None or events.place == self._heard:
            return True
        self._heard = events.place
        if not any(events.is_within(feed, position) for feed, position in self.acked.items()):
            self._keep(events)
            self.send()
        return True

    def put_first(self, events: Iterable[Events]) -> bool:
        """Keep what was not acknowledged on another connection, which may have sent it, before all that has come since; False,
        and nothing is kept, where that is too much."""
        earlier = [_Sent(item, times=1) for item in events]
        count, size = sum(len(item.events) for item in earlier), sum(item.events.size for item in earlier)
        if self._count + count > MOST or self._bytes + size > MOST_BYTES:
            return False
        self._kept.extendleft(reversed(earlier))
        self._count += count
        self._bytes += size
        return True

    def ack(self, feed: str, position: Position) -> None:
        """The client is done with a feed's messages up to this one."""
        self.acked[feed] = max(position, self.acked.get(feed, position))
        kept = [item for item in self._kept if not item.events.is_within(feed, position)]
        self._kept = deque(kept)
        self._count = sum(len(item.events) for item in kept)
        self._bytes = sum(item.events.size for item in kept)

    def send(self) -> None:
        """Send what has not been sent, in order, while there is room."""
        if any(item.at is None for item in self._kept):
            self._send([item for item in self._kept if item.at is None], time.monotonic())

    def tick(self, now: float) -> None:
        """Send again what the client has said nothing about for too long, with all that followed it; and what had no room."""
        if self._kept and self._kept[0].at is not None and now - self._kept[0].at >= AGAIN:
            self._send(list(self._kept), now)
        else:
            self.send()

    def _send(self, items: list[_Sent], now: float) -> None:
        connection = self._connection
        for item in items:
            if connection.closed or connection.held or connection.behind_since is not None or not connection.wire.room():
                return
            frame = item.events.own(self._codec, self._name, redelivered=item.times > 0)
            item.at, item.times = now, item.times + 1
            connection.deliver(frame)

    def _keep(self, events: Events) -> None:
        self._kept.append(_Sent(events))
        self._count += len(events)
        self._bytes += events.size
        if self._count > MOST or self._bytes > MOST_BYTES:
            self._connection.overflow()


def positions(subscriptions: Mapping[str, Acknowledged]) -> dict[str, dict[str, Position]]:
    """Subscription -> feed -> the last message that its client is done with."""
    return {name: dict(item.acked) for name, item in subscriptions.items()}

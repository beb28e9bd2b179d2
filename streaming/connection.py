"""One client as the hub sees it: a wire, what is owed to it, and the counters of what it got."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from argus.access.principal import Principal
from argus.errors import EVENT_OVERFLOW, INTERNAL, ArgusError, Problem
from streaming.acknowledged import Acknowledged
from streaming.codecs import JSON, Announcement, Codec
from streaming.coverage import Coverage
from streaming.filtered import Admitted
from streaming.frame import Frame
from streaming.metrics import Counters
from streaming.newest import Newest
from streaming.outbox import Outbox
from streaming.protocol import Failure, Message
from streaming.views import View
from streaming.wire import Wire


class Home(Protocol):
    """What a connection needs of the hub that it is attached to."""

    newest: Newest
    behind: dict[Connection, None]
    counters: Counters

    def slow(self, connection: Connection) -> None:
        """The client has been cut off because it does not read."""

    def overflowed(self, connection: Connection) -> None:
        """The client was owed more events than are kept."""


class Connection:
    """One WebSocket client. Nothing here waits: what has no room on the wire is kept, within bounds, and sent later.

    ``frames``, ``bytes`` and ``quotes`` count what was written. ``behind_since`` (monotonic) is None while all was. ``held``: the
    data waits for something that must come before it.
    """

    __slots__ = (
        "__weakref__",
        "_progress",
        "acknowledged",
        "address",
        "behind_since",
        "bytes",
        "closed",
        "codec",
        "frames",
        "held",
        "home",
        "id",
        "on_principal",
        "on_universe",
        "opened",
        "outbox",
        "principal",
        "quotes",
        "symbols",
        "views",
        "wire",
    )

    def __init__(self, id: str, principal: Principal | None, wire: Wire, address: str | None, codec: Codec = JSON) -> None:
        self.id = id
        self.codec = codec
        self.held = False
        self.principal = principal
        self.wire = wire
        self.address = address
        self.opened = time.time()
        self.symbols = 0
        """How many symbols it has subscribed to, for those who look at the list of connections."""
        self.on_principal: Callable[[Principal], None] | None = None
        self.on_universe: Callable[[], None] | None = None
        self.frames = 0
        self.bytes = 0
        self.quotes = 0
        self.behind_since: float | None = None
        self.closed = False
        self.views: list[View] = []
        self.acknowledged: dict[str, Acknowledged] = {}
        """The subscriptions whose events it acknowledges."""
        self.outbox = Outbox()
        self.home: Home | None = None
        self._progress = (0, 0.0)
        wire.on_room = self.drain

    @property
    def priority(self) -> int:
        """That of its plan."""
        return self.principal.limits.priority if self.principal is not None else 0

    def coverages(self) -> list[Coverage]:
        """All that it covers, acknowledged or not."""
        views = [*self.views, *(item.view for item in self.acknowledged.values() if item.view is not None)]
        return [view.coverage for view in views]

    def say(self, message: Message | Failure | Announcement) -> None:
        """Send a control message (a reply, an error), in order with the data. An overflow ends the connection."""
        frame = message.frame(self.codec) if isinstance(message, Announcement) else self.codec.encode(message)
        if frame is not None:
            self.send(frame)

    def send(self, frame: Frame) -> None:
        """The same with what is written already."""
        if self.closed:
            return
        if self.behind_since is None and self.wire.room():
            self._write(frame)
            return
        self._fall_behind()
        if not self.outbox.add_control(frame):
            self.cut_off()

    def deliver(self, frame: Frame) -> bool:
        """Send a data frame now, or owe what is in it and return False."""
        if self.behind_since is None and self.wire.room():
            self.wire.write(frame)
            self.frames += 1
            self.bytes += frame.size
            self.quotes += frame.count
            return True
        if not self.closed:
            self._fall_behind()
            if not self.outbox.miss(frame):
                self.overflow()
        return False

    def hold(self) -> None:
        """Send nothing but what is owed already and what ``send`` is given, until ``release``."""
        self.held = True
        self._fall_behind()

    def release(self) -> None:
        """Go on."""
        self.held = False
        self.drain()

    def drain(self) -> None:
        """Send what is owed while there is room for it."""
        home = self.home
        if home is None or self.held or self.closed:
            return
        newest = Admitted(home.newest, self.views) if any(view.filter for view in self.views) else home.newest
        while self.outbox and self.wire.room():
            for frame in self.outbox.next(newest, self.codec, self.priority):
                self._write(frame)
                if frame.count:
                    home.counters.frames += 1
                    home.counters.quotes += frame.count
                    home.counters.bytes += frame.size
        if self.outbox:
            self._fall_behind()
        else:
            self._leave_behind()

    def close(self, problem: Problem | int, reason: str = "") -> None:
        """End the connection with a problem's close code (or a plain code), after the control messages that wait."""
        if self.closed:
            return
        self.closed = True
        for frame in self.outbox.take_controls():
            self._write(frame)
        self._leave_behind()
        if isinstance(problem, Problem):
            code = problem.close if problem.close is not None else INTERNAL.close or 1011
            self.wire.close(code, reason or problem.name)
        else:
            self.wire.close(problem, reason)

    def cut_off(self) -> None:
        """Drop a client that does not read: a close frame would wait behind what it has not read."""
        self.closed = True
        self.outbox.clear()
        self._leave_behind()
        self.wire.abort()
        if self.home is not None:
            self.home.slow(self)

    def overflow(self) -> None:
        """End a connection that was owed more events than are kept: what it misses is in the journal."""
        if self.closed:
            return
        if self.home is not None:
            self.home.overflowed(self)
        self.outbox.clear()
        if (frame := self.codec.encode(Failure(ArgusError(EVENT_OVERFLOW)))) is not None:
            self._write(frame)
        self.close(EVENT_OVERFLOW)

    def stalled(self, now: float) -> float:
        """Seconds since the client last read something; 0 where it is not behind, or where it is we who wait."""
        if self.behind_since is None or self.held:
            return 0.0
        position = self.wire.pending() - self.bytes
        if position != self._progress[0] or self._progress[1] < self.behind_since:
            self._progress = (position, now)
        return now - self._progress[1]

    def _write(self, frame: Frame) -> None:
        self.wire.write(frame)
        self.frames += 1
        self.bytes += frame.size
        self.quotes += frame.count

    def _fall_behind(self) -> None:
        if self.behind_since is None:
            self.behind_since = time.monotonic()
            if self.home is not None:
                self.home.behind[self] = None

    def _leave_behind(self) -> None:
        if self.behind_since is not None:
            self.behind_since = None
            if self.home is not None:
                self.home.behind.pop(self, None)
                self.home.counters.merged += self.outbox.take_merged()

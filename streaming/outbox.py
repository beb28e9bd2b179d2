"""What one client is owed while its transport has no room: bounded, and flat however long it lasts.

Control messages and events wait in order, with everything in its place: at most ``CONTROL_LIMIT`` messages of ``CONTROL_BYTES``,
and ``EVENT_LIMIT`` events of ``EVENT_BYTES``. Of the states only *what* is owed is kept and the newest is looked up when there is
room: the first missed frame is kept as it is (everybody who missed it shares it), from the second on the (data type, symbol)
keys, at most as many as the client covers. They go out after all that waits, and until the last of them every message says that
more is to come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Protocol

from marketdata.types import DataType
from streaming.codecs import Codec
from streaming.coverage import Symbols
from streaming.frame import Events, Frame

CONTROL_LIMIT = 64
CONTROL_BYTES = 2 * 1024 * 1024
"""One answer may list a whole market, some 370 KB; who lets several of them wait is not reading."""
EVENT_LIMIT = 20_000
EVENT_BYTES = 8 * 1024 * 1024
"""How far a client may fall behind with events before it is told to come back. A whole market closes 5,500 minutes at once."""
CHUNK = 500
"""Keys in one frame: about 170 KB of quotes, less than the transport's high-water mark."""

Keys = dict[DataType, set[str]]


class FrameSource(Protocol):
    """Builds frames of the newest."""

    def frames(
        self, keys: Mapping[DataType, set[str]], codec: Codec, priority: int, *, snapshot: bool = False, more: bool = False
    ) -> list[Frame]: ...


class Outbox:
    """Owed to one client. ``merged`` counts the quotes that a newer one replaced before they were sent."""

    __slots__ = (
        "_control_bytes",
        "_controls",
        "_event_bytes",
        "_events",
        "_missed",
        "_owed",
        "_snapshot",
        "_waiting",
        "merged",
    )

    def __init__(self) -> None:
        self._waiting: deque[Frame | Events] = deque()
        self._controls = self._control_bytes = 0
        self._events = self._event_bytes = 0
        self._missed: Frame | None = None
        self._snapshot: Keys = {}
        self._owed: Keys = {}
        self.merged = 0

    def __bool__(self) -> bool:
        return bool(self._waiting or self._missed or self._snapshot or self._owed)

    def add_control(self, frame: Frame) -> bool:
        """Keep a control message; False where there are too many, or too much of them."""
        if self._controls and (self._controls >= CONTROL_LIMIT or self._control_bytes + frame.size > CONTROL_BYTES):
            return False
        if self._missed is not None and self._missed.events is not None:
            self.merge()
        self._controls += 1
        self._control_bytes += frame.size
        self._waiting.append(frame)
        return True

    def add_events(self, events: Events) -> bool:
        """Keep events; False where there are too many, or too much of them."""
        if self._events and (self._events + len(events) > EVENT_LIMIT or self._event_bytes + events.size > EVENT_BYTES):
            return False
        self._events += len(events)
        self._event_bytes += events.size
        self._waiting.append(events)
        return True

    def put_first(self, waiting: Iterable[Frame | Events]) -> bool:
        """Have these go out before all else; False where the events among them, and those that wait, are too many."""
        self.merge()
        earlier = list(waiting)
        for item in earlier:
            if isinstance(item, Events):
                self._events += len(item)
                self._event_bytes += item.size
            else:
                self._controls += 1
                self._control_bytes += item.size
        self._waiting.extendleft(reversed(earlier))
        return self._events <= EVENT_LIMIT and self._event_bytes <= EVENT_BYTES

    def take_controls(self) -> list[Frame]:
        """All control messages; the data is forgotten."""
        controls = [item for item in self._waiting if isinstance(item, Frame)]
        self.clear()
        return controls

    def take_merged(self) -> int:
        """How many quotes were merged since the last question."""
        merged, self.merged = self.merged, 0
        return merged

    def clear(self) -> None:
        """Owe nothing any more."""
        self._waiting.clear()
        self._controls = self._control_bytes = self._events = self._event_bytes = 0
        self._missed = None
        self._snapshot, self._owed = {}, {}

    def miss(self, frame: Frame) -> bool:
        """A data frame had no room; False where its events are too many."""
        first = self._missed is None and not self._owed and not self._snapshot
        # Behind others its events are counted now: who merges it later can tell nobody that they are too many.
        if first and (frame.events is None or not self._events):
            self._missed = frame
            return True
        return self.merge() and self._owe_frame(frame)

    def owe(self, data_type: DataType, symbols: set[str], *, snapshot: bool = False) -> None:
        """Owe the newest of some symbols, as a snapshot or as a change."""
        self.merge()
        self._owe(data_type, symbols, snapshot=snapshot)

    def restrict(self, covered: Mapping[DataType, Symbols | None]) -> None:
        """Forget what is owed outside of ``covered``; not what happened while it was covered."""
        self.merge()
        for owed in (self._snapshot, self._owed):
            for data_type in list(owed):
                symbols = covered.get(data_type)
                kept = symbols.among(owed[data_type]) if symbols else set()
                if kept:
                    owed[data_type] = kept
                else:
                    del owed[data_type]

    def merge(self) -> bool:
        """Owe what a frame that is kept has changed, and not the frame."""
        if self._missed is None:
            return True
        frame, self._missed = self._missed, None
        return self._owe_frame(frame)

    def next(self, source: FrameSource, codec: Codec, priority: int = 0) -> list[Frame]:
        """The next frames to be sent together, usually one; none where nothing is owed."""
        if self._waiting:
            return [self._take_waiting()]
        if self._missed is not None:
            frame, self._missed = self._missed, None
            return [frame]
        for owed, snapshot in ((self._snapshot, True), (self._owed, False)):
            while owed:
                taken = _take(owed)
                more = bool(self._snapshot or self._owed)
                # Nothing comes of keys that have had no quote yet: the first one will be sent when it arrives.
                if frames := source.frames(taken, codec, priority, snapshot=snapshot, more=more):
                    return frames
        return []

    def _take_waiting(self) -> Frame:
        item = self._waiting.popleft()
        if isinstance(item, Events):
            self._events -= len(item)
            self._event_bytes -= item.size
            # What a frame that is kept says is newer.
            return item.frame(more=bool(self._snapshot or self._owed))
        self._controls -= 1
        self._control_bytes -= item.size
        return item

    def _owe_frame(self, frame: Frame) -> bool:
        if frame.coverage is not None and frame.changes is not None:
            for data_type, symbols in frame.coverage.items():
                self._owe(data_type, frame.changes.among(data_type, symbols), snapshot=frame.snapshot)
        return frame.events is None or self.add_events(frame.events)

    def _owe(self, data_type: DataType, symbols: set[str], *, snapshot: bool) -> None:
        count = len(symbols)
        pending = self._snapshot.get(data_type)
        if snapshot:
            kept, owed = self._snapshot, pending
            if data_type in self._owed:
                self._owed[data_type] -= symbols
                if not self._owed[data_type]:
                    del self._owed[data_type]
        else:
            kept, owed = self._owed, self._owed.get(data_type)
            if pending:
                symbols = symbols - pending
        before = len(owed) if owed else 0
        if owed is None:
            if symbols:
                kept[data_type] = set(symbols)
        else:
            owed |= symbols
        if not snapshot:
            self.merged += count - (len(self._owed.get(data_type, ())) - before)


def _take(owed: Keys) -> Keys:
    """Take up to ``CHUNK`` keys out."""
    taken: Keys = {}
    room = CHUNK
    while owed and room:
        data_type, symbols = next(iter(owed.items()))
        if len(symbols) <= room:
            taken[data_type] = owed.pop(data_type)
        else:
            taken[data_type] = set(islice(symbols, room))
            symbols -= taken[data_type]
        room -= len(taken[data_type])
    return taken

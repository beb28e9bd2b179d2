"""What one client is owed while its transport has no room: bounded, and flat however long it lasts.

Control messages wait in order, at most ``CONTROL_LIMIT`` of them and ``CONTROL_BYTES``. Of the data, which is all
state, only *what* is owed is kept and the newest is looked up when there is room: the first missed frame is kept as it
is (everybody who missed it shares it), from the second on the (data type, symbol) keys, at most as many as the client
covers. Event types, which must not merge, will get a queue of their own here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Protocol

from marketdata.types import DataType
from streaming.coverage import Symbols
from streaming.frame import Frame

CONTROL_LIMIT = 64
CONTROL_BYTES = 2 * 1024 * 1024
"""One answer may list a whole market, some 370 KB; who lets several of them wait is not reading."""
CHUNK = 500
"""Keys in one frame: about 170 KB of quotes, less than the transport's high-water mark."""

Keys = dict[DataType, set[str]]


class FrameSource(Protocol):
    """Builds frames of the newest."""

    def frames(self, keys: Mapping[DataType, set[str]], *, snapshot: bool = False) -> list[Frame]: ...


class Outbox:
    """Owed to one client. ``merged`` counts the quotes that a newer one replaced before they were sent."""

    __slots__ = ("_controls", "_missed", "_owed", "_snapshot", "merged")

    def __init__(self) -> None:
        self._controls: deque[Frame] = deque()
        self._missed: Frame | None = None
        self._snapshot: Keys = {}
        self._owed: Keys = {}
        self.merged = 0

    def __bool__(self) -> bool:
        return bool(self._controls or self._missed or self._snapshot or self._owed)

    def add_control(self, frame: Frame) -> bool:
        """Keep a control message; False where there are too many, or too much of them."""
        waiting = len(self._controls)
        if waiting and (waiting >= CONTROL_LIMIT or sum(kept.size for kept in self._controls) + frame.size > CONTROL_BYTES):
            return False
        self._controls.append(frame)
        return True

    def take_controls(self) -> list[Frame]:
        """All control messages; the data is forgotten."""
        controls = list(self._controls)
        self.clear()
        return controls

    def take_merged(self) -> int:
        """How many quotes were merged since the last question."""
        merged, self.merged = self.merged, 0
        return merged

    def clear(self) -> None:
        """Owe nothing any more."""
        self._controls.clear()
        self._missed = None
        self._snapshot, self._owed = {}, {}

    def miss(self, frame: Frame) -> None:
        """A data frame had no room."""
        if self._missed is None and not self._owed and not self._snapshot:
            self._missed = frame
            return
        self.merge()
        self._owe_frame(frame)

    def owe(self, data_type: DataType, symbols: set[str], *, snapshot: bool = False) -> None:
        """Owe the newest of some symbols, as a snapshot or as a change."""
        self.merge()
        self._owe(data_type, symbols, snapshot=snapshot)

    def restrict(self, covered: Mapping[DataType, Symbols | None]) -> None:
        """Forget what is owed outside of ``covered``."""
        self.merge()
        for owed in (self._snapshot, self._owed):
            for data_type in list(owed):
                symbols = covered.get(data_type)
                kept = symbols.among(owed[data_type]) if symbols else set()
                if kept:
                    owed[data_type] = kept
                else:
                    del owed[data_type]

    def merge(self) -> None:
        """Owe what a frame that is kept has changed, and not the frame."""
        if self._missed is not None:
            frame, self._missed = self._missed, None
            self._owe_frame(frame)

    def next(self, source: FrameSource) -> list[Frame]:
        """The next frames to be sent together, usually one; none where nothing is owed."""
        if self._controls:
            return [self._controls.popleft()]
        if self._missed is not None:
            frame, self._missed = self._missed, None
            return [frame]
        for owed, snapshot in ((self._snapshot, True), (self._owed, False)):
            while owed:
                # Nothing comes of keys that have had no quote yet: the first one will be sent when it arrives.
                if frames := source.frames(_take(owed), snapshot=snapshot):
                    return frames
        return []

    def _owe_frame(self, frame: Frame) -> None:
        if frame.coverage is not None and frame.changes is not None:
            for data_type, symbols in frame.coverage.items():
                self._owe(data_type, frame.changes.among(data_type, symbols), snapshot=False)

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

"""The events of a feed that wait because some before them have not come: bounded, and in order."""

from __future__ import annotations

from marketdata.ledger import Position
from streaming.codecs import Head
from streaming.lanes import EventTables

MOST = 50_000
"""Events of a feed that wait for the journal; one more, and it is waited no longer."""


class Withheld:
    """``before``: the last message up to which nothing is missing. ``asked``: the journal is being looked into."""

    def __init__(self, before: Position) -> None:
        self.before = before
        self.asked = False
        self.happened: list[tuple[Head, EventTables]] = []
        self._count = 0

    def add(self, head: Head, events: EventTables) -> bool:
        """Keep what a message brought; False where that is too much."""
        self.happened.append((head, events))
        self._count += sum(len(pieces) for table in events.values() for pieces in table.values())
        return self._count <= MOST

    def beyond(self, position: Position) -> list[tuple[Head, EventTables]]:
        """What came after a message."""
        return [(head, events) for head, events in self.happened if (head.epoch, head.seq) > position]

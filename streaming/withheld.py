"""The events of a feed that wait because some before them have not come: bounded, and in order."""

from __future__ import annotations

from marketdata.ledger import Position
from streaming.lanes import EventTables

MOST = 50_000
"""Events of a feed that wait for the journal; one more, and it is waited no longer."""


class Withheld:
    """``before``: the last message up to which nothing is missing. ``hole``: something was missed since. ``untold``: an epoch has
    begun, and it has not come where the one before ended. ``until``: how far the journal is being looked into."""

    def __init__(self, before: Position) -> None:
        self.before = before
        self.hole = False
        self.untold = False
        self.until: Position | None = None
        self.happened: dict[Position, EventTables] = {}
        """What each message that came has brought, in order."""
        self._count = 0

    def hear(self, position: Position) -> None:
        """A message has come, whatever it brings."""
        self.happened[position] = {}

    def add(self, position: Position, events: EventTables) -> bool:
        """Keep what it brought; False where that is too much."""
        self.happened[position] = events
        self._count += sum(len(pieces) for table in events.values() for pieces in table.values())
        return self._count <= MOST

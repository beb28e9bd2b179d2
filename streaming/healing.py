"""What of a feed has been missed here: quotes that a snapshot is to bring, and events, for which those after them wait until they
are found or given up. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable

from marketdata.batch import Batch
from marketdata.journal import UNKNOWN_EPOCH, Reading
from marketdata.ledger import NOWHERE, Position
from streaming.lanes import EventTables

MOST = 50_000
"""Events of a feed that wait for the journal; one more, and it is waited no longer."""

Happened = dict[Position, EventTables]
"""What each message has brought, in order."""


class _Withheld:
    """``before``: the last message up to which nothing is missing. ``hole``: something was missed since. ``untold``: an epoch has
    begun, and it has not come where the one before ended. ``until``: how far the journal is being looked into."""

    __slots__ = ("before", "count", "happened", "hole", "until", "untold")

    def __init__(self, before: Position) -> None:
        self.before = before
        self.hole = False
        self.untold = False
        self.until: Position | None = None
        self.happened: Happened = {}
        self.count = 0


class Healing:
    """The gaps of one hub's feeds. ``on_missed(feed, after, until)`` is called when events between two messages may be
    missing."""

    def __init__(self, on_missed: Callable[[str, Position, Position], None] | None) -> None:
        self._on_missed = on_missed
        self._withheld: dict[str, _Withheld] = {}
        self._lacking: dict[str, Position] = {}

    def is_open(self, feed: str) -> bool:
        """Whether something of a feed is still to come that belongs before its newest message."""
        return feed in self._withheld or feed in self._lacking

    def withholds(self, feed: str) -> bool:
        """Whether a feed's events wait."""
        return feed in self._withheld

    def whole(self, feed: str, position: Position) -> Position:
        """Up to where all events of a feed, which has come to a position, have been told."""
        withheld = self._withheld.get(feed)
        return position if withheld is None else withheld.before

    def lack(self, feed: str, until: Position) -> None:
        """Quotes up to a message have been missed; a snapshot is to bring them."""
        self._lacking[feed] = max(until, self._lacking.get(feed, until))

    def filled(self, feed: str, position: Position) -> None:
        """All quotes up to a message are here."""
        if feed in self._lacking and self._lacking[feed] <= position:
            del self._lacking[feed]

    def hear(self, batch: Batch, before: Position, *, gap: bool) -> bool:
        """A message has come after ``before``, or after a ``gap``. Events are withheld while some before them may be missing:
        after a gap, and from a change of publisher until it is known where the one before ended. Whether those that have waited
        need not wait any longer."""
        feed, position, term = batch.feed, (batch.epoch, batch.seq), batch.term
        if term is not None:
            # It says how all quotes stand.
            self._lacking.pop(feed, None)
        if self._on_missed is None or before == NOWHERE:
            return False
        if gap or batch.epoch != before[0]:
            self._withheld.setdefault(feed, _Withheld(before))
        if (withheld := self._withheld.get(feed)) is None:
            return False
        withheld.hole |= gap
        withheld.untold = term is None and (withheld.untold or batch.epoch != before[0])
        if term is not None and not withheld.hole and (term.epoch, term.seq) <= withheld.before:
            return True
        withheld.happened[position] = {}
        if gap or term is not None:
            self._ask(feed, withheld, position)
        return False

    def skip(self, feed: str, before: Position, position: Position) -> None:
        """A snapshot has moved the feed on: whatever happened on the way has not come, and will not."""
        if self._on_missed is None or before == NOWHERE:
            return
        withheld = self._withheld.setdefault(feed, _Withheld(before))
        withheld.hole = True
        withheld.untold |= position[0] != before[0]
        self._ask(feed, withheld, position)

    def _ask(self, feed: str, withheld: _Withheld, until: Position) -> None:
        assert self._on_missed is not None
        withheld.until = until
        self._on_missed(feed, withheld.before, until)

    def withhold(self, feed: str, position: Position, events: EventTables) -> bool:
        """Keep what a message has brought; False where that is too much to wait any longer."""
        withheld = self._withheld[feed]
        withheld.happened[position] = events
        withheld.count += sum(len(pieces) for table in events.values() for pieces in table.values())
        return withheld.count <= MOST

    def found(self, feed: str, after: Position, until: Position, found: Reading, newest: Position) -> bool:
        """Whether what the journal has between two messages ends the waiting. ``newest``: how far the feed has come."""
        withheld = self._withheld.get(feed)
        if withheld is None or withheld.before != after or until < (withheld.until or until):
            # Nothing waits any more, or more has been missed meanwhile and is being looked for.
            return False
        told = any(entry.term is not None for entry in found.entries if entry.epoch == until[0])
        # Where it is untold, the publisher is about to say where the epoch before ended.
        return not (withheld.untold and (until[0] < newest[0] or (found.reason == UNKNOWN_EPOCH and not told)))

    def give_up(self, feed: str) -> Position:
        """Wait no longer for what nobody may have: from where on it is missing."""
        withheld = self._withheld[feed]
        withheld.untold = False
        return withheld.before

    def waiting(self, feed: str) -> Happened:
        """What waits of a feed."""
        return dict(self._withheld[feed].happened)

    def close(self, feed: str) -> None:
        """All that has waited has been told."""
        del self._withheld[feed]

    def forget(self, feed: str) -> None:
        """A feed is no more."""
        self._withheld.pop(feed, None)
        self._lacking.pop(feed, None)

"""A terminal's own events that nobody has published yet, beside those that were heard published: pure.

Events are closed bars, trades and changes of status: each of them is told once, in order, and none is merged. Two terminals tell
of the same one at different moments, so one that is heard strikes out the own one, and one that was heard before it is shown here
is remembered until it is. A trade is the same by its index. A bar that was built is the same by its end, whatever its numbers:
what is published counts until the terminal's own bar settles it, and of those each version is one of its own. Changes of status
are not kept here: they follow from the quotes that are published (``marketdata.statuses``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from marketdata.batch import Events, without_seq
from marketdata.types import DataType

MOST = 50_000
"""Pending events: beyond, the oldest fall out. As many that were heard are remembered."""
AGE = 60.0
"""Seconds after which a standby lets a pending event fall out: whoever publishes meanwhile does not have it."""


class Event(NamedTuple):
    """One event. ``body`` is its JSON object without its ``seq``."""

    data_type: DataType
    symbol: str
    body: bytes


def numbered(events: Iterable[Event], tail: bytes) -> Events:
    """Events as a batch carries them, each object with ``tail`` for its closing brace."""
    result: Events = {}
    for data_type, symbol, body in events:
        symbols, fragments = result.setdefault(data_type, ([], []))
        symbols.append(symbol)
        fragments.append(body[:-1] + tail)
    return result


def of(events: Events) -> Iterator[Event]:
    """The events that a batch or an entry of the journal carries, each without its ``seq``."""
    for data_type, (symbols, fragments) in events.items():
        for symbol, fragment in zip(symbols, fragments, strict=True):
            yield Event(data_type, symbol, without_seq(fragment))


class _Stamp(msgspec.Struct, frozen=True):
    index: int = 0
    time: int = 0
    provisional: bool = True


_stamp = msgspec.json.Decoder(_Stamp).decode
_Identity = tuple[DataType, str, int, bytes]


def _identity(event: Event) -> _Identity:
    """What two terminals' words of the same event have in common."""
    data_type, symbol, body = event
    stamp = _stamp(body)
    if data_type is DataType.TRADE:
        return (data_type, symbol, stamp.index, b"")
    return (data_type, symbol, stamp.time, b"" if stamp.provisional else body)


class _Own:
    """A pending event. ``event`` is None once it has been struck out."""

    __slots__ = ("at", "event", "identity")

    def __init__(self, event: Event, identity: _Identity, at: float) -> None:
        self.event: Event | None = event
        self.identity = identity
        self.at = at


class Owed:
    """One feed's events at one terminal. Not thread-safe: one owner."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._order: deque[_Own] = deque()
        self._of: dict[_Identity, deque[_Own]] = {}
        self._pending = 0
        self._heard: dict[_Identity, float] = {}
        """When those were heard that this terminal has not shown yet."""
        self._too_many_at = -AGE

    @property
    def pending(self) -> int:
        """How many own events nobody has published, as far as is known here."""
        return self._pending

    def complete(self, now: float) -> bool:
        """Whether none has fallen out lately because there were too many."""
        return now - self._too_many_at >= AGE

    def owe(self, events: Iterable[Event], now: float) -> int:
        """Note what this terminal has just shown, unless it was heard; how many have fallen out. ``now`` is in seconds, of a
        clock that never goes back."""
        heard, dropped = self._heard, 0
        for event in events:
            identity = _identity(event)
            if heard and heard.pop(identity, None) is not None:
                continue
            own = _Own(event, identity, now)
            self._order.append(own)
            self._of.setdefault(identity, deque()).append(own)
            self._pending += 1
        while self._pending > self._most:
            self._too_many_at = now
            dropped += self._drop()
        return dropped

    def expire(self, now: float) -> int:
        """Let fall out what somebody else would have published long ago; how many have."""
        dropped = 0
        while self._order and (self._order[0].event is None or self._order[0].at < now - AGE):
            dropped += self._drop()
        while self._heard and (len(self._heard) > self._most or next(iter(self._heard.values())) < now - AGE):
            del self._heard[next(iter(self._heard))]
        return dropped

    def first(self, count: int) -> list[Event]:
        """The oldest that are pending, in order."""
        found: list[Event] = []
        for own in self._order:
            if len(found) == count:
                break
            if own.event is not None:
                found.append(own.event)
        return found

    def sent(self, count: int) -> None:
        """So many of the oldest are published."""
        while count:
            count -= self._order[0].event is not None
            self._strike(self._order.popleft())

    def hear(self, events: Iterable[Event], now: float | None) -> None:
        """They are published: strike them out, or remember them until they are shown here; what one has published oneself is not
        remembered (``now`` is None)."""
        for event in events:
            identity = _identity(event)
            if pending := self._of.get(identity):
                self._strike(pending[0])
            elif now is not None:
                self._heard.pop(identity, None)
                self._heard[identity] = now

    def catch_up(self) -> None:
        """This terminal has had its time to show what was heard: what it shows from now on counts, whatever was heard."""
        self._heard.clear()

    def _drop(self) -> bool:
        own = self._order.popleft()
        was_pending = own.event is not None
        self._strike(own)
        return was_pending

    def _strike(self, own: _Own) -> None:
        if own.event is None:
            return
        own.event = None
        self._pending -= 1
        pending = self._of[own.identity]
        # The oldest of its identity, as all are taken from that end.
        pending.popleft()
        if not pending:
            del self._of[own.identity]
        if len(self._order) > 2 * self._pending + 1000:
            self._order = deque(other for other in self._order if other.event is not None)

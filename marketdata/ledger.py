"""What of a terminal's own quotes nobody has published yet, beside what was heard published: pure, for whoever may take over.

Two terminals give equal bodies for the same snapshot of the exchange, but for the day's limits, which one that has just started
does not know yet; so a snapshot that is heard strikes out the own one.
They give them at different moments: either may be ahead, symbol by symbol. Several snapshots of a symbol may share their time
and volume and differ in the book, so these two alone do not say which of two quotes is newer.
"""

from __future__ import annotations

import re
from collections import deque

import msgspec

from marketdata.batch import Batch, Term, seq_of, without_seq
from marketdata.ingest import Group, is_late
from marketdata.types import Number

MOST = 50_000
"""Pending quotes that have a newer one of their symbol behind them: beyond, the oldest fall out."""
AGE = 60.0
"""Seconds after which a pending quote falls out where its symbol has a newer one."""

Position = tuple[int, int]
"""Epoch and seq of a message."""
NOWHERE: Position = (0, 0)


class _Stamp(msgspec.Struct, frozen=True):
    time: int = 0
    volume: Number | None = None

    def late(self, newer: _Stamp) -> bool:
        """Whether this one lies before the other, by the rule of ``ingest``."""
        return is_late(self.time, self.volume, newer.time, newer.volume)


_stamp = msgspec.json.Decoder(_Stamp).decode
_TOLD_LATER = re.compile(rb'"limit_up":[^,]*,"limit_down":[^,]*,')


def _snapshot(body: bytes) -> bytes:
    """What makes two quotes of a symbol the same snapshot: all but the day's limits."""
    return _TOLD_LATER.sub(b"", body, count=1)


class _Own:
    """A pending quote of this terminal. ``body`` is empty once it has been struck out."""

    __slots__ = ("at", "body", "snapshot", "symbol")

    def __init__(self, symbol: str, body: bytes, at: float) -> None:
        self.symbol = symbol
        self.body = body
        self.snapshot = _snapshot(body)
        self.at = at


class Ledger:
    """One feed's ledger at one terminal. Not thread-safe: one owner.

    ``position`` is that of the newest message heard or sent, ``newest`` what it and those before it said of each symbol (with
    its seq). ``in_step``: no message since a snapshot that covered everything is missing.
    """

    def __init__(self, *, most: int = MOST, age: float = AGE) -> None:
        self.position = NOWHERE
        self.in_step = False
        self.newest: dict[str, bytes] = {}
        self._most = most
        self._age = age
        self._covering: Position | None = None
        """What a snapshot must reach to bring this in step; None where only the next message can tell."""
        self._looked = False
        self._inherited: set[str] = set()
        """The symbols of which an earlier epoch spoke last."""
        self._order: deque[_Own] = deque()
        self._of: dict[str, deque[_Own]] = {}
        self._pending = 0
        self._ahead: dict[str, list[bytes]] = {}
        """The snapshots that were heard of a symbol with its newest time, and that this terminal has not shown yet."""
        self._fallen: dict[str, bytes] = {}
        """The last quote of a symbol that fell out, until something newer of it is published."""

    @property
    def pending(self) -> int:
        """How many own quotes nobody has published, as far as is known here."""
        return self._pending

    @property
    def complete(self) -> bool:
        """Whether nothing that is still missing to receivers has fallen out."""
        return not self._fallen

    @property
    def wants_snapshot(self) -> bool:
        """Whether a snapshot may bring this in step, or tell for the first time what is known."""
        return not self.in_step and (self._covering is not None or not self._looked)

    def fresh(self, group: Group) -> Group:
        """What of a group that this terminal has just shown is not known to be published, by itself or by a newer quote."""
        if not self._ahead:
            return group
        return {symbol: body for symbol, body in group.items() if symbol not in self._ahead or not self._was_heard(symbol, body)}

    def _was_heard(self, symbol: str, body: bytes) -> bool:
        ahead, snapshot = self._ahead[symbol], _snapshot(body)
        if snapshot in ahead:
            del ahead[: ahead.index(snapshot) + 1]
            if not ahead:
                del self._ahead[symbol]
            self._strike(symbol, len(self._of.get(symbol, ())))
            return True
        if _stamp(body).late(_stamp(ahead[-1])):
            return True
        if _stamp(body).time > _stamp(ahead[-1]).time:
            del self._ahead[symbol]
        return False

    def catch_up(self) -> None:
        """This terminal has had its time to show what was heard: what it shows from now on counts, whatever was heard."""
        self._ahead.clear()

    def owe(self, group: Group, now: float) -> None:
        """Note what is fresh and has not been published. ``now`` is in seconds, of a clock that never goes back."""
        for symbol, body in group.items():
            own = _Own(symbol, body, now)
            # Of the same snapshot as the one before it has only learned the limits.
            if pending := self._of.get(symbol):
                if pending[-1].snapshot == own.snapshot:
                    pending[-1].body = body
                    continue
            elif (here := self.newest.get(symbol)) is not None and own.snapshot == _snapshot(without_seq(here)):
                continue
            self._order.append(own)
            self._of.setdefault(symbol, deque()).append(own)
            self._pending += 1
        self._trim(now)

    def owed(self) -> list[Group]:
        """Everything pending in order; a symbol stands in a group once."""
        groups: list[Group] = []
        group: Group = {}
        for own in self._order:
            if own.body:
                if own.symbol in group:
                    groups.append(group)
                    group = {}
                group[own.symbol] = own.body
        return [*groups, group] if group else groups

    def inherited(self) -> Group:
        """Of the symbols of which this epoch has said nothing yet, the newest that is known."""
        return {symbol: without_seq(self.newest[symbol]) for symbol in self.newest if symbol in self._inherited}

    def sent(self, position: Position, fragments: dict[str, bytes]) -> None:
        """A message of one's own is with the channel layer; nobody's could have come before it unheard."""
        self._advance(position)
        self.in_step, self._covering = True, None
        if self._pending or self._fallen:
            for symbol, fragment in fragments.items():
                self._publish(symbol, fragment)
        self.newest |= fragments
        if self._inherited:
            self._inherited.difference_update(fragments)

    def reach(self, position: Position) -> None:
        """Messages up to there have been written, though nobody could hear them."""
        if position > self.position:
            self._advance(position)

    def hear(self, batch: Batch) -> bool:
        """Take in a message. False, and nothing taken, where it is of a fenced-off publisher or has been heard before."""
        position = (batch.epoch, batch.seq)
        if position <= self.position:
            return False
        follows = batch.epoch == self.position[0] and batch.seq == self.position[1] + 1
        begins = batch.epoch != self.position[0] and batch.seq == 1
        if not self.in_step and self._covering is None and follows:
            # Nothing had been missed after all.
            self.in_step = True
        elif not (follows or (begins and self.in_step)):
            self.in_step, self._covering = False, (batch.epoch, batch.seq - 1)
        self._advance(position)
        for symbol, fragment in zip(batch.symbols, batch.fragments, strict=True):
            self._hear(symbol, fragment, batch.term)
        self._inherited.difference_update(batch.symbols)
        return True

    def restore(self, batch: Batch) -> None:
        """Take in a snapshot: of each symbol what is newer than what was heard."""
        self._looked = True
        position = (batch.epoch, batch.seq)
        if batch.epoch < self.position[0] or (self.in_step and position <= self.position):
            return
        if position > self.position:
            if self.in_step:
                self.lose()
                self._looked = True
            self._advance(position)
        for symbol, fragment in zip(batch.symbols, batch.fragments, strict=True):
            here = self.newest.get(symbol)
            if here is None or symbol in self._inherited or seq_of(fragment) > seq_of(here):
                self._hear(symbol, fragment, None)
        self._inherited.difference_update(batch.symbols)
        if self._covering is not None and position >= self._covering:
            self.in_step, self._covering = True, None

    def nothing_to_restore(self) -> None:
        """There is no snapshot."""
        self._looked = True

    def lose(self) -> None:
        """Messages may have been missed: the next one tells."""
        self.in_step, self._covering, self._looked = False, None, False

    def _advance(self, position: Position) -> None:
        if position[0] != self.position[0]:
            self._inherited = set(self.newest)
        self.position = max(position, self.position)

    def _hear(self, symbol: str, fragment: bytes, term: Term | None) -> None:
        if not self._publish(symbol, fragment):
            snapshot = _snapshot(without_seq(fragment))
            here = self.newest.get(symbol)
            # At the end of a takeover all is said again.
            if here is None or snapshot != _snapshot(without_seq(here)):
                ahead = self._ahead.get(symbol)
                if ahead and term is None and _stamp(ahead[-1]).time == _stamp(snapshot).time:
                    ahead.append(snapshot)
                else:
                    self._ahead[symbol] = [snapshot]
        self.newest[symbol] = fragment

    def _publish(self, symbol: str, fragment: bytes) -> bool:
        """A quote is with the receivers: strike out what it makes old. Whether it is one of our own."""
        if self._fallen and (fallen := self._fallen.get(symbol)) and not _stamp(fragment).late(_stamp(fallen)):
            del self._fallen[symbol]
        pending = self._of.get(symbol)
        if not pending:
            return False
        body = without_seq(fragment)
        snapshot = _snapshot(body)
        for place, own in enumerate(pending, 1):
            if own.snapshot == snapshot:
                self._strike(symbol, place)
                self._ahead.pop(symbol, None)
                return True
        newer = _stamp(body)
        self._strike(symbol, max((place for place, own in enumerate(pending, 1) if _stamp(own.body).late(newer)), default=0))
        return False

    def _strike(self, symbol: str, count: int) -> None:
        """Strike out the oldest that are pending of a symbol."""
        if not count:
            return
        pending = self._of[symbol]
        for _ in range(count):
            pending.popleft().body = b""
        if not pending:
            del self._of[symbol]
        self._pending -= count
        if len(self._order) > 2 * self._pending + 1000:
            self._order = deque(own for own in self._order if own.body)

    def _trim(self, now: float) -> None:
        """Let fall out what is too much or too old; a symbol's newest stays, though it loses its place in the order."""
        order, since = self._order, now - self._age
        while order and (not order[0].body or order[0].at < since or self._pending - len(self._of) > self._most):
            own = order.popleft()
            if not own.body:
                continue
            if len(self._of[own.symbol]) == 1:
                own.at = now
                order.append(own)
            else:
                self._fallen[own.symbol] = own.body
                self._strike(own.symbol, 1)

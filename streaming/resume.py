"""What a client that comes back has missed, feed by feed: the events from the journal, of the states the newest that changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from marketdata.batch import seq_of
from marketdata.journal import TOO_MUCH, UNKNOWN_EPOCH, Entry
from marketdata.ledger import NOWHERE, Position
from marketdata.types import EVENTS, KLINES, DataType
from streaming.codecs import Codec, Head
from streaming.coverage import Coverage, Symbols, merged
from streaming.frame import Events
from streaming.outbox import EVENT_BYTES, EVENT_LIMIT
from streaming.protocol import Gap
from streaming.protocol import Position as Place
from streaming.saved import Saved
from streaming.views import PURE_EVENTS

if TYPE_CHECKING:
    from streaming.acknowledged import Acknowledged
    from streaming.connection import Connection
    from streaming.hub import Hub
    from streaming.subscriptions import Book

NO_POSITION, UNKNOWN_FEED = "no_position", "unknown_feed"
LATE = 2.0
"""Seconds by which a tick, or what is merged under load, may come later than it should."""

Fresh = Mapping[str, frozenset[str] | None]
"""Feed -> the symbols of which a client may not have had the snapshot; None for all of them."""


def certificate(feed: str, after: Position | None, until: Position, source: str, reason: str = "") -> Gap:
    """What became of a feed's messages beyond ``after``, up to and including ``until``."""
    begin = None if after is None else Place(after[0], after[1] + 1)
    return Gap(feed=feed, from_=begin, to=Place(*until), filled=not reason, source=source, reason=reason)


def missed(feed: str, after: Position, until: Position, reason: str) -> Gap:
    """A gap that cannot be filled; the states are sent as they stand."""
    return certificate(feed, after, until, "snapshot", reason)


def fresh(saved: Mapping[str, Saved], now: Mapping[str, Saved], book: Book, since: Mapping[str, Position]) -> Fresh:
    """What a client subscribed to so late that it may not have had the snapshot when it had come as far as ``since``, and what
    its subscriptions stand for ``now`` that they did not when they were saved."""
    found: dict[str, frozenset[str] | None] = {}
    for name, item in saved.items():
        if name not in book:
            continue
        symbols = None if book[name].everything else book[name].symbols
        for feed in {*item.since, *since}:
            at = item.since.get(feed)
            if now[name].covers != item.covers or (at is not None and (at.epoch, at.seq) >= since.get(feed, NOWHERE)):
                known = found.get(feed, frozenset())
                found[feed] = None if symbols is None or known is None else known | symbols
    return found


class Return:
    """One client's way back, made when it covers what it had and is held: ``look`` into the past, and ``finish``.

    ``since``: feed -> the last message that it has had. ``anew``: its subscriptions have just been taken up, those too whose
    events it acknowledges.
    """

    def __init__(self, hub: Hub, connection: Connection, since: Mapping[str, Position], *, anew: bool = True) -> None:
        self.gaps: list[Gap] = []
        self._hub = hub
        self._connection = connection
        self._since = since
        # What is withheld will be sent to this client as to all others.
        self._until = {feed: hub.whole(feed) for feed in hub.store.feeds}
        self._anew = anew
        self._happened: list[Events] = []
        self._slow = max((view.frequency.seconds for view in connection.views), default=0.0)
        self._views = len(connection.views)

    async def look(self) -> None:
        """Find out what was missed of every feed."""
        for feed, until in self._until.items():
            after = self._since.get(feed)
            if after is None and not self._covers_some(feed):
                self.gaps.append(certificate(feed, None, until, "state"))
            elif after is None:
                self.gaps.append(certificate(feed, None, until, "snapshot", NO_POSITION))
            elif after[0] > until[0]:
                self.gaps.append(certificate(feed, after, until, "snapshot", UNKNOWN_EPOCH))
            elif not self._covers_events():
                self.gaps.append(certificate(feed, after, until, "state"))
            else:
                self.gaps.append(await self._look(feed, after, until))
        for feed in self._since.keys() - self._until.keys():
            self.gaps.append(certificate(feed, self._since[feed], self._since[feed], "snapshot", UNKNOWN_FEED))
        for name, item in self._connection.acknowledged.items() if self._anew else ():
            for feed, until in self._until.items():
                self.gaps.append(await self._look_for(name, item, feed, until))

    async def _look_for(self, name: str, item: Acknowledged, feed: str, until: Position) -> Gap:
        """What a subscription that is acknowledged has not been."""
        after, past, view = item.acked.get(feed, NOWHERE), self._hub.past, item.view
        assert past is not None and view is not None
        found = await past.read(feed, after, until)
        if not found.complete:
            return replace(certificate(feed, after, until, "none", found.reason), subscription=name)
        if not item.put_first(self._happened_in(feed, found.entries, view.coverage)):
            return replace(certificate(feed, after, until, "none", TOO_MUCH), subscription=name)
        return replace(certificate(feed, after, until, "journal"), subscription=name)

    async def _look(self, feed: str, after: Position, until: Position) -> Gap:
        past = self._hub.past
        assert past is not None
        # Of a message that was cut into several frames the client may have had the first.
        begin = after if self._views == 1 else (after[0], max(0, after[1] - 1))
        found = await past.read(feed, begin, until)
        if not found.complete:
            return certificate(feed, begin, until, "snapshot", found.reason)
        covered = {data_type: symbols for data_type in DataType if (symbols := self._covered(data_type)) is not None}
        happened = [*self._happened, *self._happened_in(feed, found.entries, covered)]
        if sum(map(len, happened)) > EVENT_LIMIT or sum(events.size for events in happened) > EVENT_BYTES:
            return certificate(feed, begin, until, "snapshot", TOO_MUCH)
        self._happened = happened
        return certificate(feed, after, until, "journal")

    def _covers_events(self) -> bool:
        return any(not EVENTS.isdisjoint(view.coverage) for view in self._connection.views)

    def _covers_some(self, feed: str) -> bool:
        # One that nobody has brought here yet may be of any feed.
        feed_of = self._hub.store.feed_of
        covered = [symbols.names for view in self._connection.views for symbols in view.coverage.values()]
        return any(names is None or any(feed_of.get(symbol, feed) == feed for symbol in names) for names in covered)

    def _covered(self, data_type: DataType) -> Symbols | None:
        return merged((view.coverage for view in self._connection.views), data_type)

    def _happened_in(self, feed: str, entries: Iterable[Entry], covered: Coverage) -> list[Events]:
        """The events of messages that a coverage takes."""
        codec: Codec = self._connection.codec
        result = []
        for entry in entries:
            pieces = []
            for data_type, (symbols, fragments) in entry.events.items():
                chosen = covered[data_type].among(symbols) if data_type in covered else set()
                for symbol, fragment in zip(symbols, fragments, strict=True):
                    if symbol in chosen and (piece := codec.fragment(data_type, fragment)) is not None:
                        pieces.append(piece)
            if pieces:
                result.append(Events(codec, Head(feed, entry.epoch, entry.seq), pieces))
        return result

    def finish(self, fresh: Fresh) -> list[Events]:
        """Owe the client the states, and return the events that come before them."""
        for gap in self.gaps:
            if gap.subscription:
                continue
            after = self._since.get(gap.feed) if gap.filled else None
            if after is not None and (self._slow or self._views > 1):
                # Of what waited for a tick, or for the next of its frames, the client may not have had the newest.
                after = self._back(gap.feed, after)
            self._owe(gap.feed, after, fresh.get(gap.feed, frozenset()))
        return self._happened

    def _back(self, feed: str, after: Position) -> Position | None:
        past = self._hub.past
        return None if past is None else past.back(feed, (after[0], after[1] - 1), self._slow + LATE)

    def _owe(self, feed: str, after: Position | None, fresh: frozenset[str] | None) -> None:
        hub, outbox = self._hub, self._connection.outbox
        of_feed = hub.store.feeds[feed].symbols if feed in hub.store.feeds else set()
        for data_type in DataType:
            covered = self._covered(data_type)
            if covered is None:
                continue
            symbols = covered.among(hub.newest.symbols(data_type)) & of_feed
            whole = symbols if after is None or fresh is None else symbols & fresh
            if whole:
                outbox.owe(data_type, set(whole), snapshot=True)
            if after is not None and data_type not in PURE_EVENTS:
                changed = {symbol for symbol in symbols - whole if self._changed_at(data_type, symbol) > after}
                if changed:
                    outbox.owe(data_type, changed)

    def _changed_at(self, data_type: DataType, symbol: str) -> Position:
        hub = self._hub
        if data_type not in KLINES:
            return hub.store.changed_at(symbol)
        forming = hub.newest.bars.forming[data_type].get(symbol)
        return NOWHERE if forming is None else (hub.store.feeds[hub.store.feed_of[symbol]].epoch, seq_of(forming))

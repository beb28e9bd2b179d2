"""A connection's session as it lasts beyond the connection: kept as it changes, and taken up where its client comes back."""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec.structs import replace
from redis.exceptions import RedisError

from argus.access import limits
from argus.access.principal import Principal
from argus.errors import INVALID_ARGUMENT, NOT_READY, SESSION_UNKNOWN, ArgusError
from marketdata.ledger import Position
from streaming import acknowledged, runtime, saved, subscriptions
from streaming.connection import Connection
from streaming.hub import Hub
from streaming.protocol import Position as Place
from streaming.protocol import Rejected, Resumed
from streaming.resume import Return, fresh
from streaming.saved import Keeper, Record, Saved
from streaming.session import Session


class Lasting:
    """One connection's. ``token``: what its client takes it up by, ``digest``: that of the key that the client was let in by.

    A session that does not last (a dialect's) has one as well, which keeps nothing.
    """

    def __init__(self, connection: Connection, session: Session, hub: Hub, keeper: Keeper) -> None:
        self.token = saved.new_token()
        self.digest = ""
        self._connection = connection
        self._session = session
        self._hub = hub
        self._keeper = keeper
        self._saved: dict[str, Saved] = {}

    def keep(self) -> None:
        """Have the subscriptions, as they are now, outlive the connection."""
        if self._session.keeps:
            self._save(self._to_save(self._saved))

    def end(self) -> None:
        """The connection, which the hub still knows, has ended; its client may come back for ``HELD`` seconds."""
        if self._session.book:
            self._hub.linger(self._connection, time.monotonic() + saved.HELD)
        self._keeper.end(self.token)

    def acknowledge(self, subscription: str, positions: Mapping[str, Place]) -> int:
        """The client is done with this; how many of the subscription's events still wait. See ``Restore`` for the positions."""
        item = self._connection.acknowledged.get(subscription)
        if item is None:
            return 0
        for feed, position in self._by_feed(positions).items():
            item.ack(feed, position)
        if (kept := self._saved.get(subscription)) is not None:
            acked = {feed: Place(*position) for feed, position in item.acked.items()}
            self._save(self._saved | {subscription: replace(kept, acked=acked)})
        return len(item)

    async def reach(self, positions: Mapping[str, Place]) -> dict[str, Position]:
        """Wait until this process has come as far as a client has; feed -> how far that is. See ``Restore`` for the positions."""
        # This process may have just taken the place of the one that the client comes from.
        await runtime.caught_up()
        since = self._by_feed(positions)
        await runtime.caught_up(since)
        return since

    async def find(self, token: str) -> Record:
        """The session of a token. Raises NOT_READY, or SESSION_UNKNOWN also where the client was let in by another key."""
        try:
            record = await saved.load(token)
        except (TimeoutError, RedisError) as error:
            raise ArgusError(NOT_READY, "The session cannot be looked up now; try again.", retry_after=1) from error
        principal = self._session.principal
        if record is None or (principal is not None and principal.prefix != record.prefix):
            raise ArgusError(SESSION_UNKNOWN)
        return record

    async def resume(self, since: Mapping[str, Position], record: Record | None, *, id: str | int | None) -> Resumed:
        """Send the client, which has been let in, what it has missed ``since``, after the answer that says what that is.

        It has subscribed already, or subscribes to what a record says. Raises SUBSCRIPTION_LIMIT or NOT_READY.
        """
        connection, session, hub = self._connection, self._session, self._hub
        before: dict[str, Saved] = {}
        rejected: list[Rejected] = []
        if record is not None:
            before = record.subscriptions
            rejected = await self._restore(before)
        connection.hold()
        try:
            if before:
                connection.symbols = subscriptions.count(session.book)
                hub.cover(connection, session.cover().selections, snapshot=False)
                for name, item in connection.acknowledged.items():
                    item.acked = {feed: (at.epoch, at.seq) for feed, at in (before[name].since | before[name].acked).items()}
            way = Return(hub, connection, since, anew=bool(before))
            await way.look()
            resumed = session.resumed(way.gaps, rejected, id=id)
            if resumed.recovered:
                hub.counters.resumed += 1
            else:
                hub.counters.not_resumed += 1
            frame = connection.codec.encode(resumed)
            events = way.finish(fresh(before, self._to_save({}), session.book, since))
            if not connection.closed and not connection.outbox.put_first([*([frame] if frame else []), *events]):
                connection.overflow()
        finally:
            connection.release()
        self._saved = before or self._saved
        self.keep()
        return resumed

    async def _restore(self, before: Mapping[str, Saved]) -> list[Rejected]:
        """Subscribe to what another connection had, counted for the key; what was rejected."""
        await self._hold(len(self._session.book.keys() | before.keys()))
        rejected = self._session.restore(before)
        if rejected:
            await self._hold(len(self._session.book))
        return rejected

    async def _hold(self, count: int) -> None:
        await limits.quota().hold_subscriptions(self._principal, self._connection.id, count)

    @property
    def _principal(self) -> Principal:
        assert self._session.principal is not None
        return self._session.principal

    def _by_feed(self, positions: Mapping[str, Place]) -> dict[str, Position]:
        """Feed -> epoch and seq; the empty name is that of the only feed."""
        named = dict(positions)
        if "" in named:
            feeds = list(self._hub.store.feeds)
            if len(feeds) != 1:
                raise ArgusError(INVALID_ARGUMENT, f"Name the feed; there are: {', '.join(feeds) or 'none'}.", parameter="feed")
            named[feeds[0]] = named.pop("")
        return {feed: (at.epoch, at.seq) for feed, at in named.items()}

    def _to_save(self, before: Mapping[str, Saved]) -> dict[str, Saved]:
        """The subscriptions as they are now; ``before``: what was saved of them until now."""
        at = {name: Place(feed.epoch, feed.seq) for name, feed in self._hub.store.feeds.items()}
        acked = acknowledged.positions(self._connection.acknowledged)
        return subscriptions.saved(self._session.book, before, at, acked, self._principal.limits.data_types)

    def _save(self, now: dict[str, Saved]) -> None:
        self._saved = now
        self._keeper.keep(self.token, Record(prefix=self._principal.prefix, digest=self.digest, subscriptions=now))

"""The WebSocket consumer: a thin shell that feeds a ``Session`` and carries out its effects.

There is no check of the browser's Origin, on purpose: a connection carries no cookie or other ambient authority, the key
travels in a header or a message that a foreign page does not have. Messages of a connection are handled one after the
other, and nothing is read from the transport while one is being handled, so that a flood waits in the client's own
buffers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import structlog
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from msgspec.structs import replace
from redis.exceptions import RedisError

from argus import requestid
from argus.access import check, keys, limits
from argus.access.principal import SCOPE_READ, Principal
from argus.config import config
from argus.errors import (
    DEADLINE,
    INTERNAL,
    INVALID_ARGUMENT,
    KEY_IN_URL,
    MESSAGE_LIMIT,
    NOT_READY,
    SESSION_UNKNOWN,
    SUBPROTOCOL_NOT_SUPPORTED,
    UNKNOWN_SECTOR,
    ArgusError,
)
from marketdata import universe
from streaming import acknowledged, replays, runtime, subscriptions, tickets
from streaming import saved as saved_sessions
from streaming.codecs import JSON, SUBPROTOCOLS, Codec
from streaming.connection import Connection
from streaming.hub import Hub
from streaming.protocol import AnyAction, Failure, Position, QuotaView, Rejected, Unreadable, quota_view
from streaming.resume import Return, fresh
from streaming.saved import HELD, Record, Saved, new_token
from streaming.session import Acknowledge, Authenticate, Close, Cover, Effect, Reply, Restore, Session
from streaming.subscriptions import Book, count
from streaming.throttle import UNKNOWN, Throttle
from streaming.wire import wire_for

log = structlog.get_logger(__name__)

KEY_PARAMETERS = frozenset({"key", "api_key", "apikey", "token", "access_token", "auth", "authorization"})
"""Query parameters that look like a key in a URL, where it would end up in histories and logs."""
ADMISSION_DEADLINE = 5.0
"""Seconds for the check of a key and the count of connections."""
LEAVE_DEADLINE = 2.0
"""Seconds for giving a connection back; a process that fails in it gives it back by its lease's end."""


def now() -> int:
    """The clock that clients are told, in ms."""
    return time.time_ns() // 1_000_000


def resolve(words: Sequence[str], known: universe.Universe) -> universe.Resolution:
    """What words stand for in a universe; before it is known, a group is not unknown but not ready."""
    resolution = universe.resolve(words, known)
    if not known.symbols and any(rejected.problem is UNKNOWN_SECTOR for rejected in resolution.rejected):
        raise ArgusError(NOT_READY, "The source has not told its instruments yet; try again shortly.", retry_after=1)
    return resolution


class StreamConsumer(AsyncConsumer):  # type: ignore[misc]
    """One connection at ``/ws`` or ``/ws/market_data``."""

    # A process has one channel in the layer, the hub's; consumers have none.
    channel_layer_alias = None
    codecs: Mapping[str, Codec] = SUBPROTOCOLS
    """What a client may negotiate."""
    codec: Codec = JSON
    """What is spoken where it negotiates nothing."""
    make_session: type[Session] = Session

    def __init__(self) -> None:
        self.session = self.make_session(self._resolve, now, self.codec)
        self.wanted: replays.Asked | None = None
        self.replay: replays.Replay | None = None
        self.connection: Connection | None = None
        self.counted: Principal | None = None
        self.auth_timer: asyncio.TimerHandle | None = None
        self.closing = False
        self.throttle = Throttle(time.monotonic())
        self.token = new_token()
        self.digest = ""
        self.saved: dict[str, Saved] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection; whatever way it ends, nothing of it stays behind."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._leave()

    async def dispatch(self, message: dict[str, Any]) -> None:
        """As Channels does, without its look at the database's connections: a message touches no ORM."""
        handler = {
            "websocket.connect": self._connect,
            "websocket.receive": self._receive,
            "websocket.disconnect": self._disconnect,
        }[message["type"]]
        await handler(message)

    async def _connect(self, message: dict[str, Any]) -> None:
        current = await runtime.ensure_started()
        self.hub, self.relief, self.sessions = current.hub, current.relief, current.sessions
        offered = self.scope["subprotocols"]
        chosen = next((name for name in offered if name in self.codecs), None)
        self.session.codec = self.choose_codec(chosen)
        try:
            await self.send({"type": "websocket.accept", "subprotocol": chosen})
        except OSError:
            # Servers differ in how they say it: the client has gone before its handshake was answered.
            raise StopConsumer from None
        self.connection = self._attach()
        try:
            if offered and chosen is None:
                raise ArgusError(SUBPROTOCOL_NOT_SUPPORTED, f"Supported: {', '.join(self.codecs)}.", supported=[*self.codecs])
            query = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)
            self.wanted = replays.asked(query)
            quota = await self._admit_at_connect(query)
        except ArgusError as error:
            self._perform(self.session.refuse(error, id=None))
        except Exception:
            log.exception("connect_failed")
            self._perform(self.session.refuse(ArgusError(INTERNAL), id=None))
        else:
            self._greet(self.connection, quota)

    def choose_codec(self, subprotocol: str | None) -> Codec:
        """How the connection speaks."""
        return self.codec if subprotocol is None else self.codecs[subprotocol]

    def key_of(self, headers: Mapping[str, str]) -> str | None:
        """The key that a handshake's headers show; their names are in lower case."""
        return check.key_of(headers)

    @property
    def _data(self) -> Hub:
        """Where this client's data comes from: the stream, or its replay."""
        return self.replay.hub if self.replay is not None else self.hub

    def _resolve(self, words: Sequence[str]) -> universe.Resolution:
        return resolve(words, self.replay.universe if self.replay is not None else universe.current())

    def _greet(self, connection: Connection, quota: QuotaView | None) -> None:
        if self.counted is None:
            self.auth_timer = asyncio.get_running_loop().call_later(config.auth_timeout, self._auth_timed_out)
        self._perform(
            self.session.connected(
                self.counted,
                connection_id=connection.id,
                streams={} if self.wanted else self.hub.store.streams(),
                heartbeat_interval=config.heartbeat_interval,
                quota=quota,
                stale=not self.wanted and self.hub.store.stale(config.stale_after),
                session="" if self.wanted else self.token,
            )
        )

    def _attach(self) -> Connection:
        connection = Connection(
            requestid.connection_id(self.scope),
            None,
            wire_for(self.scope, self.base_send),
            check.client_address(self.scope),
            self.session.codec,
        )
        connection.on_principal = self._principal_changed
        connection.on_universe = self._universe_changed
        self.hub.attach(connection)
        return connection

    async def _receive(self, message: dict[str, Any]) -> None:
        if self.closing:
            return
        text = message.get("text")
        action = self.session.read(message["bytes"] if text is None else text)
        with requestid.request_scope(None if action.id is None else str(action.id)) as request_id:
            try:
                await self._answer(action)
            except ArgusError as error:
                refuse = self.session.refuse if error.problem is MESSAGE_LIMIT else self.session.reject
                self._perform(refuse(error, id=action.id))
            except Exception:
                # The edge: a fault of ours ends this connection, retryably, and no other.
                log.exception("message_failed")
                self._perform(self.session.refuse(ArgusError(INTERNAL, request_id=request_id), id=action.id))

    async def _answer(self, action: AnyAction | Unreadable) -> None:
        principal = self.session.principal
        self.throttle.take(time.monotonic(), UNKNOWN if principal is None else principal.limits.messages_per_second)
        if principal is not None and (cost := self.session.costs(action)):
            await limits.quota().spend(principal, cost)
        before = self.session.book
        effects = self.session.handle(action)
        if principal is not None and len(self.session.book) != len(before):
            effects = await self._count(principal, before, effects, id=action.id)
        for effect in effects:
            if isinstance(effect, Authenticate):
                await self._authenticate(effect)
            elif isinstance(effect, Restore):
                await self._resume(effect)
            elif isinstance(effect, Acknowledge):
                self._acknowledge(effect)
            else:
                self._perform([effect])

    async def _count(self, principal: Principal, before: Book, effects: list[Effect], *, id: str | int | None) -> list[Effect]:
        """Count the subscriptions for the key. The effects of the request; where they are too many it changes nothing."""
        session, book = self.session, self.session.book
        try:
            await self._hold(len(book))
        except ArgusError as error:
            meanwhile, session.book = session.book, before
            effects = session.reject(error, id=id)
        else:
            meanwhile = session.book
        if meanwhile is not book or session.principal is not principal:
            # The universe or the plan has changed while this was counted.
            effects = [*effects, *session.restate()]
        return effects

    async def _hold(self, count: int) -> None:
        """Count so many subscriptions for the key, or raise SUBSCRIPTION_LIMIT."""
        assert self.connection is not None
        assert self.counted is not None
        await limits.quota().hold_subscriptions(self.counted, self.connection.id, count)

    async def _disconnect(self, message: dict[str, Any]) -> None:
        raise StopConsumer

    def _perform(self, effects: Sequence[Effect]) -> None:
        assert self.connection is not None
        for effect in effects:
            if isinstance(effect, Reply):
                if isinstance(effect.message, Failure):
                    self.hub.counters.refuse(effect.message.error.problem)
                self.connection.say(effect.message)
            elif isinstance(effect, Cover):
                self.connection.symbols = count(self.session.book)
                self._data.cover(self.connection, effect.selections)
                self._keep()
            elif isinstance(effect, Close):
                self.closing = True
                self.connection.close(effect.problem)

    async def _authenticate(self, effect: Authenticate) -> None:
        self._stop_timer()
        try:
            quota = await self._admit(lambda address: check.authenticate(effect.key, address), keys.digest(effect.key))
        except ArgusError as error:
            self._perform(self.session.refuse(error, id=effect.id))
        else:
            assert self.counted is not None
            self._perform(self.session.accept(self.counted, id=effect.id, quota=quota, session=self.token))

    async def _admit_at_connect(self, query: dict[str, list[str]]) -> QuotaView | None:
        """Let in who shows a key in a header, or a ticket. None where neither is there."""
        if any(name.lower() in KEY_PARAMETERS for name in query):
            raise ArgusError(KEY_IN_URL)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.scope["headers"]}
        if key := self.key_of(headers):
            return await self._admit(lambda address: check.authenticate(key, address), keys.digest(key))
        if shown := query.get("ticket"):
            shown_for = await tickets.redeem(shown[0])
            return await self._admit(lambda address: check.authenticate_digest(*shown_for, address), shown_for.digest)
        return None

    async def _admit(self, authenticate: Callable[[str | None], Awaitable[Principal]], digest: str) -> QuotaView:
        """Check the key of this digest, count the connection, and say what is left of the quota."""
        assert self.connection is not None
        try:
            async with asyncio.timeout(ADMISSION_DEADLINE):
                principal = await authenticate(self.connection.address)
                check.require(principal, SCOPE_READ)
                self.relief.require_room(principal.limits.priority)
                # Set before anything else is awaited, so that a revocation from now on finds the connection; counted
                # before the answer is known, so that a lost answer is given back as well.
                self.connection.principal = self.counted = principal
                self.digest = digest
                await limits.quota().open_connection(principal, self.connection.id)
                quota = await limits.quota().spend(principal, cost=0)
        except TimeoutError:
            raise ArgusError(DEADLINE, "The key could not be checked in time; try again.") from None
        if self.wanted is not None:
            self.replay = await replays.begin(self.connection, self.wanted)
            self.replay.start()
        log.info("stream_opened", prefix=principal.prefix, plan=principal.plan, replay=self.wanted)
        return quota_view(quota)

    async def _resume(self, effect: Restore) -> None:
        """Take up a session, and send what its client has missed."""
        assert self.connection is not None
        if self.replay is not None:
            raise ArgusError(INVALID_ARGUMENT, "A replay begins where you ask it to; it is not resumed.", parameter="action")
        # This process may have just taken the place of the one that the client comes from.
        await runtime.caught_up()
        since = self._positions(effect.positions)
        await runtime.caught_up(since)
        saved: dict[str, Saved] = {}
        rejected: list[Rejected] = []
        if effect.token is not None:
            record = await self._take_up(effect.token, id=effect.id)
            if record is None:
                return
            saved = record.subscriptions
            await self._hold(len(self.session.book.keys() | saved.keys()))
            rejected = self.session.restore(saved)
            if rejected:
                await self._hold(len(self.session.book))
        connection, hub = self.connection, self.hub
        connection.hold()
        try:
            if saved:
                connection.symbols = count(self.session.book)
                hub.cover(connection, self.session.cover().selections, snapshot=False)
                for name, item in connection.acknowledged.items():
                    item.acked = {feed: (at.epoch, at.seq) for feed, at in (saved[name].since | saved[name].acked).items()}
            way = Return(hub, connection, since, anew=bool(saved))
            await way.look()
            resumed = self.session.resumed(way.gaps, rejected, id=effect.id)
            if resumed.recovered:
                hub.counters.resumed += 1
            else:
                hub.counters.not_resumed += 1
            frame = connection.codec.encode(resumed)
            events = way.finish(fresh(saved, self._saved({}), self.session.book, since))
            if not connection.closed and not connection.outbox.put_first([*([frame] if frame else []), *events]):
                connection.overflow()
        finally:
            connection.release()
        self.saved = saved or self.saved
        self._keep()
        log.info("stream_resumed", recovered=resumed.recovered, gaps=len(way.gaps))

    def _acknowledge(self, effect: Acknowledge) -> None:
        assert self.connection is not None
        item = self.connection.acknowledged.get(effect.subscription)
        if item is not None:
            for feed, position in self._positions(effect.positions).items():
                item.ack(feed, position)
            if (kept := self.saved.get(effect.subscription)) is not None:
                acked = {feed: Position(*position) for feed, position in item.acked.items()}
                self._keep_as(self.saved | {effect.subscription: replace(kept, acked=acked)})
        pending = 0 if item is None else len(item)
        self.connection.say(self.session.acked(effect.subscription, pending, id=effect.id))

    def _positions(self, given: Mapping[str, Position]) -> dict[str, tuple[int, int]]:
        """Feed -> epoch and seq; the empty name is that of the only feed."""
        positions = dict(given)
        if "" in positions:
            feeds = list(self.hub.store.feeds)
            if len(feeds) != 1:
                raise ArgusError(INVALID_ARGUMENT, f"Name the feed; there are: {', '.join(feeds) or 'none'}.", parameter="feed")
            positions[feeds[0]] = positions.pop("")
        return {feed: (position.epoch, position.seq) for feed, position in positions.items()}

    async def _take_up(self, token: str, *, id: str | int | None) -> Record | None:
        """A session; the connection is let in by it where it was not yet, or ended (None) where its key is not good any more."""
        try:
            record = await saved_sessions.load(token)
        except (TimeoutError, RedisError) as error:
            raise ArgusError(NOT_READY, "The session cannot be looked up now; try again.", retry_after=1) from error
        if record is None:
            raise ArgusError(SESSION_UNKNOWN)
        if self.session.principal is None:
            self._stop_timer()
            try:
                quota = await self._admit(
                    lambda address: check.authenticate_digest(record.prefix, record.digest, address), record.digest
                )
            except ArgusError as error:
                self._perform(self.session.refuse(error, id=id))
                return None
            assert self.counted is not None
            self._perform(self.session.accept(self.counted, id=None, quota=quota, session=self.token))
        elif self.session.principal.prefix != record.prefix:
            raise ArgusError(SESSION_UNKNOWN)
        return record

    def _keep(self) -> None:
        """Have the subscriptions outlive the connection."""
        if self.session.principal is not None and self.replay is None and self.session.keeps:
            self._keep_as(self._saved(self.saved))

    def _saved(self, before: Mapping[str, Saved]) -> dict[str, Saved]:
        assert self.session.principal is not None
        assert self.connection is not None
        at = {name: Position(feed.epoch, feed.seq) for name, feed in self.hub.store.feeds.items()}
        acked = acknowledged.positions(self.connection.acknowledged)
        return subscriptions.saved(self.session.book, before, at, acked, self.session.principal.limits.data_types)

    def _keep_as(self, saved: dict[str, Saved]) -> None:
        assert self.session.principal is not None
        self.saved = saved
        self.sessions.keep(self.token, Record(prefix=self.session.principal.prefix, digest=self.digest, subscriptions=saved))

    def _principal_changed(self, principal: Principal) -> None:
        """The key or its plan was edited; its addresses and scopes may be others now."""
        assert self.connection is not None
        try:
            check.admit(principal, self.connection.address)
            check.require(principal, SCOPE_READ)
        except ArgusError as error:
            self._perform(self.session.refuse(error, id=None))
            return
        self.connection.principal = self.counted = principal
        if self.session.principal is not None:
            self._perform(self.session.principal_changed(principal))

    def _universe_changed(self) -> None:
        self._perform(self.session.universe_changed())

    def _auth_timed_out(self) -> None:
        self._perform(self.session.timed_out())

    def _stop_timer(self) -> None:
        if self.auth_timer is not None:
            self.auth_timer.cancel()
            self.auth_timer = None

    async def _leave(self) -> None:
        self._stop_timer()
        if self.connection is None:
            return
        if self.replay is not None:
            self.replay.close()
        if self.session.book and self.replay is None:
            self.hub.linger(self.connection, time.monotonic() + HELD)
        self.hub.detach(self.connection)
        self.sessions.end(self.token)
        self.connection.on_principal = self.connection.on_universe = None
        if self.counted is None:
            return
        log.info("stream_closed", prefix=self.counted.prefix)
        try:
            async with asyncio.timeout(LEAVE_DEADLINE):
                await limits.quota().close_connection(self.counted, self.connection.id)
        except (TimeoutError, OSError, ArgusError):
            log.warning("connection_not_given_back", prefix=self.counted.prefix)

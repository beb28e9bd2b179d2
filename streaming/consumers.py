"""The WebSocket consumer: a thin shell that feeds a ``Session`` and carries out its effects.

There is no check of the browser's Origin, on purpose: a connection carries no cookie or other ambient authority, the key
travels in a header or a message that a foreign page does not have. Messages of a connection are handled one after the
other, and nothing is read from the transport while one is being handled, so that a flood waits in the client's own
buffers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import structlog
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer

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
    SUBPROTOCOL_NOT_SUPPORTED,
    UNKNOWN_SECTOR,
    ArgusError,
)
from marketdata import universe
from streaming import replays, runtime, tickets
from streaming.codecs import JSON, SUBPROTOCOLS, Codec
from streaming.connection import Connection
from streaming.hub import Hub
from streaming.lasting import Lasting
from streaming.protocol import AnyAction, Failure, QuotaView, Unreadable, quota_view
from streaming.relief import Relief
from streaming.session import Acknowledge, Authenticate, Close, Cover, Effect, Reply, Restore, Session
from streaming.subscriptions import Book, count
from streaming.throttle import UNKNOWN, Throttle
from streaming.tickets import KeyReference
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
    """One connection at ``/ws`` or ``/ws/market_data``. A dialect's consumer derives from it."""

    # A process has one channel in the layer, the hub's; consumers have none.
    channel_layer_alias = None
    codecs: Mapping[str, Codec] = SUBPROTOCOLS
    """What a client may negotiate."""
    codec: Codec = JSON
    """What is spoken where it negotiates nothing."""
    make_session: type[Session] = Session

    # From ``_attach`` on.
    hub: Hub
    relief: Relief
    connection: Connection
    lasting: Lasting

    def __init__(self) -> None:
        self.session = self.make_session(self._resolve, now, self.codec)
        self.throttle = Throttle(time.monotonic())
        self.wanted: replays.Asked | None = None
        self.replay: replays.Replay | None = None
        self.auth_timer: asyncio.TimerHandle | None = None
        self.attached = False
        self.closing = False

    def choose_codec(self, subprotocol: str | None) -> Codec:
        """How the connection speaks."""
        return self.codec if subprotocol is None else self.codecs[subprotocol]

    def key_of(self, headers: Mapping[str, str]) -> str | None:
        """The key that a handshake's headers show; their names are in lower case."""
        return check.key_of(headers)

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
        offered = self.scope["subprotocols"]
        chosen = next((name for name in offered if name in self.codecs), None)
        self.session.codec = self.choose_codec(chosen)
        try:
            await self.send({"type": "websocket.accept", "subprotocol": chosen})
        except OSError:
            # Servers differ in how they say it: the client has gone before its handshake was answered.
            raise StopConsumer from None
        self._attach(current)
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
            self._greet(quota)

    def _attach(self, current: runtime.Runtime) -> None:
        self.hub, self.relief = current.hub, current.relief
        self.connection = Connection(
            requestid.connection_id(self.scope),
            None,
            wire_for(self.scope, self.base_send),
            check.client_address(self.scope),
            self.session.codec,
        )
        self.lasting = Lasting(self.connection, self.session, current.hub, current.sessions)
        self.connection.on_principal = self._principal_changed
        self.connection.on_universe = self._universe_changed
        self.hub.attach(self.connection)
        self.attached = True

    async def _admit_at_connect(self, query: dict[str, list[str]]) -> QuotaView | None:
        """Let in who shows a key in a header, or a ticket. None where neither is there."""
        if any(name.lower() in KEY_PARAMETERS for name in query):
            raise ArgusError(KEY_IN_URL)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.scope["headers"]}
        if key := self.key_of(headers):
            return await self._admit(key)
        if shown := query.get("ticket"):
            return await self._admit(await tickets.redeem(shown[0]))
        return None

    def _greet(self, quota: QuotaView | None) -> None:
        principal = self.connection.principal
        if principal is None:
            self.auth_timer = asyncio.get_running_loop().call_later(config.auth_timeout, self._auth_timed_out)
        self._perform(
            self.session.connected(
                principal,
                connection_id=self.connection.id,
                streams={} if self.wanted else self.hub.store.streams(),
                heartbeat_interval=config.heartbeat_interval,
                quota=quota,
                stale=not self.wanted and self.hub.store.stale(config.stale_after),
                session="" if self.wanted else self.lasting.token,
            )
        )

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
                await self._let_in(effect.key, accepted=effect.id, refused=effect.id)
            elif isinstance(effect, Restore):
                await self._resume(effect)
            elif isinstance(effect, Acknowledge):
                pending = self.lasting.acknowledge(effect.subscription, effect.positions)
                self.connection.say(self.session.acked(effect.subscription, pending, id=effect.id))
            else:
                self._perform([effect])

    async def _count(self, principal: Principal, before: Book, effects: list[Effect], *, id: str | int | None) -> list[Effect]:
        """Count the subscriptions for the key. The effects of the request; where they are too many it changes nothing."""
        session, book, connection = self.session, self.session.book, self.connection
        assert connection.principal is not None
        try:
            await limits.quota().hold_subscriptions(connection.principal, connection.id, len(book))
        except ArgusError as error:
            meanwhile, session.book = session.book, before
            effects = session.reject(error, id=id)
        else:
            meanwhile = session.book
        if meanwhile is not book or session.principal is not principal:
            # The universe or the plan has changed while this was counted.
            effects = [*effects, *session.restate()]
        return effects

    async def _resume(self, effect: Restore) -> None:
        """Take up a session, and send what its client has missed."""
        if self.replay is not None:
            raise ArgusError(INVALID_ARGUMENT, "A replay begins where you ask it to; it is not resumed.", parameter="action")
        since = await self.lasting.reach(effect.positions)
        record = None if effect.token is None else await self.lasting.find(effect.token)
        if record is not None and self.session.principal is None:
            # The id of the request is for the answer still to come.
            key = KeyReference(record.prefix, record.digest)
            if not await self._let_in(key, accepted=None, refused=effect.id):
                return
        resumed = await self.lasting.resume(since, record, id=effect.id)
        log.info("stream_resumed", recovered=resumed.recovered, gaps=len(resumed.gaps))

    async def _let_in(self, shown: str | KeyReference, *, accepted: str | int | None, refused: str | int | None) -> bool:
        """Answer who shows a key, or what stands for it; whether it is good. The connection of one that is not ends."""
        self._stop_timer()
        try:
            quota = await self._admit(shown)
        except ArgusError as error:
            self._perform(self.session.refuse(error, id=refused))
            return False
        assert self.connection.principal is not None
        token = "" if self.wanted else self.lasting.token
        self._perform(self.session.accept(self.connection.principal, id=accepted, quota=quota, session=token))
        return True

    async def _admit(self, shown: str | KeyReference) -> QuotaView:
        """Check a key, count the connection, and say what is left of the quota."""
        connection = self.connection
        try:
            async with asyncio.timeout(ADMISSION_DEADLINE):
                if isinstance(shown, str):
                    principal = await check.authenticate(shown, connection.address)
                else:
                    principal = await check.authenticate_digest(*shown, connection.address)
                check.require(principal, SCOPE_READ)
                self.relief.require_room(principal.limits.priority)
                # Set before anything else is awaited, so that a revocation from now on finds the connection; counted
                # before the answer is known, so that a lost answer is given back as well.
                connection.principal = principal
                self.lasting.digest = keys.digest(shown) if isinstance(shown, str) else shown.digest
                await limits.quota().open_connection(principal, connection.id)
                quota = await limits.quota().spend(principal, cost=0)
        except TimeoutError:
            raise ArgusError(DEADLINE, "The key could not be checked in time; try again.") from None
        if self.wanted is not None:
            self.replay = await replays.begin(connection, self.wanted)
            self.replay.start()
        log.info("stream_opened", prefix=principal.prefix, plan=principal.plan, replay=self.wanted)
        return quota_view(quota)

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Reply):
                if isinstance(effect.message, Failure):
                    self.hub.counters.refuse(effect.message.error.problem)
                self.connection.say(effect.message)
            elif isinstance(effect, Cover):
                self._cover(effect)
            elif isinstance(effect, Close):
                self.closing = True
                self.connection.close(effect.problem)

    def _cover(self, effect: Cover) -> None:
        """Send this from now on: of the stream, in which its client may take it up again, or of its replay."""
        self.connection.symbols = count(self.session.book)
        if self.replay is not None:
            self.replay.hub.cover(self.connection, effect.selections)
        else:
            self.hub.cover(self.connection, effect.selections)
            self.lasting.keep()

    def _resolve(self, words: Sequence[str]) -> universe.Resolution:
        return resolve(words, self.replay.universe if self.replay is not None else universe.current())

    def _principal_changed(self, principal: Principal) -> None:
        """The key or its plan was edited; its addresses and scopes may be others now."""
        try:
            check.admit(principal, self.connection.address)
            check.require(principal, SCOPE_READ)
        except ArgusError as error:
            self._perform(self.session.refuse(error, id=None))
            return
        self.connection.principal = principal
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

    async def _disconnect(self, message: dict[str, Any]) -> None:
        raise StopConsumer

    async def _leave(self) -> None:
        self._stop_timer()
        if not self.attached:
            return
        connection, principal = self.connection, self.connection.principal
        if self.replay is not None:
            self.replay.close()
        else:
            self.lasting.end()
        self.hub.detach(connection)
        connection.on_principal = connection.on_universe = None
        if principal is None:
            return
        log.info("stream_closed", prefix=principal.prefix)
        try:
            async with asyncio.timeout(LEAVE_DEADLINE):
                await limits.quota().close_connection(principal, connection.id)
        except (TimeoutError, OSError, ArgusError):
            log.warning("connection_not_given_back", prefix=principal.prefix)

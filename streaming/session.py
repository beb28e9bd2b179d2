"""One client's session without its I/O: what it may ask for now, and the effects of each message.

A session begins unauthenticated. Until a key has been accepted it answers ``ping`` and ``auth`` alone; anything else is
refused with ``not_authenticated`` and the connection goes on, because a client may have sent both at once. It ends with
``auth_timeout`` when no key has come in time, and with ``not_authenticated`` (4101) after ``MAX_REFUSED`` refusals, so that
a stranger cannot keep the service busy. Nothing here raises on what a client sends; a refused request changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct, UnsetType

from argus.access.check import require_data_types
from argus.access.principal import Principal
from argus.errors import (
    ALREADY_AUTHENTICATED,
    AUTH_TIMEOUT,
    INVALID_ARGUMENT,
    NOT_AUTHENTICATED,
    NOT_READY,
    ArgusError,
    Problem,
)
from streaming import subscriptions
from streaming.codecs import JSON, Codec
from streaming.parsing import parse
from streaming.protocol import (
    VERSION,
    Ack,
    Acked,
    AnyAction,
    Auth,
    Authenticated,
    Connected,
    Failure,
    Gap,
    LimitsChanged,
    LimitsView,
    Message,
    Ping,
    Pong,
    Position,
    Positioned,
    QuotaView,
    Rejected,
    Resume,
    Resumed,
    Subscribe,
    Subscribed,
    Subscriptions,
    SubscriptionsState,
    Unreadable,
    Unsubscribe,
    Unsubscribed,
    Update,
    Updated,
    limits_view,
)
from streaming.saved import HELD, Saved
from streaming.selection import Selection
from streaming.subscriptions import Book, Resolve

MAX_REFUSED = 8
"""Messages that a connection without a key may have refused before it is closed."""


class Reply(Struct, frozen=True):
    """Send this message."""

    message: Message | Failure


class Authenticate(Struct, frozen=True):
    """Check this key; the answer comes back through ``accept`` or ``refuse``."""

    id: str | int | None
    key: str


class Restore(Struct, frozen=True):
    """Take up the session of a token, where there is one, and find out what was missed since ``positions`` (feed -> epoch and
    seq; the empty name stands for the only feed). The answer comes back through ``restore`` and ``resumed``."""

    id: str | int | None
    token: str | None
    positions: Mapping[str, Position]


class Acknowledge(Struct, frozen=True):
    """A subscription's client is done with this; see ``Restore`` for the positions. The answer comes back through ``acked``."""

    id: str | int | None
    subscription: str
    positions: Mapping[str, Position]


class Cover(Struct, frozen=True):
    """From now on the client receives this, and nothing else."""

    selections: Mapping[str, Selection]


class Close(Struct, frozen=True):
    """End the connection, after what was sent; with 1011 where the problem has no close code of its own."""

    problem: Problem


Effect = Reply | Authenticate | Restore | Acknowledge | Cover | Close


class Session:
    """The state of one connection. ``resolve`` says what symbols and groups stand for; ``now`` is the clock in ms.

    A dialect's session derives from it: it reads other messages, translates them, and translates the replies.
    """

    keeps = True
    """Whether its subscriptions outlive the connection: a dialect has no way to take them up again."""

    def __init__(self, resolve: Resolve, now: Callable[[], int], codec: Codec = JSON) -> None:
        self.principal: Principal | None = None
        self.book: Book = {}
        self.codec = codec
        self._resolve = resolve
        self._now = now
        self._refused = 0

    def read(self, data: str | bytes) -> AnyAction | Unreadable:
        """The action in a message. Bytes stand for a binary message."""
        return parse(data, packed=self.codec.packed)

    @staticmethod
    def costs(action: AnyAction | Unreadable) -> int:
        """How many requests of the plan's budget it takes."""
        return 0 if isinstance(action, Ping | Ack) else 1

    def receive(self, data: str | bytes) -> list[Effect]:
        """What a message brings about."""
        return self.handle(self.read(data))

    def handle(self, action: AnyAction | Unreadable) -> list[Effect]:
        """What an action brings about."""
        if isinstance(action, Unreadable):
            return self.reject(action.error, id=action.id)
        try:
            return self._act(action)
        except ArgusError as error:
            return self.reject(error, id=action.id)

    def connected(
        self,
        principal: Principal | None,
        *,
        connection_id: str,
        streams: dict[str, dict[str, int]],
        heartbeat_interval: float,
        quota: QuotaView | None,
        stale: bool = False,
        session: str = "",
    ) -> list[Effect]:
        """The first message, with the limits where a header or a ticket has brought a principal already."""
        self.principal = principal
        message = Connected(
            connection_id=connection_id,
            protocol=VERSION,
            authenticated=principal is not None,
            streams=streams,
            server_time=self._now(),
            heartbeat_interval=heartbeat_interval,
            stale=stale,
            limits=_limits(principal) if principal else None,
            quota=quota,
            **_session(session if principal else ""),
        )
        return [Reply(message)]

    def accept(self, principal: Principal, *, id: str | int | None, quota: QuotaView | None, session: str = "") -> list[Effect]:
        """The key of an ``Authenticate``, or of a session that is taken up, is good."""
        self.principal = principal
        return [Reply(Authenticated(id=id, limits=_limits(principal), quota=quota, **_session(session)))]

    def refuse(self, error: ArgusError, *, id: str | int | None) -> list[Effect]:
        """The connection may not go on: its key is not good, or has ceased to be."""
        return [Reply(Failure(error, id)), Close(error.problem)]

    def reject(self, error: ArgusError, *, id: str | int | None) -> list[Effect]:
        """A message is refused; the connection goes on, unless it has no key and tries too often."""
        effects: list[Effect] = [Reply(Failure(error, id))]
        if self.principal is None:
            self._refused += 1
            if self._refused >= MAX_REFUSED:
                effects.append(Close(NOT_AUTHENTICATED))
        return effects

    def timed_out(self) -> list[Effect]:
        """The time for authentication is over."""
        return [] if self.principal else self.refuse(ArgusError(AUTH_TIMEOUT), id=None)

    def principal_changed(self, principal: Principal) -> list[Effect]:
        """The plan was edited: its limits count from the next request, its data types at once."""
        before, self.principal = self.principal, principal
        if before is not None and before.limits == principal.limits:
            return []
        message = LimitsChanged(limits=_limits(principal), subscriptions=subscriptions.state(self.book, principal))
        return [Reply(message), self._cover(principal)]

    def universe_changed(self) -> list[Effect]:
        """Groups of symbols may have other members now."""
        refreshed = subscriptions.refresh(self.book, self._resolve)
        if self.principal is None or refreshed == self.book:
            return []
        self.book = refreshed
        return [self._cover(self.principal)]

    def restate(self) -> list[Effect]:
        """What is received, by the subscriptions, the plan and the groups' members of now."""
        if self.principal is None:
            return []
        self.book = subscriptions.refresh(self.book, self._resolve)
        return [self._cover(self.principal)]

    def _act(self, action: AnyAction) -> list[Effect]:
        if isinstance(action, Ping):
            return [Reply(Pong(id=action.id, server_time=self._now()))]
        if isinstance(action, Auth):
            if self.principal is not None:
                raise ArgusError(ALREADY_AUTHENTICATED)
            return [Authenticate(action.id, action.key)]
        if self.principal is None:
            if isinstance(action, Resume) and not isinstance(action.session, UnsetType):
                return [self._ask_back(action)]
            raise ArgusError(NOT_AUTHENTICATED, "Send auth first.")
        return self._serve(action, self.principal)

    def _serve(self, action: AnyAction, principal: Principal) -> list[Effect]:
        if isinstance(action, Subscribe):
            change = subscriptions.subscribe(self.book, action, principal, self._resolve)
            self.book = change.book
            state = subscriptions.state(change.book, principal)
            subscribed = Subscribed(
                id=action.id,
                subscription=action.subscription,
                symbols=change.symbols,
                rejected=change.rejected,
                subscriptions=state,
            )
            return [Reply(subscribed), self._cover(principal)]
        if isinstance(action, Update):
            change = subscriptions.update(self.book, action, principal, self._resolve)
            self.book = change.book
            state = subscriptions.state(change.book, principal)
            updated = Updated(id=action.id, subscription=action.subscription, rejected=change.rejected, subscriptions=state)
            return [Reply(updated), self._cover(principal)]
        if isinstance(action, Unsubscribe):
            change = subscriptions.unsubscribe(self.book, action, self._resolve)
            self.book = change.book
            state = subscriptions.state(change.book, principal)
            unsubscribed = Unsubscribed(
                id=action.id,
                subscription=action.subscription,
                symbols=change.symbols,
                rejected=change.rejected,
                subscriptions=state,
            )
            return [Reply(unsubscribed), self._cover(principal)]
        if isinstance(action, Subscriptions):
            return [Reply(SubscriptionsState(id=action.id, subscriptions=subscriptions.state(self.book, principal)))]
        if isinstance(action, Ack):
            subscriptions.require_ack(self.book, action.subscription)
            positions = _positions(action)
            if not positions:
                raise ArgusError(INVALID_ARGUMENT, "Say what is acknowledged: streams, or epoch and seq.", parameter="streams")
            return [Acknowledge(action.id, action.subscription, positions)]
        assert isinstance(action, Resume)
        return [self._ask_back(action)]

    def _ask_back(self, action: Resume) -> Restore:
        token = None if isinstance(action.session, UnsetType) else action.session
        positions = _positions(action)
        if token is None and not self.book:
            detail = "There is nothing to resume: name a session, or subscribe first."
            raise ArgusError(INVALID_ARGUMENT, detail, parameter="session")
        if token is not None and self.book:
            detail = "A session is taken up before anything is subscribed to; this connection has subscriptions."
            raise ArgusError(INVALID_ARGUMENT, detail, parameter="session")
        return Restore(action.id, token, positions)

    def restore(self, saved: Mapping[str, Saved]) -> list[Rejected]:
        """Subscribe to what another connection had, as far as the plan and the universe allow now. What was rejected.

        Raises ``ArgusError`` where the universe is not known yet; nothing is restored then.
        """
        assert self.principal is not None
        rejected: list[Rejected] = []
        for name, item in saved.items():
            allowed = [data_type for data_type in item.data_types if data_type in self.principal.limits.data_types]
            try:
                require_data_types(self.principal, item.data_types)
            except ArgusError as error:
                rejected.append(_rejected(name, error))
                if not allowed:
                    continue
            action = Subscribe(
                subscription=name,
                symbols=item.symbols,
                data_types=allowed,
                update_frequency=item.update_frequency,
                filters=item.filters,
                ack=item.ack,
            )
            try:
                change = subscriptions.subscribe(self.book, action, self.principal, self._resolve)
            except ArgusError as error:
                if error.problem is NOT_READY:
                    self.book = {}
                    raise
                rejected.append(_rejected(name, error))
            else:
                self.book = change.book
                rejected += change.rejected
        return rejected

    def cover(self) -> Cover:
        """What the client is to receive."""
        assert self.principal is not None
        return self._cover(self.principal)

    def acked(self, subscription: str, pending: int, *, id: str | int | None) -> Acked:
        """What became of an ``Acknowledge``."""
        return Acked(id=id, subscription=subscription, pending=pending)

    def resumed(self, gaps: list[Gap], rejected: list[Rejected], *, id: str | int | None) -> Resumed:
        """What became of a ``Restore``."""
        assert self.principal is not None
        state = subscriptions.state(self.book, self.principal)
        recovered = all(gap.filled for gap in gaps)
        return Resumed(id=id, recovered=recovered, gaps=gaps, rejected=rejected, subscriptions=state)

    def _cover(self, principal: Principal) -> Cover:
        return Cover(subscriptions.selections(self.book, principal))


def _positions(action: Positioned) -> dict[str, Position]:
    """Feed -> position; the empty name stands for the only feed."""
    positions = {} if isinstance(action.streams, UnsetType) else dict(action.streams)
    if isinstance(action.epoch, UnsetType) != isinstance(action.seq, UnsetType):
        missing = "epoch" if isinstance(action.epoch, UnsetType) else "seq"
        raise ArgusError(INVALID_ARGUMENT, "epoch and seq belong together.", parameter=missing)
    if not isinstance(action.epoch, UnsetType) and not isinstance(action.seq, UnsetType):
        if positions:
            raise ArgusError(INVALID_ARGUMENT, "Give either streams or epoch and seq.", parameter="streams")
        feed = "" if isinstance(action.feed, UnsetType) else action.feed
        positions[feed] = Position(action.epoch, action.seq)
    elif not isinstance(action.feed, UnsetType):
        raise ArgusError(INVALID_ARGUMENT, "A feed needs its epoch and seq.", parameter="epoch")
    return positions


def _rejected(subscription: str, error: ArgusError) -> Rejected:
    return Rejected(symbol=subscription, code=error.problem.code, name=error.problem.name, reason=error.message)


def _session(token: str) -> dict[str, Any]:
    return {"session": token, "session_seconds": HELD} if token else {}


def _limits(principal: Principal) -> LimitsView:
    return limits_view(
        principal.limits,
        subscriptions=subscriptions.MAX_SUBSCRIPTIONS,
        symbols_per_message=subscriptions.MAX_SYMBOLS_PER_MESSAGE,
    )
